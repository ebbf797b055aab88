"""regraft: change a little of a big store, safely, and pay only for the little.

Names are imported when they are first used: ``import regraft`` alone costs a few milliseconds, and neither xarray nor
pandas is imported before something needs it.

Example:
    >>> import regraft
    >>> sst = regraft.open_collection("sst.yaml")  # doctest: +SKIP
    >>> plan = sst.plan()  # doctest: +SKIP
    >>> report = plan.apply()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regraft.errors import (
    ConflictError,
    CorruptError,
    InternalError,
    InvalidError,
    NotFoundError,
    RegraftError,
    UnavailableError,
)

if TYPE_CHECKING:
    from regraft.collections import Collection, open_collection
    from regraft.config import CollectionConfig, core_json
    from regraft.config_file import load_config
    from regraft.datasets import Source
    from regraft.regions import write_region
    from regraft.results import Plan, Report
    from regraft.schema import collection_schema

    __version__: str

__all__ = [
    "Collection",
    "CollectionConfig",
    "ConflictError",
    "CorruptError",
    "InternalError",
    "InvalidError",
    "NotFoundError",
    "Plan",
    "RegraftError",
    "Report",
    "Source",
    "UnavailableError",
    "__version__",
    "collection_schema",
    "core_json",
    "load_config",
    "open_collection",
    "write_region",
]

_HOMES = {
    "Collection": "regraft.collections",
    "CollectionConfig": "regraft.config",
    "Plan": "regraft.results",
    "Report": "regraft.results",
    "Source": "regraft.datasets",
    "collection_schema": "regraft.schema",
    "core_json": "regraft.config",
    "load_config": "regraft.config_file",
    "open_collection": "regraft.collections",
    "write_region": "regraft.regions",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name == "__version__":
        from regraft.seam import enter

        enter()
        from regraft import _core

        value: Any = _core.__version__
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
