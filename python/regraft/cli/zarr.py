"""``regraft zarr``: collections of NetCDF files in a Zarr store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import (
    Config,
    Debug,
    Json,
    Keys,
    Quiet,
    Settings,
    Shard,
    Since,
    SomeKeys,
    Wait,
    finish,
    opened,
    shard_numbers,
)
from regraft.cli.output import FAILED_ITEMS, PENDING, emit, progress_option, say
from regraft.cli.saved import finish_shard, saved_plan, saved_shard
from regraft.errors import InvalidError

__all__ = ["app"]

app = typer.Typer(help="Keep a Zarr store in step with its NetCDF files.", no_args_is_help=True)


@app.command()
def init(
    file: Annotated[str, typer.Argument(metavar="FILE.nc", help="A sample file.")],
    store: Annotated[str, typer.Option("--store", help="URL or path of the Zarr store to make.")],
    key: Annotated[str, typer.Option("--key", help="Variable whose values place a file, for instance `time`.")],
    chunks: Annotated[str | None, typer.Option("--chunks", help="Chunk lengths: `time=1,lat=500`.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the collection.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a file instead of stdout.")] = None,
    as_json: Json = False,
    debug: Debug = False,
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
    target: Annotated[str, typer.Argument(metavar="CONFIG|PLAN", help="A configuration, or a saved plan.")],
    keys: SomeKeys = None,
    shard: Shard = None,
    removed: Annotated[list[str] | None, typer.Option("--removed", help="A key to treat as removed.")] = None,
    since: Since = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the plan, for `apply`.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 if there are changes.")] = False,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what would be done, or what one of many workers would do; write nothing."""
    part = shard_numbers(shard)
    whole = saved_plan(target, settings, keys, removed, since)
    if whole is None:
        progress = progress_option(as_json=as_json, quiet=quiet)
        collection = opened(target, settings)
        whole = collection.plan(keys or None, removed=removed or (), since=since, progress=progress)
    # Nothing to do is no reason for a worker to fail.
    made = whole if part is None or whole.empty else whole.shard(*part)
    if output is not None:
        made.save(output)
        say(f"saved {output}; next: regraft zarr apply {output}")
    emit(made, as_json=as_json)
    if exit_code and not made.empty:
        raise typer.Exit(PENDING)


@app.command()
def apply(
    target: Annotated[str, typer.Argument(metavar="PLAN|CONFIG", help="A saved plan or shard, or a configuration.")],
    shard: Shard = None,
    wait: Wait = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Do what a saved plan says, or plan and do it."""
    part = shard_numbers(shard)
    progress = progress_option(as_json=as_json, quiet=quiet)
    one = saved_shard(target, settings, part)
    if one is not None:
        finish_shard(one.apply(progress=progress), as_json=as_json)
        return
    made = saved_plan(target, settings)
    if made is None:
        if part is not None:
            raise InvalidError(
                f"`--shard` needs a saved plan, found `{target}`: a worker that is started again would plan anew, "
                "and what it finds then may be another plan",
                "save its share with `regraft zarr plan CONFIG --shard I/N -o FILE`, or one plan for all; apply that",
            )
        made = opened(target, settings).plan(progress=progress)
    if part is not None and not made.empty:
        finish_shard(made.apply_shard(*part, progress=progress), as_json=as_json)
    else:
        finish(made.apply(wait=wait, progress=progress), as_json=as_json)


@app.command()
def sync(
    config: Config,
    since: Since = None,
    wait: Wait = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make the store match the source."""
    collection = opened(config, settings)
    if since is not None:
        say(f"looking only at what was modified since {since}: removals are not found that way")
    progress = progress_option(as_json=as_json, quiet=quiet)
    finish(collection.sync(since=since, wait=wait, progress=progress), as_json=as_json)


@app.command()
def remove(
    config: Config,
    keys: Keys,
    wait: Wait = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take sources out of the store; their files are not needed."""
    collection = opened(config, settings)
    finish(collection.remove(keys, wait=wait, progress=progress_option(as_json=as_json, quiet=quiet)), as_json=as_json)


@app.command()
def retry(
    config: Config,
    keys: SomeKeys = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take sources out of quarantine and try them again."""
    collection = opened(config, settings)
    finish(collection.retry(keys or (), progress=progress_option(as_json=as_json, quiet=quiet)), as_json=as_json)


@app.command()
def status(config: Config, settings: Settings = None, as_json: Json = False, debug: Debug = False) -> None:
    """Say what the store and its ledger hold."""
    emit(opened(config, settings).status(), as_json=as_json)


@app.command()
def history(
    config: Config,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Newest commits only.")] = None,
    settings: Settings = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the commits."""
    emit(opened(config, settings).history(limit), as_json=as_json)


@app.command()
def provenance(
    config: Config,
    label: Annotated[str | None, typer.Argument(help="A label on the axis: a time, a reference.")] = None,
    index: Annotated[int | None, typer.Option("--index", min=0, help="A position on the axis.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Key of a source.")] = None,
    settings: Settings = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which file wrote which region; without a label, of all regions."""
    collection = opened(config, settings)
    everything = label is None and index is None and key is None
    emit(collection.ledger() if everything else collection.provenance(label, index=index, key=key), as_json=as_json)


@app.command()
def gaps(config: Config, settings: Settings = None, as_json: Json = False, debug: Debug = False) -> None:
    """List labels that are missing or blank."""
    emit(opened(config, settings).gaps(), as_json=as_json)


@app.command()
def verify(
    config: Config,
    sample: Annotated[
        float | None, typer.Option("--sample", help="Fraction of the regions, for instance 0.01.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which sample.")] = 0,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read sources again and compare them with the store."""
    collection = opened(config, settings)
    checked = collection.verify(sample, seed=seed, progress=progress_option(as_json=as_json, quiet=quiet))
    emit(checked, as_json=as_json)
    if checked.get("failed"):
        raise typer.Exit(FAILED_ITEMS)
