"""A plan in shards: workers that do not touch one another write it, and the last one publishes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import typer
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


def test_a_shard_says_what_its_worker_does(folder: Path) -> None:
    collection = opened(folder)
    plan = collection.plan(progress=False)
    shards = [plan.shard(number, 5) for number in range(1, 6)]
    # Nothing was written, and nobody was told.
    assert sorted(path.name for path in folder.iterdir()) == ["in", "sst.yaml"]
    assert len({shard["plan"] for shard in shards}) == 1
    assert {shard["block_length"] for shard in shards} == {2}
    blocks = [block for shard in shards for block in shard.blocks]
    assert blocks == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 12)]
    for shard in shards:
        ((start, stop),) = shard.blocks
        assert [change["key"] for change in shard.changes] == [day_name(day) for day in range(start, stop)]
        assert [change["indices"] for change in shard.changes] == [[[day, day + 1]] for day in range(start, stop)]
        assert shard["totals"]["bytes_source"] == sum(
            (folder / "in" / day_name(day)).stat().st_size for day in range(start, stop)
        )
    # Counted once each, and all of them: the chunks of data of the whole plan, which the grids are not.
    data = {array["name"]: array["touched_count"] for array in plan["arrays"] if len(array["dimensions"]) == 3}
    counted = {
        name: sum(array["touched_count"] for shard in shards for array in shard["arrays"] if array["name"] == name)
        for name in data
    }
    assert counted == data
    # What it said is what it does.
    for shard in shards:
        report = shard.apply(progress=False)
        assert [tuple(part) for part in report["indices"]] == shard.blocks
        # Two chunks make a shard, which is one object.
        assert report["written"]["chunks_written"] == shard["totals"]["chunks"] // 2
    assert report.outcome == "published"
    assert plan.shard(2, 5).state == "published"
    assert plan.shard(2, 5).empty


def test_a_shard_that_is_done_says_so(folder: Path) -> None:
    plan = opened(folder).plan(progress=False)
    plan.apply_shard(1, 2, progress=False)
    assert (plan.shard(1, 2).state, plan.shard(1, 2).empty) == ("written", True)
    assert (plan.shard(2, 2).state, plan.shard(2, 2).empty) == ("pending", False)


def test_workers_that_plan_for_themselves_agree(folder: Path) -> None:
    (folder / "in" / "bad.nc").write_bytes(b"no NetCDF")
    tree = yaml.safe_load((folder / "sst.yaml").read_text())
    tree["store"]["url"] = "alone.zarr"
    (folder / "alone.yaml").write_text(yaml.safe_dump(tree))
    open_collection(folder / "alone.yaml").sync(progress=False)

    first = opened(folder).plan(progress=False)
    before = first.shard(2, 2)
    assert first.apply_shard(1, 2, progress=False).outcome == "written"
    # Planned while the first worker is at work: the store is there by now, and the log has a record more.
    second = opened(folder).plan(progress=False)
    assert not second["creates_store"]
    assert second.shard(2, 2)["plan"] == before["plan"]
    assert second.shard(2, 2).to_dict() == before.to_dict()
    assert second.apply_shard(2, 2, progress=False).outcome == "published"
    opened(folder).verify(progress=False).raise_for_failures()
    assert content(folder / "sst.zarr") == content(folder / "alone.zarr")
    assert opened(folder).status()["quarantined"] == 1


def test_workers_that_saw_other_files_do_not_mix(folder: Path) -> None:
    first = opened(folder).plan(progress=False)
    first.apply_shard(1, 2, progress=False)
    write_sst_day(folder / "in" / day_name(DAYS), DAYS, grid=GRID)
    second = opened(folder).plan(progress=False)
    with pytest.raises(ConflictError, match="is not finished, and this plan is"):
        second.shard(2, 2)
    with pytest.raises(ConflictError, match="is not finished, and this plan is"):
        second.apply_shard(2, 2, progress=False)
    # Given up, its markers are nobody's any more, and a saved plan of before is refused.
    opened(folder).unlock()
    with pytest.raises(ConflictError, match="was changed since the plan was made"):
        first.apply_shard(2, 2, progress=False)
    again = opened(folder).plan(progress=False)
    assert [again.shard(number, 2).state for number in (1, 2)] == ["pending", "pending"]
    assert [again.apply_shard(number, 2, progress=False).outcome for number in (1, 2)] == ["written", "published"]
    opened(folder).verify(progress=False).raise_for_failures()


def content(store: Path) -> dict[str, bytes]:
    """Every object of a store but the metadata."""
    files = (path for path in store.rglob("*") if path.is_file() and path.name != "zarr.json")
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command("regraft"), "zarr", *words], capture_output=True, text=True, check=False)


def test_shards_from_the_command_line(folder: Path) -> None:
    config, plan = folder / "sst.yaml", folder / "years.json"
    files = [folder / f"worker-{number}.json" for number in (1, 2)]
    # One worker from the configuration, one from a saved plan.
    made = run("plan", config, "--shard", "1/2", "-o", files[0], "--json", "--exit-code")
    assert made.returncode == 3, made.stderr
    document = json.loads(made.stdout)
    assert (document["kind"], document["shard"], document["blocks"]) == ("zarr-shard-plan", [1, 2], [[0, 6]])
    assert "whole" not in document
    assert run("plan", config, "-o", plan).returncode == 0
    shown = run("plan", plan, "--shard", "2/2", "-o", files[1])
    assert shown.returncode == 0, shown.stderr
    assert "sst: shard 2 of 2, 6 changes" in shown.stdout
    assert "its own: indices 6:12 (6 steps), in blocks of 2" in shown.stdout
    assert f"12 changes for file://{folder}/sst.zarr" in run("plan", plan).stdout
    assert not (folder / "sst.zarr").exists()

    wrong = run("apply", files[0], "--shard", "2/2")
    assert wrong.returncode == 2
    assert "is shard 1/2, found 2/2" in wrong.stderr
    assert run("apply", files[0], "--set", "run.workers=1").returncode == 1
    done = run("apply", files[0], "--shard", "1/2", "--json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "written")
    assert run("plan", files[0]).returncode != 0
    done = run("apply", files[1], "--json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "published")
    opened(folder).verify(progress=False).raise_for_failures()
    # Once more, by whoever is started again: nothing.
    assert json.loads(run("apply", files[0], "--json").stdout)["outcome"] == "nothing"
    late = run("plan", config, "--shard", "1/2", "-o", files[0], "--exit-code")
    assert late.returncode == 0
    assert "nothing to do" in late.stdout
    assert run("apply", files[0]).returncode == 0


@pytest.mark.parametrize("verb", ["zarr", "parquet"])
def test_numbers_of_shards(verb: str, tmp_path: Path) -> None:
    assert shard_numbers("3/16") == (3, 16)
    assert shard_numbers(None) is None
    for wrong in ("3", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3", "", "²/3"):
        with pytest.raises(typer.BadParameter, match="expected I/N"):
            shard_numbers(wrong)
    words = [command("regraft"), verb, "apply", str(tmp_path / "plan.json"), "--shard", "3/2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected I/N with I from 1 to N" in done.stderr


def test_shards_need_a_saved_plan(folder: Path) -> None:
    done = run("apply", folder / "sst.yaml", "--shard", "1/2")
    assert done.returncode == 1
    assert "`--shard` needs a saved plan" in done.stderr
