"""Every real NetCDF file, read by the core and by netCDF4-python: structure, attributes and values are equal.

The core describes a file as JSON (`regraft._core.describe_netcdf`), with a SHA-256 of each variable: its little-endian
bytes in C order, strings joined by NUL. The same is computed here from netCDF4, which reads through netCDF-C.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
from regraft import _core
from regraft.errors import CorruptError, InvalidError

ROOT = Path(os.environ.get("REGRAFT_SAMPLE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.suffix in {".nc", ".nc4", ".h5"})

# Where netCDF4 and the core do not say the same, and why.
EXPECTED_REFUSALS = {
    "netcdf_c/bad_cdf5_begin.nc": "both refuse: a variable's `begin` lies inside another variable",
    "h5_features/committed_dtype.h5": "netCDF-C refuses (HDF error); the core reads what h5py reads",
    "h5_features/compound_type.h5": "netCDF4-python aborts the process; the core lists the compound, without values",
    "h5_features/chunked_lz4.h5": "netCDF4's build lacks the filter; the values are 0, 1, 2, …",
    "h5_features/chunked_lz4_zeros.h5": "netCDF4's build lacks the filter; the values are zeros",
    "h5_features/nc4_groups.nc": "two scales share a `_Netcdf4Dimid`: netCDF-C believes it, the core the references",
}

CLASSIC_KINDS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4_CLASSIC"]

Description = dict[str, Any]


def describe(path: Path) -> Description:
    """What the core says of a file."""
    described: Description = json.loads(_core.describe_netcdf(str(path)))
    return described


def digest(values: np.ndarray[Any, Any]) -> str:
    """The SHA-256 of an array as the core hashes it."""
    if values.dtype == object:
        data = "\0".join(values.ravel()).encode()
    else:
        data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
    return hashlib.sha256(data).hexdigest()


def oracle_attributes(item: Any) -> Description:
    """Attributes by name: text, lists of text, or type and bytes."""
    attributes: Description = {}
    for name in item.ncattrs():
        value = item.getncattr(name)
        if isinstance(value, bytes):
            attributes[name] = value.decode("utf-8", "replace").rstrip("\0")
        elif isinstance(value, str | list):
            attributes[name] = value
        else:
            array = np.atleast_1d(np.asarray(value))
            array = array.astype(array.dtype.newbyteorder("<"))
            attributes[name] = (array.dtype.name, array.tobytes().hex())
    return attributes


def core_attributes(attributes: Description) -> Description:
    """The core's attributes in the form of `oracle_attributes`: netCDF4 drops NULs and unpacks single strings."""

    def form(attribute: Description) -> Any:
        value = attribute["value"]
        if attribute["type"] == "char":
            text = bytes.fromhex(value["bytes"]).decode("utf-8", "replace") if isinstance(value, dict) else value
            return text.replace("\0", "")
        if attribute["type"] == "string":
            return value[0] if len(value) == 1 else value
        return attribute["type"], value["bytes"]

    return {name: form(attribute) for name, attribute in attributes.items()}


def oracle_type(variable: netCDF4.Variable[Any]) -> str | None:
    """The element type as the core names it; `None` for types of the user's making."""
    if variable.dtype is str:
        return "string"
    if isinstance(variable.datatype, netCDF4.CompoundType | netCDF4.VLType):
        return None
    dtype = np.dtype(variable.dtype)
    return "char" if dtype.kind == "S" else dtype.newbyteorder("=").name


def assert_same_group(path: str, core: Description, oracle: netCDF4.Dataset, *, check_values: bool) -> None:
    """A group and all below it."""
    assert core_attributes(core["attributes"]) == oracle_attributes(oracle), path
    dimensions = [[name, len(dimension), dimension.isunlimited()] for name, dimension in oracle.dimensions.items()]
    assert core["dimensions"] == dimensions, path
    assert list(core["variables"]) == list(oracle.variables), path
    for name, variable in oracle.variables.items():
        where = f"{path}/{name}"
        described = core["variables"][name]
        assert described["dimensions"] == list(variable.dimensions), where
        assert described["shape"] == list(variable.shape), where
        assert core_attributes(described["attributes"]) == oracle_attributes(variable), where
        expected_type = oracle_type(variable)
        if expected_type is None:
            assert "not read" in described["error"], where
            continue
        assert described["type"] == expected_type, where
        if check_values:
            variable.set_auto_maskandscale(False)
            variable.set_always_mask(False)
            variable.set_auto_chartostring(False)
            values = variable[...]
            values = np.asarray(values, dtype=object) if expected_type == "string" else np.asarray(values)
            assert described.get("sha256") == digest(values), f"{where}: {described.get('error', 'other values')}"
    assert list(core["groups"]) == list(oracle.groups), path
    for name, group in oracle.groups.items():
        assert_same_group(f"{path}/{name}", core["groups"][name], group, check_values=check_values)


def all_variables(core: Description) -> Iterator[tuple[str, Description]]:
    """Every variable with its path."""
    yield from core["variables"].items()
    for name, group in core["groups"].items():
        yield from ((f"{name}/{path}", variable) for path, variable in all_variables(group))


def test_there_are_sample_files(sample_data: Path) -> None:
    assert sample_data == ROOT
    assert len(FILES) >= 130
    assert set(FILES) >= set(EXPECTED_REFUSALS)


@pytest.mark.parametrize("name", [name for name in FILES if name not in EXPECTED_REFUSALS])
@pytest.mark.timeout(120)
def test_equal_to_netcdf4(name: str) -> None:
    with netCDF4.Dataset(ROOT / name) as oracle:
        assert_same_group("", describe(ROOT / name), oracle, check_values=True)


@pytest.mark.usefixtures("sample_data")
class TestExpectedRefusals:
    """The table above, line by line."""

    def test_overlapping_variables_are_refused_by_both(self) -> None:
        path = ROOT / "netcdf_c/bad_cdf5_begin.nc"
        with pytest.raises(OSError, match="Unknown file format"):
            netCDF4.Dataset(path)
        with pytest.raises(CorruptError, match="var_small"):
            describe(path)

    @pytest.mark.parametrize("name", ["h5_features/committed_dtype.h5", "h5_features/nc4_groups.nc"])
    def test_equal_to_h5py(self, name: str) -> None:
        compared = 0
        with h5py.File(ROOT / name) as oracle:
            for path, variable in all_variables(describe(ROOT / name)):
                dataset = oracle[path]
                assert variable["shape"] == list(dataset.shape)
                if "sha256" in variable and dataset.dtype.kind in "iuf":
                    assert variable["sha256"] == digest(dataset[...])
                    compared += 1
        assert compared

    def test_a_compound_is_listed(self) -> None:
        ((_, records),) = all_variables(describe(ROOT / "h5_features/compound_type.h5"))
        assert records["type"] == "compound"
        assert records["error"].startswith("invalid")

    @pytest.mark.parametrize(("name", "step"), [("chunked_lz4", 1), ("chunked_lz4_zeros", 0)])
    def test_lz4(self, name: str, step: int) -> None:
        path = ROOT / f"h5_features/{name}.h5"
        described = describe(path)
        with netCDF4.Dataset(path) as oracle:
            assert_same_group("", described, oracle, check_values=False)
        values = (np.arange(200) * step).astype("f4")
        assert described["variables"]["data"]["sha256"] == digest(values)


class TestMadeHere:
    """What the real files do not hold."""

    def check(self, path: Path) -> Description:
        described = describe(path)
        with netCDF4.Dataset(path) as oracle:
            assert_same_group("", described, oracle, check_values=True)
        return described

    @pytest.mark.parametrize(
        "layout",
        [
            {"zlib": True, "shuffle": True},
            {"zlib": True, "shuffle": True, "fletcher32": True},
            {"zlib": True, "shuffle": False, "complevel": 9},
            {"fletcher32": True},
            {"contiguous": True},
            {},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("endian", ["little", "big"])
    def test_filters_types_and_byte_orders(self, tmp_path: Path, layout: dict[str, Any], endian: Any) -> None:
        path = tmp_path / "types.nc"
        values = np.random.default_rng(0).integers(0, 100, (37, 53))
        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("y", 37)
            file.createDimension("x", 53)
            for dtype in ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]:
                chunks = {} if "contiguous" in layout else {"chunksizes": (10, 20)}
                ordered = np.dtype(dtype).newbyteorder("<" if endian == "little" else ">")
                endianness = {} if ordered.itemsize == 1 else {"endian": endian}
                variable = file.createVariable(dtype, ordered, ("y", "x"), **endianness, **chunks, **layout)
                variable[:] = values
        self.check(path)

    def test_unwritten_chunks_and_shorter_variables_are_filled(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("time", None)
            file.createDimension("x", 25)
            own = file.createVariable("own", "i2", ("time", "x"), fill_value=-5, chunksizes=(2, 10))
            default = file.createVariable("default", "f8", ("time", "x"), chunksizes=(2, 10), zlib=True)
            file.createVariable("never", "i4", ("x",), chunksizes=(7,))
            file.createVariable("unlimited_never", "u1", ("time",))
            own[6:9, 3:5] = 7
            default[1, 20:] = 1.5
        described = self.check(path)
        assert described["variables"]["default"]["shape"] == [9, 25]

    def test_text(self, tmp_path: Path) -> None:
        path = tmp_path / "text.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("n", 3)
            file.createDimension("length", 4)
            strings = file.createVariable("strings", str, ("n",))
            strings[:] = np.array(["", "Tasman Sea", "naïve 海"], dtype=object)
            file.createVariable("empty", str, ("n",))
            characters = file.createVariable("characters", "S1", ("n", "length"))
            characters[:] = np.frombuffer(b"abcdef\0\0wxyz", "S1").reshape(3, 4)
            file.setncattr_string("one_string", "é")
            file.strings = ["a", "", "ü"]
            file.empty = ""
            file.blank = " "
            strings.numbers = np.array([1, -2, 3], "i8")
            strings.not_a_number = np.float32("nan")
        self.check(path)

    def test_dimensions_of_groups(self, tmp_path: Path) -> None:
        path = tmp_path / "groups.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("x", 2)
            file.createDimension("time", None)
            child = file.createGroup("child")
            child.createDimension("x", 3)
            child.createVariable("x", "f4", ("x",))[:] = [1, 2, 3]
            deep = child.createGroup("deep")
            deep.createVariable("v", "i2", ("time", "x"))[:] = np.arange(12).reshape(4, 3)
            file.createVariable("time", "f8", ("time",))[:2] = [0, 1]
            # A variable named like a dimension that it does not use, and a scale of two dimensions.
            file.createDimension("station", 4)
            file.createVariable("station", "S1", ("station", "x"))[:] = np.full((4, 2), b"s")
            file.createDimension("y", 5)
            file.createVariable("y", "i4", ("x",))[:] = [8, 9]
        described = self.check(path)
        assert described["variables"]["y"]["dimensions"] == ["x"]

    @pytest.mark.parametrize(
        "kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4_CLASSIC"]
    )
    @pytest.mark.parametrize("record_variables", [0, 1, 3])
    def test_records(self, tmp_path: Path, kind: Any, record_variables: int) -> None:
        path = tmp_path / "records.nc"
        values = np.arange(7 * 3).reshape(7, 3)
        with netCDF4.Dataset(path, "w", format=kind) as file:
            file.title = "records"
            file.createDimension("x", 3)
            file.createDimension("time", None)
            file.createVariable("fixed", "f8", ("x",))[:] = [1, 2, 3]
            for number, dtype in enumerate(["i1", "i2", "f4"][:record_variables]):
                file.createVariable(f"record{number}", dtype, ("time", "x"))[:] = values
        self.check(path)

    def test_plain_hdf5(self, tmp_path: Path) -> None:
        path = tmp_path / "plain.h5"
        with h5py.File(path, "w", userblock_size=1024, libver="latest") as file:
            for name, extra in {
                "single": {"chunks": (20, 30)},
                "fixed": {"chunks": (7, 8), "compression": "gzip", "shuffle": True},
                "extensible": {"chunks": (7, 8), "maxshape": (None, 30), "compression": "gzip", "fletcher32": True},
                "tree": {"chunks": (7, 8), "maxshape": (None, None)},
                "contiguous": {},
            }.items():
                file.create_dataset(name, data=np.arange(600, dtype="i4").reshape(20, 30), **extra)
            file["texts"] = np.array([b"ab", b"c"], "S5")
            file["scalar"] = np.float64(2.5)
        described = describe(path)
        with h5py.File(path) as oracle:
            for name, dataset in oracle.items():
                values = np.asarray(dataset.asstr()[...], object) if name == "texts" else np.asarray(dataset[...])
                assert described["variables"][name]["sha256"] == digest(values), name

    def test_shrunken_data_sets_forget_their_old_chunks(self, tmp_path: Path) -> None:
        path = tmp_path / "shrunken.h5"
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("v", data=np.arange(100), chunks=(10,), maxshape=(None,), compression="gzip")
            dataset.resize((33,))
        assert describe(path)["variables"]["v"]["sha256"] == digest(np.arange(33))

    def test_what_reaches_outside_is_refused(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "part.h5", "w") as file:
            file["v"] = np.arange(4)
        with h5py.File(tmp_path / "virtual.h5", "w", libver="latest") as file:
            layout = h5py.VirtualLayout(shape=(4,), dtype="i8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "part.h5"), "v", shape=(4,))
            file.create_virtual_dataset("v", layout)
        with pytest.raises(InvalidError, match="virtual data sets"):
            describe(tmp_path / "virtual.h5")
        with h5py.File(tmp_path / "external.h5", "w") as file:
            file.create_dataset("v", (4,), "i8", external=[(str(tmp_path / "raw.bin"), 0, 32)])
            file["link"] = h5py.ExternalLink("part.h5", "v")
        variables = describe(tmp_path / "external.h5")["variables"]
        assert "external raw data" in variables["v"]["error"]
        assert "link" not in variables


class TestNotNetcdf:
    """Files that are something else say what they are, and are named."""

    @pytest.mark.parametrize(
        ("content", "error", "message"),
        [
            (b"", InvalidError, "found an empty file"),
            (b"station,temperature\n1,2\n", InvalidError, "found text `station,temperature"),
            (b"\x1f\x8b\x08\x00rest", InvalidError, "found a gzip file"),
            (b"CDF\x01\0\0\0", CorruptError, "ends inside its header"),
            (bytes(4096), InvalidError, "only zero bytes"),
        ],
    )
    def test_message(self, tmp_path: Path, content: bytes, error: type[Exception], message: str) -> None:
        path = tmp_path / "day.nc"
        path.write_bytes(content)
        with pytest.raises(error, match=message) as raised:
            describe(path)
        assert "day.nc" in str(raised.value)

    @pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF4"])
    def test_half_an_upload(self, tmp_path: Path, kind: Any) -> None:
        path = tmp_path / "half.nc"
        with netCDF4.Dataset(path, "w", format=kind) as file:
            file.createDimension("x", 5000)
            file.createVariable("v", "f8", ("x",))[:] = np.arange(5000)
        path.write_bytes(path.read_bytes()[:20000])
        with pytest.raises(CorruptError, match="expected a file of") as raised:
            describe(path)
        assert "half.nc" in str(raised.value)
        assert "fetch it again" in str(raised.value)


def test_netcdf4_still_aborts_on_the_compound(sample_data: Path) -> None:
    """Until then the file is in the table: when this fails, take it out."""
    code = "import sys, netCDF4; netCDF4.Dataset(sys.argv[1])['records'][...]"
    path = sample_data / "h5_features/compound_type.h5"
    assert subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False).returncode != 0
