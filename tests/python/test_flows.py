"""`regraft.flows` under Prefect's own test server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness
from regraft import flows
from regraft.collections import Collection, open_collection
from regraft.demo_data import SstGrid, day_name, write_sst_day
from regraft.demo_sensors import write_sensor_file, write_set
from regraft.errors import InvalidError, UnavailableError
from regraft.flows import syncing
from regraft.migration_results import MigrationPlan, MigrationReport
from regraft.results import Plan, Report
from regraft.results_backfill import ShardReport

pytestmark = [
    pytest.mark.timeout(300),  # the first start of Prefect's server makes its database
    # Prefect's own: its server and its client leave sockets and coroutines to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


class MadeCollection:
    """Stands in for a collection whose store answers with prepared errors."""

    name = "Made Collection"

    def __init__(self, keys: list[str], errors: list[Exception]) -> None:
        self.keys, self.errors, self.calls = keys, errors, list[list[str]]()

    def plan(self, keys: list[str] | None = None, *, removed: list[str] = (), progress: object = None) -> Plan:
        changes = [
            {"key": key, "action": "append", "indices": [[0, 1]]} for key in (self.keys if keys is None else keys)
        ]
        changes += [{"key": key, "action": "blank", "indices": []} for key in removed]
        return Plan({"collection": self.name, "changes": changes}, self)  # type: ignore[arg-type]

    def apply(self, plan: Plan, *, wait: float | None = None, progress: object = None) -> Report:
        self.calls.append([change["key"] for change in plan.changes])
        if self.errors:
            raise self.errors.pop(0)
        return Report(
            {"outcome": "done", "changes": plan.changes, "usage": {"put": len(plan.changes)}, "quarantined": []}
        )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(keys: list[str], errors: list[Exception]) -> MadeCollection:
        collection = MadeCollection(keys, errors)
        monkeypatch.setattr(syncing, "open_collection", lambda config: collection)
        return collection

    return make


def task_runs() -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_task_runs()


def test_one_task_for_each_shard(made: Any) -> None:
    collection = made([f"{number}.nc" for number in range(10)], [])
    result = flows.sync_collection("made.yaml", shards=4)
    assert collection.calls == [["0.nc", "1.nc", "2.nc"], ["3.nc", "4.nc", "5.nc"], ["6.nc", "7.nc", "8.nc"], ["9.nc"]]
    assert result["counts"] == {"append": 10}
    assert result["usage"] == {"put": 10}
    assert result["outcome"] == "done"


def test_a_retryable_error_is_tried_again(made: Any) -> None:
    collection = made(["a.nc"], [UnavailableError("`a.nc`: no answer")])
    assert flows.sync_collection("made.yaml", shards=1)["outcome"] == "done"
    assert collection.calls == [["a.nc"], ["a.nc"]]


def test_another_error_is_not_tried_again(made: Any) -> None:
    collection = made(["a.nc"], [InvalidError("the configuration is wrong")])
    with pytest.raises(InvalidError, match="configuration"):
        flows.sync_collection("made.yaml", shards=1)
    assert collection.calls == [["a.nc"]]


def test_nothing_to_do_is_no_task(made: Any) -> None:
    collection = made([], [])
    assert flows.sync_collection("made.yaml")["outcome"] == "nothing"
    assert collection.calls == []


def test_removals_stay_removals() -> None:
    changes = [{"key": "a", "action": "append"}, {"key": "b", "action": "blank"}, {"key": "c", "action": "restore"}]
    assert syncing._cut(changes, 1) == [{"keys": ["a"], "removed": ["b", "c"]}]
    assert syncing._cut([], 4) == []
    assert len(syncing._cut(changes, 100)) == 3


def test_a_week_of_days_through_the_flow(tmp_path: Path) -> None:
    grid = SstGrid(36, 48)
    (tmp_path / "files").mkdir()
    for day in range(5):
        write_sst_day(tmp_path / "files" / day_name(day), day, grid=grid)
    (tmp_path / "files" / day_name(5)).write_bytes(b"no NetCDF")
    config = {
        "name": "flow-sst",
        "source": {"url": str(tmp_path / "files")},
        "store": {"url": str(tmp_path / "sst.zarr"), "chunks": {"time": 1}},
        "region": {"key": "time"},
    }
    state = flows.sync_collection(config, shards=2, return_state=True)
    assert state.is_completed(), state
    result = state.result()
    assert result["shards"] == 2
    assert result["counts"]["append"] == 5
    assert [item["key"] for item in result["quarantined"]] == [day_name(5)]
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    table = next(artifact for artifact in artifacts if artifact.key == "regraft-flow-sst")
    assert "flow-sst" in table.description
    assert {"apply shard 1 of 2", "apply shard 2 of 2"} <= {run.name for run in task_runs()}

    again = flows.sync_collection(config, shards=2)
    assert again["counts"].get("append", 0) == 0


def days(folder: Path, count: int) -> dict[str, Any]:
    """A configuration with so many files, two to a shard of the store."""
    (folder / "files").mkdir()
    for day in range(count):
        write_sst_day(folder / "files" / day_name(day), day, grid=SstGrid(12, 16))
    return {
        "name": "flow-years",
        "source": {"url": str(folder / "files")},
        "store": {"url": str(folder / "years.zarr"), "chunks": {"time": 1}, "shards": {"time": 2}},
        "region": {"key": "time"},
    }


def test_years_of_days_through_the_flow(tmp_path: Path) -> None:
    config = days(tmp_path, 9)
    (tmp_path / "files" / "bad.nc").write_bytes(b"no NetCDF")
    state = flows.backfill(config, shards=3, return_state=True)
    assert state.is_completed(), state
    result = state.result()
    assert (result["shards"], result["counts"], result["outcome"]) == (3, {"append": 9}, "partial")
    assert [item["key"] for item in result["quarantined"]] == ["bad.nc"]
    assert {report["plan"] for report in result["reports"]} == {result["plan"]}
    assert [tuple(part) for report in result["reports"] for part in report["indices"]] == [(0, 2), (2, 6), (6, 9)]
    collection = open_collection(config)
    assert len(collection.history()) == 1
    collection.verify(progress=False).raise_for_failures()
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    table = next(artifact for artifact in artifacts if artifact.key == "regraft-flow-years-backfill")
    assert "partial" in table.description
    assert "bad.nc" in str(table.data)
    assert {"plan backfill", *(f"backfill shard {number} of 3" for number in (1, 2, 3))} <= {
        run.name for run in task_runs()
    }

    again = flows.backfill(config, shards=3)
    assert (again["outcome"], again["shards"]) == ("nothing", 0)
    # More tasks than blocks make none without work.
    for day in (9, 10):
        write_sst_day(tmp_path / "files" / day_name(day), day, grid=SstGrid(12, 16))
    assert flows.backfill(config, shards=50)["shards"] == 2
    # What moves labels is for the other flow.
    (tmp_path / "files" / day_name(4)).unlink()
    with pytest.raises(InvalidError, match="cannot be done in shards"):
        flows.backfill(config)


def test_a_shard_that_failed_is_done_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = days(tmp_path, 6)
    apply_shard = Collection.apply_shard
    calls: list[int] = []

    def failing(self: Collection, plan: Plan, number: int, count: int, **options: Any) -> ShardReport:
        calls.append(number)
        if number == 2 and calls.count(2) == 1:
            raise UnavailableError("no answer")
        if number == 3 and calls.count(3) == 1:
            raise InvalidError("the worker has no credentials")
        return apply_shard(self, plan, number, count, **options)

    monkeypatch.setattr(Collection, "apply_shard", failing)
    with pytest.raises(InvalidError, match="credentials"):
        flows.backfill(config, shards=3)
    # The second was tried again at once.
    assert sorted(calls) == [1, 2, 2, 3]
    assert not open_collection(config).status()["axis_length"]
    assert flows.backfill(config, shards=3)["counts"] == {"append": 6}
    open_collection(config).verify(progress=False).raise_for_failures()


def test_a_data_set_through_the_flow(tmp_path: Path) -> None:
    config = write_set(tmp_path, files=5, rows=200)
    write_sensor_file(tmp_path / "sensors" / "old.parquet", 9, version=0, rows=10)
    state = flows.migrate(str(config), shards=2, return_state=True)
    assert state.is_completed(), state
    result = state.result()
    assert result["shards"] == 2
    assert result["counts"] == {"done": 5, "missing_step": 1}
    assert result["outcome"] == "partial"
    assert [item["key"] for item in result["failed"]] == ["old.parquet"]
    assert len({report["run"] for report in result["reports"]}) == 1
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    table = next(artifact for artifact in artifacts if artifact.key == "regraft-demo-sensors")
    assert "to version 3" in table.description
    assert {"migrate shard 1 of 2", "migrate shard 2 of 2"} <= {run.name for run in task_runs()}

    again = flows.migrate(str(config), shards=2)
    assert (again["shards"], again["counts"]) == (0, {"done": 5, "missing_step": 1})


def test_files_that_may_succeed_later_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_set(tmp_path, files=2, rows=100)
    calls: list[object] = []
    apply = MigrationPlan.apply

    def failing_once(self: MigrationPlan, **options: Any) -> MigrationReport:
        calls.append(options["shard"])
        if len(calls) > 1:
            return apply(self, **options)
        objects = [{"key": "a", "state": "error", "message": "no answer", "retryable": True}]
        return MigrationReport({"run": "x", "outcome": "partial", "objects": objects, "totals": {}}, self.migrations)

    monkeypatch.setattr(MigrationPlan, "apply", failing_once)
    assert flows.migrate(str(config), shards=1)["counts"] == {"done": 2}
    assert calls == [(1, 1), (1, 1)]
