"""How documents and collections look in a notebook: collapsible sections, tables and the chunk map.

The style travels with every output and is scoped to one class, so an output copied elsewhere looks the same. Every text
is escaped: keys and messages come from files and buckets that somebody else filled.
"""

from __future__ import annotations

import html as html_text
from typing import TYPE_CHECKING

from regraft import chunk_map
from regraft.facts import facts

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["html"]

_LIGHT = "--rg-fore:#1a1a1a;--rg-back:#fff;--rg-dim:#666;--rg-quiet:#e3e3e3;--rg-line:#d0d0d0"
_DARK = "--rg-fore:#e6e6e6;--rg-back:#1e1e1e;--rg-dim:#a0a0a0;--rg-quiet:#3d3d3d;--rg-line:#4a4a4a"
_STYLE = (
    f".regraft{{{_LIGHT};color:var(--rg-fore);font-family:sans-serif;font-size:13px;line-height:1.4;max-width:900px}}"
    f"@media (prefers-color-scheme:dark){{.regraft{{{_DARK}}}}}"
    # JupyterLab, VS Code and Sphinx themes say what they are; that beats what the browser prefers.
    f"body[data-jp-theme-light=true] .regraft,body.vscode-light .regraft,html[data-theme=light] .regraft{{{_LIGHT}}}"
    f"body[data-jp-theme-light=false] .regraft,body.vscode-dark .regraft,html[data-theme=dark] .regraft{{{_DARK}}}"
    ".regraft .rg-title{border-bottom:1px solid var(--rg-line);padding-bottom:4px;margin-bottom:4px}"
    ".regraft .rg-dim{color:var(--rg-dim)}"
    ".regraft summary{cursor:pointer;font-weight:600;padding:3px 0}"
    ".regraft details{margin:2px 0}"
    ".regraft ul{margin:2px 0 6px;padding-left:18px}"
    ".regraft table{border-collapse:collapse;margin:2px 0 6px;font-size:12px;color:inherit}"
    ".regraft th,.regraft td{text-align:left;padding:2px 10px 2px 0;border:none;vertical-align:top;"
    "background:transparent;color:inherit;max-width:420px;overflow-wrap:anywhere}"
    ".regraft th{color:var(--rg-dim);font-weight:500;border-bottom:1px solid var(--rg-line)}"
    ".regraft .rg-map svg{display:block;margin:6px 0;max-width:100%}"
    ".regraft .rg-legend span{display:inline-block;margin-right:12px;font-size:12px}"
    ".regraft .rg-swatch{display:inline-block;width:10px;height:10px;margin-right:4px}" + chunk_map.STYLE
)


def html(subject: object) -> str:
    """The HTML of ``_repr_html_``.

    Args:
        subject: A document, a table or a collection.

    Returns:
        Self-contained HTML; nothing is fetched, no script runs.
    """
    said = facts(subject)
    parts = [
        f'<div class="rg-title"><span class="rg-dim">regraft.{html_text.escape(said.kind)}</span> '
        f"<b>{html_text.escape(said.title)}</b></div>"
    ]
    if said.lines:
        parts.append(f"<ul>{''.join(f'<li>{html_text.escape(line)}</li>' for line in said.lines)}</ul>")
    picture = chunk_map.chunk_map(said.arrays, said.axis)
    if picture:
        parts.append(f"<details open><summary>chunk map</summary>{picture}</details>")
    for grid in said.grids:
        if not grid.rows:
            continue
        table = _table(grid.columns, grid.rows)
        if grid.more:
            table += f'<div class="rg-dim">and {grid.more:,} more</div>'
        if grid.heading:
            # Short tables are read at once; long ones wait to be asked for.
            opened = " open" if grid.heading in ("what happens", "set aside") or len(grid.rows) <= 8 else ""
            table = f"<details{opened}><summary>{html_text.escape(grid.heading)}</summary>{table}</details>"
        parts.append(table)
    return f'<div class="regraft"><style>{_STYLE}</style>{"".join(parts)}</div>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html_text.escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html_text.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
