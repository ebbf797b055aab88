from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from places import Place
from regraft.config_file import load_config
from regraft.datasets import Source, encode, import_function, make_hook, open_source
from regraft.errors import InvalidError, NotFoundError
from regraft.reading import open_store

xr = pytest.importorskip("xarray")
netcdf = pytest.importorskip("netCDF4")


def by_name(encoded: Any) -> dict[str, Any]:
    return {variable["name"]: variable for variable in encoded["variables"]}


def sample(path: Path, kind: str = "NETCDF4") -> Path:
    with netcdf.Dataset(path, "w", format=kind) as file:
        file.title = "made"
        file.createDimension("time", None)
        file.createDimension("lat", 3)
        file.createDimension("string4", 4)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "days since 1985-01-01 00:00:00"
        time.calendar = "gregorian"
        time[:] = [9739.25]
        file.createVariable("lat", "f4", ("lat",))[:] = [1, 2, 3]
        packed = file.createVariable("sst", "i2", ("time", "lat"), fill_value=-32768)
        packed.set_auto_maskandscale(False)
        packed.scale_factor = 0.01
        packed.add_offset = 273.15
        packed[:] = np.array([[-5, -32768, 32767]], "i2")
        quality = file.createVariable("quality", "i1", ("time", "lat"))
        quality[:] = [[1, 2, 3]]
        names = file.createVariable("name", "S1", ("time", "string4"))
        names[:] = np.array([[b"a", b"b", b" ", b" "]], "S1")
    return path


@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize("how", ["path", "bytes"])
def test_untouched_values_come_back_bit_for_bit(kind: Any, how: str, tmp_path: Path) -> None:
    path = sample(tmp_path / "a.nc", kind)
    (tmp_path / "hooks.py").write_text(HOOK)
    hook = make_hook(config(f"{tmp_path}/hooks.py:same", tmp_path))
    assert hook is not None
    encoded = hook("a.nc", str(path), None) if how == "path" else hook("a.nc", None, path.read_bytes())
    variables = by_name(encoded)
    assert encoded["attributes"]["title"] == "made"
    assert encoded["dimensions"]["lat"] == 3
    assert variables["sst"]["data"].dtype == np.int16
    np.testing.assert_array_equal(variables["sst"]["data"], [[-5, -32768, 32767]])
    assert variables["sst"]["attributes"]["scale_factor"] == 0.01
    assert variables["sst"]["attributes"]["_FillValue"] == -32768
    assert variables["quality"]["data"].dtype == np.int8
    np.testing.assert_array_equal(variables["time"]["data"], [9739.25])
    assert variables["time"]["attributes"]["units"] == "days since 1985-01-01 00:00:00"
    assert variables["name"]["data"].tolist() == [b"ab  "]
    assert all(type(value) in (str, int, float, list) for value in variables["sst"]["attributes"].values())


def test_arrays_that_are_ready_are_not_copied() -> None:
    values = np.arange(6, dtype="f4").reshape(2, 3)
    encoded = by_name(encode(xr.Dataset({"a": (("x", "y"), values)})))
    assert np.shares_memory(encoded["a"]["data"], values)


def test_arrays_are_contiguous_native_and_keep_their_rank() -> None:
    dataset = xr.Dataset(
        {
            "turned": (("x", "y"), np.arange(6, dtype="f4").reshape(3, 2).T),
            "big": ("x", np.array([1, 2], ">i4")),
            "scalar": ((), np.int32(7)),
            "flag": ("x", np.array([True, False])),
        }
    )
    encoded = by_name(encode(dataset))
    assert encoded["turned"]["data"].flags.c_contiguous
    np.testing.assert_array_equal(encoded["turned"]["data"], [[0, 2, 4], [1, 3, 5]])
    assert encoded["big"]["data"].dtype.isnative
    assert encoded["big"]["data"].tolist() == [1, 2]
    assert encoded["scalar"]["data"].shape == ()
    assert encoded["flag"]["data"].tolist() == [1, 0]
    assert encoded["flag"]["data"].dtype == np.int8


def test_text_becomes_fixed_bytes() -> None:
    dataset = xr.Dataset(
        {
            "objects": ("x", np.array(["a", "häß", None], dtype=object)),
            "wide": ("x", np.array(["x", "yy", ""])),
            "none": ("x", np.array(["", "", ""])),
        }
    )
    encoded = by_name(encode(dataset))
    assert encoded["objects"]["data"].dtype == "S5"
    assert encoded["objects"]["data"].tolist() == [b"a", "häß".encode(), b""]
    assert encoded["wide"]["data"].tolist() == [b"x", b"yy", b""]
    assert encoded["none"]["data"].dtype == "S1"


def test_times_get_units() -> None:
    dataset = xr.Dataset(coords={"time": np.array(["2022-01-05", "2022-01-06"], "datetime64[ns]")})
    encoded = by_name(encode(dataset))["time"]
    assert encoded["data"].dtype.kind in "if"
    assert "since" in encoded["attributes"]["units"]


def test_coordinates_are_named_as_in_a_file() -> None:
    dataset = xr.Dataset({"v": (("i", "j"), np.zeros((2, 2)))}, coords={"lon": (("i", "j"), np.ones((2, 2)))})
    assert by_name(encode(dataset))["v"]["attributes"]["coordinates"] == "lon"


def test_nan_without_a_fill_value_is_never_cast_into_integers() -> None:
    dataset = xr.Dataset({"v": ("x", np.array([1.0, np.nan]))})
    dataset.v.encoding = {"dtype": "int16"}
    with pytest.raises(InvalidError, match="`v` has missing values") as caught:
        encode(dataset)
    assert "_FillValue" in str(caught.value.hint)
    dataset.v.encoding["_FillValue"] = -1
    assert by_name(encode(dataset))["v"]["data"].tolist() == [1, -1]


def test_what_a_packing_cannot_hold_is_refused() -> None:
    dataset = xr.Dataset({"v": ("x", np.array([1.0, 400.0]))})
    dataset.v.encoding = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32768}
    with pytest.raises(InvalidError, match=r"`v` holds `400\.0`"):
        encode(dataset)


def test_types_that_netcdf_has_not_are_refused() -> None:
    with pytest.raises(InvalidError, match="`v` has the type `complex128`"):
        encode(xr.Dataset({"v": ("x", np.array([1j]))}))
    with pytest.raises(InvalidError, match=r"`v` .*"):
        encode(xr.Dataset({"v": ("x", np.array([dt.date(2022, 1, 1), {}], dtype=object))}))


def config(preprocess: str, folder: Path) -> Any:
    return load_config(
        {
            "name": "a",
            "source": {"url": f"{folder}/", "preprocess": preprocess},
            "store": {"url": str(folder / "a.zarr")},
            "region": {"key": "time"},
        }
    )


HOOK = """
def same(dataset, source):
    assert dataset.sst.dtype.kind == "f"
    return dataset


def tidy(dataset, source):
    tidy.seen = source
    return dataset[["sst"]].isel(lat=slice(0, 2)) + 1


def wrong(dataset, source):
    return dataset.sst


def fails(dataset, source):
    raise ZeroDivisionError("no")
"""


def test_a_hook_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOK)
    path = sample(tmp_path / "a.nc")
    hook = make_hook(config(f"{tmp_path}/hooks.py:tidy", tmp_path))
    assert hook is not None
    for encoded in (hook("a.nc", str(path), None), hook("a.nc", None, path.read_bytes())):
        variables = by_name(encoded)
        assert variables["sst"]["data"].shape == (1, 2)
        assert variables["sst"]["data"][0, 0] == pytest.approx(274.1)


def test_a_hook_is_told_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sst_hooks.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    path = sample(tmp_path / "a.nc")
    hook = make_hook(config("sst_hooks:tidy", tmp_path))
    assert hook is not None
    hook("2022/a.nc", str(path), None)
    seen = sys.modules["sst_hooks"].tidy.seen
    assert seen == Source("2022/a.nc", f"{tmp_path}/2022/a.nc", None, path.stat().st_size)


CROWD = """
import regraft

source = {"url": "in", "preprocess": "hooks.py:same"}
tree = {"name": "a", "source": source, "store": {"url": "a.zarr"}, "region": {"key": "time"}, "run": {"workers": 8}}
report = regraft.open_collection(tree).sync(progress=False)
report.raise_for_failures()
print(report.counts)
"""


def test_many_threads_read_for_hooks(tmp_path: Path) -> None:
    """The readers' libraries are not made for threads: without the lock about half of such processes die."""
    (tmp_path / "in").mkdir()
    (tmp_path / "hooks.py").write_text("def same(dataset, source):\n    return dataset\n")
    for day in range(64):
        with netcdf.Dataset(tmp_path / "in" / f"{day:02}.nc", "w") as file:
            file.createDimension("time", 1)
            file.createDimension("x", 500)
            time = file.createVariable("time", "i4", ("time",))
            time.units = "days since 2020-01-01"
            time[:] = [day]
            for name in "abcd":
                file.createVariable(name, "i2", ("time", "x"), zlib=True)[:] = [np.arange(500)]
    done = subprocess.run(
        [sys.executable, "-c", CROWD], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "{'append': 64}\n"), done.stderr


def test_hooks_that_go_wrong_say_so(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOK)
    path = sample(tmp_path / "a.nc")
    wrong = make_hook(config(f"{tmp_path}/hooks.py:wrong", tmp_path))
    assert wrong is not None
    with pytest.raises(InvalidError, match=r"returned `DataArray`, expected `xarray\.Dataset`"):
        wrong("a.nc", str(path), None)
    fails = make_hook(config(f"{tmp_path}/hooks.py:fails", tmp_path))
    assert fails is not None
    with pytest.raises(ZeroDivisionError):
        fails("a.nc", str(path), None)
    with pytest.raises(InvalidError, match=r"has no function `none`"):
        make_hook(config(f"{tmp_path}/hooks.py:none", tmp_path))
    with pytest.raises(InvalidError, match="cannot be imported: ModuleNotFoundError"):
        import_function("no_such_module_anywhere:f")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(InvalidError, match="cannot be imported: ZeroDivisionError"):
        import_function(f"{tmp_path}/broken.py:f")


def test_no_hook_is_none(tmp_path: Path) -> None:
    tree = {"name": "a", "source": {"url": "a"}, "store": {"url": "b"}, "region": {"key": "time"}}
    assert make_hook(load_config(tree)) is None


def test_files_that_are_no_netcdf_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"`a\.nc` is no NetCDF file"), open_source(b"hello, world", "a.nc"):
        pass
    broken = tmp_path / "b.nc"
    broken.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 64)
    with pytest.raises(InvalidError, match=r"`b\.nc` cannot be opened"), open_source(str(broken), "b.nc"):
        pass


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_a_store_opens_wherever_it_is(place: Place) -> None:
    written = place.directory / "written.zarr"
    xr.Dataset({"a": ("x", np.arange(5))}).to_zarr(written)
    for path in written.rglob("*"):
        if path.is_file():
            place.put(f"store.zarr/{path.relative_to(written).as_posix()}", path)
    with open_store(place.url("store.zarr"), place.storage_options) as opened:
        assert opened.a.values.tolist() == [0, 1, 2, 3, 4]


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no store"):
        open_store(str(tmp_path / "none.zarr"), {})
    with pytest.raises(InvalidError, match="inside the core"):
        open_store("memory://x", {})


@pytest.mark.parametrize("folder", ["gsla", "radar"])
def test_real_files_come_back_bit_for_bit(folder: str, sample_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "identity_hook", SimpleNamespace(same=lambda dataset, _source: dataset))
    for path in sorted((sample_data / folder).glob("*.nc")):
        hook = make_hook(config("identity_hook:same", path.parent))
        assert hook is not None
        variables = by_name(hook(path.name, str(path), None))
        with netcdf.Dataset(path) as file:
            file.set_auto_maskandscale(False)
            for name, variable in file.variables.items():
                if variable.dtype.kind not in "iuf":
                    continue
                data = variables[name]["data"]
                assert data.dtype == variable.dtype.newbyteorder("="), name
                np.testing.assert_array_equal(data, variable[...], err_msg=f"{path.name}: {name}")
