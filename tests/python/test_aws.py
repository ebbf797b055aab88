"""`regraft.aws`: requests first, commits as time allows, and nothing failed but what nobody can read."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_lambda_powertools import Logger
from notifications import TEST_EVENT, event_bridge, s3, s3_record, sns, sqs_lambda
from places import Place
from regraft.aws import collection_handler
from regraft.collections import Collection, open_collection
from regraft.demo_data import SstGrid, day_name, write_sst_day
from regraft.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from regraft.results import Report

GRID = SstGrid(12, 16)
SCHEDULED = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}, "resources": []}


class Context:
    """Lambda's context, with a clock that the test sets."""

    function_name = "sst"
    function_version = "$LATEST"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:sst"
    aws_request_id = "4cf1dcef-be04-4006-ba83-bb8f40c8740b"

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three days in a folder, and a configuration."""
    (tmp_path / "in").mkdir()
    for day in range(3):
        write_sst_day(tmp_path / "in" / day_name(day), day, grid=GRID)
    tree = {
        "name": "sst",
        "source": {"url": "in", "include": ["*.nc"]},
        "store": {"url": "sst.zarr", "chunks": {"time": 1}},
        "region": {"key": "time"},
    }
    (tmp_path / "sst.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


@pytest.fixture
def lines() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(folder: Path, lines: io.StringIO) -> Any:
    # Loggers of one service share their stream.
    return collection_handler(folder / "sst.yaml", logger=Logger(service=folder.name, stream=lines))


def logged(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def failed(response: dict[str, Any]) -> list[str]:
    assert set(response) == {"batchItemFailures"}
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]


def status(folder: Path) -> Any:
    return open_collection(folder / "sst.yaml").status()


@pytest.mark.parametrize("group", [None, "sst"], ids=["standard", "fifo"])
def test_a_batch_is_stored_written_and_done_with(
    handler: Any, folder: Path, lines: io.StringIO, group: str | None
) -> None:
    days = [day_name(day) for day in range(3)]
    event = sqs_lambda([days[0], days[1]], TEST_EVENT, f"file://{folder / 'in' / days[2]}", group=group)
    assert failed(handler(event, Context())) == []
    assert status(folder)["axis_length"] == 3
    assert status(folder).pending == 0
    messages = {line["message"]: line for line in logged(lines)}
    assert messages["requests stored"]["requests"] == 3
    assert messages["requests stored"]["ignored"] == 1
    assert messages["requests settled"]["sources"] == {"append": 3}
    assert messages["requests settled"]["level"] == "INFO"
    # Everything once more: nothing to do.
    assert failed(handler(event, Context())) == []
    assert len(open_collection(folder / "sst.yaml").history()) == 1


@pytest.mark.parametrize("group", [None, "sst"], ids=["standard", "fifo"])
def test_only_what_nobody_can_read_is_failed(handler: Any, folder: Path, lines: io.StringIO, group: str | None) -> None:
    (folder / "in" / "bad.nc").write_bytes(b"no NetCDF")
    event = sqs_lambda(
        "tea",
        [day_name(0)],
        ["bad.nc"],
        ["notes.txt"],
        s3(s3_record("elsewhere/a.nc")),
        sns({"unknown": 1}),
        [day_name(1), {"who": "knows"}],
        ["gone.nc"],
        group=group,
    )
    # Messages behind a failed one of their group are not failed: what they ask for is stored.
    assert failed(handler(event, Context())) == ["m0", "m5", "m6"]
    found = status(folder)
    assert (found["axis_length"], found["quarantined"], found.pending) == (2, 1, 0)
    told = logged(lines)
    assert [line["message_id"] for line in told if line["message"] == "record refused"] == ["m0", "m5", "m6"]
    assert [line["key"] for line in told if line["message"] == "source set aside"] == ["bad.nc"]
    assert next(line["ignored"] for line in told if line["message"] == "requests stored") == 2


def test_a_batch_of_nothing_but_garbage_is_no_error_of_the_function(handler: Any, folder: Path) -> None:
    assert failed(handler(sqs_lambda("tea", "cake"), Context())) == ["m0", "m1"]
    assert failed(handler(sqs_lambda(TEST_EVENT), Context())) == []
    assert not status(folder)["store_exists"]


def test_a_removal_is_looked_at(handler: Any, folder: Path) -> None:
    handler(sqs_lambda([day_name(0), day_name(1)]), Context())
    removal = {"key": day_name(0), "operation": "remove"}
    assert failed(handler(sqs_lambda([removal]), Context())) == []
    assert open_collection(folder / "sst.yaml").gaps()["blank"] == []
    (folder / "in" / day_name(0)).unlink()
    assert failed(handler(sqs_lambda([removal]), Context())) == []
    assert len(open_collection(folder / "sst.yaml").gaps()["blank"]) == 1


def test_without_time_requests_are_stored_and_a_schedule_settles_them(
    handler: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(60)
    submit = Collection.submit

    def slowly(self: Collection, *arguments: Any, **named: Any) -> Any:
        context.seconds = 11
        return submit(self, *arguments, **named)

    monkeypatch.setattr(Collection, "submit", slowly)
    assert failed(handler(sqs_lambda([day_name(0)]), context)) == []
    assert status(folder).pending == 1
    assert handler(SCHEDULED, Context()) == {"requests": 0, "ignored": 0, "outcome": "done"}
    assert status(folder).pending == 0
    assert status(folder)["axis_length"] == 1
    assert handler({}, Context())["outcome"] == "nothing"


def test_a_fifth_of_the_time_is_kept(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def drain(self: Collection, **options: Any) -> Report:
        given.append(options)
        return Report({"outcome": "busy", "holder": "another", "changes": []})

    monkeypatch.setattr(Collection, "drain", drain)
    # Another worker is at work: its business now, and no failure.
    assert failed(handler(sqs_lambda([day_name(0)]), Context(100))) == []
    handler(SCHEDULED, Context(100))
    handler(SCHEDULED, Context(20))
    assert given == [
        {"wait": None, "deadline": 80.0, "progress": False},
        {"wait": 35.0, "deadline": 80.0, "progress": False},
        {"wait": 16.0, "deadline": 16.0, "progress": False},
    ]


@pytest.mark.parametrize("error", [ConflictError("taken over"), UnavailableError("no answer")])
def test_what_is_stored_is_never_failed(
    handler: Any, folder: Path, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def drain(self: Collection, **options: Any) -> Report:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "drain", drain)
        assert failed(handler(sqs_lambda([day_name(0)], "tea"), Context())) == ["m1"]
        with pytest.raises(type(error)):
            handler(SCHEDULED, Context())
    assert logged(lines)[-1]["message"] == "requests wait for the next call"
    assert logged(lines)[-1]["retryable"] is True
    assert status(folder).pending == 1


def test_what_is_not_stored_comes_again(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(self: Collection, *arguments: Any, **named: Any) -> None:
        raise UnavailableError("no answer")

    monkeypatch.setattr(Collection, "submit", submit)
    with pytest.raises(UnavailableError):
        handler(sqs_lambda([day_name(0)]), Context())


def test_notifications_without_a_queue(handler: Any, folder: Path) -> None:
    assert handler([day_name(0)], Context()) == {"requests": 1, "ignored": 0, "outcome": "done"}
    assert handler(s3(s3_record("elsewhere/a.nc")), Context())["ignored"] == 1
    assert handler(event_bridge("elsewhere/a.nc"), Context())["requests"] == 0
    with pytest.raises(InvalidError, match="found a mapping with `who`"):
        handler([{"who": 1}, day_name(1)], Context())
    assert status(folder)["axis_length"] == 2


def test_a_wrong_configuration_fails_the_deployment(folder: Path) -> None:
    with pytest.raises(NotFoundError):
        collection_handler(folder / "tea.yaml")
    with pytest.raises(InvalidError):
        collection_handler(folder / "sst.yaml", overrides={"region": {"winner": "tea"}})


def test_a_cold_start_loads_nothing_heavy() -> None:
    script = "import sys, regraft.aws; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "aws_lambda_powertools" in loaded
    assert not loaded & {"boto3", "xarray", "zarr", "pandas", "dask", "matplotlib", "rich", "typer", "tqdm", "numpy"}


@pytest.mark.s3
def test_the_configuration_may_lie_in_a_bucket(
    ministack_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, ministack_server, ministack_server.new_bucket())
    for name, value in {
        "AWS_ENDPOINT_URL": ministack_server.endpoint,
        "AWS_ACCESS_KEY_ID": "admin",
        "AWS_SECRET_ACCESS_KEY": "secret123",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    tree = {
        "name": "sst",
        "source": {"url": place.url("in"), "storage_options": {"endpoint": "${AWS_ENDPOINT_URL}", "allow_http": True}},
        "store": {
            "url": place.url("x.zarr"),
            "storage_options": {"endpoint": "${AWS_ENDPOINT_URL}", "allow_http": True},
        },
        "region": {"key": "time"},
    }
    place.put("sst.yaml", yaml.safe_dump(tree).encode())
    place.put("sst.json", json.dumps(tree).encode())
    place.put("list.yaml", b"[1]")
    write_sst_day(tmp_path / "a.nc", 0, grid=GRID)
    place.put("in/a b+c.nc", tmp_path / "a.nc")
    for name in ("sst.yaml", "sst.json"):
        handler = collection_handler(place.url(name), logger=Logger(service="test", stream=io.StringIO()))
        event = s3(s3_record("in/a b+c.nc", bucket=place.bucket))
        assert handler(sqs_lambda(sns(event)), Context()) == {"batchItemFailures": []}
    collection = open_collection(tree, storage_options=place.storage_options)
    assert [row["key"] for row in collection.ledger()] == ["a b+c.nc"]
    with pytest.raises(InvalidError, match="expected a mapping, found `list`"):
        collection_handler(place.url("list.yaml"))
    with pytest.raises(InvalidError, match="cannot be read"):
        collection_handler(place.url("none.yaml"))
