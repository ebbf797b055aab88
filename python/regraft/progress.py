"""Progress for people: bars in a notebook or a terminal, one line every thirty seconds in a log.

The core sends plain dictionaries; nothing below the surface knows a terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Event", "ProgressOption", "bytes_text", "detail_text", "reporter", "usage_text"]

Event = dict[str, Any]
"""``{"stage", "done", "total", "item", "usage"}``, and ``errors`` where items may fail one by one."""

ProgressOption = bool | Callable[[Event], None] | None
"""``None`` chooses by where the program runs; ``True`` and ``False`` force; a callable gets every event."""

_LOG_SECONDS = 30.0
_logger = logging.getLogger("regraft.progress")


@contextlib.contextmanager
def reporter(option: ProgressOption, title: str) -> Iterator[Callable[[Event], None] | None]:
    """What a long verb is to call with its progress.

    Args:
        option: ``None`` chooses by where the program runs, ``True`` shows bars in any case, ``False`` shows nothing,
            and a callable gets every event.
        title: What is being done: verb and collection.

    Yields:
        The callable for the core, or ``None``.

    Example:
        >>> with reporter(False, "sync sst") as tell:
        ...     tell is None
        True
    """
    if option is False:
        yield None
    elif callable(option):
        yield option
    elif _in_notebook():
        with _notebook_bar(title) as tell:
            yield tell
    elif option is True or sys.stderr.isatty():
        with _terminal_bar(title) as tell:
            yield tell
    else:
        yield _LogLines(title)


def usage_text(usage: dict[str, int] | None) -> str:
    """Requests and bytes in a few words.

    Args:
        usage: Counts by request class, ``bytes_read`` and ``bytes_written``.

    Example:
        >>> usage_text({"get": 48, "put": 12, "bytes_read": 3_500_000})
        '48 get, 12 put, 3.5 MB read'
    """
    if not usage:
        return ""
    parts = [
        f"{usage[name]:,} {name}"
        for name in ("get", "head", "list", "put", "copy", "delete", "retry", "throttle")
        if usage.get(name)
    ]
    parts += [
        f"{bytes_text(usage[name])} {name.removeprefix('bytes_')}"
        for name in ("bytes_read", "bytes_written")
        if usage.get(name)
    ]
    return ", ".join(parts)


def detail_text(event: Event, seconds: float) -> str:
    """Rate, failures, requests and bytes in a few words.

    Args:
        event: From the core.
        seconds: Since the stage began.

    Example:
        >>> detail_text({"stage": "migrate", "done": 100, "total": 500, "item": "", "errors": 2}, 4.0)
        '25/s, 2 failed'
    """
    parts = [f"{event['done'] / seconds:.3g}/s"] if seconds > 1 and event["done"] else []
    parts += [f"{event['errors']:,} failed"] if event.get("errors") else []
    parts += [text] if (text := usage_text(event.get("usage"))) else []
    return ", ".join(parts)


class _Stages:
    """When each stage began, on this process's own clock."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}

    def seconds(self, stage: str, now: float) -> float:
        return now - self._begun.setdefault(stage, now)


def bytes_text(size: float) -> str:
    """A size in decimal units, as object stores bill it.

    Example:
        >>> bytes_text(3_500_000)
        '3.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    if shell is None:
        return False
    current = shell.get_ipython()
    return current is not None and type(current).__name__ == "ZMQInteractiveShell"


@contextlib.contextmanager
def _notebook_bar(title: str) -> Iterator[Callable[[Event], None]]:
    # Without ipywidgets `tqdm.auto` warns in red, and shows the bar of a terminal all the same.
    widgets = importlib.util.find_spec("ipywidgets") is not None
    tqdm = importlib.import_module("tqdm.auto" if widgets else "tqdm.std").tqdm

    with tqdm(desc=title, unit=" items", leave=False) as bar:
        stage = ""
        stages = _Stages()

        def tell(event: Event) -> None:
            nonlocal stage
            if event["stage"] != stage:
                stage = event["stage"]
                bar.reset()
                bar.set_description(f"{title}: {stage}")
            bar.total = event["total"] or None
            bar.n = event["done"]
            bar.set_postfix_str(detail_text(event, stages.seconds(stage, time.monotonic())), refresh=False)
            bar.refresh()

        yield tell


@contextlib.contextmanager
def _terminal_bar(title: str) -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}
        stages = _Stages()

        def tell(event: Event) -> None:
            stage = event["stage"]
            if stage not in tasks:
                tasks[stage] = bars.add_task(escape(f"{title}: {stage}"), total=None, detail="")
            bars.update(
                tasks[stage],
                completed=event["done"],
                total=event["total"] or None,
                detail=escape(detail_text(event, stages.seconds(stage, time.monotonic()))),
            )

        yield tell


class _LogLines:
    def __init__(self, title: str) -> None:
        self._title = title
        self._last = time.monotonic()
        self._stages = _Stages()

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        seconds = self._stages.seconds(event["stage"], now)
        if now - self._last < _LOG_SECONDS:
            return
        self._last = now
        total = f"/{event['total']}" if event["total"] else ""
        _logger.info(
            "%s: %s %s%s %s (%s)",
            self._title,
            event["stage"],
            event["done"],
            total,
            event["item"],
            detail_text(event, seconds),
        )
