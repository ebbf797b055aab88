"""Processes that are really killed: after the next sync the store holds what its sources hold, and nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import regraft
import xarray as xr

SIDE = 120
SYNC = "import sys, json, regraft; regraft.open_collection(json.loads(sys.argv[1])).sync(progress=False)"


def write_day(folder: Path, day: int, version: int) -> None:
    """One day whose values tell day and version."""
    path = folder / f"day-{day:03}.nc"
    with netCDF4.Dataset(path.with_suffix(".part"), "w") as file:
        for name, length in (("time", 1), ("y", SIDE), ("x", SIDE)):
            file.createDimension(name, length)
        time_variable = file.createVariable("time", "f8", ("time",))
        time_variable.units = "days since 2020-01-01"
        time_variable[:] = [day]
        for name in ("sst", "quality"):
            data = file.createVariable(name, "i2", ("time", "y", "x"), zlib=True, fill_value=-1)
            data.set_auto_maskandscale(False)
            noise = np.random.default_rng(day).integers(0, 9, (1, SIDE, SIDE), dtype="i2")
            data[:] = noise * 1000 + day * 10 + version
    path.with_suffix(".part").rename(path)


def configuration(folder: Path, chunk: int) -> dict[str, Any]:
    """A collection of days in chunks of several."""
    return {
        "kind": "zarr-collection",
        "name": "killed",
        "source": {"url": str(folder / "in")},
        "store": {"url": str(folder / "out.zarr"), "chunks": {"time": chunk, "y": 40, "x": 40}},
        "region": {"key": "time", "axis": "sorted"},
    }


def check(folder: Path, versions: dict[int, int]) -> None:
    """Every day once, in order, each with the values of its file."""
    dataset = xr.open_zarr(folder / "out.zarr", mask_and_scale=False, decode_times=False)
    assert dataset["time"].values.tolist() == sorted(versions)
    for index, day in enumerate(sorted(versions)):
        noise = np.random.default_rng(day).integers(0, 9, (SIDE, SIDE), dtype="i2")
        for name in ("sst", "quality"):
            expected = noise * 1000 + day * 10 + versions[day]
            assert (dataset[name].values[index] == expected).all(), (name, day)


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_killed_sync_is_repaired_by_the_next(tmp_path: Path, chunk: int) -> None:
    """Inserts at the front, revisions and appends, killed at random moments of their writing."""
    import json

    chance = random.Random(chunk)
    (tmp_path / "in").mkdir()
    versions = dict.fromkeys(range(10, 30), 0)
    for day, version in versions.items():
        write_day(tmp_path / "in", day, version)
    config = configuration(tmp_path, chunk)
    collection = regraft.open_collection(config)
    began = time.monotonic()
    collection.sync(progress=False)
    full = time.monotonic() - began
    rounds = 100 if os.environ.get("REGRAFT_LONG") else 6
    killed = 0
    for turn in range(rounds):
        inserted = chance.choice([day for day in range(60) if day not in versions])
        revised = chance.choice(sorted(versions))
        versions[inserted] = 1
        versions[revised] = turn % 10
        write_day(tmp_path / "in", inserted, versions[inserted])
        write_day(tmp_path / "in", revised, versions[revised])
        process = subprocess.Popen([sys.executable, "-c", SYNC, json.dumps(config)])
        # Wait for the first record of the round, or the first chunk, then a moment more.
        log = tmp_path / "out.zarr.regraft" / "log"
        before = len(list(log.iterdir()))
        while process.poll() is None:
            if len(list(log.iterdir())) > before:
                break
            time.sleep(0.001)
        time.sleep(chance.random() * full)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        collection.sync(progress=False)
        check(tmp_path, versions)
        assert collection.sync(progress=False).outcome == "nothing"
    collection.verify(progress=False).raise_for_failures()
    print(f"chunk {chunk}: {killed} of {rounds} processes were killed in mid-work")
