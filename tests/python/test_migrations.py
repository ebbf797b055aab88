"""A data set through its life: planned, applied, verified, rolled back; and the versions that files really say."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import regraft
from places import Place
from regraft.demo_sensors import STEPS, sensor_table, write_sensor_file, write_set
from regraft.errors import ConflictError, CorruptError, InvalidError, NotFoundError

KEY = "schema:demo-sensors:version"


def write(path: Path, version: str | None = None, rows: int = 50) -> Path:
    table = pa.table({"a": pa.array(range(rows), pa.int64()), "b": [f"row {row}" for row in range(rows)]})
    if version is not None:
        table = table.replace_schema_metadata({"v": version})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def small(folder: Path, *ends: tuple[int, int], **more: Any) -> regraft.MigrationSet:
    """A set whose step from n to m adds the column `n_m`."""
    return regraft.open_migrations(
        {
            "name": "small",
            "data": {"url": str(folder)},
            "version": {"key": "v"},
            "steps": [{"from": one, "to": other, "sql": {f"{one}_{other}": f"a + {one}"}} for one, other in ends],
            **more,
        }
    )


def states(plan: regraft.MigrationPlan | regraft.MigrationReport) -> dict[str, str]:
    return {item["key"]: item["state"] for item in plan.objects}


def said(path: Path, key: str = "v") -> str:
    return pq.read_metadata(path).metadata[key.encode()].decode()


def test_one_to_three_and_back(tmp_path: Path) -> None:
    sensors = regraft.open_migrations(write_set(tmp_path, files=4, rows=1000))
    before = {path: path.read_bytes() for path in (tmp_path / "sensors").rglob("*.parquet")}
    plan = sensors.plan(progress=False)
    assert plan.counts == {"pending": 4}
    assert plan.estimate["bytes_read"] < plan.estimate["bytes"] / 2
    report = plan.apply(progress=False)
    report.raise_for_failures()
    assert (report.outcome, report.counts) == ("done", {"done": 4})
    for number in range(4):
        (path,) = (path for path in before if path.name == f"sensor-{number:02d}.parquet")
        old, new = sensor_table(number, 1000), pq.read_table(path, partitioning=None)
        assert new.schema.names[-2:] == ["dew_point_c", "feels_like_c"]
        assert "legacy_id" not in new.schema.names
        assert new["humidity"].equals(old["rh"])
        expected = pc.subtract(old["temp_c"], pc.divide(pc.subtract(100.0, old["rh"]), 5.0))
        assert new["dew_point_c"].equals(expected)
        assert path.read_bytes()[: len(before[path])] == before[path]
        stamp = json.loads(said(path, "regraft:migration"))
        assert (stamp["from"], stamp["to"], stamp["run"]) == (1, 3, report.run)
    assert sensors.plan(progress=False).empty
    assert sensors.plan(progress=False).apply(progress=False).outcome == "nothing"
    checked = report.verify(progress=False)
    assert checked["outcome"] == "ok"
    checked.raise_for_failures()
    assert sensors.status(progress=False)["versions"] == {"3": 4}
    back = report.roll_back(progress=False)
    assert back.counts == {"rolled_back": 4}
    assert {path: path.read_bytes() for path in before} == before
    assert [run["verb"] for run in sensors.history()] == ["roll_back", "apply"]


def test_a_damaged_column_is_found(tmp_path: Path) -> None:
    sensors = regraft.open_migrations(write_set(tmp_path, files=1, rows=1000))
    sensors.plan(progress=False).apply(progress=False)
    (path,) = (tmp_path / "sensors").rglob("*.parquet")
    assert sensors.verify(progress=False)["outcome"] == "ok"
    chunk = pq.read_metadata(path).row_group(0).column(2)
    assert chunk.path_in_schema == "temp_c"
    place, stat = chunk.data_page_offset + chunk.total_compressed_size // 2, path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    # As a disk would do it: nobody is told.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    checked = sensors.verify(progress=False)
    assert checked["outcome"] == "failed"
    with pytest.raises(CorruptError, match="1 objects are not what the migration wrote"):
        checked.raise_for_failures()


def test_somebody_else_was_faster(tmp_path: Path) -> None:
    sensors = regraft.open_migrations(write_set(tmp_path, files=3, rows=200))
    plan = sensors.plan(progress=False)
    (path,) = (tmp_path / "sensors").rglob("sensor-01.parquet")
    write_sensor_file(path, 77, rows=300)
    theirs = path.read_bytes()
    report = plan.apply(progress=False)
    assert report.counts == {"done": 2, "conflict": 1}
    assert path.read_bytes() == theirs
    with pytest.raises(InvalidError if len(report.failed) > 1 else ConflictError, match="1 of 3 objects"):
        report.raise_for_failures()
    assert sensors.plan(progress=False).apply(progress=False).counts["done"] >= 1
    assert said(path, KEY) == "3"


def test_ten_comes_after_nine(tmp_path: Path) -> None:
    nine, ten = write(tmp_path / "nine.parquet", "9"), write(tmp_path / "ten.parquet", "10")
    plan = small(tmp_path, (9, 10)).plan(progress=False)
    assert states(plan) == {"nine.parquet": "pending", "ten.parquet": "done"}
    plan.apply(progress=False).raise_for_failures()
    assert (said(nine), said(ten)) == ("10", "10")
    assert states(small(tmp_path, (8, 9)).plan(to=9, progress=False)) == {
        "nine.parquet": "newer",
        "ten.parquet": "newer",
    }


def test_what_is_no_version_is_refused(tmp_path: Path) -> None:
    before = write(tmp_path / "odd.parquet", "two").read_bytes()
    report = small(tmp_path, (1, 2)).plan(progress=False).apply(progress=False)
    (item,) = report.objects
    assert item["state"] == "error"
    assert "`two`" in item["message"]
    assert (tmp_path / "odd.parquet").read_bytes() == before


def test_a_step_that_skips_a_version(tmp_path: Path) -> None:
    for version in (1, 2, 3, 4):
        write(tmp_path / f"{version}.parquet", str(version))
    plan = small(tmp_path, (1, 2), (2, 4)).plan(progress=False)
    assert states(plan) == {
        "1.parquet": "pending",
        "2.parquet": "pending",
        "3.parquet": "missing_step",
        "4.parquet": "done",
    }
    assert (
        next(item["message"] for item in plan.failed) == "expected a step from version `3` towards `4`, there is none"
    )
    plan.apply(progress=False)
    assert pq.read_schema(tmp_path / "1.parquet").names == ["a", "b", "1_2", "2_4"]
    assert pq.read_schema(tmp_path / "2.parquet").names == ["a", "b", "2_4"]
    assert said(tmp_path / "3.parquet") == "3"


def test_two_steps_from_one(tmp_path: Path) -> None:
    """A short cut is taken; two ways of equal length are a question for the user."""
    write(tmp_path / "file.parquet")
    plan = small(tmp_path, (1, 2), (2, 3), (1, 3)).plan(progress=False)
    assert [plan["steps"][index]["to"] for index in plan.objects[0]["steps"]] == [3]
    with pytest.raises(InvalidError, match="two steps lead from 1 to 2"):
        small(tmp_path, (1, 2), (1, 2))
    with pytest.raises(InvalidError, match="two ways of `2` steps lead from `1` to `4`"):
        small(tmp_path, (1, 2), (2, 4), (1, 3), (3, 4)).plan(progress=False)


@pytest.mark.s3
def test_tags_and_footers(place: Place) -> None:
    """A tag without footer key is honoured; a footer key without tag wins, and the tag is mended."""
    if place.server is None:
        pytest.skip("files on disk have no tags")
    folder = place.directory / "made"
    client = place.server.client()
    put = {
        "tagged.parquet": (None, "v=2&owner=me"),
        "footer.parquet": ("2", "owner=me"),
        "both.parquet": ("2", "v=1&owner=me"),
        "neither.parquet": (None, ""),
    }
    for name, (footer, tags) in put.items():
        body = write(folder / name, footer).read_bytes()
        client.put_object(Bucket=place.bucket, Key=f"set/{name}", Body=body, Tagging=tags)
    migrations = regraft.open_migrations(
        {
            "name": "small",
            "data": {"url": f"s3://{place.bucket}/set/"},
            "version": {"key": "v"},
            "steps": [{"from": one, "to": one + 1, "sql": {f"new_{one}": "a + 1"}} for one in (1, 2)],
        },
        storage_options=place.storage_options,
    )
    plan = migrations.plan(progress=False)
    assert {item["key"]: item["from"] for item in plan.objects} == {
        "tagged.parquet": 2,
        "footer.parquet": 2,
        "both.parquet": 2,
        "neither.parquet": 1,
    }
    plan.apply(progress=False).raise_for_failures()
    for name in put:
        tags = client.get_object_tagging(Bucket=place.bucket, Key=f"set/{name}")["TagSet"]
        found = {tag["Key"]: tag["Value"] for tag in tags}
        assert found.pop("v") == "3"
        assert found == ({} if name == "neither.parquet" else {"owner": "me"})
        (folder / name).write_bytes(client.get_object(Bucket=place.bucket, Key=f"set/{name}")["Body"].read())
        assert said(folder / name) == "3"


def test_a_file_that_is_no_parquet_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_text("hello")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.parquet").write_text("")
    report = small(tmp_path, (1, 2)).plan(progress=False).apply(progress=False)
    assert states(report) == {"good.parquet": "done", "bad.parquet": "not_parquet"}
    assert (tmp_path / "bad.parquet").read_text() == "hello"


def test_an_edited_step_stops_the_next_apply(tmp_path: Path) -> None:
    write(tmp_path / "one.parquet")
    small(tmp_path, (1, 2)).plan(progress=False).apply(progress=False).raise_for_failures()
    write(tmp_path / "two.parquet")
    edited = small(tmp_path, steps=[{"from": 1, "to": 2, "sql": {"1_2": "a + 2"}}])
    with pytest.raises(InvalidError, match="1→2"):
        edited.plan(progress=False).apply(progress=False)
    assert pq.read_schema(tmp_path / "two.parquet").names == ["a", "b"]


def test_the_decorator(tmp_path: Path) -> None:
    write(tmp_path / "file.parquet")
    migrations = small(tmp_path)
    seen: list[int] = []

    @migrations.step(1, 2, reads=["a"], adds={"double": pa.int64()}, rename={"b": "text"})
    def doubled(batch: pa.RecordBatch) -> dict[str, Any]:
        assert batch.schema.names == ["a"]
        seen.append(batch.num_rows)
        return {"double": pc.multiply(batch["a"], 2)}

    migrations.sql_step(2, 3, {"triple": "a * 3"}, drop=["a"])
    assert migrations.target == 3
    migrations.plan(progress=False).apply(progress=False).raise_for_failures()
    table = pq.read_table(tmp_path / "file.parquet")
    assert table.schema.names == ["text", "double", "triple"]
    assert table["triple"].to_pylist() == [3 * row for row in range(50)]
    assert seen == [50]
    with pytest.raises(InvalidError, match="two steps lead from 2 to 3"):
        migrations.sql_step(2, 3, {"other": "1"})
    with pytest.raises(InvalidError, match="expected `to` above `from`"):
        migrations.sql_step(3, 2, {"other": "1"})


def test_errors_of_steps_name_file_row_group_and_step(tmp_path: Path) -> None:
    write(tmp_path / "file.parquet")
    before = (tmp_path / "file.parquet").read_bytes()
    migrations = small(tmp_path)

    @migrations.step(1, 2, reads=["a"], adds={"new": "double"})
    def broken(batch: pa.RecordBatch) -> dict[str, Any]:
        raise KeyError("lost")

    (item,) = migrations.plan(progress=False).apply(progress=False).failed
    for word in ("file.parquet", "row group `0`", "1→2", "KeyError: 'lost'"):
        assert word in item["message"]
    assert (tmp_path / "file.parquet").read_bytes() == before
    unknown = small(tmp_path, steps=[{"from": 1, "to": 2, "sql": {"new": "aa + 1"}}])
    (item,) = unknown.plan(progress=False).failed
    assert "there is no column `aa`" in item["message"]
    assert item["hint"] == "did you mean `a`?"


def test_shards_are_the_whole_and_share_a_run(tmp_path: Path) -> None:
    for number in range(7):
        write(tmp_path / f"{number}.parquet")
    migrations = small(tmp_path, (1, 2))
    migrations.plan(progress=False).save(tmp_path / "plan.json")
    reports = [
        regraft.MigrationPlan.load(tmp_path / "plan.json").apply(shard=(number, 3), run="shared", progress=False)
        for number in (1, 2, 3)
    ]
    done = [item["key"] for report in reports for item in report.objects if item["state"] == "done"]
    assert sorted(done) == [f"{number}.parquet" for number in range(7)]
    assert {report.run for report in reports} == {"shared"}
    assert migrations.roll_back("shared", progress=False).counts == {"rolled_back": 7}
    with pytest.raises(InvalidError, match="expected a shard"):
        migrations.plan(progress=False).apply(shard=(4, 3), progress=False)


def test_saved_plans_are_checked(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"kind": "zarr-plan"}')
    with pytest.raises(InvalidError, match="expected the kind `parquet-plan`, found `zarr-plan`"):
        regraft.MigrationPlan.load(tmp_path / "other.json")
    with pytest.raises(NotFoundError):
        regraft.MigrationPlan.load(tmp_path / "none.json")
    write(tmp_path / "file.parquet")
    secret = regraft.open_migrations(
        {"name": "small", "data": {"url": str(tmp_path)}, "steps": [{"from": 1, "to": 2, "sql": {"x": "a"}}]},
        storage_options={"data": {"aws_secret_access_key": "hush"}},
    )
    with pytest.raises(InvalidError):
        secret.plan(progress=False)
    from regraft.config_file import public_config

    assert "hush" not in json.dumps(public_config(secret.config))


def test_it_pickles_and_prints(tmp_path: Path) -> None:
    config = write_set(tmp_path, files=1, rows=100)
    sensors = pickle.loads(pickle.dumps(regraft.open_migrations(config)))  # noqa: S301 - made here
    plan = sensors.plan(progress=False)
    report = plan.apply(progress=False)
    for subject, words in (
        (sensors, ("demo-sensors", "dew_point_c", "rh → humidity")),
        (plan, ("1 file of", "to version 3", "requests:", "prices of", "sensor-00.parquet", "widened")),
        (report, ("done, run", "estimated: read")),
        (sensors.status(progress=False), ("version 3", "runs")),
        (sensors.verify(progress=False), ("1 file checked, all as they should be",)),
        (sensors.history(), ("runs",)),
    ):
        for text in (repr(subject), subject._repr_html_()):
            for word in words:
                assert word in text
    assert plan.to_pandas()["state"].tolist() == ["pending"]


def test_for_event_loops(tmp_path: Path) -> None:
    migrations = regraft.open_migrations(write_set(tmp_path, files=2, rows=100))

    async def all_of_it() -> None:
        plan = await migrations.plan_async(progress=False)
        report = await plan.apply_async(progress=False)
        assert report.counts == {"done": 2}
        assert (await migrations.verify_async(progress=False))["outcome"] == "ok"
        assert (await migrations.roll_back_async(progress=False)).counts == {"rolled_back": 2}

    asyncio.run(all_of_it())


def test_progress_counts_files(tmp_path: Path) -> None:
    write(tmp_path / "good.parquet")
    write(tmp_path / "odd.parquet", "0")
    events: list[dict[str, Any]] = []
    small(tmp_path, (1, 2)).plan(progress=events.append).apply(progress=events.append)
    assert {"scan", "migrate"} <= {event["stage"] for event in events}
    assert events[-1]["done"] == events[-1]["total"]


SLOWLY = """
import sys, time
import regraft

migrations = regraft.open_migrations(sys.argv[1], overrides={"run": {"concurrency": 1}, "steps": [], "target": 2})

@migrations.step(1, 2, reads=["temp_c"], adds={"new": "double"}, revision="1")
def slowly(batch):
    time.sleep(0.05)
    return {"new": batch["temp_c"]}

migrations.plan(progress=False).apply(progress=False).raise_for_failures()
"""


@pytest.mark.parametrize("delay", [0.3, 0.6])
def test_killed_and_resumed(tmp_path: Path, delay: float) -> None:
    """kill -9 in the middle: every file is whole, old or new; the same command again finishes."""
    files = 24
    config = write_set(tmp_path, files=files, rows=300)
    before = {path: path.read_bytes() for path in (tmp_path / "sensors").rglob("*.parquet")}
    script = tmp_path / "slowly.py"
    script.write_text(SLOWLY)
    process = subprocess.Popen([sys.executable, str(script), str(config)])
    deadline = time.monotonic() + 60
    while all(path.read_bytes() == content for path, content in before.items()):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    versions = [pq.read_metadata(path).metadata.get(KEY.encode()) for path in before]
    migrated = sum(version == b"2" for version in versions)
    assert 0 < migrated < files
    for path, content in before.items():
        assert path.read_bytes()[: len(content)] == content
        pq.read_table(path, partitioning=None).validate(full=True)
    left = [path for path in (tmp_path / "sensors").rglob("*") if path.is_file() and path not in before]
    assert all(path.name.startswith(".") for path in left), "readers would see it"

    subprocess.run([sys.executable, str(script), str(config)], check=True, timeout=100)
    for path in before:
        assert said(path, KEY) == "2"
        table = pq.read_table(path, partitioning=None)
        assert table["new"].equals(table["temp_c"])
        assert table.schema.names.count("new") == 1


def test_the_made_steps_are_what_the_file_says(tmp_path: Path) -> None:
    write_set(tmp_path, files=1, rows=10)
    assert (tmp_path / "steps.py").read_text() == STEPS
