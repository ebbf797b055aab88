"""A region written straight from xarray, without a collection."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from regraft.errors import InvalidError
from regraft.progress import ProgressOption, reporter
from regraft.results import Report
from regraft.seam import enter

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

__all__ = ["write_region"]


def write_region(
    dataset: xr.Dataset,
    url: str | os.PathLike[str],
    region: str | Mapping[str, slice | tuple[int, int]] = "auto",
    storage_options: Mapping[str, str] | None = None,
    *,
    progress: ProgressOption = None,
) -> Report:
    """Writes an xarray data set into a region of a Zarr store that exists; no collection needed.

    Only the touched chunks move; values are packed as the store has them.

    Args:
        dataset: The values.
        url: Path or URL of the store.
        region: ``"auto"`` finds the place by coordinate labels; or index ranges, ``{"time": slice(3, 4)}``. A dimension
            that is not named is written whole.
        storage_options: Options of the object store.
        progress: As in `Collection.plan`.

    Returns:
        The report.

    Raises:
        NotFoundError: There is no store at the URL, or a label is not in it.
        InvalidError: Shapes, types or labels do not fit the store.

    Example:
        >>> write_region(day, "sst.zarr", {"time": slice(3, 4)})  # doctest: +SKIP
    """
    from regraft.datasets import encode

    ranges = _region_json(region)
    encoded = encode(dataset)
    enter()
    from regraft import _core

    target = os.fspath(url)
    options = {name: str(value) for name, value in (storage_options or {}).items()}
    with reporter(progress, f"write {target}") as tell:
        return Report(json.loads(_core.write_region(encoded, target, options, ranges, tell, None)))


def _region_json(region: str | Mapping[str, slice | tuple[int, int]]) -> str:
    if isinstance(region, str):
        if region != "auto":
            raise InvalidError(f"expected `auto` or a mapping of slices, found `{region}`")
        return json.dumps(region)
    ranges: dict[str, list[int]] = {}
    for dimension, given in region.items():
        bounds = (given.start, given.stop) if isinstance(given, slice) else tuple(given)
        stepped = isinstance(given, slice) and given.step not in (None, 1)
        whole = len(bounds) == 2 and all(isinstance(bound, int) or hasattr(bound, "__index__") for bound in bounds)
        if stepped or not whole or not 0 <= int(bounds[0]) <= int(bounds[1]):
            raise InvalidError(
                f"`region.{dimension}`: expected a slice with start and stop, counted from 0, found `{given}`",
                f"for instance `{{'{dimension}': slice(3, 4)}}`",
            )
        ranges[str(dimension)] = [int(bounds[0]), int(bounds[1])]
    return json.dumps(ranges)
