"""Ctrl-C in the middle of a long verb: out within a second, with the right exit code, and the next run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import regraft
import xarray as xr
from places import Place

DAYS = 24
SIDE = 600
SOON = 5.0
"""Seconds from the signal to the end: one, on a machine that does nothing else; all of the work takes many more."""
PATIENCE = 60.0
"""Seconds that a started process may take to its first commit, on a machine that compiles beside."""

API = """
import json, sys, time, regraft

config, options = map(json.loads, sys.argv[1:])
collection = regraft.open_collection(config, storage_options={"store": options})
try:
    collection.sync(progress=False)
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
    raise
"""


@pytest.fixture(params=["local", pytest.param("ministack", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(tmp_path)
    server = request.getfixturevalue("ministack_server")
    return Place(tmp_path, server, server.new_bucket())


@pytest.fixture
def config(place: Place, tmp_path: Path) -> dict[str, Any]:
    """Days of noise, compressed so hard that they take many seconds, four to a commit."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for day in range(DAYS):
        with netCDF4.Dataset(folder / f"day-{day:02}.nc", "w", format="NETCDF3_64BIT_OFFSET") as file:
            for name, length in (("time", None), ("y", SIDE), ("x", SIDE)):
                file.createDimension(name, length)
            axis = file.createVariable("time", "f8", ("time",))
            axis.units = "days since 2020-01-01"
            axis[:] = [day]
            file.createVariable("sst", "i2", ("time", "y", "x"), fill_value=-1)[:] = noise(day)[None]
    return {
        "kind": "zarr-collection",
        "name": "interrupted",
        "source": {"url": str(folder)},
        "store": {
            "url": place.url("store.zarr"),
            "chunks": {"time": 1, "y": 300, "x": 300},
            "level": 19,
        },
        "region": {"key": "time"},
        "run": {"batch": {"files": 4}},
    }


def noise(day: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(day).integers(0, 300, (SIDE, SIDE), dtype="i2")


def is_committed(place: Place) -> bool:
    """Whether there is a first commit; in the log its announcement comes before it."""
    return sum(key.endswith(".json") for key in place.keys("store.zarr.regraft/log/")) >= 2


@contextlib.contextmanager
def interrupted(
    place: Place, command: list[str], environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A process that got SIGINT after its first commit, and when it got it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_committed(place):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "no commit yet"
                time.sleep(0.01)
            time.sleep(0.1)
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            yield process, sent
        finally:
            process.kill()


def assert_goes_on(place: Place, config: dict[str, Any]) -> None:
    """Some of the work is done and kept; the same verb does the rest, each file once."""
    collection = regraft.open_collection(config, storage_options={"store": place.storage_options})
    done = int(collection.status()["axis_length"] or 0)
    assert 0 < done < DAYS, "the signal came too early or too late to say anything"
    collection.sync(progress=False).raise_for_failures()
    assert collection.sync(progress=False).outcome == "nothing"
    assert [row["key"] for row in collection.ledger()] == [f"day-{day:02}.nc" for day in range(DAYS)]
    assert not [key for key in place.keys("store.zarr") if ".tmp" in key]
    with xr.open_zarr(place.local_store("store.zarr"), mask_and_scale=False, decode_times=False) as found:
        assert found["time"].values.tolist() == list(range(DAYS))
        for day in range(DAYS):
            np.testing.assert_array_equal(found["sst"][day].values, noise(day))


def test_the_api_raises_at_once(place: Place, config: dict[str, Any]) -> None:
    command = [sys.executable, "-c", API, json.dumps(config), json.dumps(place.storage_options)]
    with interrupted(place, command) as (process, sent):
        output, complaint = process.communicate(timeout=30)
    assert float(output) - sent < SOON, complaint
    # Python ends itself by the signal, so that a shell's loop stops too.
    assert process.returncode == -signal.SIGINT, complaint
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    assert_goes_on(place, config)


def test_the_command_ends_at_once(place: Place, config: dict[str, Any], tmp_path: Path) -> None:
    # A configuration file may name secrets, not hold them.
    secrets = {name: value for name, value in place.storage_options.items() if name.endswith(("key", "key_id"))}
    named = {**place.storage_options, **{name: f"${{{name.upper()}}}" for name in secrets}}
    file = tmp_path / "interrupted.json"
    file.write_text(json.dumps({**config, "store": {**config["store"], "storage_options": named}}))
    environment = {**os.environ, **{name.upper(): value for name, value in secrets.items()}}
    command = [sys.executable, "-m", "regraft", "zarr", "sync", str(file), "--json"]
    with interrupted(place, command, environment) as (process, sent):
        output, complaint = process.communicate(timeout=30)
        took = time.monotonic() - sent
    assert process.returncode == 130, complaint
    assert took < SOON, complaint
    assert output == ""
    assert complaint.startswith("interrupted; ")
    assert "Traceback" not in complaint
    assert_goes_on(place, config)
