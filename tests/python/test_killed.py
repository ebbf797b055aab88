"""Processes that are really killed: the next worker finds or makes the old state or the new one, and nothing twice.

The long form (REGRAFT_LONG=1) kills 200.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import regraft
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
from workers import LONG, started

pytestmark = pytest.mark.timeout(3600 if LONG else 300)

SIDE = 64
KILLS = {"local": 60, "ministack": 30, "weed": 10} if LONG else {"local": 3, "ministack": 1, "weed": 0}
"""For each chunk length, of which there are two."""


def change(place: Place, model: dict[int, int], chance: random.Random, turn: int) -> list[int]:
    """A day is inserted, one is revised and now and then one removed; the model follows."""
    new = chance.choice([day for day in range(200) if day not in model])
    old, gone = chance.sample(sorted(day for day in model if model[day] != GONE), 2)
    for day in (new, old):
        model[day] = turn + 1
        put_day(place, day, model[day], SIDE)
    if turn % 3:
        return [new, old]
    model[gone] = GONE
    place.delete(f"incoming/{key_of(gone)}")
    return [new, old, gone]


def committed(place: Place, after: int, keys: list[str]) -> set[str]:
    """Which of the keys are in commits, of those behind so many records."""
    commits = [record for record in records(place)[after:] if record["kind"] == "commit"]
    return {source["key"] for record in commits for source in record["sources"]}.intersection(keys)


def settled(verb: Callable[[], regraft.Report], found: Counter[str]) -> None:
    """Done, and done again where this process was so slow that its short lease ran out: then it stops by itself."""
    for _ in range(10):
        try:
            return verb().raise_for_failures()
        except regraft.ConflictError:
            found["stopped for want of a heartbeat"] += 1
    raise AssertionError("this machine is too slow for a lease of a second")


@pytest.mark.parametrize("chunk", [1, 4])
def test_what_a_killed_worker_leaves_the_next_one_mends(place: Place, chunk: int) -> None:
    kills = KILLS[place.name]
    if kills == 0:
        pytest.skip("in the long form only")
    chance = random.Random(f"{place.name} {chunk}")
    config = configuration(place, chunk=chunk, cell=16, lease=1)
    model = dict.fromkeys(range(10, 30), 0)
    for day in model:
        put_day(place, day, 0, SIDE)
    collection = opened(place, config)
    began = time.monotonic()
    collection.sync(progress=False).raise_for_failures()
    typical = time.monotonic() - began
    found: Counter[str] = Counter()
    for turn in range(kills):
        old = dict(model)
        keys = [key_of(day) for day in change(place, model, chance, turn)]
        verb = chance.choice(["sync", "drain", "apply"])
        task: dict[str, Any] = {"keys": keys, "submit": keys if verb == "drain" else None, "wait": 60}
        length = len(records(place))
        with started(1) as (victim,):
            victim.ask("open", config=config, storage_options=place.storage_options)
            victim.tell(verb, **task)
            time.sleep(chance.uniform(0, 1.2 * typical))
            victim.send(signal.SIGKILL)
            victim.process.wait()
        in_mid_work = not any(record["kind"] == "commit" for record in records(place)[length:])
        began = time.monotonic()
        settled(lambda: collection.drain(wait=60, progress=False), found)
        typical = (typical + time.monotonic() - began) / 2 if place.server is None else typical
        done = committed(place, length, keys)
        taken = {day: model[day] for day in model if key_of(day) in done}
        assert_store_equals(place, {**old, **taken}, SIDE)
        state = "new" if len(done) == len(keys) else "in part" if done else "old"
        # Each request is durable by itself, and the process may die between two of them.
        assert state != "in part" or verb == "drain", (turn, verb, records(place)[length:])
        found["in mid-work" if in_mid_work else "after its commit"] += 1
        found[f"{verb}, then {state}"] += 1
        assert_nothing_twice(place)
        assert_no_leftovers(place)
        # What no request asks for, because the process died before it could, a listing finds.
        settled(lambda: collection.sync(progress=False), found)
        assert_store_equals(place, model, SIDE)
        assert_nothing_twice(place)
        assert_no_leftovers(place)
        assert collection.sync(progress=False).outcome == "nothing"
    collection.verify(progress=False).raise_for_failures()
    print(f"{place.name}, {chunk} days to a chunk, {kills} killed: {dict(found)}")
