"""``regraft zarr submit``, ``drain``, ``watch`` and ``unlock``: many workers on one store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import Config, Debug, Json, Quiet, Settings, Wait, finish, opened
from regraft.cli.output import CONFLICT, FAILED_ITEMS, emit, progress_option, say
from regraft.cli.zarr import app
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from regraft.events import Event
    from regraft.results import Report

__all__ = ["app"]


@app.command()
def submit(
    config: Config,
    keys: Annotated[
        list[str],
        typer.Argument(metavar="KEY|URL|-...", help="Keys or URLs; `-` reads lines, JSON or notifications from stdin."),
    ],
    removed: Annotated[
        bool, typer.Option("--removed", help="Take them out of the store, whether or not the files still exist.")
    ] = False,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait", min=0, metavar="SECONDS", help="Settle them too, waiting so long while another worker writes."
        ),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask for sources to be looked at, durably; whoever writes next does it."""
    collection = opened(config, settings)
    events, refused = _asked(keys)
    # A removal by name holds although the file may still be there; one that an event tells is looked at.
    asked = [{**event.intent(), "operation": "forced_remove"} for event in events] if removed else events
    submission = collection.submit(asked)
    if wait is None:
        emit(submission, as_json=as_json)
    else:
        if submission.ignored:
            say(f"not of this collection: {', '.join(submission.ignored)}")
        collection.drain(wait=wait, progress=progress_option(as_json=as_json, quiet=quiet))
        settlement = collection.wait_for(submission.ids, timeout=0)
        emit(settlement, as_json=as_json)
        if not settlement.settled:
            raise typer.Exit(CONFLICT)
        if any(settled.get("outcome") == "quarantined" for settled in settlement.done.values()):
            raise typer.Exit(FAILED_ITEMS)
    if refused:
        raise refused[0]


@app.command()
def drain(
    config: Config,
    wait: Wait = None,
    files: Annotated[
        int | None, typer.Option("--files", min=1, metavar="N", help="Gather until so many requests wait.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, metavar="S", help="Gather for so long at most.")
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Settle what was asked for by `submit`, by events, by anybody."""
    report = opened(config, settings).drain(
        wait=wait, files=files, seconds=seconds, progress=progress_option(as_json=as_json, quiet=quiet)
    )
    finish(report, as_json=as_json)


@app.command()
def unlock(
    config: Config,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    settings: Settings = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Take the right to write away from a worker that hangs; what it still writes is refused."""
    collection = opened(config, settings)
    if not yes:
        lease = collection.status().get("lease") or {}
        if not lease or lease.get("free"):
            say("nobody holds the store; `--yes` gives up a backfill that is open all the same")
            return
        if not sys.stdin.isatty():
            raise InvalidError(f"the store is held by {lease.get('holder')}", "`--yes` takes it away without asking")
        since = f" since {lease['since']}" if lease.get("since") else ""
        typer.confirm(f"{lease.get('holder')} holds the store{since}. Take it away?", abort=True, err=True)
    emit(collection.unlock(), as_json=as_json)


@app.command()
def watch(
    config: Config,
    queue: Annotated[str, typer.Option("--queue", metavar="URL", help="An SQS queue that gets the notifications.")],
    once: Annotated[bool, typer.Option("--once", help="Leave when the queue is empty; for cron.")] = False,
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", metavar="URL", help="Of the queue, where it is not its own host.")
    ] = None,
    region: Annotated[str | None, typer.Option("--region", help="Of the queue.")] = None,
    settings: Settings = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document a line: each report, then the sum.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Follow a queue of notifications, until SIGTERM or Ctrl-C."""
    import logging

    from regraft.sqs import Queue
    from regraft.watch import watch as follow

    collection = opened(config, settings)
    if not quiet:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
        logging.getLogger("botocore").setLevel(logging.WARNING)
    options = collection.config.source.storage_options
    followed = Queue(queue, options, endpoint_url=endpoint_url, region=region)

    def tell(report: Report) -> None:
        sys.stdout.write(f"{report.to_json()}\n")
        sys.stdout.flush()

    summary = follow(collection, followed, once=once, tell=tell if as_json else None)
    if as_json:
        sys.stdout.write(f"{summary.to_json()}\n")
    else:
        emit(summary, as_json=False)
    if once and summary["quarantined"]:
        raise typer.Exit(FAILED_ITEMS)


def _asked(keys: list[str]) -> tuple[list[Event], list[InvalidError]]:
    from regraft.events import fold_events, read_events

    events: list[Event] = []
    refused: list[InvalidError] = []
    for key in keys:
        reading = read_events(sys.stdin.buffer.read() if key == "-" else [key])
        events += reading.events
        refused += reading.refused
    return fold_events(events), refused
