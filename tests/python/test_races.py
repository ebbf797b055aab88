"""Many processes on one collection at once: nothing is lost, and nothing is done twice.

Beside it the same with `xarray.to_zarr(region=…)`, which loses writes: that is what the coordination is for.

The long form (REGRAFT_LONG=1) makes 500 trials on a disk, 200 on ministack, 50 on SeaweedFS, and 32 writers with 1,000
requests; each prints what it did.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from days import (
    GONE,
    assert_no_leftovers,
    assert_nothing_twice,
    assert_store_equals,
    configuration,
    key_of,
    opened,
    put_day,
    records,
)
from places import Place
from workers import LONG, Worker, started

pytestmark = pytest.mark.timeout(7200 if LONG else 300)

TRIALS = {
    "local": {2: 300, 8: 150, 32: 50} if LONG else {2: 4, 8: 2, 32: 1},
    "ministack": {2: 120, 8: 60, 32: 20} if LONG else {2: 2, 8: 1},
    "weed": {2: 30, 8: 15, 32: 5} if LONG else {2: 1, 8: 1},
}
"""Trials by the number of processes that race."""

BEFORE = range(10, 50, 2)
"""Days that the store has when a race begins, four to a chunk; the odd ones may be inserted."""


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    with started(32 if LONG else 8) as found:
        yield found


def places(place: Place, count: int) -> Iterator[Place]:
    """A place for each trial: folders of the folder, and prefixes of the bucket."""
    for number in range(count):
        directory = place.directory / f"trial-{number}"
        directory.mkdir()
        yield Place(directory, place.server, place.bucket, f"trial-{number}/" if place.server else "")


def race(place: Place, racers: list[Worker], chance: random.Random) -> Counter[str]:
    """One trial: a store of some days, then everybody at once appends, inserts, overwrites or removes one day."""
    config = configuration(place, chunk=4, lease=20)
    model = dict.fromkeys(BEFORE, 0)
    for day in BEFORE:
        put_day(place, day, 0)
    opened(place, config).sync(progress=False).raise_for_failures()
    for racer in racers:
        racer.tell("open", config=config, storage_options=place.storage_options)
    for racer in racers:
        assert "opened" in racer.answer()

    # A chunk's neighbours are neighbours in the race as well.
    old = list(BEFORE)[: max(2, len(racers))]
    appended = [*range(60, 60 + len(racers))]
    inserted = chance.sample(range(11, 49, 2), 3)
    days = (
        chance.sample([*old, *appended[: len(racers) // 3 + 1], *inserted], k=len(racers))
        if len(racers) > 2
        else (chance.choice([old[:2], appended[:2], [old[1], appended[0]], [old[3 % len(old)], inserted[0]]]))
    )
    tasks: list[dict[str, Any]] = []
    for number, day in enumerate(days):
        if day in model and chance.random() < 0.3:
            place.delete(f"incoming/{key_of(day)}")
            model[day] = GONE
        else:
            model[day] = 1 + number
            put_day(place, day, model[day])
        verb = chance.choice(["drain", "drain", "drain", "apply", "sync"])
        task: dict[str, Any] = {"verb": verb, "keys": [key_of(day)]}
        if verb == "drain":
            # Either stays until its own turn, or goes at once when another is at work.
            task |= {"submit": [key_of(day)], "wait": chance.choice([None, 60.0])}
        tasks.append(task)
    for racer, task in zip(racers, tasks, strict=True):
        racer.tell(**task)
    answers = [racer.answer() for racer in racers]
    assert not [answer for answer in answers if "error" in answer], answers

    assert_store_equals(place, model)
    assert_nothing_twice(place)
    assert_no_leftovers(place)
    collection = opened(place, config)
    assert collection.sync(progress=False).outcome == "nothing"
    assert not collection.status()["quarantined"]
    return Counter(answer["outcome"] for answer in answers)


@pytest.mark.parametrize("count", [2, 8, 32])
def test_nothing_is_lost_and_nothing_twice(place: Place, workers: list[Worker], count: int) -> None:
    trials = TRIALS[place.name].get(count, 0)
    if trials == 0:
        pytest.skip("in the long form only")
    workers += [Worker() for _ in range(count - len(workers))]
    chance = random.Random(f"{place.name} {count}")
    outcomes: Counter[str] = Counter()
    began = time.monotonic()
    for trial in places(place, trials):
        outcomes += race(trial, workers[:count], chance)
    took = time.monotonic() - began
    print(
        f"{place.name}: {trials} trials of {count} processes in {took:.0f} s, nothing lost, nothing twice: {outcomes}"
    )


def test_many_writers_and_many_requests(place: Place, workers: list[Worker]) -> None:
    """32 writers and 1,000 requests in the long form; whoever has the lease settles everything that waits."""
    days, count = (1000, 32) if LONG else (40, 8)
    if not LONG and place.name == "weed":
        pytest.skip("in the long form only")
    config = configuration(place, chunk=10, lease=20)
    for day in range(days):
        put_day(place, day, 1)
    workers += [Worker() for _ in range(count - len(workers))]
    racers = workers[:count]
    for racer in racers:
        racer.ask("open", config=config, storage_options=place.storage_options)
    began = time.monotonic()
    for number, racer in enumerate(racers):
        keys = [key_of(day) for day in range(days) if day % count == number]
        racer.tell("drain", submit=keys, wait=None)
    answers = [racer.answer(600) for racer in racers]
    took = time.monotonic() - began
    assert not [answer for answer in answers if "error" in answer], answers
    assert_store_equals(place, dict.fromkeys(range(days), 1))
    assert_nothing_twice(place)
    assert_no_leftovers(place)
    commits = sum(record["kind"] == "commit" for record in records(place))
    print(f"{place.name}: {count} writers, {days} requests, {commits} commits, {took:.1f} s")


XARRAY = """
import sys
import numpy as np, xarray as xr

store, day, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for round in range(1, rounds + 1):
    sys.stdin.readline()
    values = np.full((1, 500, 500), round * 10 + day, "i4")
    dataset = xr.Dataset({"sst": (("time", "y", "x"), values)})
    dataset.to_zarr(store, region={"time": slice(day, day + 1)}, consolidated=False)
    print("written", flush=True)
"""


def test_plain_xarray_loses_writes(tmp_path: Path) -> None:
    """Two processes, two adjacent days in one chunk, each its own region, as its documentation shows."""
    rounds = 20
    store = tmp_path / "plain.zarr"
    empty = xr.Dataset({"sst": (("time", "y", "x"), np.zeros((2, 500, 500), "i4"))})
    empty.to_zarr(store, consolidated=False, encoding={"sst": {"chunks": (2, 500, 500)}})
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", XARRAY, str(store), str(day), str(rounds)], **pipes)
        for day in (0, 1)
    ]
    lost = 0
    try:
        for number in range(1, rounds + 1):
            for writer in writers:
                writer.stdin.write("go\n")  # type: ignore[union-attr]
                writer.stdin.flush()  # type: ignore[union-attr]
            for writer in writers:
                assert writer.stdout.readline() == "written\n"  # type: ignore[union-attr]
            with xr.open_zarr(store, consolidated=False) as found:
                lost += found["sst"][:, 0, 0].values.tolist() != [number * 10, number * 10 + 1]
    finally:
        for writer in writers:
            writer.communicate()
    print(f"xarray.to_zarr(region=...): {lost} of {rounds} rounds lost a write")
    assert lost > 0
