"""The chunk map: which chunks of which arrays a plan touches, as inline SVG.

One panel for each array: the axis runs from left to right, all other dimensions are flattened from top to bottom. A
grid with more chunks than the panel has cells is binned; a cell shows the strongest state in its bin, so that one
blanked chunk in five thousand is seen. Cells of one state are one path: the picture stays small, and has no ids that
could meet those of another output in the same notebook. Colours are the Okabe-Ito set, which colour-blind readers tell
apart.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from regraft.facts import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["STYLE", "chunk_map"]

_PANELS = 4
_COLUMNS = 96
_ROWS = 40
_PANEL_WIDTH = 480
_PANEL_HEIGHT = 144
_CELL = 18

_COLOURS = {
    "new": "#009e73",
    "replaced": "#e69f00",
    "restored": "#56b4e9",
    "blanked": "#d55e00",
    "moved": "#cc79a7",
}
# What must not be overlooked comes first.
_STRONGEST = {state: rank for rank, state in enumerate(("blanked", "replaced", "restored", "new", "moved"))}

STYLE = (
    ".regraft .rg-cells{stroke:var(--rg-back);stroke-width:.75}"
    ".regraft .rg-untouched{fill:var(--rg-quiet)}"
    ".regraft svg text{fill:var(--rg-fore);font:11px sans-serif}"
    ".regraft svg text.rg-dim{fill:var(--rg-dim)}"
    + "".join(f".regraft .rg-{state}{{fill:{colour}}}" for state, colour in _COLOURS.items())
)


def chunk_map(arrays: Sequence[Mapping[str, Any]], axis: str | None) -> str:
    """The map of `arrays` as HTML with inline SVG.

    Args:
        arrays: As in a plan: ``name``, ``dimensions``, ``shape``, ``grid``, ``touched``, ``touched_count``.
        axis: The dimension that runs from left to right; the first where it is ``None`` or not an array's own.

    Returns:
        HTML, empty where no array is touched. All text is escaped.
    """
    touched = [array for array in arrays if array.get("touched")]
    if not touched:
        return ""
    # The largest grids say most.
    touched.sort(key=lambda array: -math.prod(array.get("grid", [])))
    panels = "".join(_panel(array, axis) for array in touched[:_PANELS])
    more = len(touched) - _PANELS
    rest = f'<div class="rg-dim">and {more} more</div>' if more > 0 else ""
    return f'<div class="rg-map">{panels}{rest}{_legend(touched)}</div>'


def _panel(array: Mapping[str, Any], axis: str | None) -> str:
    dimensions = list(array.get("dimensions", []))
    grid = [max(1, int(length)) for length in array.get("grid", [])] or [1]
    across = dimensions.index(axis) if axis in dimensions and dimensions.index(axis) < len(grid) else 0
    others = [position for position in range(len(grid)) if position != across]
    wide, high = grid[across], math.prod(grid[position] for position in others)
    columns, rows = min(wide, _COLUMNS), min(high, _ROWS)
    width = min(_CELL, _PANEL_WIDTH / columns)
    height = min(_CELL, _PANEL_HEIGHT / rows)

    cells: dict[tuple[int, int], str] = {}
    for chunk in array["touched"]:
        index = chunk.get("index") or [0]
        flat = 0
        for position in others:
            flat = flat * grid[position] + min(int(index[position]), grid[position] - 1)
        cell = (
            min(int(index[across]), wide - 1) * columns // wide,
            flat * rows // high,
        )
        state = str(chunk["state"])
        if cell not in cells or _rank(state) < _rank(cells[cell]):
            cells[cell] = state
    paths = [
        _path("untouched", [(x, y) for x in range(columns) for y in range(rows) if (x, y) not in cells], width, height)
    ]
    paths += [
        _path(state, sorted(cell for cell, found in cells.items() if found == state), width, height) for state in STATES
    ]
    across_name = dimensions[across] if across < len(dimensions) else "index"
    down_name = " \N{MULTIPLICATION SIGN} ".join(
        str(dimensions[position]) for position in others if position < len(dimensions)
    )
    total_width, total_height = columns * width, rows * height
    shape = "\N{MULTIPLICATION SIGN}".join(str(length) for length in array.get("shape", [])) or "scalar"
    count = array.get("touched_count", len(array["touched"]))
    title = f"{array['name']} {shape}"
    caption = f"{count:,} of {wide * high:,} chunks"
    binned = (
        f", {math.ceil(wide / columns) * math.ceil(high / rows)} to a cell" if (columns, rows) != (wide, high) else ""
    )
    down = f"; down: {down_name} ({high:,})" if down_name else ""
    return (
        f'<svg width="{max(total_width, 300) + 2:.0f}" height="{total_height + 52:.0f}" '
        f'viewBox="-1 0 {max(total_width, 300) + 2:.1f} {total_height + 52:.1f}" role="img">'
        f"<title>{html.escape(title)}: {html.escape(caption)}</title>"
        f'<text x="0" y="12">{html.escape(title)}'
        f'<tspan class="rg-dim" dx="8" fill-opacity=".65">{html.escape(caption + binned)}</tspan></text>'
        f'<g transform="translate(0 20)">{"".join(paths)}</g>'
        f'<text class="rg-dim" x="0" y="{total_height + 36:.0f}">'
        f"{html.escape(f'{across_name} → ({wide:,}){down}')}</text></svg>"
    )


def _rank(state: str) -> int:
    return _STRONGEST.get(state, len(_STRONGEST))


def _path(state: str, cells: Sequence[tuple[int, int]], width: float, height: float) -> str:
    if not cells:
        return ""
    squares = "".join(f"M{x * width:.4g} {y * height:.4g}h{width:.4g}v{height:.4g}h-{width:.4g}z" for x, y in cells)
    return f'<path class="rg-cells rg-{state}" d="{squares}"><title>{state}: {len(cells)}</title></path>'


def _legend(arrays: Sequence[Mapping[str, Any]]) -> str:
    counts = dict.fromkeys(STATES, 0)
    for array in arrays:
        for chunk in array["touched"]:
            if chunk["state"] in counts:
                counts[chunk["state"]] += 1
    swatches = [
        f'<span><i class="rg-swatch" style="background:{_COLOURS[state]}"></i>{state} {count:,}</span>'
        for state, count in counts.items()
    ]
    swatches.append('<span><i class="rg-swatch" style="background:var(--rg-quiet)"></i>untouched</span>')
    return f'<div class="rg-legend">{"".join(swatches)}</div>'
