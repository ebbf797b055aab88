"""Checkpoints of the ledger: DuckDB and pandas read them, and no verb answers differently because of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from days import assert_no_leftovers, assert_nothing_twice, assert_store_equals, configuration, key_of, opened, put_day
from places import Place
from regraft import Collection


def manifests(place: Place) -> list[dict[str, Any]]:
    """The checkpoints that are there, the oldest first."""
    found = place.read_all("store.zarr.regraft/checkpoint/")
    return [json.loads(found[key]) for key in sorted(found) if key.endswith(".json")]


def latest_files(place: Place, name: str) -> list[str]:
    """The files of the latest checkpoint, the latest rows first."""
    runs = manifests(place)[-1][name]
    return [place.url(f"store.zarr.regraft/{segment['file']}") for run in runs for segment in run]


def settle(collection: Collection) -> dict[str, Any]:
    """Makes the store match, and says how."""
    return collection.sync().to_dict()


@pytest.fixture
def history(local_place: Place) -> Place:
    """Six days that arrive one by one, a revision, a removal, a file that is none; a checkpoint after each commit."""
    collection = opened(local_place, configuration(local_place, checkpoint=1))
    for day in range(6):
        put_day(local_place, day, 1)
        settle(collection)
    put_day(local_place, 2, 2)
    local_place.delete(f"incoming/{key_of(4)}")
    local_place.put("incoming/broken.nc", b"no file of any kind")
    settle(collection)
    return local_place


def test_duckdb_reads_who_owns_what(history: Place) -> None:
    # Of several rows of one key the one of the latest commit counts.
    newest = 'row_number() over (partition by key order by "commit" desc nulls first) = 1'
    sources = duckdb.read_parquet(latest_files(history, "sources"))
    latest = sources.query("rows", f"from rows select key, state, gone qualify {newest}").fetchall()
    states = {key: state for key, state, gone in latest if not gone}
    assert states == {"broken.nc": "quarantined"} | {key_of(day): "in_store" for day in (0, 1, 2, 3, 5)}
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
    assert first["size"] == (Path(history.url("incoming")) / key_of(0)).stat().st_size
    assert list(first["labels"]) == ["1577836800000"]
    assert first["commit"] > 0


def test_every_verb_answers_as_without_checkpoints(history: Place, tmp_path: Path) -> None:
    def answers(collection: Collection) -> list[Any]:
        documents = collection.status(), collection.ledger(), collection.gaps(), collection.verify()
        return [json.loads(document.to_json()) for document in documents]

    kept = answers(opened(history, configuration(history, checkpoint=1)))
    # The log is all there still: without checkpoints it says the same.
    (Path(history.url("store.zarr.regraft")) / "checkpoint").rename(tmp_path / "aside")
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
