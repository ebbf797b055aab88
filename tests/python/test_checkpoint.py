"""Checkpoints of the ledger: DuckDB and pandas read them, no verb answers differently because of them, the log behind
them is cleaned up, and whoever is killed at one leaves nothing that matters.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
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
from regraft import Collection
from workers import LONG, started


def manifests(place: Place) -> list[dict[str, Any]]:
    """The checkpoints that are there, the oldest first."""
    found = place.read_all("store.zarr.regraft/checkpoint/")
    return [json.loads(found[key]) for key in sorted(found) if key.endswith(".json")]


def latest_files(place: Place, name: str) -> list[str]:
    """The files of the latest checkpoint, the latest rows first; those of a bucket as they were downloaded."""
    folder = place.local_store("store.zarr.regraft")
    return [str(folder / segment["file"]) for run in manifests(place)[-1][name] for segment in run]


def last_number(place: Place) -> int:
    """The number of the latest record."""
    while True:
        # A file may get its final name while it is looked at.
        with contextlib.suppress(FileNotFoundError):
            return max(int(Path(key).stem) for key in place.keys("store.zarr.regraft/log/") if key.endswith(".json"))


def states(place: Place) -> dict[str, str]:
    """What DuckDB finds of each source in the latest checkpoint."""
    # Of several rows of one key the one of the latest commit counts.
    newest = 'row_number() over (partition by key order by "commit" desc nulls first) = 1'
    sources = duckdb.read_parquet(latest_files(place, "sources"))
    latest = sources.query("rows", f"from rows select key, state, gone qualify {newest}").fetchall()
    return {key: state for key, state, gone in latest if not gone}


def settle(collection: Collection) -> dict[str, Any]:
    """Makes the store match, and says how."""
    return collection.sync().to_dict()


@pytest.fixture
def history(place: Place) -> Place:
    """Six days that arrive one by one, a revision, a removal, a file that is none; a checkpoint after each commit."""
    collection = opened(place, configuration(place, checkpoint=1))
    for day in range(6):
        put_day(place, day, 1)
        settle(collection)
    put_day(place, 2, 2)
    place.delete(f"incoming/{key_of(4)}")
    place.put("incoming/broken.nc", b"no file of any kind")
    settle(collection)
    return place


def test_duckdb_reads_who_owns_what(history: Place) -> None:
    in_store = {key_of(day): "in_store" for day in (0, 1, 2, 3, 5)}
    assert states(history) == {"broken.nc": "quarantined"} | in_store
    labels = duckdb.read_parquet(latest_files(history, "labels"))
    owners = labels.project("epoch_ms(number)::date::varchar, owner").fetchall()
    assert ("2020-01-03", key_of(2)) in owners


def test_pandas_reads_versions_and_reasons(history: Place) -> None:
    table = pd.concat(pd.read_parquet(file) for file in latest_files(history, "sources"))
    broken = table[table["key"] == "broken.nc"].iloc[0]
    assert broken["category"] == "unreadable"
    assert broken["message"]
    assert broken["attempts"] == 1
    first = table[table["key"] == key_of(0)].iloc[0]
    assert first["size"] == len(history.read_all("incoming/")[f"incoming/{key_of(0)}"])
    assert list(first["labels"]) == ["1577836800000"]
    assert first["commit"] > 0


def test_every_verb_answers_as_without_checkpoints(history: Place) -> None:
    def answers(collection: Collection) -> list[Any]:
        documents = collection.status(), collection.ledger(), collection.gaps(), collection.verify()
        return [json.loads(document.to_json()) for document in documents]

    kept = answers(opened(history, configuration(history, checkpoint=1)))
    # The log is all there still: without checkpoints it says the same.
    for key in history.keys("store.zarr.regraft/checkpoint/"):
        history.delete(key)
    bare = answers(opened(history, configuration(history, checkpoint=1000)))
    assert kept[0].pop("checkpoint") == kept[0]["last_commit"]["number"]
    assert bare[0].pop("checkpoint") is None
    assert kept == bare


def test_a_store_goes_on_from_its_checkpoint(history: Place) -> None:
    put_day(history, 9, 1)
    put_day(history, 0, 3)
    report = settle(opened(history, configuration(history, checkpoint=1)))
    assert report["outcome"] in ("done", "partial")
    assert_store_equals(history, {0: 3, 1: 1, 2: 2, 3: 1, 4: -1, 5: 1, 9: 1})
    assert_nothing_twice(history)
    assert_no_leftovers(history)
    assert len(manifests(history)) == 2


def test_the_log_behind_checkpoints_is_cleaned_up(history: Place) -> None:
    config = configuration(history, checkpoint=1)
    before = states(history)
    # The log keeps its last thousand records whatever checkpoints cover: so many that say nothing.
    number = last_number(history)
    nothing = {**records(history)[-1], "kind": "fence", "sources": [], "owners": [], "intents": [], "died": False}
    for more in range(number + 1, number + 1006):
        record = json.dumps({**nothing, "number": more})
        history.put(f"store.zarr.regraft/log/{more:020}.json", record.encode())
    for day in (6, 7, 8):
        put_day(history, day, 1)
        settle(opened(history, config))
    numbers = sorted(int(Path(key).stem) for key in history.keys("store.zarr.regraft/log/"))
    assert numbers[0] > 1
    # The last two checkpoints, and of the records a thousand.
    assert 1000 <= len(numbers) <= 1010
    assert len(manifests(history)) == 2
    assert states(history) == before | {key_of(day): "in_store" for day in (6, 7, 8)}
    collection = opened(history, config)
    assert_store_equals(history, {0: 1, 1: 1, 2: 2, 3: 1, 4: -1, 5: 1, 6: 1, 7: 1, 8: 1})
    assert collection.sync().outcome == "nothing"
    assert len(collection.ledger()) == 9
    assert len(collection.history(2)) == 2


def test_whoever_is_killed_at_a_checkpoint_leaves_nothing_that_matters(place: Place) -> None:
    config = configuration(place, checkpoint=1, lease=1)
    chance = random.Random(place.name)
    model = dict.fromkeys(range(4), 0)
    for day in model:
        put_day(place, day, 0)
    began = time.monotonic()
    settle(opened(place, config))
    typical = time.monotonic() - began
    at_one = 0
    for turn in range(30 if LONG else 3):
        day = 10 + turn
        put_day(place, day, turn)
        put_day(place, turn % 4, turn + 1)
        model |= {day: turn, turn % 4: turn + 1}
        before = last_number(place)
        with started(1) as (victim,):
            victim.ask("open", config=config, storage_options=place.storage_options)
            victim.tell("sync")
            # An announcement, the commit, and then the checkpoint.
            deadline, seen = time.monotonic() + 60, chance.choice([1, 2])
            while last_number(place) < before + seen:
                assert time.monotonic() < deadline
            time.sleep(chance.choice([0, chance.uniform(0, typical / 4)]))
            victim.send(signal.SIGKILL)
            victim.process.wait()
        at_one += manifests(place)[-1]["number"] < last_number(place)
        # The next commit writes the next one, and a later one cleans up.
        for version in (100, 101):
            put_day(place, 0, turn + version)
            model[0] = turn + version
            settle(opened(place, config))
        assert states(place) == {key_of(day): "in_store" for day in model}
        assert_store_equals(place, model)
        assert_nothing_twice(place)
        assert_no_leftovers(place)
        listed = {
            segment["file"]
            for found in manifests(place)
            for name in ("sources", "labels")
            for run in found[name]
            for segment in run
        }
        files = {key.removeprefix("store.zarr.regraft/") for key in place.keys("store.zarr.regraft/checkpoint/")}
        assert {file for file in files if file.endswith(".parquet")} == listed
        assert len(manifests(place)) == 2
    print(f"{place.name}: {turn + 1} killed around their commit, {at_one} of them before its checkpoint was whole")
