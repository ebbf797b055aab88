"""Bad input is named, set aside, and nothing else stops."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import regraft
import xarray as xr
from places import Place
from regraft.demo_data import SstGrid, day_name, write_sst_day

GRID = SstGrid(36, 48)
BAD = day_name(3)


def sst(place: Place, **overrides: Any) -> regraft.Collection:
    config = {
        "name": "bad-input",
        "source": {"url": place.url("incoming/")},
        "store": {"url": place.url("store.zarr"), "chunks": {"time": 1, "lat": 18, "lon": 24}},
        "region": {"key": "time"},
    }
    return regraft.open_collection({**config, **overrides})


@pytest.fixture
def week(local_place: Place) -> Place:
    """Three good days in the store, a fourth and a fifth in the folder; the fourth is for the test to break."""
    (local_place.directory / "incoming").mkdir()
    for day in range(3):
        write_sst_day(local_place.directory / "incoming" / day_name(day), day, grid=GRID)
    assert sst(local_place).sync()["outcome"] == "done"
    for day in (3, 4):
        write_sst_day(local_place.directory / "incoming" / day_name(day), day, grid=GRID)
    return local_place


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("time,lat,lon,sst\n1,2,3,4\n" * 40)


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>502 Bad Gateway</body></html>")


def another_grid(path: Path) -> None:
    write_sst_day(path, 3, grid=SstGrid(36, 44))


def shifted_grid(path: Path) -> None:
    with netCDF4.Dataset(path, "a") as file:
        file["lat"][:] = file["lat"][:] + np.float32(0.25)


def without_the_key(path: Path) -> None:
    with xr.open_dataset(path, decode_times=False, mask_and_scale=False) as dataset:
        dataset = dataset.load()
    nameless = dataset.isel(time=0).drop_vars("time")
    nameless.encoding.clear()
    nameless.to_netcdf(path)


def another_type(path: Path) -> None:
    with xr.open_dataset(path, decode_times=False, mask_and_scale=False) as dataset:
        dataset = dataset.load()
    name = "sea_surface_temperature"
    words = np.full(dataset[name].shape, "warm", dtype=object)
    dataset[name] = (dataset[name].dims, words)
    dataset.to_netcdf(path)


def damaged_chunk(path: Path) -> None:
    """Flips bytes inside the first deflate stream: the structure is whole, the values are not."""
    content = bytearray(path.read_bytes())
    start = content.index(b"\x78\x5e") + 40
    content[start : start + 40] = bytes(255 - byte for byte in content[start : start + 40])
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [truncated, empty, text, web_page, another_grid, shifted_grid, without_the_key, another_type, damaged_chunk],
    ids=lambda damage: damage.__name__,
)
def test_a_bad_file_is_set_aside_and_the_rest_goes_on(week: Place, damage: Callable[[Path], None]) -> None:
    damage(week.directory / "incoming" / BAD)
    collection = sst(week)
    report = collection.sync()
    assert report["outcome"] == "partial"
    assert report.counts.get("append") == 1, report.counts
    (item,) = report["quarantined"]
    assert item["key"] == BAD
    assert item["category"]
    assert item["message"]
    assert "panic" not in item["message"].lower()
    with xr.open_zarr(week.local_store("store.zarr"), mask_and_scale=False) as found:
        assert found.sizes["time"] == 4
        with xr.open_dataset(week.directory / "incoming" / day_name(4), mask_and_scale=False) as source:
            np.testing.assert_array_equal(
                found["sea_surface_temperature"][3].values, source["sea_surface_temperature"][0].values
            )
    assert collection.status()["quarantined"] == 1

    write_sst_day(week.directory / "incoming" / BAD, 3, grid=GRID)
    assert collection.sync().counts.get("insert") == 1
    assert collection.status()["quarantined"] == 0


def test_a_missing_variable_is_filled_or_refused_as_the_configuration_says(week: Place) -> None:
    path = week.directory / "incoming" / BAD
    with xr.open_dataset(path, decode_times=False, mask_and_scale=False) as dataset:
        dataset = dataset.load()
    dataset.drop_vars("sses_bias").to_netcdf(path)
    strict = sst(week, variables={"missing": "error"}).plan()
    (refused,) = strict.quarantined
    assert refused["key"] == BAD
    assert "sses_bias" in refused["message"]
    assert sst(week).sync().counts["append"] == 2
    with xr.open_zarr(week.local_store("store.zarr"), mask_and_scale=False) as found:
        assert np.unique(found["sses_bias"][3].values).tolist() == [-128]


def test_a_file_that_fails_is_not_opened_for_ever(week: Place) -> None:
    text(week.directory / "incoming" / BAD)
    collection = sst(week, run={"quarantine": {"after": 2}})
    attempts = [item["attempts"] for _ in range(4) for item in collection.sync()["quarantined"]]
    assert attempts == sorted(attempts)
    assert max(attempts) <= 2


def test_a_store_of_somebody_else_is_not_taken_over(local_place: Place) -> None:
    (local_place.directory / "incoming").mkdir()
    write_sst_day(local_place.directory / "incoming" / day_name(0), 0, grid=GRID)
    (local_place.directory / "store.zarr").mkdir()
    (local_place.directory / "store.zarr" / "zarr.json").write_text("{not json")
    with pytest.raises(regraft.RegraftError) as caught:
        sst(local_place).sync()
    assert "zarr.json" in str(caught.value)


def mutant(content: bytes, generator: np.random.Generator) -> bytes:
    """A real file with a few bytes changed, cut, doubled or zeroed."""
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 6))):
        start = int(generator.integers(0, len(data)))
        # Headers are where a reader trusts numbers: half of all changes go there.
        start = start % 2048 if generator.random() < 0.5 else start
        length = int(generator.integers(1, 16))
        kind = int(generator.integers(0, 4))
        if kind == 0:
            data[start : start + length] = generator.bytes(len(data[start : start + length]))
        elif kind == 1:
            data[start : start + length] = b"\xff" * len(data[start : start + length])
        elif kind == 2:
            data[start : start + length] = bytes(len(data[start : start + length]))
        else:
            del data[start + 8 :]
            data += b"\0" * 8
    return bytes(data)


@pytest.mark.timeout(600)
def test_three_hundred_mutants_of_real_files(sample_data: Path, tmp_path: Path) -> None:
    """Each is read, or refused with a reason; after them a good file still goes in. A crash would end this process."""
    folder = sample_data / "gsla"
    families = {
        "classic": folder / "IMOS_OceanCurrent_HV_20110901T000000Z_GSLA_FV02_NRT.nc",
        "netcdf4": folder / "IMOS_OceanCurrent_HV_20240101T000000Z_GSLA_FV02_NRT.nc",
    }
    generator = np.random.default_rng(20220105)
    done = refused = 0
    for family, path in families.items():
        content = path.read_bytes()
        for batch in range(10):
            place = Place(tmp_path / f"{family}-{batch}")
            good = folder / "IMOS_OceanCurrent_HV_20110902T000000Z_GSLA_FV02_NRT.nc"
            place.put(f"incoming/{good.name}", good)
            for number in range(15):
                name = path.name.replace("NRT", f"NRT{number:02d}")
                place.put(f"incoming/{name}", mutant(content, generator))
            urls = {"source": {"url": place.url("incoming/")}, "store": {"url": place.url("store.zarr")}}
            report = regraft.open_collection("definition:gsla", overrides=urls).sync()
            outcomes = {change["key"]: change for change in report.changes}
            assert len(outcomes) == 16
            assert outcomes[good.name]["action"] == "append"
            for item in report["quarantined"]:
                assert item["message"]
                assert item["category"] != "internal", item
                refused += 1
            done += 16
            shutil.rmtree(place.directory)
    assert done == 320
    assert refused
