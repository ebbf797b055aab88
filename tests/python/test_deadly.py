"""A source that kills whoever opens it: after so many deaths it is set aside, and everything else goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from days import assert_no_leftovers, assert_store_equals, configuration, key_of, opened, put_day, records
from places import Place
from workers import started

AFTER = 2
DAYS = range(3)
DEADLY = 1

HOOK = f"""
import os
import signal

DEADLY = {key_of(DEADLY)!r}


def prepare(dataset, source):
    if source.key == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return dataset
"""


def deaths(config: dict[str, Any], verb: str, keys: list[str]) -> int:
    """How many workers die one after the other before one comes through."""
    for count in range(3 * AFTER):
        with started(1) as (worker,):
            worker.ask("open", config=config, storage_options={})
            worker.tell(verb, submit=keys if verb == "drain" and count == 0 else None, wait=60)
            assert worker.process.stdout is not None
            if worker.process.stdout.readline():
                return count
    raise AssertionError(f"{3 * AFTER} workers died")


@pytest.mark.parametrize("verb", ["sync", "drain"])
def test_a_source_that_kills_who_opens_it_is_set_aside(local_place: Place, tmp_path: Path, verb: str) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text(HOOK)
    config = configuration(local_place, quarantine={"after": AFTER})
    config["source"]["preprocess"] = f"{hooks}:prepare"
    for day in DAYS:
        put_day(local_place, day, 0)
    # The first one had the whole batch open, so that nobody knew of which source it died.
    assert deaths(config, verb, [key_of(day) for day in DAYS]) == AFTER + 1
    collection = opened(local_place, config)
    assert_store_equals(local_place, {day: 0 for day in DAYS if day != DEADLY})
    assert_no_leftovers(local_place)
    status = collection.status()
    assert (status["quarantined"], status["pending"]) == (1, 0)
    sources = [source for record in records(local_place) for source in record["sources"]]
    (found,) = [source["quarantine"] for source in sources if source.get("quarantine")]
    assert (found["category"], found["attempts"]) == ("crash", AFTER)
    assert f"found one on which `{AFTER}` workers died" in found["message"]
    # This process would die of it.
    assert collection.plan(progress=False).empty
    assert collection.sync(progress=False).outcome == "nothing"

    # It was the hook's fault, and the hook is mended.
    hooks.write_text("def prepare(dataset, source):\n    return dataset\n")
    mended = opened(local_place, config)
    mended.retry(progress=False).raise_for_failures()
    assert_store_equals(local_place, dict.fromkeys(DAYS, 0))
    assert mended.status()["quarantined"] == 0


def test_a_plan_does_not_open_what_workers_died_of(local_place: Place, tmp_path: Path) -> None:
    """Between the last death and the commit that sets the source aside."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text(HOOK)
    config = configuration(local_place, quarantine={"after": AFTER})
    config["source"]["preprocess"] = f"{hooks}:prepare"
    put_day(local_place, DEADLY, 0)
    for _ in range(AFTER + 1):
        with started(1) as (worker,):
            worker.ask("open", config=config, storage_options={})
            worker.tell("sync")
            assert worker.process.wait(60) < 0
    # The last death is counted by the next one who takes the lease, for which `unlock` will do.
    collection = opened(local_place, config)
    collection.unlock()
    plan = collection.plan(progress=False)
    assert plan.counts == {"quarantine": 1}
    assert plan.changes[0]["category"] == "crash"
