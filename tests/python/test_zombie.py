"""A holder that is stopped in mid-commit and wakes up after another took over: it fails, and writes nothing more."""

from __future__ import annotations

import signal
import time

import pytest
from days import (
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

pytestmark = pytest.mark.timeout(1800 if LONG else 300)

DAYS = range(12)
SIDE = 280
ROUNDS = 10 if LONG else 1


def written(place: Place, before: dict[str, str]) -> int:
    """Chunks that are not what they were."""
    return sum(before.get(key) != tag for key, tag in place.keys("store.zarr/sst/c/").items())


def stopped_in_mid_commit(place: Place, worker: Worker, before: dict[str, str]) -> int:
    """Stops a worker after it wrote its first chunks; how many those were."""
    deadline = time.monotonic() + 60
    while written(place, before) < 3:
        assert time.monotonic() < deadline, "it wrote nothing"
        time.sleep(0.005)
    worker.send(signal.SIGSTOP)
    # A request that was under way arrives.
    time.sleep(0.3)
    return written(place, before)


@pytest.mark.parametrize("verb", ["drain", "apply"])
def test_a_stopped_holder_fails_when_it_wakes_up(place: Place, verb: str) -> None:
    # Compressed so hard that a commit takes seconds.
    config = configuration(place, chunk=4, cell=70, level=19, lease=1.5)
    keys = [key_of(day) for day in DAYS]
    for day in DAYS:
        put_day(place, day, 0, SIDE)
    collection = opened(place, config)
    collection.sync(progress=False).raise_for_failures()
    for turn in range(ROUNDS):
        older, newer = 2 * turn + 1, 2 * turn + 2
        with started(1) as (zombie,):
            zombie.ask("open", config=config, storage_options=place.storage_options)
            for day in DAYS:
                put_day(place, day, older, SIDE)
            before = place.keys("store.zarr/sst/c/")
            zombie.tell(verb, keys=keys, submit=keys if verb == "drain" else None, persistent=False)
            half = stopped_in_mid_commit(place, zombie, before)
            assert half < len(before), "the commit was over before it was stopped"
            length = len(records(place))

            for day in DAYS:
                put_day(place, day, newer, SIDE)
            collection.submit(keys)
            busy = collection.drain(progress=False)
            assert busy.outcome == "busy"
            assert str(zombie.process.pid) in busy["holder"]
            if place.server is None:
                # The operating system's lock ends with its process, and that one is not dead.
                assert str(zombie.process.pid) in collection.unlock()["was"]
            collection.drain(wait=60, progress=False).raise_for_failures()
            model = dict.fromkeys(DAYS, newer)
            assert_store_equals(place, model, SIDE)
            after = len(records(place))
            assert after > length

            zombie.send(signal.SIGCONT)
            answer = zombie.answer()
            assert answer.get("error") == "conflict", answer
        assert len(records(place)) == after
        assert_store_equals(place, model, SIDE)
        assert_nothing_twice(place)
        assert_no_leftovers(place)
        assert collection.sync(progress=False).outcome == "nothing"
        print(f"{place.name}, {verb}: stopped after {half} of {len(before)} chunks; then: {answer['message'][:150]}")
