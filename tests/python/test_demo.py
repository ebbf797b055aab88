"""`regraft demo` and the files it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from regraft import demo
from regraft.demo_data import SstGrid, day_name, write_profile, write_sst_day
from regraft.demo_picture import draw_days
from regraft.errors import InvalidError


def test_a_day_looks_like_ghrsst(tmp_path: Path) -> None:
    path = write_sst_day(tmp_path / day_name(0), 0)
    assert path.name == "20220101032000-DEMO-L3S_GHRSST-SSTskin-1d_day-fv01.nc"
    with xr.open_dataset(path, mask_and_scale=False) as dataset:
        assert dataset.sizes == {"time": 1, "lat": 180, "lon": 240}
        assert dataset["sea_surface_temperature"].dtype == np.int16
        assert dataset["quality_level"].dtype == np.int8
        assert dataset["time"].values[0] == np.datetime64("2022-01-01T03:20:00")
        assert dataset["sea_surface_temperature"].encoding["zlib"]
        assert dataset["sea_surface_temperature"].encoding["shuffle"]
    with xr.open_dataset(path) as dataset:
        kelvin = dataset["sea_surface_temperature"]
        assert 275 < float(kelvin.min()) < float(kelvin.max()) < 310
        assert 0.2 < float(kelvin.isnull().mean()) < 0.6


def test_the_same_day_is_the_same_field(tmp_path: Path) -> None:
    paths = [write_sst_day(tmp_path / f"{copy}.nc", 3) for copy in range(2)]
    first, second = (xr.load_dataset(path, mask_and_scale=False) for path in paths)
    xr.testing.assert_identical(first, second)
    other = xr.load_dataset(write_sst_day(tmp_path / "revised.nc", 3, correction=0.5), mask_and_scale=False)
    assert not other["sea_surface_temperature"].equals(first["sea_surface_temperature"])


def test_land_is_where_australia_is() -> None:
    grid = SstGrid()
    assert grid.land[np.argmin(abs(grid.lat + 25)), np.argmin(abs(grid.lon - 134))]
    assert not grid.land[np.argmin(abs(grid.lat + 40)), np.argmin(abs(grid.lon - 120))]
    assert 0.3 < grid.land.mean() < 0.5


def test_a_profile_is_classic(tmp_path: Path) -> None:
    path = write_profile(tmp_path / "R5900001_001.nc", platform=5900001, cycle=1, levels=60)
    assert path.read_bytes()[:4] == b"CDF\x01"
    with xr.open_dataset(path) as dataset:
        assert dataset.sizes["N_LEVELS"] == 60
        assert dataset["DC_REFERENCE"].values[0].strip() == b"5900001/1"


def test_the_picture_shows_every_day(tmp_path: Path) -> None:
    grid = SstGrid(18, 24)
    field = grid.temperature(0) - 273.15
    path = draw_days(tmp_path / "days.png", grid, ["a", "b"], [("now", {0: field})], {0: "note"})
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_demo_does_what_its_story_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = demo.run(tmp_path / "demo")
    assert result["verified"]["equal"]
    assert [step["actions"] for step in result["steps"] if step["collection"].startswith("A week")] == [
        {"append": 3},
        {"append": 1},
        {"overwrite": 1},
        {"insert": 1},
        {"append": 1, "quarantine": 1},
        {"insert": 1},
        {"overwrite": 1},
        {"restore": 1},
        {"blank": 1},
        {},
    ]
    assert [step["actions"] for step in result["migration"]["steps"]] == [
        {"done": 8},
        {"done": 8, "conflict": 1, "missing_step": 1},
        {"done": 1, "missing_step": 1},
        {"rolled_back": 8},
    ]
    assert result["migration"]["verified"]["values"] > 1_000_000
    assert result["seconds"] < 60
    assert Path(result["picture"]).is_file()
    printed = capsys.readouterr()
    assert "what regraft did" in printed.out
    assert "regraft zarr provenance" in printed.out
    assert "regraft parquet plan" in printed.out
    with xr.open_zarr(tmp_path / "demo" / "sst.zarr") as dataset:
        assert dataset.sizes["time"] == 7


def test_json_is_one_document_and_an_old_demo_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "regraft", "demo", "--dir", "here", "--json"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        document = json.loads(done.stdout)
        assert document["kind"] == "demo"
        assert len(document["steps"]) == 13


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("three years")
    with pytest.raises(InvalidError, match="not empty"):
        demo.run(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "three years"
