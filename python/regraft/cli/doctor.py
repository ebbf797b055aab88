"""``regraft doctor``: what is installed, and whether a place or a collection's store can be used as configured."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError

__all__ = ["examine"]

_PACKAGES = {
    "xarray": "to_xarray, write_region, preprocess hooks",
    "zarr": "to_xarray",
    "netCDF4": "preprocess hooks",
    "obstore": "to_xarray on object storage",
    "pyarrow": "migrations of Parquet data sets",
    "duckdb": "SQL steps of migrations",
    "matplotlib": "the picture of `regraft demo`",
    "pandas": "to_pandas",
    "dask": "lazy arrays in to_xarray",
    "prefect": "regraft.flows",
    "boto3": "regraft zarr watch",
    "aws_lambda_powertools": "regraft.aws",
}


def examine(config: str | None) -> list[dict[str, Any]]:
    """Looks around.

    Args:
        config: A collection's configuration, the URL of a place or its folder, or ``None``.

    Returns:
        Findings: ``what``, ``state`` (``ok``, ``missing``, ``failed``), ``detail``, and a ``hint`` where one is known.
    """
    findings = [_finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    findings.append(_core())
    findings += [
        _finding(package, "ok", importlib.metadata.version(package))
        for package in ("numpy", "pydantic", "typer", "rich")
    ]
    for package, use in _PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            findings.append(_finding(package, "missing", f"not installed; for {use}"))
        else:
            findings.append(_finding(package, "ok", importlib.metadata.version(package)))
    if config is not None and (("://" in config and not config.endswith((".yaml", ".yml"))) or Path(config).is_dir()):
        findings += _place(config, {})
    elif config is not None:
        findings += _collection(config)
    return findings


def _core() -> dict[str, Any]:
    from regraft.seam import enter

    try:
        enter()
    except RegraftError as error:
        return _failed("core", error)
    from regraft import _core, errors

    kinds = set(_core.error_kinds())
    unknown = sorted(kind for kind in kinds if errors.error_class(kind).default_kind != kind)
    if unknown:
        return _finding("core", "failed", f"raises kinds that this package does not know: {', '.join(unknown)}")
    return _finding("core", "ok", _core.__version__)


def _collection(config: str) -> list[dict[str, Any]]:
    from regraft.collections import open_collection

    try:
        collection = open_collection(config)
    except RegraftError as error:
        return [_failed("configuration", error)]
    findings = [_finding("configuration", "ok", f"{collection.name}")]
    try:
        status = collection.status()
    except RegraftError as error:
        findings.append(_failed("store", error))
        return findings
    there = "exists" if status.get("store_exists") else "does not exist yet, and can be reached"
    findings.append(_finding("store", "ok", f"{collection.url} {there}"))
    # Beside the store, where its log and lease are: nothing strange is ever in the store itself.
    findings += _place(f"{collection.url.rstrip('/')}.regraft", collection.config.store.storage_options)
    holder = status.get("locked_by")
    if holder:
        findings.append(_finding("writer", "missing", f"held by {holder}"))
    return findings


def _place(url: str, options: dict[str, str]) -> list[dict[str, Any]]:
    from regraft import _core

    try:
        probe = json.loads(_core.probe_store(url, options))
    except RegraftError as error:
        return [_failed("place", error)]
    return [_finding(**check) for check in probe["checks"]]


def _finding(what: str, state: str, detail: str, hint: str | None = None) -> dict[str, Any]:
    return {"what": what, "state": state, "detail": detail, **({"hint": hint} if hint else {})}


def _failed(what: str, error: RegraftError) -> dict[str, Any]:
    return _finding(what, "failed", error.message, error.hint)
