"""Where xarray meets the core: files opened for `preprocess` hooks, data sets turned back into what a file would hold.

A hook sees ordinary decoded xarray; the store keeps packed values. `encode` goes the way back with each variable's own
encoding (type, scale, offset, fill value, time units), so values that a hook does not touch come out bit for bit as
they were. xarray is imported when the first hook runs, and never otherwise.

The core calls hooks on several threads, and the NetCDF and HDF5 libraries that read for xarray are not made for that:
xarray has a lock for the reading of values, but opens and closes files without it, and Python dies. So one hook runs at
a time, from the opening of its file to the closing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import xarray as xr

    from regraft.config import CollectionConfig
    from regraft.encoded import EncodedDataset, EncodedVariable, Hook

    Preprocess = Callable[[xr.Dataset, "Source"], xr.Dataset]

__all__ = ["Source", "encode", "import_function", "make_hook", "open_source"]

_ONE_AT_A_TIME = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Source:
    """What a `preprocess` hook is told about the file at hand.

    Args:
        key: Key below the URL of the collection's source.
        url: The whole URL, or path.
        etag: Version of the object, where it is known.
        size: Bytes, where they are known.

    Example:
        >>> Source("2022/a.nc", "s3://bucket/sst/2022/a.nc").key
        '2022/a.nc'
    """

    key: str
    url: str
    etag: str | None = None
    size: int | None = None


def make_hook(config: CollectionConfig) -> Hook | None:
    """The callable that the core calls for each source of a collection with a `preprocess` hook.

    Args:
        config: The configuration.

    Returns:
        ``hook(key, local_path, bytes)``, or ``None`` where the configuration has no hook.

    Raises:
        InvalidError: The function cannot be imported.
    """
    if config.source.preprocess is None:
        return None
    named = config.source.preprocess
    function: Preprocess = import_function(named)
    base = config.source.url.rstrip("/")

    def hook(key: str, path: str | None, content: bytes | None) -> EncodedDataset:
        with _ONE_AT_A_TIME:
            return run(key, path, content)

    def run(key: str, path: str | None, content: bytes | None) -> EncodedDataset:
        import xarray as xr

        size = len(content) if content is not None else Path(path).stat().st_size if path is not None else None
        source = Source(key=key, url=f"{base}/{key}", size=size)
        with open_source(path if path is not None else content or b"", key) as raw:
            opened = xr.decode_cf(raw)
            prepared = function(opened, source)
            if type(prepared).__name__ != "Dataset":
                raise InvalidError(
                    f"`{named}` returned `{type(prepared).__name__}`, expected `xarray.Dataset`",
                    "return the data set that is to be stored",
                )
            # Inside the `with`: values that nothing touched are read from the file here.
            return encode(prepared, raw_times=_raw_times(raw, opened, prepared))

    return hook


def import_function(named: str) -> Callable[..., Any]:
    """Imports ``package.module:function`` or ``file.py:function``.

    Args:
        named: The function.

    Returns:
        The function.

    Raises:
        InvalidError: There is no such module or function, or importing it failed.

    Example:
        >>> import_function("os.path:join")("a", "b")
        'a/b'
    """
    module_name, _, name = named.rpartition(":")
    try:
        if module_name.endswith(".py"):
            specification = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            assert specification is not None  # noqa: S101 - a name that ends with .py always has a loader
            assert specification.loader is not None  # noqa: S101
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
    except Exception as error:
        raise InvalidError(
            f"the hook `{named}` cannot be imported: {type(error).__name__}: {error}",
            f"Python looks for `{module_name}` in the working folder's `sys.path` ({len(sys.path)} entries); install "
            f"the package, or name a file: `hooks.py:{name}`",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidError(f"`{module_name}` has no function `{name}`")
    found: Callable[..., Any] = function
    return found


@contextlib.contextmanager
def open_source(source: str | bytes, name: str = "") -> Iterator[xr.Dataset]:
    """Opens a NetCDF file with xarray, by whichever reader is installed.

    Args:
        source: A path, or the content of a file.
        name: What to call it in errors.

    Yields:
        The data set as it is stored, for `xarray.decode_cf`; its file is closed afterwards.

    Raises:
        InvalidError: No reader for this kind of file is installed, or the file is broken.
    """
    start = _first_bytes(source)
    kind = "NetCDF-4" if start.startswith(b"\x89HDF") else "classic NetCDF" if start.startswith(b"CDF") else None
    if kind is None:
        raise InvalidError(f"`{name}` is no NetCDF file: it begins with `{start[:4]!r}`")
    readers = ["netcdf4", "h5netcdf"] if kind == "NetCDF-4" else ["netcdf4", "scipy"]
    installed = [reader for reader in readers if importlib.util.find_spec({"netcdf4": "netCDF4"}.get(reader, reader))]
    if not installed:
        raise InvalidError(
            f"no reader for {kind} is installed, which the hook needs for `{name}`",
            "install one: `pip install netCDF4`",
        )
    try:
        opened = _open(source, installed[0])
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidError(f"`{name}` cannot be opened as {kind}: {error}") from error
    with opened:
        yield opened


def _open(source: str | bytes, reader: str) -> xr.Dataset:
    import xarray as xr

    if isinstance(source, str):
        return _lazily(source, reader)
    if reader == "netcdf4":
        import netCDF4

        # xarray's engine of that name reads paths only; the library itself reads memory.
        file = netCDF4.Dataset("in-memory.nc", mode="r", memory=source)
        return _lazily(xr.backends.NetCDF4DataStore(file), None)  # type: ignore[no-untyped-call]
    return _lazily(io.BytesIO(source), reader)


def _lazily(source: Any, reader: Any) -> xr.Dataset:  # noqa: ANN401 - what xarray's engines take
    import xarray as xr

    opened: xr.Dataset = xr.open_dataset(source, engine=reader, cache=False, decode_cf=False)
    return opened


def _first_bytes(source: str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:8]
    with Path(source).open("rb") as file:
        return file.read(8)


def _raw_times(raw: xr.Dataset, opened: xr.Dataset, prepared: xr.Dataset) -> dict[str, xr.Variable]:
    """Times that a hook left alone, as the file has them.

    Decoding to nanoseconds and back loses the last bit of a float, and rewrites the text of the units.
    """
    untouched = {}
    for name, variable in prepared.variables.items():
        before = opened.variables.get(name)
        if before is None or variable.dtype.kind not in "mMO" or raw.variables[name].dtype.kind not in "iuf":
            continue
        same: Any = variable.equals
        if same(before):
            untouched[str(name)] = raw.variables[name]
    return untouched


def encode(dataset: xr.Dataset, *, raw_times: Mapping[str, xr.Variable] | None = None) -> EncodedDataset:
    """A data set as a NetCDF file would hold it.

    Args:
        dataset: Decoded or not; each variable is encoded by its own ``encoding``.
        raw_times: Variables to be taken as they are, with their units.

    Returns:
        C-contiguous arrays in native byte order; arrays that already are such are not copied. Text becomes fixed-width
        UTF-8 bytes, times become numbers with ``units`` and ``calendar``, booleans become ``int8``.

    Raises:
        InvalidError: A variable has a type that NetCDF has not, or values that its encoding cannot hold.

    Example:
        >>> encoded = encode(xr.Dataset({"sst": ("time", np.array([280.0]))}))
        >>> encoded["variables"][0]["data"].dtype
        dtype('float64')
    """
    from xarray import conventions

    try:
        variables, attributes = conventions.encode_dataset_coordinates(dataset)
    except (ValueError, TypeError) as error:
        raise InvalidError(f"the coordinates of the data set cannot be encoded: {error}") from error
    encoded: list[EncodedVariable] = []
    for name, variable in variables.items():
        _check_range(variable, str(name))
        try:
            stored = conventions.encode_cf_variable(variable, name=name)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidError(f"variable `{name}` cannot be encoded: {error}") from error
        if raw_times and name in raw_times:
            stored = raw_times[str(name)]
        encoded.append(
            {
                "name": str(name),
                "dimensions": [str(dimension) for dimension in stored.dims],
                "data": _raw(np.asarray(stored.values), str(name)),
                "attributes": _plain(stored.attrs),
            }
        )
    return {
        "dimensions": {str(dimension): int(size) for dimension, size in dataset.sizes.items()},
        "attributes": _plain(attributes),
        "variables": encoded,
    }


def _check_range(variable: xr.Variable, name: str) -> None:
    """Refuses what a cast into packed integers would change in silence: NaN without a fill value, and overflow."""
    packed = np.dtype(variable.encoding.get("dtype") or variable.dtype)
    if variable.dtype.kind != "f" or packed.kind not in "iu" or not variable.size:
        return
    values = np.asarray(variable.values)
    missing = np.isnan(values)
    fillable = {"_FillValue", "missing_value"} & {*variable.encoding, *variable.attrs}
    if missing.any() and not fillable:
        raise InvalidError(
            f"variable `{name}` has missing values, and its packing as `{packed}` has no `_FillValue`",
            "give it one in the hook: `dataset[name].encoding['_FillValue'] = -32768`",
        )
    if missing.all():
        return
    scale = variable.encoding.get("scale_factor", 1)
    offset = variable.encoding.get("add_offset", 0)
    limits = np.iinfo(packed)
    for extreme in (np.nanmin(values), np.nanmax(values)):
        stored = (float(extreme) - offset) / scale
        if not limits.min - 0.5 <= stored <= limits.max + 0.5:
            raise InvalidError(
                f"variable `{name}` holds `{extreme}`, which its packing as `{packed}` with scale `{scale}` and offset "
                f"`{offset}` cannot represent",
                "change its encoding in the hook, or mask the value",
            )


def _raw(values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    if values.dtype.kind in "OUT":
        # `S` holds the bytes as files do, NUL-padded to the longest.
        texts = [_text(value, name).encode() for value in values.ravel()]
        width = max((len(text) for text in texts), default=1) or 1
        values = np.array(texts, dtype=f"S{width}").reshape(values.shape)
    if values.dtype.kind == "b":
        values = values.view(np.int8)
    if values.dtype.kind not in "iufS":
        raise InvalidError(
            f"variable `{name}` has the type `{values.dtype}`, expected numbers, text or times",
            "drop it in the hook, or convert it",
        )
    # `require` and not `ascontiguousarray`: the latter makes a vector of a scalar.
    return np.require(values, dtype=values.dtype.newbyteorder("="), requirements="C")


def _text(value: object, name: str) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if not isinstance(value, str):
        raise InvalidError(f"variable `{name}` holds `{type(value).__name__}` objects, expected text")
    return value


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as plain Python: text, numbers, and lists of them."""
    plain: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        plain[str(name)] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return plain
