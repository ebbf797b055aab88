"""``regraft deploy``: files that put a collection to work somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import Config, Debug, Json, Settings
from regraft.cli.output import emit, say

__all__ = ["app"]

app = typer.Typer(help="Write the files of a deployment; nothing is run.", no_args_is_help=True)

_Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write to; it is made.")]


@app.command()
def aws(
    config: Config, output: _Output, settings: Settings = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Bucket, EventBridge, SQS FIFO and Lambda, as a CloudFormation template with its function."""
    _write("aws", config, output, settings, as_json)


@app.command()
def prefect(
    config: Config, output: _Output, settings: Settings = None, as_json: Json = False, debug: Debug = False
) -> None:
    """A Prefect deployment that syncs every night."""
    _write("prefect", config, output, settings, as_json)


def _write(place: str, config: str, output: Path, settings: list[str] | None, as_json: bool) -> None:
    from regraft.config_file import load_config, parse_overrides
    from regraft.deployment import write_deployment

    loaded = load_config(config, overrides=parse_overrides(settings or ()))
    written = write_deployment(place, loaded, output)
    if as_json:
        emit({"schema_version": 1, "kind": "deployment", "files": [str(path) for path in written]}, as_json=True)
    else:
        say(f"wrote {', '.join(path.name for path in written)} to {output}; next: {output / 'README.md'}")
