"""Random histories: the store equals a dictionary model after each sync, and what was delivered after each drain.

`Histories` is what a bucket goes through: arrivals, revisions, removals. `Deliveries` adds what is told about it, to
several collection objects: events that come late, twice, out of order, wrongly or never, and workers that are killed.
The long form is REGRAFT_LONG=1.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import regraft
import xarray as xr
import zarr
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from regraft.events import Event
from workers import LONG, Worker

pytestmark = pytest.mark.timeout(3600 if LONG else 300)

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
        self.config = {
            "kind": "zarr-collection",
            "name": "model",
            "source": {"url": str(self.folder / "in")},
            "store": store,
            "region": {"key": "time", "axis": policy},
            "guards": {"shrink": "allow"},
            "run": {"batch": {"files": batch}},
        }
        self.collection = regraft.open_collection(self.config)

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


class Deliveries(Histories):
    """The same, told to two collection objects by unreliable messengers."""

    @initialize()
    def open_another(self) -> None:
        self.events: list[Event] = []
        self.unclean: dict[str, set[int]] = {}
        """Sources that changed since the store was last made to look at them, with every day they had since."""
        self.delivered: set[str] = set()
        self.sequencer = itertools.count(1)

    @property
    def collections(self) -> list[regraft.Collection]:
        if not hasattr(self, "another"):
            self.another = regraft.open_collection(self.config)
        return [self.collection, self.another]

    def changed(self, name: str, before: set[int], operation: Any) -> None:
        self.unclean.setdefault(name, before).update(self.days_of(name))
        self.delivered.discard(name)
        self.events.append(Event(name, operation=operation, sequencer=f"{next(self.sequencer):016x}"))

    def days_of(self, name: str) -> set[int]:
        return set(self.bucket[name][0]) if name in self.bucket else set()

    @rule(name=NAMES, days=st.lists(DAYS, min_size=1, max_size=3, unique=True))
    def put(self, name: str, days: list[int]) -> None:
        before = self.days_of(name)
        super().put(name, days)
        self.changed(name, before, "put")

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        before = self.days_of(name)
        super().remove(name)
        self.changed(name, before, "remove")

    @precondition(lambda self: self.events)
    @rule(data=st.data(), which=st.integers(0, 1), keep=st.booleans())
    def deliver(self, data: st.DataObject, which: int, *, keep: bool) -> None:
        """Some of the events arrive, in any order; what is kept arrives again."""
        count = data.draw(st.integers(1, len(self.events)))
        chosen = data.draw(st.permutations(self.events))[:count]
        asked = self.collections[which].submit([*chosen, chosen[0]])
        assert asked["duplicates"] >= 1
        assert not asked["ignored"]
        self.delivered.update(event.key for event in chosen)
        if not keep:
            self.events = [event for event in self.events if event not in chosen]

    @precondition(lambda self: self.events)
    @rule()
    def lose(self) -> None:
        """An event is lost."""
        self.events.pop(0)

    @rule(which=st.integers(0, 1))
    def lie(self, which: int) -> None:
        """Something is told that did not happen."""
        self.collections[which].submit([Event("a.nc", operation="remove"), "e f+%.nc"])
        self.delivered.update({"a.nc", "e f+%.nc"})

    @rule(which=st.integers(0, 1))
    def drain(self, which: int) -> None:
        """What was delivered is settled, and nothing waits."""
        self.collections[which].drain(wait=30, progress=False)
        assert not list(self.folder.glob("out.zarr.regraft/inbox/*"))
        for name in self.delivered:
            self.unclean.pop(name, None)
        self.delivered.clear()
        self.check()

    @rule(which=st.integers(0, 1))
    def sync_either(self, which: int) -> None:
        """Whatever was lost is found by looking."""
        self.collections[which].sync(progress=False)
        self.looked()
        assert self.collections[1 - which].sync(progress=False).outcome == "nothing"

    @rule(delay=st.floats(0, 0.03), verb=st.sampled_from(["sync", "drain"]))
    def crash(self, delay: float, verb: str) -> None:
        """A worker is killed in mid-work; the next one mends it, and a listing finds the rest."""
        worker = Worker()
        try:
            worker.ask("open", config=self.config, storage_options={})
            worker.tell(verb, submit=sorted(self.bucket) if verb == "drain" else None, wait=30)
            time.sleep(delay)
            worker.send(signal.SIGKILL)
        finally:
            worker.end()
        self.collections[delay < 0.01].drain(wait=30, progress=False)
        self.collection.sync(progress=False)
        self.looked()

    def sync(self, *, repeated: bool) -> None:
        """Not as it is: `sync_either`."""

    def looked(self) -> None:
        self.unclean.clear()
        self.delivered.clear()
        self.check()

    def check(self) -> None:
        """Days whose claimants were all looked at have their owners' values; no label comes twice, or from nowhere."""
        self.days_seen.update(day for days, _, _ in self.bucket.values() for day in days)
        self.days_seen.update(*self.unclean.values())
        if not (self.folder / "out.zarr").exists():
            return
        group = zarr.open_group(self.folder / "out.zarr", mode="r")
        times = group["time"][:].astype(int).tolist()
        assert len(set(times)) == len(times), times
        assert self.policy != "sorted" or times == sorted(times), times
        doubtful = set().union(*self.unclean.values())
        certain = {day for days, _, _ in self.bucket.values() for day in days} - doubtful
        assert certain <= set(times) <= self.days_seen, (certain, times, self.days_seen)
        values = group["sst"][:]
        for index, day in enumerate(times):
            if day in doubtful:
                continue
            owners = [(tick, value) for days, tick, value in self.bucket.values() if day in days]
            expected = max(owners)[1] * 16 + day if owners else FILL
            assert (values[index] == expected).all(), (day, expected, values[index])


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=400 if LONG else 25,
    stateful_step_count=20,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(TestHistories.settings, max_examples=200 if LONG else 15, stateful_step_count=25)
