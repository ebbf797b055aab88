"""A migration on S3 servers whose process is really killed, in the middle of uploads and of puts, and run again.

One request in twenty is answered with 503. Every object is looked at after each death: it is what it was, byte for
byte, or it is migrated, and its metadata and tags say the same. The long form (REGRAFT_LONG=1) takes 500 files, both
servers, and every kind of request to die at.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from proxy import THROTTLED, Answer, Proxy, Request, before, throttling
from servers import ACCESS_KEY, SECRET_KEY, Server, command
from workers import LONG

pytestmark = [pytest.mark.s3, pytest.mark.timeout(3600 if LONG else 300)]

FILES, LARGE = (500, 12) if LONG else (60, 3)
"""Objects in all; those of them that have more than 5 MiB, which are migrated by uploads in parts."""
KEY = "schema:killed:version"
CONFIG: dict[str, Any] = {
    "name": "killed",
    "target": 3,
    "steps": [
        {"from": 1, "to": 2, "sql": {"dew_point_c": "temp_c - (100 - rh) / 5"}},
        {"from": 2, "to": 3, "sql": {"warm": "temp_c > 15"}, "rename": {"rh": "humidity"}, "drop": ["legacy_id"]},
    ],
    "run": {"concurrency": 100},
}

Moment = tuple[str, str, int]
"""Kind of request, before or after the server has it, and how many of the kind are let through first."""

APPLY: list[Moment] = [
    ("put", "before", 40),
    ("begin", "after", 0),
    ("any", "after", 250),
    ("copy part", "after", 0),
    ("put", "after", 60),
    ("send part", "before", 0),
    ("any", "before", 350),
    ("complete", "before", 0),
    ("any", "after", 300),
    ("complete", "after", 0),
]
UNDO: list[Moment] = [("put", "after", 60), ("copy part", "after", 0), ("any", "before", 80), ("complete", "after", 0)]
if not LONG:
    APPLY, UNDO = [("put", "after", 12), ("send part", "before", 0), ("complete", "after", 0)], [("put", "after", 6)]


def table(number: int) -> pa.Table:
    rows = 240_000 if number < LARGE else 40
    chance = np.random.default_rng(number)
    return pa.table(
        {
            "temp_c": 14 + 6 * chance.standard_normal(rows),
            "rh": pa.array(chance.uniform(20, 100, rows), mask=chance.random(rows) < 0.1),
            "legacy_id": np.arange(rows),
            "reading": chance.standard_normal(rows),
            "station": [f"buoy {number}"] * rows,
        }
    )


def migrated(old: pa.Table) -> pa.Table:
    """What the steps come to, computed without them."""
    new = old.drop_columns(["legacy_id"]).rename_columns({"rh": "humidity"})
    dew = pc.subtract(old["temp_c"], pc.divide(pc.subtract(100.0, old["rh"]), 5.0))
    return new.append_column("dew_point_c", dew).append_column("warm", pc.greater(old["temp_c"], 15.0))


@dataclass
class DataSet:
    """The objects as they were put, and the process that changes them."""

    proxy: Proxy
    bucket: str
    config: Path
    originals: dict[str, bytes] = field(default_factory=dict)
    checked: dict[tuple[str, str], str] = field(default_factory=dict)
    throttled: int = 0
    """Requests that were answered with 503."""
    tags_late: bool = False
    """ministack forgets the tags that an upload begins with, so that they are set after it, and not in one commit."""

    @property
    def client(self) -> Any:
        """Past the proxy."""
        return Server(self.proxy.server.name, self.proxy.upstream).client()

    def fill(self, folder: Path) -> None:
        def put(number: int) -> tuple[str, bytes]:
            path = folder / f"{number}.parquet"
            pq.write_table(table(number), path, row_group_size=90_000, use_dictionary=["station"])
            key, body = f"set/day={number % 7}/{number:04}.parquet", path.read_bytes()
            assert (len(body) > 5 << 20) == (number < LARGE)
            self.client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                Tagging=f"team=ocean&{KEY}=1",
                Metadata={"origin": f"buoy {number}"},
                ContentType="application/vnd.apache.parquet",
            )
            return key, body

        with ThreadPoolExecutor(8) as pool:
            self.originals = dict(pool.map(put, range(FILES)))
        stuck = folder / "stuck.parquet"
        pq.write_table(table(FILES).replace_schema_metadata({KEY: "0"}), stuck)
        self.client.put_object(Bucket=self.bucket, Key="set/stuck.parquet", Body=stuck.read_bytes())
        self.originals["set/stuck.parquet"] = stuck.read_bytes()

    def state(self, key: str) -> str:
        """`old` or `new`, with everything that belongs to it; anything else fails."""
        found = self.client.get_object(Bucket=self.bucket, Key=key)
        if (known := self.checked.get((key, found["ETag"]))) is not None:
            found["Body"].close()
            return known
        body, original = found["Body"].read(), self.originals[key]
        old = body == original
        if not old:
            assert body[: len(original)] == original, key
            expected, rows = migrated(pq.read_table(pa.BufferReader(original))), pq.read_table(pa.BufferReader(body))
            assert rows.replace_schema_metadata(None).equals(expected.replace_schema_metadata(None)), key
            assert pq.read_metadata(pa.BufferReader(body)).metadata[KEY.encode()] == b"3", key
        if key != "set/stuck.parquet":
            tags = self.client.get_object_tagging(Bucket=self.bucket, Key=key)["TagSet"]
            late = self.tags_late and len(original) > 5 << 20
            version = {"1", "3"} if late else {"1" if old else "3"}
            assert {tag["Key"]: tag["Value"] for tag in tags} in [{"team": "ocean", KEY: it} for it in version], key
            assert found["Metadata"]["origin"] == f"buoy {int(key[-12:-8])}", key
            assert found["ContentType"] == "application/vnd.apache.parquet", key
        self.checked[key, found["ETag"]] = "old" if old else "new"
        return self.checked[key, found["ETag"]]

    def states(self) -> Counter[str]:
        listed = {
            item["Key"]
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="set/")
            for item in page.get("Contents", [])
        }
        assert listed == self.originals.keys()
        with ThreadPoolExecutor(8) as pool:
            return Counter(pool.map(self.state, self.originals))

    def uploads(self) -> list[str]:
        """Keys of uploads that are neither complete nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads") or []
        return [upload["Key"] for upload in found]

    def start(self, *words: str, subject: Path | None = None) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        return subprocess.Popen(
            [command("regraft"), "parquet", *words, str(subject or self.config), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def throttling(self, seed: int) -> Callable[[Request], Answer | None]:
        decide = throttling(0.05, seed)

        def counted(request: Request) -> Answer | None:
            answer = decide(request)
            self.throttled += answer is not None
            return answer

        return counted

    def mend_tags(self) -> None:
        """What `plan --repair` is for."""
        self.run("plan", "--repair", "-o", str(self.config.with_suffix(".json")))
        self.run("apply", subject=self.config.with_suffix(".json"), code=4)
        self.tags_late = False
        self.checked.clear()

    def run(self, *words: str, subject: Path | None = None, code: int = 0) -> dict[str, Any]:
        """The command to its end, through 503s."""
        self.proxy.forget()
        self.proxy.decide = self.throttling(len(words))
        with self.start(*words, subject=subject) as process:
            out, err = process.communicate()
        assert process.returncode == code, err.decode()
        found: Any = json.loads(out)
        return found if isinstance(found, dict) else {"list": found}

    def killed(self, moment: Moment, seed: int, *words: str) -> bool:
        """The command, killed at that moment; whether it came to it."""
        kind, when, skipped = moment
        left, dead, throttle = [skipped], [], self.throttling(seed)

        def due(request: Request) -> bool:
            # Records are not the matter here, and HEAD and GET change nothing.
            ours = request.path.startswith(f"{self.bucket}/set/")
            if not ours or not (request.kind == kind or (kind == "any" and request.path.endswith(".parquet"))):
                return False
            with self.proxy.lock:
                left[0] -= 1
                return left[0] < 0

        def kill() -> None:
            dead.append(process.pid)
            process.send_signal(signal.SIGKILL)

        def decide(request: Request) -> Answer | None:
            if (answer := throttle(request)) is not None:
                return answer
            if dead or (when == "before" and due(request)):
                kill()
                return Answer(503, THROTTLED)
            return None

        def notice(request: Request, status: int) -> None:
            if status < 300 and when == "after" and due(request):
                kill()

        self.proxy.forget()
        with self.start(*words) as process:
            self.proxy.decide, self.proxy.notice = decide, notice
            process.communicate()
        self.proxy.forget()
        assert (process.returncode == -signal.SIGKILL) == bool(dead), process.returncode
        return bool(dead)


@pytest.fixture
def data_set(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], DataSet]]:
    """A filled bucket of a server, behind a proxy."""
    with before(request.getfixturevalue(f"{request.param}_server")) as proxy:
        bucket = Server.new_bucket(Server(proxy.server.name, proxy.upstream, proxy.server.buckets))
        config = tmp_path / "killed.yaml"
        options = {"endpoint": proxy.server.endpoint, "region": "us-east-1", "allow_http": True}
        config.write_text(
            yaml.safe_dump({**CONFIG, "data": {"url": f"s3://{bucket}/set/", "storage_options": options}})
        )
        found = DataSet(proxy, bucket, config, tags_late=request.param == "ministack")
        found.fill(tmp_path)
        yield found


@pytest.mark.parametrize("data_set", ["ministack", "weed"] if LONG else ["weed"], indirect=True)
def test_killed_on_a_server_and_run_again(data_set: DataSet) -> None:
    chance = random.Random(4)
    told: list[str] = []
    for turn, (kind, when, count) in enumerate(APPLY):
        moment = (kind, when, count and chance.randrange(count // 2, count))
        died = data_set.killed(moment, turn, "apply")
        states = data_set.states()
        assert died, (moment, states)
        told.append(f"{when} {kind} {moment[2]}: {states['new']} new, {len(data_set.uploads())} uploads left")
    # The last to die may have left nothing to do.
    assert states["new"] > 0

    report = data_set.run("apply", code=4)
    assert data_set.states() == {"new": FILES, "old": 1}
    if data_set.tags_late:
        data_set.mend_tags()
        assert data_set.states() == {"new": FILES, "old": 1}
    assert {item["key"]: item["state"] for item in report["objects"] if item["state"] != "done"} == {
        "stuck.parquet": "missing_step"
    }
    assert report["totals"].get("done", 0) == FILES - states["new"]
    assert data_set.throttled > FILES // 10
    assert data_set.uploads() == []
    checked = data_set.run("verify")
    assert (checked["outcome"], checked["totals"]["ok"]) == ("ok", FILES), checked["totals"]
    assert data_set.run("plan")["totals"]["done"] == FILES

    runs = [entry for entry in data_set.run("history")["list"] if entry["verb"] == "apply"]
    assert len(runs) >= 1
    assert sum(entry["ended"] is None for entry in runs) in range(len(APPLY) + 1)
    moments, data_set.tags_late = list(UNDO), data_set.proxy.server.name == "ministack"
    for entry in runs:
        # As often as this run is large enough for.
        while moments and data_set.killed(moments[0], len(moments), "rollback", "--run", entry["run"]):
            kind, when, count = moments.pop(0)
            told.append(f"back, {when} {kind} {count}: {data_set.states()['old'] - 1} old")
        data_set.run("rollback", "--run", entry["run"])
    assert not moments
    assert data_set.states() == {"old": FILES + 1}
    assert data_set.uploads() == []
    if not data_set.tags_late:
        assert data_set.run("status")["versions"] == {"0": 1, "1": FILES}
    print(
        f"{data_set.proxy.server.name}, {FILES} files, {LARGE} of them in parts, {len(runs)} runs, "
        f"{data_set.throttled} requests throttled:\n" + "\n".join(told)
    )
