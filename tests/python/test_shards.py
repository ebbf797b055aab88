"""Backfill: one plan written by many processes gives the store that one sync gives, whatever dies on the way."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from days import assert_no_leftovers, assert_nothing_twice, assert_store_equals, configuration, key_of, opened, put_day
from days import records as log_records
from places import Place
from regraft.errors import ConflictError, InvalidError
from workers import LONG

WORKER = """
import json, sys
import regraft
told = json.loads(sys.stdin.read())
collection = regraft.open_collection(told["config"], storage_options=told["storage_options"])
print(collection._core.apply_shard(told["plan"], told["number"], told["count"]))
"""


def start(place: Place, plan: str, number: int, count: int) -> Callable[[], dict[str, Any]]:
    """Begins a shard in a process of its own; the answer waits for it."""
    told = {
        "config": configuration(place),
        "storage_options": place.storage_options,
        "plan": plan,
        "number": number,
        "count": count,
    }
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(told))
    worker.stdin.close()

    def answer() -> dict[str, Any]:
        assert worker.stdout is not None
        with worker.stdout as stdout:
            text = stdout.read()
        assert worker.wait(60) == 0
        found: dict[str, Any] = json.loads(text)
        return found

    return answer


def writing_begun(place: Place) -> bool:
    try:
        return bool(place.keys("store.zarr/"))
    except FileNotFoundError:
        # A file got its final name while it was looked at.
        return True


def shard(place: Place, plan: str, number: int, count: int) -> dict[str, Any]:
    """Does a shard here."""
    found: dict[str, Any] = json.loads(opened(place, configuration(place))._core.apply_shard(plan, number, count))
    return found


def planned(place: Place) -> str:
    """The plan of all that is new."""
    return opened(place, configuration(place)).plan(progress=False).to_json()


def content_of(place: Place) -> dict[str, bytes]:
    """The objects of the store that hold data."""
    return {key: body for key, body in place.read_all("store.zarr/").items() if "/c/" in key}


@pytest.mark.parametrize("count", [1, 3, 7])
def test_shards_in_parallel_equal_a_plain_sync(tmp_path: Path, count: int) -> None:
    stores = []
    for name in ("plain", "shards"):
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name)
        for day in range(22):
            put_day(place, day, day % 3)
        stores.append(place)
    plain, place = stores
    opened(plain, configuration(plain)).sync(progress=False).raise_for_failures()

    plan = planned(place)
    answers = [answer() for answer in [start(place, plan, number, count) for number in range(1, count + 1)]]
    assert [answer["outcome"] for answer in answers].count("published") == 1, answers
    assert_store_equals(place, {day: day % 3 for day in range(22)})
    assert content_of(place) == content_of(plain)
    assert_nothing_twice(place)
    assert_no_leftovers(place)
    assert opened(place, configuration(place)).plan(progress=False).empty
    # Once more, by anybody: nothing.
    assert shard(place, plan, 1, count)["outcome"] == "nothing"


def test_a_store_that_exists_grows_and_is_not_seen_half(place: Place) -> None:
    for day in range(6):
        put_day(place, day, 0)
    opened(place, configuration(place)).sync(progress=False).raise_for_failures()
    for day in range(6, 20):
        put_day(place, day, 1)
    plan = planned(place)
    for number in (2, 3):
        assert shard(place, plan, number, 3)["outcome"] == "written"
        # Readers see the store of before.
        assert_store_equals(place, dict.fromkeys(range(6), 0))
    # Killed after its data and before its marker, or done twice: the same.
    assert shard(place, plan, 2, 3)["waiting"] == [1]
    done = shard(place, plan, 1, 3)
    assert done["outcome"] == "published"
    assert done["report"]["axis"]["length_after"] == 20
    assert_store_equals(place, {day: int(day >= 6) for day in range(20)})
    assert_no_leftovers(place)


@pytest.mark.timeout(600)  # on S3 a dead holder's lease is waited for
def test_killed_shards_are_done_again(place: Place) -> None:
    for day in range(40):
        put_day(place, day, 0, side=64)
    plan = planned(place)
    told = json.dumps(
        {
            "config": configuration(place),
            "storage_options": place.storage_options,
            "plan": plan,
            "number": 1,
            "count": 2,
        }
    )
    chance = random.Random(5)
    ended = []
    for attempt in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdin is not None
            worker.stdin.write(told)
            worker.stdin.close()
            if attempt == 0:
                deadline = time.monotonic() + 60
                while not writing_begun(place):
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
            else:
                time.sleep(chance.uniform(0.2, 1.5))
            worker.kill()
        ended.append(worker.returncode)
    assert ended[0] == -signal.SIGKILL
    # One of the killed may have been done with all but its last words.
    assert "published" in {shard(place, plan, 2, 2)["outcome"], shard(place, plan, 1, 2)["outcome"]}
    assert_store_equals(place, dict.fromkeys(range(40), 0), side=64)
    assert_nothing_twice(place)
    assert_no_leftovers(place)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", ["a shard", "a drain"])
def test_a_killed_publisher_is_followed_by_the_next_worker(place: Place, first: str) -> None:
    """Killed at any moment after the last marker, whoever comes next: the whole plan once, and nothing left of it."""
    config = configuration(place, lease=2, checkpoint=2)
    chance = random.Random(first)
    model: dict[int, int] = {}
    found: Counter[str] = Counter()
    for turn in range(40 if LONG else 2):
        new = range(12 * turn, 12 * turn + 12)
        for day in new:
            put_day(place, day, turn)
        # A step of the store is revised as well.
        for day in [*model][:1]:
            put_day(place, day, turn)
            model[day] = turn
        collection = opened(place, config)
        plan = collection.plan(progress=False).to_json()
        collection._core.apply_shard(plan, 1, 2)
        length = len(log_records(place))
        told = {"config": config, "storage_options": place.storage_options, "plan": plan, "number": 2, "count": 2}
        with subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as publisher:
            assert publisher.stdin is not None
            publisher.stdin.write(json.dumps(told))
            publisher.stdin.close()
            deadline = time.monotonic() + 60
            while len(markers(place)) < 2 and publisher.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.1))
            publisher.kill()
        kinds = [record["kind"] for record in log_records(place)[length:]]
        found["after its commit" if "commit" in kinds else "in mid-work" if "prepared" in kinds else "before"] += 1
        if first == "a drain":
            # It mends what was announced; what was not is the next shard's.
            with contextlib.suppress(ConflictError):
                opened(place, config).drain(wait=60, progress=False)
        done = json.loads(opened(place, config)._core.apply_shard(plan, 2, 2))
        assert done["outcome"] in ("published", "nothing"), done
        model |= dict.fromkeys(new, turn)
        # One that was killed after its commit left its markers to whoever takes the lease.
        opened(place, config).drain(wait=60, progress=False).raise_for_failures()
        assert_store_equals(place, model)
        assert_nothing_twice(place)
        assert_no_leftovers(place)
        assert opened(place, config).sync(progress=False).outcome == "nothing"
    print(f"{place.name}, {first} comes next: publishers killed {dict(found)}")


def markers(place: Place) -> list[str]:
    """The shards that are done."""
    try:
        return [key for key in place.keys("store.zarr.regraft/backfill/") if key.endswith(".json")]
    except FileNotFoundError:
        # The publisher has removed one while it was looked at.
        return ["published"] * 2


def test_others_wait_while_a_backfill_is_open(place: Place) -> None:
    for day in range(8):
        put_day(place, day, 0)
    plan = planned(place)
    collection = opened(place, configuration(place))
    assert collection.status()["backfill"] is None
    assert shard(place, plan, 1, 2)["outcome"] == "written"
    status = collection.status()
    assert len(status["backfill"]["plan"]) == 24
    assert {**status["backfill"], "plan": "it"} == {"plan": "it", "count": 2, "written": [1], "waiting": [2]}
    assert "1 of 2 shards done, not yet: 2" in str(status)
    with pytest.raises(ConflictError, match="the backfill `.*` is not finished"):
        collection.sync(progress=False, wait=0)
    put_day(place, 100, 0)
    other = planned(place)
    with pytest.raises(ConflictError, match="is not finished"):
        shard(place, other, 1, 2)
    # Given up: others write, and the shards of the old plan are refused.
    collection.unlock()
    assert collection.status()["backfill"] is None
    collection.sync(progress=False).raise_for_failures()
    model = dict.fromkeys([*range(8), 100], 0)
    assert_store_equals(place, model)
    with pytest.raises(ConflictError, match="was changed since the plan was made"):
        shard(place, plan, 2, 2)


def test_one_bad_file_is_set_aside(place: Place) -> None:
    for day in range(12):
        put_day(place, day, 1)
    place.put(f"incoming/{key_of(50)}", b"not a NetCDF file")
    plan = planned(place)
    # Bad at once, and bad (other bytes under the planned name) when a shard opens it.
    put_day(place, 5, 2)
    answers = [shard(place, plan, number, 3) for number in (1, 2, 3)]
    assert [bad["category"] for answer in answers for bad in answer["bad"].values()] == ["changed"]
    report = answers[-1]["report"]
    assert [entry["key"] for entry in report["quarantined"]] == [key_of(50)]
    group = zarr.open_group(place.local_store("store.zarr"), mode="r")
    assert group["time"][:].tolist() == list(range(12))
    assert (np.asarray(group["sst"][5]) == -9999).all()
    # The next sync fills the empty step.
    opened(place, configuration(place)).sync(progress=False)
    assert_store_equals(place, {day: 2 if day == 5 else 1 for day in range(12)})


def test_plans_that_move_or_remove_are_refused(place: Place) -> None:
    for day in (0, 1, 2, 5):
        put_day(place, day, 0)
    opened(place, configuration(place)).sync(progress=False).raise_for_failures()
    put_day(place, 3, 0)
    with pytest.raises(InvalidError, match="moves `1` steps of the axis `time`"):
        shard(place, planned(place), 1, 2)
    opened(place, configuration(place)).sync(progress=False).raise_for_failures()
    place.delete(f"incoming/{key_of(1)}")
    with pytest.raises(InvalidError, match="removes `day-0001.nc`"):
        shard(place, planned(place), 1, 2)
    with pytest.raises(InvalidError, match="expected a shard from `1` to `2`, found `3`"):
        shard(place, planned(place), 3, 2)


def test_the_log_says_what_was_done(place: Place) -> None:
    for day in range(4):
        put_day(place, day, 0)
    plan = planned(place)
    shard(place, plan, 1, 1)
    kinds = [record["kind"] for record in log_records(place)]
    assert kinds == ["backfill", "prepared", "commit"]
    history = opened(place, configuration(place)).history()
    assert len(history) == 1
    assert isinstance(opened(place, configuration(place)).status().to_json(), str)
