"""Made days whose values tell day and version, and the dictionary model of what a store of them must hold."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import regraft
import zarr
from places import Place

SIDE = 8
FILL = -9999
GONE = -1
"""Version of a day that was removed: its label stays, its values are fill."""

LABELS = ("time", "y", "x")


def key_of(day: int) -> str:
    """Each day has a file of its own, so that a dictionary from day to version says everything."""
    return f"day-{day:04}.nc"


def values(day: int, version: int, side: int = SIDE) -> np.ndarray[Any, Any]:
    """What the file of a day holds; differs in every element from any other day or version."""
    noise = np.random.default_rng(day).integers(0, 9, (side, side), dtype="i4")
    return noise + 10 * version + 100_000 * day if version != GONE else np.full((side, side), FILL, "i4")


def content(day: int, version: int, side: int = SIDE) -> bytes:
    """The bytes of a day's file, classic or NetCDF-4 by turns."""
    kind = "NETCDF4" if version % 2 else "NETCDF3_CLASSIC"
    # In memory; closing gives the bytes, so that a `with` would close it twice.
    file = netCDF4.Dataset("day.nc", "w", format=kind, memory=1024)
    for name, length in zip(LABELS, (1, side, side), strict=True):
        file.createDimension(name, length)
    axis = file.createVariable("time", "f8", ("time",))
    axis.units = "days since 2020-01-01"
    axis[:] = [day]
    for name in ("sst", "quality"):
        data = file.createVariable(name, "i4", LABELS, fill_value=FILL)
        data[:] = values(day, version, side)[None] + (name == "quality")
    return bytes(file.close())


def put_day(place: Place, day: int, version: int, side: int = SIDE) -> None:
    """The file of a day arrives or is revised, all of it at once."""
    place.put(f"incoming/{key_of(day)}", content(day, version, side))


def configuration(place: Place, *, chunk: int = 4, cell: int = 4, level: int = 3, **run: Any) -> dict[str, Any]:
    """A collection of the place's days, several to a chunk; secrets go another way."""
    chunks = {"time": chunk, "y": cell, "x": cell}
    return {
        "kind": "zarr-collection",
        "name": "days",
        "source": {"url": place.url("incoming/")},
        "store": {"url": place.url("store.zarr"), "chunks": chunks, "level": level},
        "region": {"key": "time", "axis": "sorted"},
        "run": run,
    }


def opened(place: Place, config: Mapping[str, Any]) -> regraft.Collection:
    """The collection, with the keys of the place."""
    return regraft.open_collection(config, storage_options=place.storage_options)


def assert_store_equals(place: Place, model: Mapping[int, int], side: int = SIDE) -> None:
    """Every day once, in order, with the values of its version; nothing of anything else."""
    group = zarr.open_group(place.local_store("store.zarr"), mode="r")
    assert group["time"][:].tolist() == sorted(model)
    for name in ("sst", "quality"):
        found = group[name][:]
        for index, day in enumerate(sorted(model)):
            expected = values(day, model[day], side)
            expected = expected + (name == "quality") if model[day] != GONE else expected
            assert (found[index] == expected).all(), (name, day, model[day], found[index][0], expected[0])


def records(place: Place) -> list[dict[str, Any]]:
    """The log as it lies there."""
    found = place.read_all("store.zarr.regraft/log/")
    return [json.loads(found[key]) for key in sorted(found) if key.endswith(".json")]


def assert_nothing_twice(place: Place) -> None:
    """No version of a source was taken by two commits."""
    taken = Counter(
        (source["key"], source["version"]["etag"])
        for record in records(place)
        if record["kind"] == "commit"
        for source in record["sources"]
        if source.get("version") and source["action"] in ("append", "insert", "fill_slot", "overwrite")
    )
    twice = {which: count for which, count in taken.items() if count > 1}
    assert not twice, twice


def assert_no_leftovers(place: Place) -> None:
    """Of the store only what its metadata name; beside it nothing that still waits, and no half-written file."""
    control = [key.removeprefix("store.zarr.regraft/") for key in place.keys("store.zarr.regraft/")]
    allowed = r"log/\d{20}\.json|lease\.json|checkpoint/.*"
    assert not [key for key in control if not re.fullmatch(allowed, key)], control
    store = place.local_store("store.zarr")
    files = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
    assert files <= named_by_metadata(store), files - named_by_metadata(store)


def named_by_metadata(store: Path) -> set[str]:
    """Every key that a reader of a Zarr 3 store can ask for."""
    names = {"zarr.json"}
    for name, array in zarr.open_group(store, mode="r").arrays():
        names.add(f"{name}/zarr.json")
        shard = array.shards or array.chunks
        grid = [range(-(-length // step)) for length, step in zip(array.shape, shard, strict=True)]
        indices = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, len(grid)) if grid else [[]]
        names |= {"/".join([name, "c", *map(str, index)]) for index in indices}
    return names
