"""The tree of commands, and those that belong to no format: demo, doctor, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from regraft.cli.deploy import app as deploy_app
from regraft.cli.output import emit, interrupted, say
from regraft.cli.parquet import app as parquet_app
from regraft.cli.zarr_queue import app as zarr_app

__all__ = ["app"]


class _Root(TyperGroup):
    """Says something on Ctrl-C, and leaves with 130 whatever the version of typer."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer brings its own click
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(interrupted()) from None


app = typer.Typer(
    name="regraft",
    cls=_Root,
    help="Change a little of a big store, safely, and pay only for the little.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(zarr_app, name="zarr")
app.add_typer(parquet_app, name="parquet")
app.add_typer(deploy_app, name="deploy")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Debug = Annotated[bool, typer.Option("-v", "--debug", help="Print tracebacks.")]


def _version(wanted: bool) -> None:
    if wanted:
        import regraft

        typer.echo(f"regraft {regraft.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
    debug: _Debug = False,
) -> None:
    """Change a little of a big store."""


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to work; `regraft-demo` by default.")] = None,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Show everything on made data: no cloud, no keys, under two minutes."""
    from regraft import demo as demonstration

    demonstration.run(folder, as_json)


@app.command()
def doctor(
    config: Annotated[str | None, typer.Argument(help="A collection or a URL, to try its storage.")] = None,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Check versions, packages, and whether a place or a collection's store does what commits need."""
    from regraft.cli.doctor import examine

    findings = examine(config)
    if as_json:
        emit({"schema_version": 1, "kind": "doctor", "findings": findings}, as_json=True)
    else:
        for finding in findings:
            mark = {"ok": "ok  ", "missing": "--  ", "failed": "FAIL"}[finding["state"]]
            typer.echo(f"{mark} {finding['what']:24} {finding['detail']}")
            if finding.get("hint"):
                typer.echo(f"     hint: {finding['hint']}")
    raise typer.Exit(1 if any(finding["state"] == "failed" for finding in findings) else 0)


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="Which: `collection` or `migrations`.")] = "collection",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a file instead.")] = None,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Print the JSON Schema of a configuration file, for editors."""
    from regraft.schema import modeline, schema_text

    text = schema_text(name)
    if output is None:
        typer.echo(text)
        return
    output.write_text(f"{text}\n", "utf-8")
    say(f"wrote {output}; first line of a configuration beside it:\n{modeline(output.name)}")
