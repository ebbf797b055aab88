"""The store as a plain `xarray.Dataset`: xarray and zarr-python read it themselves, nothing of ours stays between."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import InvalidError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

__all__ = ["open_store"]

# Options of the connection, which obstore takes apart from those of the service.
_CLIENT = {
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "timeout",
    "user_agent",
}


def open_store(url: str, storage_options: Mapping[str, str], **arguments: Any) -> xr.Dataset:  # noqa: ANN401
    """Opens a Zarr store with xarray.

    Args:
        url: Path or URL of the store.
        storage_options: Options of the object store.
        **arguments: For `xarray.open_zarr`.

    Returns:
        A plain data set, lazily loaded; with dask where it is installed.

    Raises:
        NotFoundError: There is no store at the path.
        InvalidError: The store is in memory, or a package that is needed is not installed.

    Example:
        >>> dataset = open_store("/data/sst.zarr", {})  # doctest: +SKIP
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise InvalidError(f"opening `{url}` needs xarray: {error}", "`pip install 'regraft[xarray]'`") from error
    arguments.setdefault("chunks", {} if importlib.util.find_spec("dask") else None)
    scheme, separator, _ = url.partition("://")
    if not separator or scheme == "file":
        path = url.removeprefix("file://")
        if not Path(path).exists():
            raise NotFoundError(f"there is no store at `{path}` yet", "make it with `sync()` or `plan().apply()`")
        local: xr.Dataset = xr.open_zarr(path, **arguments)
        return local
    if scheme == "memory":
        raise InvalidError(f"`{url}` lives inside the core; xarray cannot read it", "use a path, for instance in /tmp")
    remote: xr.Dataset = xr.open_zarr(_object_store(url, storage_options), **arguments)
    return remote


def _object_store(url: str, storage_options: Mapping[str, str]) -> Any:  # noqa: ANN401 - zarr's own
    try:
        stores: Any = importlib.import_module("obstore.store")
        storage: Any = importlib.import_module("zarr.storage")
    except ImportError as error:
        raise InvalidError(
            f"opening `{url}` with xarray needs the package `obstore`: {error}", "`pip install 'regraft[xarray]'`"
        ) from error
    # obstore is built on the same library as the core, so it takes the same names.
    options = {name.lower(): value for name, value in storage_options.items()}
    if options.pop("profile", None) or options.pop("aws_profile", None):
        raise InvalidError(
            f"opening `{url}` with xarray by a `profile` is not supported by obstore",
            "put the profile's keys into the environment: `aws configure export-credentials --format env`",
        )
    client = {name: _client_option(options.pop(name)) for name in _CLIENT & set(options)}
    if options.get("endpoint", options.get("aws_endpoint", "")).startswith("http://"):
        client.setdefault("allow_http", True)
    store = stores.from_url(url, config=options, client_options=client)
    return storage.ObjectStore(store, read_only=True)


def _client_option(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value.lower(), value)
