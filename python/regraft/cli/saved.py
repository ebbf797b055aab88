"""Saved plans and shards as arguments of ``regraft zarr plan`` and ``regraft zarr apply``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from regraft.cli.output import FAILED_ITEMS, emit, is_plan
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from regraft.results import Plan
    from regraft.results_backfill import ShardPlan, ShardReport

__all__ = ["finish_shard", "saved_plan", "saved_shard"]


def saved_plan(target: str, settings: list[str] | None, *others: object) -> Plan | None:
    """The plan that an argument names; ``None`` where it names a configuration.

    Args:
        target: The argument.
        settings: The values of ``--set``.
        *others: Arguments that say what to plan.

    Raises:
        InvalidError: A saved plan is named together with what would make another one.
    """
    if not (target.endswith(".json") and is_plan(target, "zarr-plan")):
        return None
    if settings:
        raise InvalidError("a saved plan takes no `--set`", "plan again with the setting")
    if any(others):
        raise InvalidError("a saved plan takes no keys, no `--removed` and no `--since`", "plan again with them")
    from regraft.results import Plan

    return Plan.load(target)


def saved_shard(target: str, settings: list[str] | None, part: tuple[int, int] | None) -> ShardPlan | None:
    """The shard that an argument names; ``None`` where it names something else.

    Args:
        target: The argument.
        settings: The values of ``--set``.
        part: The numbers of ``--shard``.

    Raises:
        InvalidError: A saved shard is named together with ``--set``.
        typer.BadParameter: The option names another shard than the file.
    """
    if not (target.endswith(".json") and is_plan(target, "zarr-shard-plan")):
        return None
    if settings:
        raise InvalidError("a saved shard takes no `--set`", "plan again with the setting")
    from regraft.results_backfill import ShardPlan

    shard = ShardPlan.load(target)
    if part not in (None, (shard.number, shard.count)):
        raise typer.BadParameter(
            f"{target} is shard {shard.number}/{shard.count}, found {part[0]}/{part[1]}",
            param_hint="--shard",
        )
    return shard


def finish_shard(report: ShardReport, *, as_json: bool) -> None:
    """Prints what a worker did, and leaves with the code that it asks for.

    Args:
        report: What was done.
        as_json: As one JSON document.

    Raises:
        typer.Exit: Sources were set aside.
    """
    emit(report, as_json=as_json)
    if report.failed or (report.report is not None and report.report.failed):
        raise typer.Exit(FAILED_ITEMS)
