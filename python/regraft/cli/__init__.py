"""The command ``regraft``: it only calls the library.

Data go to stdout, messages and progress to stderr. Exit codes: 0 done or nothing to do, 1 error, 2 usage, 3 changes
pending (``plan --exit-code``), 4 finished with failed items, 5 locked or conflict, 130 interrupted.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits with its code.

    Args:
        arguments: The words after ``regraft``; by default those of the process.

    Raises:
        SystemExit: Always.
    """
    from regraft.cli.output import interrupted, report_error
    from regraft.errors import RegraftError

    words = sys.argv[1:] if arguments is None else arguments
    try:
        from regraft.cli.commands import app

        app(words, prog_name="regraft")
    except KeyboardInterrupt:
        raise SystemExit(interrupted()) from None
    except RegraftError as error:
        # `--debug` is read here and not by typer, since it must also hold for errors in other options.
        raise SystemExit(report_error(error, debug="--debug" in words or "-v" in words)) from None
