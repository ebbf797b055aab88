"""S3 servers that the tests start by themselves on free loopback ports: ministack and SeaweedFS."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCESS_KEY = "admin"
SECRET_KEY = "secret123"
READY_WITHIN = 60.0
"""Seconds that a server may take to answer: usually two, more when the machine compiles beside."""


@dataclass(frozen=True)
class Server:
    """A running S3 server."""

    name: str
    endpoint: str
    buckets: list[str] = field(default_factory=list)

    @property
    def storage_options(self) -> dict[str, str]:
        """What `regraft` needs to reach it: object_store's own keys."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "allow_http": "true",
        }

    def client(self) -> Any:
        """A boto3 client of the server; making one costs more than most requests."""
        return _client(self.endpoint)

    def new_bucket(self) -> str:
        """Makes an empty bucket of its own for one test."""
        bucket = f"regraft-{self.name}-{len(self.buckets)}"
        self.client().create_bucket(Bucket=bucket)
        self.buckets.append(bucket)
        return bucket


@functools.cache
def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on; all are held at once, so that none comes twice."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            holder = held.enter_context(socket.socket())
            holder.bind(("127.0.0.1", 0))
            ports.append(holder.getsockname()[1])
        return ports


def command(name: str) -> str:
    """The command that a package of the test environment installed beside this Python."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"`{name}` is not installed: pip install '.[test]'")
    return found


@contextlib.contextmanager
def started(name: str, arguments: list[str], environment: dict[str, str], log: Path, port: int) -> Iterator[Server]:
    """Runs a server until the block is left; its output goes to `log`, which is quoted when it does not come up."""
    endpoint = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
        )
        try:
            deadline = time.monotonic() + READY_WITHIN
            while not answers(endpoint):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not come up on {endpoint}:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield Server(name, endpoint)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(endpoint: str) -> bool:
    """Whether something speaks HTTP there; a refusal is an answer as well."""
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()  # noqa: S310 - a loopback address of our own
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code < 500
    except OSError:
        return False
    return True


@contextlib.contextmanager
def ministack(directory: Path) -> Iterator[Server]:
    """S3, SQS, EventBridge and more in one Python process. Without BIND_HOST it would listen on all interfaces."""
    (port,) = free_ports(1)
    environment = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    with started("ministack", [command("ministack")], environment, directory / "ministack.log", port) as server:
        yield server


@contextlib.contextmanager
def weed(directory: Path) -> Iterator[Server]:
    """SeaweedFS: the real Go server, which checks signatures."""
    names = ("s3", "master", "volume", "filer", "admin")
    ports = dict(zip([f"{name}.port{kind}" for name in names for kind in ("", ".grpc")], free_ports(10), strict=True))
    data = directory / "weed"
    data.mkdir()
    arguments = [command("weed"), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    # Each bucket takes a volume, of which there are few by default, by what the disk has left.
    arguments += ["-volume.max=1000", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    arguments += ["-master.telemetry=false", *(f"-{name}={port}" for name, port in ports.items())]
    environment = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with started("weed", arguments, environment, directory / "weed.log", ports["s3.port"]) as server:
        yield server
