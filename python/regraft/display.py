"""How documents and collections look: tables by rich in a terminal, plain ones in a pipe and as ``repr``."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from regraft.facts import Grid, facts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["plain", "show"]

_NUMBERS = ("sources", "labels", "index", "number", "commit", "files", "size", "read", "written")
"""Columns that are aligned at their right."""
_STYLES = {
    "append": "green",
    "insert": "green",
    "fill slot": "green",
    "overwrite": "yellow",
    "restore": "cyan",
    "blank": "red",
    "quarantine": "bold red",
    "done": "green",
    "pending": "yellow",
    "rolled back": "cyan",
    "conflict": "bold red",
    "error": "bold red",
    "missing step": "bold red",
}


def plain(subject: object) -> str:
    """The text of `repr`, and of a pipe: the same facts as a terminal's, without colour and never folded.

    It does without rich, whose import takes longer than many a commit.

    Args:
        subject: A document, a table or a collection.
    """
    said = facts(subject)
    lines = [f"{said.kind} {said.title}", *(f"  {line}" for line in said.lines)]
    for grid in said.grids:
        if grid.rows:
            lines += ["", *_plain_table(grid)]
            lines += [f"  and {grid.more:,} more"] if grid.more else []
    return "\n".join(line.rstrip() for line in lines)


def _plain_table(grid: Grid) -> list[str]:
    cells = [[cell.splitlines() or [""] for cell in row] for row in [list(grid.columns), *grid.rows]]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(grid.columns))]
    lines = [grid.heading] if grid.heading else []
    for number, row in enumerate(cells):
        for parts in zip_longest(*row, fillvalue=""):
            aligned = (
                part.rjust(width) if column in _NUMBERS else part.ljust(width)
                for part, width, column in zip(parts, widths, grid.columns, strict=True)
            )
            lines.append(f" {'   '.join(aligned)}")
        if number == 0:
            lines.append("─" * (sum(widths) + 3 * len(widths) - 1))
    return lines


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
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table
