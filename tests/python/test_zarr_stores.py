"""Stores that zarr-python and xarray wrote, in every codec and type that regraft knows, read equal through the core."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
import zarr.codecs.numcodecs as v3_numcodecs
from numpy.typing import NDArray
from regraft._core import read_zarr
from regraft.errors import CorruptError, InvalidError, NotFoundError
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

# Codecs that only numcodecs has are a part of what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")

Array = NDArray[Any]

SHAPE = (7, 11)
CHUNKS = (3, 4)
SHARDS = (6, 8)

TYPES = [
    *["?", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"],
    *["<M8[ns]", "<M8[us]", "<M8[s]", "<M8[D]", "<m8[ms]", "<m8[h]", "|S5", "<U3"],
]
BIG_ENDIAN = [">i2", ">u4", ">i8", ">f2", ">f4", ">f8", ">M8[s]", ">U3"]


def values(dtype: str, shape: tuple[int, ...] = SHAPE) -> Array:
    """Any values of a type, among them the ones that codecs stumble over."""
    random = np.random.default_rng(7)
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    match kind.kind:
        case "b":
            flat = random.integers(0, 2, count) > 0
        case "i" | "u":
            limits = np.iinfo(kind)
            flat = random.integers(limits.min, limits.max, count, dtype=kind.newbyteorder("="), endpoint=True)
        case "f":
            flat = random.normal(size=count)
            flat[:3] = [np.nan, np.inf, -0.0]
        case "M" | "m":
            flat = random.integers(-(10**9), 10**9, count).view(f"{kind.kind}8[{np.datetime_data(kind)[0]}]")
            flat[0] = "NaT"
        case "S":
            flat = np.array([b"x" * (number % (kind.itemsize + 1)) for number in range(count)])
        case "U":
            flat = np.array(["é\U0001f30a"[: number % 3] for number in range(count)])
        case _:
            flat = np.array([f"né{number}" * (number % 3) for number in range(count)], dtype=object)
    return flat.astype(kind).reshape(shape)


def assert_reads(store: Path, name: str, expected: Array) -> None:
    """The whole array and a part that begins and ends inside chunks, bit for bit."""
    shape = list(expected.shape)
    parts = [([0] * len(shape), shape)]
    if len(shape) == len(SHAPE):
        parts.append(([2, 3], [4, 6]))
    for start, extent in parts:
        found = read_zarr(str(store), {}, name, start, extent)
        wanted = expected[tuple(slice(first, first + length) for first, length in zip(start, extent, strict=True))]
        if isinstance(found, list):
            assert found == [str(text) for text in wanted.ravel()]
        else:
            assert found.shape == wanted.shape
            assert found.dtype == wanted.dtype.newbyteorder("=")
            assert found.tobytes() == wanted.astype(found.dtype).tobytes()


def v2_compressors() -> dict[str, Any]:
    """Every compressor of v2, by a name for the array."""
    compressors: dict[str, Any] = {
        "none": None,
        "zlib": numcodecs.Zlib(3),
        "gzip": numcodecs.GZip(2),
        "zstd": numcodecs.Zstd(4),
        "zstd_checksum": numcodecs.Zstd(4, checksum=True),
    }
    # numcodecs' own c-blosc comes without snappy.
    for name in ("blosclz", "lz4", "lz4hc", "zlib", "zstd"):
        for shuffle in (-1, 0, 1, 2):
            compressors[f"blosc_{name}_{shuffle + 1}"] = numcodecs.Blosc(cname=name, clevel=4, shuffle=shuffle)
    return compressors


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [*TYPES, *BIG_ENDIAN])
def test_v2_types_orders_and_compressors(tmp_path: Path, dtype: str, order: str) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    expected = values(dtype)
    size = np.dtype(dtype).itemsize
    settings: dict[str, dict[str, Any]] = {
        name: {"compressors": compressor, "filters": None} for name, compressor in v2_compressors().items()
    }
    settings["shuffle"] = {"compressors": numcodecs.Zlib(4), "filters": [numcodecs.Shuffle(size)]}
    if expected.dtype.kind in "iu":
        settings["delta"] = {"compressors": numcodecs.Zstd(1), "filters": [numcodecs.Delta(dtype)]}
    for number, (name, setting) in enumerate(settings.items()):
        encoding = {"name": "v2", "separator": "./"[number % 2]}
        array = group.create_array(
            name, shape=SHAPE, chunks=CHUNKS, dtype=dtype, order=order, chunk_key_encoding=encoding, **setting
        )
        array[...] = expected
    zarr.consolidate_metadata(str(tmp_path))
    for name in settings:
        assert_reads(tmp_path, name, expected)


@pytest.mark.parametrize(
    ("dtype", "stored"), [("<i4", "|i1"), ("<i2", "<i8"), ("|u1", "<i2"), ("<f4", "<f4"), (">i4", ">i4")]
)
def test_v2_delta(tmp_path: Path, dtype: str, stored: str) -> None:
    expected = np.cumsum(np.random.default_rng(1).integers(0, 3, SHAPE)).reshape(SHAPE).astype(dtype)
    array = zarr.create_array(
        tmp_path / "a", shape=SHAPE, chunks=CHUNKS, dtype=dtype, zarr_format=2, filters=[numcodecs.Delta(dtype, stored)]
    )
    array[...] = expected
    assert_reads(tmp_path / "a", "", expected)


def v3_codecs(dtype: str) -> dict[str, dict[str, Any]]:
    """Every chain of v3 that regraft knows, by a name for the array."""
    size = np.dtype(dtype).itemsize
    chains: dict[str, dict[str, Any]] = {
        "none": {"compressors": None},
        "zstd": {"compressors": ZstdCodec(level=3)},
        "zstd_checksum": {"compressors": ZstdCodec(level=3, checksum=True)},
        "gzip": {"compressors": GzipCodec(level=4)},
        "crc32c": {"compressors": [ZstdCodec(level=1), Crc32cCodec()]},
        "zlib": {"compressors": v3_numcodecs.Zlib(level=3)},
        "shuffle": {"compressors": [v3_numcodecs.Shuffle(elementsize=size), v3_numcodecs.Zlib(level=3)]},
        "transpose": {"compressors": GzipCodec(), "filters": TransposeCodec(order=(1, 0))},
        "shards": {"shards": SHARDS, "compressors": ZstdCodec(level=1)},
        "keys_v2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        "keys_dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    }
    for name in ("lz4", "zstd", "blosclz", "lz4hc", "zlib"):
        for shuffle in ("noshuffle", "shuffle", "bitshuffle"):
            codec = BloscCodec(cname=name, clevel=3, shuffle=shuffle, typesize=size)
            chains[f"blosc_{name}_{shuffle}"] = {"compressors": codec}
    if size > 1 and np.dtype(dtype).kind != "S":
        chains["big_endian"] = {"serializer": BytesCodec(endian="big")}
    if np.dtype(dtype).kind in "iu":
        chains["delta"] = {"filters": v3_numcodecs.Delta(dtype=dtype)}
    indices = {"plain": [BytesCodec()], "checked": [BytesCodec(), Crc32cCodec()], "big": [BytesCodec(endian="big")]}
    for name, index in indices.items():
        for location in ("start", "end"):
            codec = ShardingCodec(
                chunk_shape=CHUNKS, codecs=[BytesCodec(), ZstdCodec()], index_codecs=index, index_location=location
            )
            chains[f"index_{name}_{location}"] = {"serializer": codec, "compressors": None, "chunks": SHARDS}
    return chains


@pytest.mark.parametrize("dtype", TYPES)
def test_v3_types_and_codecs(tmp_path: Path, dtype: str) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    expected = values(dtype)
    chains = v3_codecs(dtype)
    for name, chain in chains.items():
        array = group.create_array(name, shape=SHAPE, dtype=dtype, **{"chunks": CHUNKS, **chain})
        array[...] = expected
    zarr.consolidate_metadata(str(tmp_path))
    for name in chains:
        assert_reads(tmp_path, name, expected)


@pytest.mark.parametrize(
    ("zarr_format", "setting"),
    [
        *[(2, {"order": order, "compressors": codec}) for order in "CF" for codec in (None, numcodecs.Zlib(1))],
        (2, {"compressors": numcodecs.Blosc()}),
        *[(3, {"compressors": codec}) for codec in (None, ZstdCodec(), GzipCodec(), BloscCodec())],
        (3, {"shards": SHARDS}),
    ],
)
def test_strings_of_any_length(tmp_path: Path, zarr_format: int, setting: dict[str, Any]) -> None:
    expected = values("O")
    array = zarr.create_array(tmp_path / "a", shape=SHAPE, chunks=CHUNKS, dtype=str, zarr_format=zarr_format, **setting)
    array[...] = expected
    assert_reads(tmp_path / "a", "", expected)


@pytest.mark.parametrize(("zarr_format", "shards"), [(2, None), (3, None), (3, SHARDS)])
@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        *[("<f2", 1.5), ("<f4", np.nan), ("<f8", -999.0), ("<f8", np.inf), ("<f8", -np.inf), ("<i2", -5), ("?", True)],
        *[("<u8", 2**64 - 1), ("|S3", b"ab"), ("<U3", "é"), ("<M8[s]", np.datetime64("NaT", "s")), ("<i4", None)],
    ],
)
def test_what_is_not_stored_is_the_fill_value(
    tmp_path: Path, zarr_format: int, dtype: str, fill_value: Any, shards: tuple[int, int] | None
) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=SHAPE, chunks=CHUNKS, shards=shards, dtype=dtype, fill_value=fill_value,
        zarr_format=zarr_format,
    )  # fmt: skip
    array[:2, :2] = values(dtype, (2, 2))
    assert_reads(tmp_path / "a", "", np.asarray(array[...]))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_a_dataset_that_xarray_wrote(tmp_path: Path, zarr_format: int, *, consolidated: bool) -> None:
    store = tmp_path / "store.zarr"
    dataset = xr.Dataset(
        {
            "sst": (("time", "x"), values("<f4", (3, 4)), {"worst": np.nan, "units": "K"}),
            "quality": (("time",), np.array([1, -1, 3], dtype="i2")),
            "name": (("time",), np.array(["a", "né", ""], dtype=object)),
            "code": (("time",), np.array(["a", "bb", "c"])),
            "flag": (("time",), np.array([True, False, True])),
            "level": ((), np.float64(5.5)),
        },
        coords={"time": np.array(["2020-01-01", "2020-01-02", "2020-01-04"], dtype="M8[ns]"), "x": np.arange(4.0)},
        attrs={"limit": np.inf},
    )
    dataset["quality"].encoding["_FillValue"] = np.int16(-1)
    dataset.to_zarr(store, zarr_format=zarr_format, consolidated=consolidated)
    dataset.to_zarr(store, zarr_format=zarr_format, consolidated=consolidated, group="nested", mode="a")
    if consolidated:
        zarr.consolidate_metadata(str(store), zarr_format=zarr_format)
    raw = xr.open_zarr(store, mask_and_scale=False, decode_times=False, consolidated=consolidated)
    for group in ("", "nested/"):
        for name, variable in raw.variables.items():
            expected = variable.values
            found = read_zarr(str(store), {}, f"{group}{name}", [0] * expected.ndim, list(expected.shape))
            if isinstance(found, list):
                assert found == list(expected)
            else:
                np.testing.assert_array_equal(found, expected)


EXOTIC: list[tuple[str, Callable[[zarr.Group], Any]]] = [
    ("complex64", lambda group: group.create_array("odd", shape=(3,), chunks=(2,), dtype="c8")),
    (
        "fixedscaleoffset",
        lambda group: group.create_array(
            "odd", shape=(3,), chunks=(2,), dtype="f4",
            filters=v3_numcodecs.FixedScaleOffset(offset=0, scale=10, dtype="f4", astype="i2"),
        ),
    ),
    ("lz4", lambda group: group.create_array("odd", shape=(3,), dtype="f4", compressors=v3_numcodecs.LZ4())),
]  # fmt: skip


@pytest.mark.parametrize(("name", "create"), EXOTIC)
def test_one_exotic_array_is_in_nobodys_way(tmp_path: Path, name: str, create: Callable[[zarr.Group], Any]) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("plain", shape=(3,), dtype="i4")[...] = [1, 2, 3]
    create(group)
    zarr.consolidate_metadata(str(tmp_path))
    assert list(read_zarr(str(tmp_path), {}, "plain", [0], [3])) == [1, 2, 3]
    with pytest.raises(InvalidError, match=r"array `odd`.*" + name):
        read_zarr(str(tmp_path), {}, "odd", [0], [3])


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no Zarr store"):
        read_zarr(str(tmp_path / "nothing"), {}, "a", [0], [1])
    zarr.open_group(tmp_path, mode="w").create_array("a", shape=(3,), dtype="i4")
    with pytest.raises(NotFoundError, match="`b`"):
        read_zarr(str(tmp_path), {}, "b", [0], [1])
    with pytest.raises(InvalidError, match="not inside"):
        read_zarr(str(tmp_path), {}, "a", [2], [2])


def test_damaged_chunks_and_metadata_are_corrupt(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(100,), chunks=(50,), dtype="i4", compressors=ZstdCodec(checksum=True)
    )
    array[...] = np.arange(100)
    chunk = tmp_path / "a" / "c" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert list(read_zarr(str(tmp_path / "a"), {}, "", [0], [2])) == [0, 1]
    with pytest.raises(CorruptError, match=r"a/c/1"):
        read_zarr(str(tmp_path / "a"), {}, "", [0], [100])
    document = tmp_path / "a" / "zarr.json"
    metadata = json.loads(document.read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [2**50]
    document.write_text(json.dumps(metadata))
    with pytest.raises(InvalidError, match="bytes"):
        read_zarr(str(tmp_path / "a"), {}, "", [0], [100])
    document.write_text('{"zarr_format": 3,')
    with pytest.raises(CorruptError, match=r"zarr\.json"):
        read_zarr(str(tmp_path / "a"), {}, "", [0], [100])
