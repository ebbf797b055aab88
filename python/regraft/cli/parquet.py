"""``regraft parquet``: migrations of plain Parquet data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import Debug, Json, Quiet, Shard, shard_numbers
from regraft.cli.output import CONFLICT, FAILED_ITEMS, PENDING, emit, is_plan, progress_option, say
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from regraft.migration_results import MigrationReport
    from regraft.migrations import MigrationSet

__all__ = ["app"]

app = typer.Typer(help="Take Parquet files from one version of their schema to the next.", no_args_is_help=True)

_Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file.")]
_Keys = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys below the data set's URL; none means all.")
]
_Run = Annotated[str | None, typer.Option("--run", help="Id of a run, from `history`.")]
_Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override: `run.concurrency=8`.")]


@app.command()
def plan(
    config: _Config,
    keys: _Keys = None,
    to: Annotated[int | None, typer.Option("--to", min=0, help="The version to reach.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, help="Only so many files, for a first try.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend tags that differ from the footer.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the plan, for `apply`.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 if there are changes.")] = False,
    settings: _Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what would be done, how long it takes and what it costs; write nothing."""
    progress = progress_option(as_json=as_json, quiet=quiet)
    made = _open(config, settings).plan(to, keys=keys or None, sample=sample, repair=repair, progress=progress)
    if output is not None:
        made.save(output)
        say(f"saved {output}; next: regraft parquet apply {output}")
    emit(made, as_json=as_json)
    if exit_code and not made.empty:
        raise typer.Exit(PENDING)


@app.command()
def apply(
    target: Annotated[str, typer.Argument(metavar="PLAN|CONFIG", help="A saved plan, or a configuration.")],
    shard: Shard = None,
    run: Annotated[str | None, typer.Option("--run", help="Id that several shards share.")] = None,
    to: Annotated[int | None, typer.Option("--to", min=0, help="The version to reach; with CONFIG.")] = None,
    settings: _Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Do what a saved plan says, or plan and do it; the same again goes on where it was stopped."""
    from regraft.migration_results import MigrationPlan

    part = shard_numbers(shard)
    progress = progress_option(as_json=as_json, quiet=quiet)
    if target.endswith(".json") and is_plan(target, "parquet-plan"):
        if settings or to is not None:
            raise InvalidError("a saved plan takes neither `--set` nor `--to`", "plan again with the setting")
        made = MigrationPlan.load(target)
    else:
        made = _open(target, settings).plan(to, progress=progress)
    _finish(made.apply(shard=part, run=run, progress=progress), as_json=as_json)


@app.command()
def status(
    config: _Config, settings: _Set = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Say which versions the files have, and what the last runs did."""
    emit(_open(config, settings).status(progress=progress_option(as_json=as_json, quiet=quiet)), as_json=as_json)


@app.command()
def history(
    config: _Config,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Newest runs only.")] = None,
    settings: _Set = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the runs."""
    emit(_open(config, settings).history(limit), as_json=as_json)


@app.command()
def verify(
    config: _Config,
    run: _Run = None,
    sample: Annotated[float | None, typer.Option("--sample", help="Fraction of the files, for instance 0.01.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which sample.")] = 0,
    full: Annotated[bool, typer.Option("--full", help="Read and prove the columns that no step reads, too.")] = False,
    settings: _Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check migrated files: schema, page indexes, untouched columns, new columns computed again."""
    migrations, progress = _open(config, settings), progress_option(as_json=as_json, quiet=quiet)
    checked = migrations.verify(sample, run=run, seed=seed, full=full, progress=progress)
    emit(checked, as_json=as_json)
    if checked.failed:
        raise typer.Exit(FAILED_ITEMS)


@app.command()
def rollback(
    config: _Config,
    keys: _Keys = None,
    run: _Run = None,
    settings: _Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Undo a run, by default the last; files changed since are left alone and named."""
    migrations = _open(config, settings)
    report = migrations.roll_back(run, keys=keys or None, progress=progress_option(as_json=as_json, quiet=quiet))
    _finish(report, as_json=as_json)


def _open(config: str, settings: list[str] | None) -> MigrationSet:
    from regraft.config_file import parse_overrides
    from regraft.migrations import open_migrations

    return open_migrations(config, overrides=parse_overrides(settings or ()))


def _finish(report: MigrationReport, *, as_json: bool) -> None:
    emit(report, as_json=as_json)
    states = {item["state"] for item in report.failed}
    if states == {"conflict"}:
        raise typer.Exit(CONFLICT)
    if states or report.outcome in ("failed", "partial"):
        raise typer.Exit(FAILED_ITEMS)
