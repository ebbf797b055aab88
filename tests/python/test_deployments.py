"""Events end to end: a bucket tells a queue, and the function, or a worker beside the queue, keeps the store right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloud import ATTEMPTS, VISIBILITY, Deployment, until
from places import Place
from servers import ACCESS_KEY, SECRET_KEY, Server, command, ministack

LONG = bool(os.environ.get("REGRAFT_LONG"))
FILES = 200 if LONG else 40
PATIENCE = 240.0 if LONG else 100.0
SCHEDULED = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}, "resources": []}

pytestmark = [pytest.mark.s3, pytest.mark.timeout(600 if LONG else 240)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of their own: functions and mappings go on after a test, and load the machine."""
    with ministack(tmp_path_factory.mktemp("cloud")) as server:
        yield server


@pytest.fixture
def deployments(cloud: Server, tmp_path: Path, request: pytest.FixtureRequest) -> list[Deployment]:
    """The same collection twice: EventBridge and a FIFO queue, and a bucket that tells a standard queue itself."""
    made = []
    for kind in ("fifo", "standard"):
        folder = tmp_path / kind
        folder.mkdir()
        name = f"{request.node.name.split('_')[1]}-{kind}"
        made.append(Deployment(Place(folder, cloud, cloud.new_bucket()), name, fifo=kind == "fifo"))
    return made


def wait_until_settled(deployment: Deployment) -> None:
    until(deployment.settled, PATIENCE, lambda: (deployment.counts(deployment.queue), deployment.collection().status()))
    until(lambda: len(deployment.dead_bodies()) == 2, 3 * ATTEMPTS * VISIBILITY, deployment.dead_bodies)


def arrive_change_and_go(deployment: Deployment) -> None:
    """Forty files at once, one of them poison, some revised, some removed, some told twice, and garbage among them."""
    deployment.place.put("incoming/2022 a+b/poison.nc", b"no NetCDF")
    deployment.place.put("incoming/2022 a+b/notes.txt", b"no source")
    deployment.put_days(range(FILES))
    deployment.send("tea")
    deployment.send(json.dumps({"orderId": 7}))
    deployment.put_days(range(5), correction=0.5)
    for number in range(5, 8):
        deployment.place.delete(deployment.key(number))
    # Told again, late: a key that is there, one that is gone, one that never was.
    for number in (0, 5, FILES):
        deployment.send(json.dumps([f"s3://{deployment.place.bucket}/{deployment.key(number)}"]))


def check_what_became_of_it(deployment: Deployment) -> None:
    # A removal that came before its file was written leaves no label behind.
    collection = deployment.collection()
    blank = len(collection.gaps()["blank"])
    assert blank <= 3
    deployment.check([number for number in range(FILES) if not 5 <= number < 8], blank=range(5, 5 + blank))
    status = collection.status()
    assert status["quarantined"] == 1
    assert deployment.dead_bodies() == sorted(["tea", json.dumps({"orderId": 7})])


def test_functions_behind_queues(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        deployment.deploy_function()
        arrive_change_and_go(deployment)
    for deployment in deployments:
        until(lambda: deployment.counts(deployment.queue)[0] == 0, PATIENCE)  # noqa: B023
        # Of several at once one wrote; what one left behind that was cut off, the schedule settles.
        deployment.call_function(SCHEDULED)
        wait_until_settled(deployment)
        check_what_became_of_it(deployment)
        assert deployment.call_function(SCHEDULED) == {"requests": 0, "ignored": 0, "outcome": "nothing"}
        # Many files were written at a time.
        assert len(deployment.collection().history()) <= FILES


def test_workers_beside_queues(deployments: list[Deployment]) -> None:
    workers = [
        Worker(deployment, deployment.place.directory / f"worker-{number}")
        for deployment in deployments
        for number in range(2)
    ]
    ended: list[tuple[int, str]] = []
    try:
        for deployment in deployments:
            arrive_change_and_go(deployment)
        # In the middle of the work one leaves, and one is killed.
        until(lambda: all("following" in worker.log.read_text() for worker in workers), 60)
        workers.pop(2).kill()
        ended.append(workers.pop(0).stop())
        for deployment in deployments:
            wait_until_settled(deployment)
    finally:
        ended += [worker.stop() for worker in workers]
    assert [code for code, _ in ended] == [0, 0, 0], ended
    summaries = [json.loads(output.splitlines()[-1]) for _, output in ended]
    for deployment in deployments:
        check_what_became_of_it(deployment)
    whole = [summary for summary in summaries if summary["queue"] == deployments[0].queue]
    assert sum(summary["acknowledged"] for summary in whole) >= FILES + 10
    # A poll that was broken off may have counted as an attempt.
    assert 2 <= sum(summary["refused"] for summary in whole) <= 2 * ATTEMPTS

    last = deployments[0]
    last.put_days([FILES])
    # The server may hand the message to the poll that a worker left, and shows it again half a minute later.
    until(lambda: follow_once(last)["acknowledged"] == 1, 90)
    last.check([*range(5), *range(8, FILES + 1)], blank=range(len(last.collection().gaps()["blank"])))


def follow_once(deployment: Deployment) -> Any:
    code, output = Worker(deployment, deployment.place.directory / f"once-{time.monotonic_ns()}", "--once").wait()
    assert code == 0, output
    return json.loads(output.splitlines()[-1])


class Worker:
    """`regraft zarr watch` as a process of its own."""

    def __init__(self, deployment: Deployment, folder: Path, *words: str) -> None:
        folder.mkdir()
        config = folder / "sst.yaml"
        config.write_text(yaml.safe_dump(deployment.config))
        assert deployment.place.server is not None
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": deployment.place.server.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.log = folder / "log"
        self.output = folder / "output"
        arguments = [command("regraft"), "zarr", "watch", str(config), "--queue", deployment.queue, "--json", *words]
        with self.log.open("wb") as log, self.output.open("wb") as output:
            self.process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=log)

    def stop(self) -> tuple[int, str]:
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code, output = self.wait()
        assert time.monotonic() - began < 30
        return code, output

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)

    def wait(self) -> tuple[int, Any]:
        try:
            code = self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        output = self.output.read_text()
        return code, output if code == 0 else f"{output}\n{self.log.read_text()}"
