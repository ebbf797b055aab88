"""A plan in shards: workers that do not touch one another write it, and the last one publishes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from regraft.cli.options import shard_numbers
from regraft.collections import Collection, open_collection
from regraft.demo_data import SstGrid, day_name, write_sst_day
from regraft.errors import ConflictError, InvalidError
from regraft.results import Plan
from servers import command

GRID = SstGrid(12, 16)
DAYS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for day in range(DAYS):
        write_sst_day(tmp_path / "in" / day_name(day), day, grid=GRID)
    tree = {
        "name": "sst",
        "source": {"url": "in", "include": ["*.nc"]},
        "store": {"url": "sst.zarr", "chunks": {"time": 1}, "shards": {"time": 2}},
        "region": {"key": "time"},
    }
    (tmp_path / "sst.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def opened(folder: Path) -> Collection:
    return open_collection(folder / "sst.yaml")


def test_workers_write_a_plan_together(folder: Path) -> None:
    (folder / "in" / "bad.nc").write_bytes(b"no NetCDF")
    plan = folder / "years.plan.json"
    opened(folder).plan(progress=False).save(plan)
    words = [command("regraft"), "zarr", "apply", str(plan), "--json", "--shard"]
    workers = [subprocess.Popen([*words, f"{number}/4"], stdout=subprocess.PIPE, text=True) for number in range(1, 5)]
    outputs = [worker.communicate(timeout=100)[0] for worker in workers]
    reports = [json.loads(output) for output in outputs]
    outcomes = sorted(report["outcome"] for report in reports)
    # Workers that end at the same time may both find that nothing is missing; one of them publishes.
    assert outcomes.count("published") == 1
    assert set(outcomes) <= {"nothing", "published", "written"}
    # The plan had a file that cannot be read: it is set aside with the whole.
    assert sorted(worker.returncode for worker in workers) == [0, 0, 0, 4]
    ranges = sorted(tuple(part) for report in reports for part in report["indices"])
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] == DAYS

    collection = opened(folder)
    assert len(collection.history()) == 1
    assert [row["key"] for row in collection.ledger()] == [day_name(day) for day in range(DAYS)]
    assert collection.status()["quarantined"] == 1
    collection.verify(progress=False).raise_for_failures()
    assert collection.plan(progress=False).empty
    assert collection.apply_shard(Plan.load(plan), 2, 4, progress=False).outcome == "nothing"


def test_events_wait_until_it_is_published(folder: Path) -> None:
    collection = opened(folder)
    plan = collection.plan(progress=False)
    first = plan.apply_shard(1, 2, progress=False)
    assert (first.outcome, first.waiting, first.report, first.failed) == ("written", [2], None, {})
    assert "shard 1 of 2 done; 1 shard of 2 not yet: 2" in repr(first)
    # Readers see nothing of it.
    assert collection.status()["axis_length"] == 0
    # The same shard once more, by a worker that does not know that it was done.
    assert opened(folder).apply_shard(plan, 1, 2, progress=False).waiting == [2]
    last = plan.apply_shard(2, 2, progress=False)
    assert (last.outcome, last.waiting) == ("published", [])
    assert last.report is not None
    assert last.report.counts == {"append": DAYS}
    assert "published" in repr(last)
    collection.verify(progress=False).raise_for_failures()


def test_a_backfill_that_nobody_finishes_is_given_up(folder: Path) -> None:
    collection = opened(folder)
    plan = collection.plan(progress=False)
    plan.apply_shard(1, 2, progress=False)
    with pytest.raises(ConflictError, match="backfill"):
        opened(folder).sync(wait=0, progress=False)
    assert collection.unlock()["backfill"] is not None
    assert collection.unlock()["backfill"] is None
    assert opened(folder).sync(progress=False).counts == {"append": DAYS}
    collection.verify(progress=False).raise_for_failures()


def test_what_cannot_be_cut_is_refused(folder: Path) -> None:
    collection = opened(folder)
    collection.sync(progress=False)
    (folder / "in" / day_name(3)).unlink()
    with pytest.raises(InvalidError, match="the plan removes"):
        collection.plan(progress=False).apply_shard(1, 2, progress=False)
    with pytest.raises(InvalidError, match="expected a shard from `1` to `2`, found `3`"):
        collection.plan(progress=False).apply_shard(3, 2, progress=False)


def test_numbers_of_shards() -> None:
    assert shard_numbers("3/16") == (3, 16)
    for wrong in ("3", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3", ""):
        with pytest.raises(InvalidError, match=r"`--shard`: expected `I/N`"):
            shard_numbers(wrong)


def test_shards_need_a_saved_plan(folder: Path) -> None:
    words = [command("regraft"), "zarr", "apply", str(folder / "sst.yaml"), "--shard", "1/2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`--shard` needs a saved plan" in done.stderr
