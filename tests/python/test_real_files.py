"""Real files of IMOS, Argo and GHRSST into stores on a disk and on two S3 servers, equal to what xarray reads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import regraft
import xarray as xr
from places import Place

pytestmark = pytest.mark.timeout(300)

RAW: dict[str, Any] = {"mask_and_scale": False, "decode_times": False}


def collection(place: Place, definition: str, **overrides: Any) -> regraft.Collection:
    """A ready-made definition over the place's `incoming/`."""
    urls = {"source": {"url": place.url("incoming/")}, "store": {"url": place.url("store.zarr")}}
    for section, values in overrides.items():
        urls[section] = {**urls.get(section, {}), **values}
    return regraft.open_collection(f"definition:{definition}", overrides=urls, storage_options=place.storage_options)


def actions(report: regraft.Report) -> dict[str, int]:
    """What was done, without what was not."""
    return {action: count for action, count in report.counts.items() if action != "nothing"}


def store(place: Place) -> xr.Dataset:
    """The store as xarray opens it with no flags but "leave the values as they are"."""
    return xr.open_zarr(place.local_store("store.zarr"), **RAW)


def fill_value(array: xr.DataArray) -> Any:
    return array.attrs.get("_FillValue", array.encoding.get("fill_value"))


def assert_equals_files(found: xr.Dataset, files: Sequence[Path | None], dimension: str) -> None:
    """Every variable along the axis is bit-equal to the files, one by one; what a file lacks is fill value."""
    opened = [xr.open_dataset(path, **RAW) if path else None for path in files]
    present = [dataset for dataset in opened if dataset is not None]
    compared = 0
    for name, array in found.variables.items():
        if name == dimension or not any(name in dataset for dataset in present):
            continue
        if array.dims[:1] != (dimension,):
            np.testing.assert_allclose(array.values, present[0][name].values, rtol=0, atol=1e-5, err_msg=str(name))
            continue
        for index, dataset in enumerate(opened):
            values = array[index].values
            if dataset is None or name not in dataset:
                expected = np.full(values.shape, fill_value(found[name]))
            else:
                expected = dataset[name].values[0]
                assert values.dtype == expected.dtype, name
            np.testing.assert_array_equal(values, expected, err_msg=f"{name} of {index}")
            compared += 1
    assert compared
    for dataset in present:
        dataset.close()


def revise(path: Path, copy: Path, variable: str) -> Path:
    """A copy of a file in which one variable differs, as a reprocessing makes it."""
    shutil.copyfile(path, copy)
    copy.chmod(0o644)
    with netCDF4.Dataset(copy, "a") as file:
        file.set_auto_maskandscale(False)
        values = file[variable][:]
        file[variable][:] = np.where(values == file[variable]._FillValue, values, values // 2)
    return copy


class TestSeaLevel:
    """GSLA: two classic files of 2011 and a NetCDF-4 file of 2024, which has two variables more."""

    @pytest.fixture
    def days(self, sample_data: Path) -> list[Path]:
        names = ("20110901", "20110902", "20240101")
        return [sample_data / "gsla" / f"IMOS_OceanCurrent_HV_{name}T000000Z_GSLA_FV02_NRT.nc" for name in names]

    def test_any_order_gives_the_files_sorted_by_time(self, place: Place, days: list[Path], tmp_path: Path) -> None:
        gsla = collection(place, "gsla")
        for day, expected in ((days[2], "append"), (days[0], "insert"), (days[1], "insert")):
            place.put(f"incoming/{day.name}", day)
            assert actions(gsla.sync()) == {expected: 1}, day.name
        with store(place) as found:
            assert found["TIME"].values.tolist() == [9739.0, 9740.0, 14244.0]
            assert {found[name].dtype for name in ("GSLA", "GSL", "UCUR", "VCUR")} == {np.dtype("int16")}
            assert_equals_files(found, days, "TIME")
        assert gsla.sync()["outcome"] == "nothing"

        revised = revise(days[0], tmp_path / "revised.nc", "GSLA")
        place.put(f"incoming/{days[0].name}", revised)
        before = place.keys("store.zarr/")
        assert actions(gsla.sync()) == {"overwrite": 1}
        with store(place) as found:
            assert_equals_files(found, [revised, *days[1:]], "TIME")
        touched = {key for key, tag in place.keys("store.zarr/").items() if before.get(key) != tag}
        assert not {key for key in touched if "LATITUDE" in key or "LONGITUDE" in key}

        place.delete(f"incoming/{days[0].name}")
        assert actions(gsla.sync()) == {"blank": 1}
        with store(place) as found:
            assert found["TIME"].values.tolist() == [9739.0, 9740.0, 14244.0]
            assert_equals_files(found, [None, *days[1:]], "TIME")
        assert gsla.sync()["outcome"] == "nothing"

        place.put(f"incoming/{days[0].name}", days[0])
        gsla.sync().raise_for_failures()
        with store(place) as found:
            assert_equals_files(found, days, "TIME")
        assert gsla.verify()["failed"] == []

    def test_one_commit_equals_three(self, local_place: Place, days: list[Path]) -> None:
        for day in days:
            local_place.put(f"incoming/{day.name}", day)
        report = collection(local_place, "gsla").sync()
        assert actions(report) == {"append": 3}
        assert len(report["commits"]) == 1
        with store(local_place) as found:
            assert_equals_files(found, days, "TIME")

    def test_zarr_2(self, local_place: Place, days: list[Path]) -> None:
        gsla = collection(local_place, "gsla", store={"format": "zarr2", "shards": None})
        for day in (days[2], days[0], days[1]):
            local_place.put(f"incoming/{day.name}", day)
            gsla.sync().raise_for_failures()
        assert (local_place.directory / "store.zarr" / ".zmetadata").is_file()
        with store(local_place) as found:
            assert_equals_files(found, days, "TIME")

    def test_delayed_mode_wins_and_near_real_time_comes_back(
        self, local_place: Place, days: list[Path], tmp_path: Path
    ) -> None:
        gsla = collection(local_place, "gsla")
        delayed = days[0].name.replace("NRT", "DM00")
        local_place.put(f"incoming/{days[0].name}", days[0])
        gsla.sync()
        revised = revise(days[0], tmp_path / "delayed.nc", "UCUR")
        local_place.put(f"incoming/{delayed}", revised)
        assert actions(gsla.sync()) == {"overwrite": 1}
        with store(local_place) as found:
            assert_equals_files(found, [revised], "TIME")
        (row,) = gsla.provenance(index=0)
        assert row["key"] == delayed
        assert [runner["key"] for runner in row["runners_up"]] == [days[0].name]
        local_place.delete(f"incoming/{delayed}")
        assert actions(gsla.sync()) == {"restore": 1}
        with store(local_place) as found:
            assert_equals_files(found, [days[0]], "TIME")


class TestRadar:
    """Hourly currents of two sites, one on a curvilinear grid."""

    @pytest.mark.parametrize(("site", "order"), [("TURQ", (2, 0, 1)), ("NWA", (1, 0))])
    def test_hours_in_any_order(self, place: Place, sample_data: Path, site: str, order: Sequence[int]) -> None:
        hours = sorted((sample_data / "radar").glob(f"*_{site}_*.nc"))
        assert len(hours) == len(order)
        radar = collection(place, "radar")
        for number in order:
            place.put(f"incoming/2024/{hours[number].name}", hours[number])
            radar.sync().raise_for_failures()
        with store(place) as found:
            assert found.sizes["TIME"] == len(hours)
            assert bool((np.diff(found["TIME"].values) > 0).all())
            assert_equals_files(found, hours, "TIME")
        place.delete(f"incoming/2024/{hours[0].name}")
        assert actions(radar.sync()) == {"blank": 1}
        with store(place) as found:
            assert_equals_files(found, [None, *hours[1:]], "TIME")

    def test_another_site_has_another_grid(self, local_place: Place, sample_data: Path) -> None:
        for path in sorted((sample_data / "radar").glob("*.nc")):
            local_place.put(f"incoming/{path.name}", path)
        report = collection(local_place, "radar").sync()
        assert report["outcome"] == "partial"
        assert actions(report) == {"append": 2}
        assert {item["key"].split("_")[4] for item in report["quarantined"]} == {"TURQ"}


def profiles(found: xr.Dataset) -> Mapping[str, int]:
    """Index of each profile by its reference."""
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in found["DC_REFERENCE"].values]
    return {text.strip(): index for index, text in enumerate(texts)}


class TestArgo:
    """Core profiles of two data centres, 71 to 1010 levels, padded to one length."""

    @pytest.fixture
    def files(self, sample_data: Path) -> list[Path]:
        folder = sample_data / "argo"
        return sorted([*(folder / "csiro_5900865").glob("D*.nc"), *(folder / "jma_4902252").glob("D*.nc")])

    def test_profiles_of_several_floats(self, place: Place, files: list[Path], tmp_path: Path) -> None:
        argo = collection(place, "argo", store={"chunks": {"N_PROF": 5, "N_LEVELS": 800}})
        for path in files[:4]:
            place.put(f"incoming/{path.parent.name}/{path.name}", path)
        assert actions(argo.sync()) == {"append": 4}
        for path in files[4:]:
            place.put(f"incoming/{path.parent.name}/{path.name}", path)
        assert actions(argo.sync()) == {"append": len(files) - 4}
        self.assert_equal(place, files)

        changed = revise(files[1], tmp_path / "revised.nc", "TEMP_ADJUSTED")
        place.put(f"incoming/{files[1].parent.name}/{files[1].name}", changed)
        assert actions(argo.sync()) == {"overwrite": 1}
        self.assert_equal(place, [files[0], changed, *files[2:]])

        place.delete(f"incoming/{files[1].parent.name}/{files[1].name}")
        assert actions(argo.sync()) == {"blank": 1}
        with store(place) as found:
            assert found.sizes["N_PROF"] == len(files)
            assert np.unique(found["TEMP"][1].values).tolist() == [np.float32(99999.0)]
        assert argo.sync()["outcome"] == "nothing"

    @staticmethod
    def assert_equal(place: Place, files: list[Path]) -> None:
        with store(place) as found:
            assert found.sizes["N_LEVELS"] == 3000
            index_of = profiles(found)
            assert len(index_of) == len(files)
            for path in files:
                with xr.open_dataset(path, **RAW) as source:
                    levels = source.sizes["N_LEVELS"]
                    index = index_of[bytes(source["DC_REFERENCE"].values[0]).decode().strip()]
                    for name in found.data_vars:
                        values = found[name][index].values
                        if name not in source:
                            continue
                        expected = source[name][0].values
                        if found[name].dims == ("N_PROF", "N_LEVELS"):
                            padding = np.unique(values[levels:])
                            assert padding.size == 1, f"{name} of {path.name}: {padding}"
                            values = values[:levels]
                        np.testing.assert_array_equal(
                            trimmed(values), trimmed(expected), err_msg=f"{name} of {path.name}"
                        )

    def test_a_blank_reference_says_nothing_about_the_place(
        self, local_place: Place, sample_data: Path, files: list[Path]
    ) -> None:
        blank = sorted((sample_data / "argo" / "coriolis_3902131").glob("D*.nc"))
        for path in [files[0], *blank]:
            local_place.put(f"incoming/{path.name}", path)
        report = collection(local_place, "argo").sync()
        assert actions(report) == {"append": 1}
        assert {item["key"] for item in report["quarantined"]} == {path.name for path in blank}
        assert all("blank" in item["message"] for item in report["quarantined"])


def trimmed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Text without its padding, as str; numbers as they are."""
    if values.dtype.kind in "SOU":
        return np.array([(v.decode() if isinstance(v, bytes) else str(v)).rstrip("\0 ") for v in values.reshape(-1)])
    return values


def test_ghrsst_grid_keeps_its_structure(place: Place, sample_data: Path) -> None:
    """A real L3S grid whose values the origin blanked: dimensions, types, coordinates, attributes."""
    path = sample_data / "ghrsst_grid_blank" / "satellite_ghrsst_l3s_1day_daytime_single_sensor_australia.nc"
    place.put(f"incoming/{path.name}", path)
    names = ["sea_surface_temperature", "quality_level", "l2p_flags", "sses_bias"]
    sst = collection(place, "sst", source={"include": ["*.nc"]}, variables={"include": names})
    report = sst.sync()
    report.raise_for_failures()
    with store(place) as found, xr.open_dataset(path, **RAW) as source:
        assert found.sizes == {"time": 1, "lat": 4500, "lon": 6000}
        for name in ("time", "lat", "lon"):
            np.testing.assert_array_equal(found[name].values, source[name].values)
        for name in set(names) & set(source.variables):
            assert found[name].dtype == source[name].dtype
            assert found[name].dims == source[name].dims
            assert found[name].attrs.get("units") == source[name].attrs.get("units")
            np.testing.assert_array_equal(found[name][0, ::50, ::50].values, source[name][0, ::50, ::50].values)
