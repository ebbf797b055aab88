"""How the command talks: data on stdout, everything else on stderr, one exit code for each reaction."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import ConflictError, RegraftError

if TYPE_CHECKING:
    from regraft.progress import ProgressOption

__all__ = [
    "CONFLICT",
    "ERROR",
    "FAILED_ITEMS",
    "INTERRUPTED",
    "PENDING",
    "emit",
    "interrupted",
    "is_plan",
    "progress_option",
    "report_error",
    "say",
]

ERROR = 1
PENDING = 3
FAILED_ITEMS = 4
CONFLICT = 5
INTERRUPTED = 130


def say(message: str) -> None:
    """Tells the user something that is not data."""
    sys.stderr.write(f"{message}\n")


def emit(subject: Any, *, as_json: bool) -> None:  # noqa: ANN401 - a document, a table, or plain data
    """Prints a result on stdout.

    Args:
        subject: A document, a table, a collection, or plain data.
        as_json: As one JSON document, for programs.
    """
    if as_json:
        text = subject.to_json(indent=2) if hasattr(subject, "to_json") else json.dumps(subject, indent=2)
        sys.stdout.write(f"{text}\n")
        return
    from regraft import display

    if not sys.stdout.isatty():
        sys.stdout.write(f"{display.plain(subject)}\n")
        return
    from rich.console import Console

    display.show(subject, Console())


def progress_option(*, as_json: bool, quiet: bool) -> ProgressOption:
    """Bars for people at a terminal, log lines elsewhere, nothing for programs."""
    if quiet or (as_json and not sys.stderr.isatty()):
        return False
    if not sys.stderr.isatty():
        import logging

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    return None


def interrupted() -> int:
    """Tells what Ctrl-C left behind.

    Returns:
        The exit code.
    """
    say("interrupted; what was committed stays, and the same command goes on from there")
    return INTERRUPTED


def is_plan(path: str, kind: str) -> bool:
    """Whether a file is a saved plan of that kind; whoever reads it next says what is wrong with it.

    Args:
        path: The file.
        kind: ``zarr-plan`` or ``parquet-plan``.
    """
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("kind") == kind


def report_error(error: RegraftError, *, debug: bool) -> int:
    """Prints an error, without a traceback unless asked for.

    Args:
        error: What was raised.
        debug: Print the traceback first.

    Returns:
        The exit code.
    """
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    say(f"error: {error.message}")
    if error.hint:
        say(f"\nhint: {error.hint}")
    return CONFLICT if isinstance(error, ConflictError) else ERROR
