"""``regraft zarr``: collections of NetCDF files in a Zarr store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.output import FAILED_ITEMS, PENDING, emit, progress_option, say
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from regraft.collections import Collection
    from regraft.results import Report

__all__ = ["app"]

app = typer.Typer(help="Keep a Zarr store in step with its NetCDF files.", no_args_is_help=True)

_Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file, or `definition:NAME`.")]
_Keys = Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys below the source's URL.")]
_SomeKeys = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys below the source's URL; none means all.")
]
_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: `store.url=/data/x.zarr`.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")]
_Debug = Annotated[bool, typer.Option("-v", "--debug", help="Print tracebacks.")]


@app.command()
def init(
    file: Annotated[str, typer.Argument(metavar="FILE.nc", help="A sample file.")],
    store: Annotated[str, typer.Option("--store", help="URL or path of the Zarr store to make.")],
    key: Annotated[str, typer.Option("--key", help="Variable whose values place a file, for instance `time`.")],
    chunks: Annotated[str | None, typer.Option("--chunks", help="Chunk lengths: `time=1,lat=500`.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the collection.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a file instead of stdout.")] = None,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Guess a configuration from a sample file."""
    from regraft.cli.guess import guess_config, parse_chunks

    guessed = guess_config(file, store=store, key=key, chunks=parse_chunks(chunks), name=name, output=output)
    if as_json:
        emit(guessed.config, as_json=True)
    if output is not None:
        if output.exists():
            raise InvalidError(f"`{output}` exists already", "name another file, or remove it")
        output.write_text(guessed.text, "utf-8")
        say(f"wrote {output}; next: regraft zarr plan {output}")
    elif not as_json:
        typer.echo(guessed.text, nl=False)


@app.command()
def plan(
    config: _Config,
    keys: _SomeKeys = None,
    removed: Annotated[list[str] | None, typer.Option("--removed", help="A key to treat as removed.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the plan, for `apply`.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 if there are changes.")] = False,
    settings: _Set = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Say what would be done; write nothing."""
    collection = _open(config, settings)
    made = collection.plan(keys or None, removed=removed or (), progress=progress_option(as_json=as_json, quiet=quiet))
    if output is not None:
        made.save(output)
        say(f"saved {output}; next: regraft zarr apply {output}")
    emit(made, as_json=as_json)
    if exit_code and not made.empty:
        raise typer.Exit(PENDING)


@app.command()
def apply(
    target: Annotated[str, typer.Argument(metavar="PLAN|CONFIG", help="A saved plan, or a configuration.")],
    settings: _Set = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Do what a saved plan says, or plan and do it."""
    from regraft.results import Plan

    progress = progress_option(as_json=as_json, quiet=quiet)
    if target.endswith(".json") and _is_plan(target):
        if settings:
            raise InvalidError("a saved plan takes no `--set`", "plan again with the setting")
        made = Plan.load(target)
    else:
        made = _open(target, settings).plan(progress=progress)
    _finish(made.apply(progress=progress), as_json=as_json)


@app.command()
def sync(
    config: _Config,
    settings: _Set = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Make the store match the source."""
    collection = _open(config, settings)
    _finish(collection.sync(progress=progress_option(as_json=as_json, quiet=quiet)), as_json=as_json)


@app.command()
def remove(
    config: _Config,
    keys: _Keys,
    settings: _Set = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Take sources out of the store; their files are not needed."""
    collection = _open(config, settings)
    _finish(collection.remove(keys, progress=progress_option(as_json=as_json, quiet=quiet)), as_json=as_json)


@app.command()
def retry(
    config: _Config,
    keys: _SomeKeys = None,
    settings: _Set = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Take sources out of quarantine and try them again."""
    collection = _open(config, settings)
    _finish(collection.retry(keys or (), progress=progress_option(as_json=as_json, quiet=quiet)), as_json=as_json)


@app.command()
def status(config: _Config, settings: _Set = None, as_json: _Json = False, debug: _Debug = False) -> None:
    """Say what the store and its ledger hold."""
    emit(_open(config, settings).status(), as_json=as_json)


@app.command()
def history(
    config: _Config,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Newest commits only.")] = None,
    settings: _Set = None,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """List the commits."""
    emit(_open(config, settings).history(limit), as_json=as_json)


@app.command()
def provenance(
    config: _Config,
    label: Annotated[str | None, typer.Argument(help="A label on the axis: a time, a reference.")] = None,
    index: Annotated[int | None, typer.Option("--index", min=0, help="A position on the axis.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Key of a source.")] = None,
    settings: _Set = None,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Say which file wrote which region; without a label, of all regions."""
    collection = _open(config, settings)
    everything = label is None and index is None and key is None
    emit(collection.ledger() if everything else collection.provenance(label, index=index, key=key), as_json=as_json)


@app.command()
def gaps(config: _Config, settings: _Set = None, as_json: _Json = False, debug: _Debug = False) -> None:
    """List labels that are missing or blank."""
    emit(_open(config, settings).gaps(), as_json=as_json)


@app.command()
def verify(
    config: _Config,
    sample: Annotated[
        float | None, typer.Option("--sample", help="Fraction of the regions, for instance 0.01.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which sample.")] = 0,
    settings: _Set = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Read sources again and compare them with the store."""
    collection = _open(config, settings)
    checked = collection.verify(sample, seed=seed, progress=progress_option(as_json=as_json, quiet=quiet))
    emit(checked, as_json=as_json)
    if checked.get("failed"):
        raise typer.Exit(FAILED_ITEMS)


def _open(config: str, settings: list[str] | None) -> Collection:
    from regraft.collections import open_collection
    from regraft.config_file import parse_overrides

    return open_collection(config, overrides=parse_overrides(settings or ()))


def _is_plan(path: str) -> bool:
    import json

    try:
        document: Any = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        # Whoever reads it next says what is wrong with it.
        return False
    return isinstance(document, dict) and document.get("kind") == "zarr-plan"


def _finish(report: Report, *, as_json: bool) -> None:
    from regraft.cli.output import CONFLICT

    emit(report, as_json=as_json)
    outcomes = {change.get("outcome") for change in report.changes}
    if "conflict" in outcomes:
        raise typer.Exit(CONFLICT)
    if report.failed:
        raise typer.Exit(FAILED_ITEMS)
