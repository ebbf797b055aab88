from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
from regraft.config import CollectionConfig, core_json
from regraft.config_file import definition_names, definition_text, load_config
from regraft.errors import NotFoundError

PLACES = {"source": {"url": "/data/in"}, "store": {"url": "/data/out.zarr"}}


def load(name: str) -> CollectionConfig:
    return load_config(f"definition:{name}", overrides=PLACES)


def matches(config: CollectionConfig, key: str) -> bool:
    def one(pattern: str) -> bool:
        if pattern.startswith("re:"):
            return re.search(pattern.removeprefix("re:"), key) is not None
        return fnmatch.fnmatchcase(f"/{key}", pattern.replace("**/", "*/"))

    return any(one(pattern) for pattern in config.source.include)


def test_the_four_are_there() -> None:
    assert definition_names() == ["argo", "gsla", "radar", "sst"]
    with pytest.raises(NotFoundError, match="no ready-made collection `agro`") as caught:
        definition_text("agro")
    assert caught.value.hint == "did you mean `argo`?"


@pytest.mark.parametrize("name", ["argo", "gsla", "radar", "sst"])
def test_a_definition_loads_and_says_why(name: str) -> None:
    config = load(name)
    assert config.name == name
    assert config.variables.include
    comments = [line for line in definition_text(name).splitlines() if line.lstrip().startswith("#")]
    assert len(comments) > 10
    assert f"extends: definition:{name}" in definition_text(name)


@pytest.mark.parametrize("name", ["argo", "gsla", "radar", "sst"])
def test_the_core_takes_a_definition(name: str) -> None:
    core = pytest.importorskip("regraft._core")
    core.Collection(core_json(load(name)))


def test_argo_is_as_asked_for() -> None:
    config = load("argo")
    assert len(config.variables.include) == 40
    assert len(set(config.variables.include)) == 40
    assert (config.region.key, config.region.dimension, config.region.axis.policy) == (
        "DC_REFERENCE",
        "N_PROF",
        "arrival",
    )
    assert config.variables.pad == {"N_LEVELS": 3000}
    assert config.variables.missing == "fill"


def test_sst_has_the_chunks_of_its_predecessor() -> None:
    assert load("sst").store.chunks == {"time": 1, "lat": 1000, "lon": 1000}


@pytest.mark.parametrize(
    ("name", "key", "answer"),
    [
        ("argo", "csiro/5900865/profiles/D5900865_001.nc", "taken"),
        ("argo", "R13857_001.nc", "taken"),
        ("argo", "D5900865_001D.nc", "taken"),
        ("argo", "coriolis/BD3902131_001.nc", "left"),
        ("argo", "SD3902131_001.nc", "left"),
        ("argo", "5900865_prof.nc", "left"),
        ("argo", "5900865_Rtraj.nc", "left"),
        ("gsla", "NRT/2011/IMOS_OceanCurrent_HV_20110901T000000Z_GSLA_FV02_NRT.nc", "taken"),
        ("radar", "IMOS_ACORN_V_20240101T000000Z_TURQ_FV01_1-hour-avg.nc", "taken"),
        ("radar", "IMOS_ACORN_V_20240101T000000Z_TURQ_FV00_1-hour-avg.nc", "left"),
        ("sst", "2022/20220105032000-ABOM-L3S_GHRSST-SSTskin-AVHRR_D-1d_day.nc", "taken"),
        ("sst", "2022/readme.nc", "left"),
    ],
)
def test_which_files_belong(name: str, key: str, answer: str) -> None:
    assert matches(load(name), key) is (answer == "taken")


@pytest.mark.parametrize(
    ("name", "folder"), [("argo", "argo"), ("gsla", "gsla"), ("radar", "radar"), ("sst", "ghrsst_grid_blank")]
)
def test_names_are_those_of_real_files(name: str, folder: str, sample_data: Path) -> None:
    netcdf = pytest.importorskip("netCDF4")
    config = load(name)
    seen: set[str] = set()
    dimensions: set[str] = set()
    files = [
        path for path in sorted((sample_data / folder).rglob("*.nc")) if name == "sst" or matches(config, path.name)
    ]
    assert files
    for path in files:
        with netcdf.Dataset(path) as file:
            seen |= set(file.variables)
            dimensions |= set(file.dimensions)
    key = config.region.key if isinstance(config.region.key, str) else config.region.key[0]
    assert set(config.variables.include) <= seen, set(config.variables.include) - seen
    assert key in seen
    assert set(config.store.chunks) | set(config.variables.pad) <= dimensions
