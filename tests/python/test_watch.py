"""`regraft.watch` and `regraft.sqs`: messages are gathered, settled, and only then deleted."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from notifications import TEST_EVENT, s3, s3_record, text
from regraft import watch as module
from regraft.collections import Collection, open_collection
from regraft.config_file import public_config
from regraft.demo_data import SstGrid, day_name, write_sst_day
from regraft.errors import ConflictError, CorruptError, InvalidError, UnavailableError
from regraft.results import Report
from regraft.sqs import Queue, Received
from regraft.watch import watch

GRID = SstGrid(12, 16)


class Clock:
    """Time that passes only while a queue is waited for."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


CLOCK = Clock()


@dataclass
class MadeQueue:
    """A queue in memory: what was received is hidden until it is deleted or its time is over."""

    bodies: list[str]
    url: str = "https://sqs.eu-west-1.amazonaws.com/1/files"
    most_attempts: int = 3
    at_once: int = 10
    when_empty: Callable[[], object] = lambda: None
    hidden: dict[str, float] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    hides: list[tuple[tuple[str, ...], float]] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)

    @property
    def is_fifo(self) -> bool:
        return self.url.endswith(".fifo")

    def receive(self, seconds: int, hidden: float) -> list[Received]:
        self.waits.append(seconds)
        given = self._free()
        if not given:
            CLOCK.now += seconds
            given = self._free()
        for name in given:
            self.hidden[name] = CLOCK.now + hidden
            self.attempts[name] = self.attempts.get(name, 0) + 1
        if not given:
            self.when_empty()
        return [Received(name, f"id-{name}", self.bodies[int(name[1:])], self.attempts[name]) for name in given]

    def _free(self) -> list[str]:
        names = [f"m{number}" for number in range(len(self.bodies))]
        left = [name for name in names if name not in (*self.deleted, *self.dead)]
        free = [name for name in left if self.hidden.get(name, 0.0) <= CLOCK.now]
        self.dead += [name for name in free if self.attempts.get(name, 0) >= self.most_attempts]
        return [name for name in free if name not in self.dead][: self.at_once]

    def delete(self, receipts: list[str]) -> int:
        self.deleted += receipts
        return len(receipts)

    def hide(self, receipts: list[str], seconds: float) -> None:
        self.hides.append((tuple(receipts), seconds))
        for name in receipts:
            self.hidden[name] = CLOCK.now + seconds


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    (tmp_path / "in").mkdir()
    for day in range(6):
        write_sst_day(tmp_path / "in" / day_name(day), day, grid=GRID)
    return open_collection(
        {
            "name": "sst",
            "source": {"url": str(tmp_path / "in"), "include": ["*.nc"]},
            "store": {"url": str(tmp_path / "sst.zarr"), "chunks": {"time": 1}},
            "region": {"key": "time"},
            "run": {"batch": {"files": 100, "wait": 5}},
        }
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY", (0.01, 0.02))
    monkeypatch.setattr(module, "time", CLOCK)


def days(numbers: Iterable[int]) -> list[str]:
    return [text([day_name(number)]) for number in numbers]


def test_many_messages_are_one_commit_and_deleted_after_it(collection: Collection) -> None:
    queue = MadeQueue([*days(range(6)), *days(range(6)), text(TEST_EVENT), text(["notes.txt"])], at_once=4)
    reports: list[Report] = []
    summary = watch(collection, queue, once=True, tell=reports.append)  # type: ignore[arg-type]
    assert sorted(queue.deleted) == sorted(f"m{number}" for number in range(14))
    (report,) = reports
    assert len(report["commits"]) == 1
    assert dict(summary) == {
        "schema_version": 1,
        "kind": "zarr-watch",
        "collection": "sst",
        "queue": queue.url,
        "messages": 14,
        "acknowledged": 14,
        "refused": 0,
        "ignored": 2,
        "requests": 6,
        "commits": report["commits"],
        "quarantined": [],
    }
    assert "requests" in repr(summary)


def test_what_nobody_can_read_goes_to_the_dead_letter_queue_alone(
    collection: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in" / "bad.nc").write_bytes(b"no NetCDF")
    half = text(s3(s3_record("elsewhere/a.nc"), {"s3": {}}))
    queue = MadeQueue(["tea", *days([0]), text(["bad.nc"]), half, *days([1])])

    stop = threading.Event()
    queue.when_empty = lambda: len(queue.dead) == 2 and stop.set()  # type: ignore[func-returns-value]
    watch(collection, queue, stop=stop)  # type: ignore[arg-type]
    assert sorted(queue.dead) == ["m0", "m3"]
    assert sorted(queue.deleted) == ["m1", "m2", "m4"]
    assert queue.attempts["m1"] == queue.attempts["m2"] == 1
    assert [seconds for receipts, seconds in queue.hides if receipts == ("m0",)] == [2, 4, 8]
    status = collection.status()
    assert (status["axis_length"], status["quarantined"]) == (2, 1)
    assert "message id-m0, attempt 1: `Body`: expected an S3 notification" in caplog.text
    assert "`bad.nc` set aside" in caplog.text


def test_a_batch_is_closed_by_number(collection: Collection) -> None:
    tree = public_config(collection.config)
    small = open_collection(tree, overrides={"run": {"batch": {"files": 2}}})
    queue = MadeQueue(days(range(6)), at_once=1)
    summary = watch(small, queue, once=True)  # type: ignore[arg-type]
    assert len(summary["commits"]) == 3
    assert summary["acknowledged"] == 6


def test_a_queue_that_holds_messages_back_is_not_waited_for(collection: Collection) -> None:
    stop = threading.Event()
    for url, waits in (("https://host/q.fifo", [20, 1]), ("https://host/q", [20, 5])):
        queue = MadeQueue(days([0]), url=url)
        queue.when_empty = lambda: len(queue.waits) > 1 and stop.set()  # type: ignore[misc] # noqa: B023
        watch(collection, queue, stop=stop)  # type: ignore[arg-type]
        assert queue.waits[:2] == waits
        stop.clear()


def test_while_another_works_messages_are_kept(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = Collection.drain
    answers: list[Any] = [
        Report({"outcome": "busy", "holder": "another", "changes": []}),
        ConflictError("the lease was taken over"),
        UnavailableError("no answer"),
    ]

    def sometimes(self: Collection, **options: Any) -> Report:
        assert queue.deleted == []
        if answers:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return drain(self, **options)

    monkeypatch.setattr(Collection, "drain", sometimes)
    queue = MadeQueue(days([0, 1]))
    stop = threading.Event()
    queue.when_empty = lambda: queue.deleted and stop.set()  # type: ignore[func-returns-value, misc]
    watch(collection, queue, stop=stop)  # type: ignore[arg-type]
    assert answers == []
    assert sorted(queue.deleted) == ["m0", "m1"]
    assert queue.attempts == {"m0": 1, "m1": 1}


def test_once_does_not_hide_an_outage(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(self: Collection, *arguments: Any, **named: Any) -> None:
        raise UnavailableError("no answer")

    monkeypatch.setattr(Collection, "submit", submit)
    queue = MadeQueue(days([0]))
    with pytest.raises(UnavailableError):
        watch(collection, queue, once=True)  # type: ignore[arg-type]
    # Given back at once, for somebody else.
    assert queue.deleted == []
    assert queue.hides == [(("m0",), 0)]


def test_what_must_be_looked_at_stops_it(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def drain(self: Collection, **options: Any) -> Report:
        raise CorruptError("the log contradicts itself")

    monkeypatch.setattr(Collection, "drain", drain)
    queue = MadeQueue(days([0]))
    with pytest.raises(CorruptError):
        watch(collection, queue)  # type: ignore[arg-type]
    assert queue.deleted == []


def test_messages_in_hand_stay_hidden(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = Collection.drain
    monkeypatch.setattr(module, "_VISIBILITY", 0.3)

    def slow(self: Collection, **options: Any) -> Report:
        time.sleep(0.5)
        return drain(self, **options)

    monkeypatch.setattr(Collection, "drain", slow)
    queue = MadeQueue(days([0]))
    watch(collection, queue, once=True)  # type: ignore[arg-type]
    assert (("m0",), 0.3) in queue.hides
    assert queue.deleted == ["m0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_poll_stops_at_once(collection: Collection, number: int) -> None:
    queue = MadeQueue([])
    before = signal.getsignal(number)

    def poll() -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    queue.when_empty = poll
    began = time.monotonic()
    summary = watch(collection, queue)  # type: ignore[arg-type]
    assert time.monotonic() - began < 3
    assert summary["messages"] == 0
    assert signal.getsignal(number) is before


def test_a_signal_during_a_commit_finishes_it(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = Collection.drain

    def signalled(self: Collection, **options: Any) -> Report:
        report = drain(self, **{**options, "token": None})
        os.kill(os.getpid(), signal.SIGTERM)
        return report

    monkeypatch.setattr(Collection, "drain", signalled)
    queue = MadeQueue(days([0, 1]))
    assert watch(collection, queue)["acknowledged"] == 2  # type: ignore[arg-type]
    assert sorted(queue.deleted) == ["m0", "m1"]
    assert collection.status()["axis_length"] == 2


def test_a_signal_before_a_commit_gives_the_messages_back(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = Collection.drain

    def signalled(self: Collection, **options: Any) -> Report:
        os.kill(os.getpid(), signal.SIGTERM)
        return drain(self, **options)

    monkeypatch.setattr(Collection, "drain", signalled)
    queue = MadeQueue(days([0]))
    assert watch(collection, queue)["acknowledged"] == 0  # type: ignore[arg-type]
    assert queue.deleted == []
    assert queue.hides == [(("m0",), 0)]
    # What was asked for is durable all the same.
    assert collection.status().pending == 1


def test_a_second_interrupt_interrupts(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def drain(self: Collection, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Collection, "drain", drain)
    with pytest.raises(KeyboardInterrupt):
        watch(collection, MadeQueue(days([0])))  # type: ignore[arg-type]


class MadeClient:
    """A boto3 client that notes what it is made with."""

    made: dict[str, Any]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)
    seen: dict[str, Any] = {}

    def client(name: str, **options: Any) -> MadeClient:
        seen.update(options, name=name)
        return MadeClient()

    monkeypatch.setattr(boto3, "client", client)
    return seen


def test_where_the_queue_is(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Queue("https://sqs.ap-southeast-2.amazonaws.com/123/files.fifo", {"region": "eu-west-1"})
    assert (made["region_name"], made["endpoint_url"]) == ("ap-southeast-2", None)
    Queue("http://127.0.0.1:4566/000000000000/files", {"aws_region": "eu-west-1", "AWS_ACCESS_KEY_ID": "me"})
    assert (made["region_name"], made["endpoint_url"]) == ("eu-west-1", "http://127.0.0.1:4566")
    assert (made["aws_access_key_id"], made["aws_secret_access_key"]) == ("me", None)
    Queue("http://127.0.0.1:4566/000000000000/files", endpoint_url="http://other:1", region="x")
    assert (made["region_name"], made["endpoint_url"]) == ("x", "http://other:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://environment:1")
    Queue("http://127.0.0.1:4566/000000000000/files")
    assert made["endpoint_url"] is None
    with pytest.raises(InvalidError, match="expected the URL of a queue, found `files`"):
        Queue("files")


@pytest.mark.s3
def test_a_real_queue(ministack_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    import boto3

    caplog.set_level(logging.INFO)
    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "secret123", "region_name": "us-east-1"}
    client = boto3.client("sqs", endpoint_url=ministack_server.endpoint, **keys)
    url = client.create_queue(QueueName="door")["QueueUrl"]
    options = ministack_server.storage_options
    queue = Queue(url, options, endpoint_url=ministack_server.endpoint)
    assert queue.receive(0, 30) == []
    for number in range(12):
        client.send_message(QueueUrl=url, MessageBody=str(number))
    received = [*queue.receive(1, 30), *queue.receive(1, 30)]
    assert sorted(int(message.body) for message in received) == list(range(12))
    assert {message.attempt for message in received} == {1}
    assert queue.delete([message.receipt for message in received[:11]]) == 11
    queue.hide([received[11].receipt], 0)
    (again,) = queue.receive(1, 30)
    assert (again.attempt, again.identity) == (2, received[11].identity)
    with pytest.raises(InvalidError, match="cannot be used"):
        Queue(url + "-none", options, endpoint_url=ministack_server.endpoint).receive(0, 30)


def test_a_queue_that_does_not_answer(made: dict[str, Any]) -> None:
    queue = Queue("https://sqs.eu-west-1.amazonaws.com/123/files")
    # The made client has none of the methods.
    for call in (lambda: queue.receive(0, 30), lambda: queue.delete(["r"]), lambda: queue.hide(["r"], 0)):
        with pytest.raises(UnavailableError, match="the queue `https://sqs.eu-west-1.*` does not answer"):
            call()
