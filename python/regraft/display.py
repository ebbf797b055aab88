"""How documents and collections look in a terminal: tables by rich, and the same without colour as ``repr``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from regraft.facts import Grid, facts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["plain", "show"]

_WIDTH = 120
_STYLES = {
    "append": "green",
    "insert": "green",
    "fill slot": "green",
    "overwrite": "yellow",
    "restore": "cyan",
    "blank": "red",
    "quarantine": "bold red",
}


def plain(subject: object) -> str:
    """The text of `repr`: the same facts as the notebook's, without colour.

    Args:
        subject: A document, a table or a collection.
    """
    from rich.console import Console

    file = io.StringIO()
    # In a notebook rich would show the text by itself, beside returning it.
    console = Console(
        file=file, width=_WIDTH, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False
    )
    show(subject, console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).rstrip()


def show(subject: object, console: Console) -> None:
    """Prints `subject` on a console.

    Args:
        subject: A document, a table or a collection.
        console: Where to.
    """
    from rich.text import Text

    said = facts(subject)
    console.print(Text.assemble((f"{said.kind} ", "dim"), (said.title, "bold")), soft_wrap=True)
    for line in said.lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for grid in said.grids:
        if grid.rows:
            console.print()
            console.print(_table(grid))
            if grid.more:
                console.print(Text(f"  and {grid.more:,} more", style="dim"))


def _table(grid: Grid) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=grid.heading or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False
    )
    for column in grid.columns:
        numbers = column in ("sources", "labels", "index", "number", "commit")
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table
