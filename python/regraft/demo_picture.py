"""The picture of the demo: every day of the store as a small map, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from regraft.demo_data import SstGrid

__all__ = ["draw_days"]

LAND, SEA_UNSEEN, NOTHING = "#8c8f94", "#eef0f2", "#ffffff"
INK, QUIET = "#1d2733", "#7a8591"


def draw_days(
    path: Path,
    grid: SstGrid,
    titles: Sequence[str],
    rows: Sequence[tuple[str, Mapping[int, NDArray[np.float64]]]],
    notes: Mapping[int, str],
) -> Path:
    """Draws days side by side, one row for each state of the store.

    Args:
        path: The PNG to write.
        grid: The grid of the fields, for land and coordinates.
        titles: A title for each day.
        rows: Name of the state, and its fields by day in degrees Celsius, NaN where nothing was seen; a day that the
            store does not have is left out.
        notes: What happened to a day, printed below the last row.

    Returns:
        The path.

    Raises:
        OSError: The picture cannot be written.

    Example:
        >>> draw_days(Path("days.png"), grid, ["1 Jan"], [("after", {0: celsius})], {0: "revised"})
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    colours = colormaps["inferno"].resampled(256)(np.linspace(0.05, 0.97, 256))
    palette = ListedColormap(colours).with_extremes(bad=(0, 0, 0, 0))
    land = np.where(grid.land, 1.0, np.nan)
    extent = (float(grid.lon[0]), float(grid.lon[-1]), float(grid.lat[-1]), float(grid.lat[0]))
    columns = len(titles)
    figure = Figure(figsize=(1.75 * columns + 0.9, 1.42 * len(rows) + 0.75), facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.02))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    image = None
    for row, (state, fields) in enumerate(rows):
        for day, title in enumerate(titles):
            axis = axes[row][day]
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="#c9ced4", linewidth=0.8)
            if day == 0:
                axis.set_ylabel(state, color=INK, fontsize=11, fontweight="bold", labelpad=8)
            if row == 0:
                axis.set_title(title, color=INK, fontsize=10)
            if row == len(rows) - 1 and day in notes:
                axis.set_xlabel(notes[day], color=INK, fontsize=9)
            if day not in fields:
                axis.set(xlim=extent[:2], ylim=extent[2:], facecolor=NOTHING, aspect="equal")
                axis.text(0.5, 0.5, "not in the store", transform=axis.transAxes, ha="center", color=QUIET, fontsize=8)
                continue
            axis.set_facecolor(SEA_UNSEEN)
            image = axis.imshow(fields[day], extent=extent, cmap=palette, vmin=8, vmax=31, interpolation="nearest")
            if np.isnan(fields[day]).all():
                axis.text(0.5, 0.06, "blank", transform=axis.transAxes, ha="center", color=QUIET, fontsize=8)
            axis.imshow(land, extent=extent, cmap=ListedColormap([LAND]), interpolation="nearest")
    if image is not None:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=28, pad=0.01)
        bar.set_label("sea surface temperature, °C", color=INK, fontsize=9)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, color=QUIET, labelcolor=INK)
    figure.savefig(path, dpi=110)
    return path
