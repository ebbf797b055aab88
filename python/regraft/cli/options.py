"""Arguments and options that several commands of ``regraft zarr`` share, and what they do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.output import CONFLICT, FAILED_ITEMS, emit

if TYPE_CHECKING:
    from regraft.collections import Collection
    from regraft.results import Report

__all__ = [
    "Config",
    "Debug",
    "Json",
    "Keys",
    "Quiet",
    "Settings",
    "Shard",
    "Since",
    "SomeKeys",
    "Wait",
    "finish",
    "opened",
    "shard_numbers",
]

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file, or `definition:NAME`.")]
Keys = Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys below the source's URL.")]
SomeKeys = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys below the source's URL; none means all.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: `store.url=/data/x.zarr`.")
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Look only at objects modified since: `2022-01-05T12:00Z`, or `2h` before now. Finds no removals.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only shard I of N, beside workers elsewhere."),
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait", min=0, metavar="SECONDS", help="Wait so long while another worker writes; then exit with 5."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")]
Debug = Annotated[bool, typer.Option("-v", "--debug", help="Print tracebacks.")]


def opened(config: str, settings: list[str] | None) -> Collection:
    """The collection that the command line names.

    Args:
        config: The argument ``CONFIG``.
        settings: The values of ``--set``.
    """
    from regraft.collections import open_collection
    from regraft.config_file import parse_overrides

    return open_collection(config, overrides=parse_overrides(settings or ()))


def shard_numbers(text: str | None) -> tuple[int, int] | None:
    """The numbers of ``--shard``.

    Args:
        text: ``3/16``; ``None`` where the option is not given.

    Returns:
        Which shard, from 1, and how many there are.

    Raises:
        typer.BadParameter: The text is of another form, or there is no such shard.

    Example:
        >>> shard_numbers("3/16")
        (3, 16)
    """
    if text is None:
        return None
    number, slash, of = text.strip().partition("/")
    plain = slash and all(part.isascii() and part.isdecimal() for part in (number, of))
    if not plain or not 1 <= int(number) <= int(of):
        raise typer.BadParameter(
            f"expected I/N with I from 1 to N, for instance 3/16, found {text}", param_hint="--shard"
        )
    return int(number), int(of)


def finish(report: Report, *, as_json: bool) -> None:
    """Prints a report, and leaves with the code that it asks for.

    Args:
        report: What was done.
        as_json: As one JSON document.

    Raises:
        typer.Exit: Another worker holds the store or was faster, or sources were set aside.
    """
    emit(report, as_json=as_json)
    outcomes = {change.get("outcome") for change in report.changes}
    if report.outcome == "busy" or "conflict" in outcomes:
        raise typer.Exit(CONFLICT)
    if report.failed:
        raise typer.Exit(FAILED_ITEMS)
