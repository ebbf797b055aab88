"""A random history of arrivals, revisions and removals: the store equals a dictionary model after each sync."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import regraft
import xarray as xr
import zarr
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

WIDTH = 4
FILL = -9999
DAYS = st.integers(min_value=0, max_value=9)
NAMES = st.sampled_from(["a.nc", "b.nc", "c.nc", "deep/d.nc", "e f+%.nc"])


def write_source(path: Path, days: list[int], value: int) -> None:
    """A classic file with one step for each day; `value` tells versions apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", len(days))
        file.createDimension("x", WIDTH)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "days since 2020-01-01"
        time[:] = days
        data = file.createVariable("sst", "i2", ("time", "x"), fill_value=FILL)
        data.set_auto_maskandscale(False)
        data[:] = [[value * 16 + day] * WIDTH for day in days]


class Histories(RuleBasedStateMachine):
    """What a bucket goes through, and what the store should hold."""

    @initialize(
        chunk=st.integers(min_value=1, max_value=4),
        shard=st.sampled_from([None, 2, 3]),
        policy=st.sampled_from(["sorted", "arrival"]),
        batch=st.integers(min_value=1, max_value=3),
    )
    def begin(self, chunk: int, shard: int | None, policy: str, batch: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="regraft-model-"))
        self.bucket: dict[str, tuple[list[int], int, int]] = {}
        self.clock = itertools.count(1)
        self.days_seen: set[int] = set()
        store: dict[str, Any] = {"url": str(self.folder / "out.zarr"), "chunks": {"time": chunk, "x": 2}}
        if shard is not None:
            store["shards"] = {"time": chunk * shard, "x": 2}
        (self.folder / "in").mkdir()
        self.policy = policy
        self.collection = regraft.open_collection(
            {
                "kind": "zarr-collection",
                "name": "model",
                "source": {"url": str(self.folder / "in")},
                "store": store,
                "region": {"key": "time", "axis": policy},
                "guards": {"shrink": "allow"},
                "run": {"batch": {"files": batch}},
            }
        )

    @rule(name=NAMES, days=st.lists(DAYS, min_size=1, max_size=3, unique=True))
    def put(self, name: str, days: list[int]) -> None:
        """A file arrives or is revised."""
        tick = next(self.clock)
        path = self.folder / "in" / name
        write_source(path, sorted(days), tick)
        # The winner is the file last modified: the clock of the model, not the machine's.
        os.utime(path, (1_700_000_000 + tick, 1_700_000_000 + tick))
        self.bucket[name] = (sorted(days), tick, tick)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        """A file goes away."""
        (self.folder / "in" / name).unlink(missing_ok=True)
        self.bucket.pop(name, None)

    @rule(repeated=st.booleans())
    def sync(self, *, repeated: bool) -> None:
        """The store is made to match, perhaps twice."""
        self.collection.sync(progress=False)
        for days, _, _ in self.bucket.values():
            self.days_seen.update(days)
        if repeated:
            report = self.collection.sync(progress=False)
            assert report.outcome == "nothing", report
        self.check()

    def check(self) -> None:
        """Owners by the rule `latest`; days without an owner are fill."""
        if not self.days_seen:
            return
        dataset = xr.open_zarr(self.folder / "out.zarr", mask_and_scale=False, decode_times=False)
        times = dataset["time"].values
        if self.policy == "sorted":
            assert (np.diff(times) > 0).all(), times
        assert sorted(times.tolist()) == sorted(self.days_seen)
        for index, day in enumerate(times.astype(int).tolist()):
            owners = [(tick, value) for days, tick, value in self.bucket.values() if day in days]
            expected = max(owners)[1] * 16 + day if owners else FILL
            found = dataset["sst"].values[index]
            assert (found == expected).all(), (day, expected, found)
        # zarr-python sees the same shape without consolidated metadata.
        assert zarr.open_group(self.folder / "out.zarr", mode="r", use_consolidated=False)["sst"].shape[0] == len(times)
        verification = self.collection.verify(progress=False)
        verification.raise_for_failures()

    @invariant()
    def no_leftovers(self) -> None:
        """No temporary file survives a verb."""
        if hasattr(self, "folder"):
            assert not list(self.folder.glob("out.zarr/**/*.tmp*"))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


long_form = bool(os.environ.get("REGRAFT_LONG_TESTS"))
TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=400 if long_form else 25,
    stateful_step_count=20,
    deadline=None,
    derandomize=not long_form,
    suppress_health_check=list(HealthCheck),
)
