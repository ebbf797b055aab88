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
    from regraft.migration_config import MigrationSetConfig, load_migrations
    from regraft.migration_results import MigrationPlan, MigrationReport
    from regraft.migrations import MigrationSet, open_migrations
    from regraft.regions import write_region
    from regraft.results import Plan, Report
    from regraft.schema import collection_schema, migrations_schema

    __version__: str

__all__ = [
    "Collection",
    "CollectionConfig",
    "ConflictError",
    "CorruptError",
    "InternalError",
    "InvalidError",
    "MigrationPlan",
    "MigrationReport",
    "MigrationSet",
    "MigrationSetConfig",
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
    "load_migrations",
    "migrations_schema",
    "open_collection",
    "open_migrations",
    "write_region",
]

_HOMES = {
    "Collection": "regraft.collections",
    "CollectionConfig": "regraft.config",
    "MigrationPlan": "regraft.migration_results",
    "MigrationReport": "regraft.migration_results",
    "MigrationSet": "regraft.migrations",
    "MigrationSetConfig": "regraft.migration_config",
    "Plan": "regraft.results",
    "Report": "regraft.results",
    "Source": "regraft.datasets",
    "collection_schema": "regraft.schema",
    "core_json": "regraft.config",
    "load_config": "regraft.config_file",
    "load_migrations": "regraft.migration_config",
    "migrations_schema": "regraft.schema",
    "open_collection": "regraft.collections",
    "open_migrations": "regraft.migrations",
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
