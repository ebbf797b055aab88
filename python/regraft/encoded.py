"""Types of what crosses the seam beside JSON: data sets as they are stored, and what the core calls back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EncodedDataset", "EncodedVariable", "Hook", "Progress"]


class EncodedVariable(TypedDict):
    """One variable as it is stored: packed, not decoded."""

    name: str
    dimensions: list[str]
    """Names, outermost first; as many as ``data`` has axes."""
    data: NDArray[np.generic]
    """C-contiguous, native byte order; numbers, or fixed-width bytes (``S<n>``, UTF-8) for text. Not copied."""
    attributes: dict[str, Any]
    """Text, numbers, or lists of numbers; ``_FillValue``, ``scale_factor``, ``add_offset``, ``units``, ``calendar``."""


class EncodedDataset(TypedDict):
    """A data set as a NetCDF file would hold it."""

    dimensions: dict[str, int]
    attributes: dict[str, Any]
    variables: list[EncodedVariable]


Hook = Callable[[str, str | None, bytes | None], EncodedDataset]
"""``hook(key, local_path, content)``: exactly one of path and content is given."""

Progress = Callable[[dict[str, Any]], None]
"""Called some ten times a second at most with ``{"stage", "done", "total", "item", "errors", "usage"}``."""
