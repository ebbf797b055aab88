"""What a deployment has on a test server: bucket, queue with a dead-letter queue, events between them, a function."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import yaml
from places import Place
from regraft.collections import Collection, open_collection
from regraft.demo_data import SstGrid, day_name, write_sst_day

GRID = SstGrid(12, 16)
ACCOUNT = "000000000000"
VISIBILITY = 15
ATTEMPTS = 3
HANDLER = 'from regraft.aws import collection_handler\n\nhandler = collection_handler("sst.yaml")\n'


@dataclass
class Deployment:
    """One collection whose files lie in a bucket that tells a queue what happens in it."""

    place: Place
    name: str
    fifo: bool
    queue: str = ""
    dead: str = ""

    def __post_init__(self) -> None:
        self.queue, self.dead = self._queue_pair()
        (self._tell_by_event_bridge if self.fifo else self._tell_directly)()

    def client(self, service: str) -> Any:
        import boto3

        assert self.place.server is not None
        keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "secret123", "region_name": "us-east-1"}
        return boto3.client(service, endpoint_url=self.place.server.endpoint, **keys)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, with the endpoint from the environment, as a function has it."""
        options = {"endpoint": "${AWS_ENDPOINT_URL}", "region": "us-east-1", "allow_http": True}
        return {
            "name": self.name,
            "source": {"url": self.place.url("incoming/"), "include": ["**/*.nc"], "storage_options": options},
            "store": {"url": self.place.url("sst.zarr"), "chunks": {"time": 8}, "storage_options": options},
            "region": {"key": "time"},
            "run": {"batch": {"files": 50, "wait": 2}, "lease": 6},
        }

    def collection(self) -> Collection:
        assert self.place.server is not None
        config = json.loads(json.dumps(self.config).replace("${AWS_ENDPOINT_URL}", self.place.server.endpoint))
        return open_collection(config, storage_options=self.place.storage_options)

    def deploy_function(self) -> None:
        """The function itself, behind the queue."""
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("app.py", HANDLER)
            archive.writestr("sst.yaml", yaml.safe_dump(self.config))
        function = self.client("lambda")
        function.create_function(
            FunctionName=self.name,
            Runtime="python3.12",
            Role=f"arn:aws:iam::{ACCOUNT}:role/regraft",
            Handler="app.handler",
            Code={"ZipFile": code.getvalue()},
            Timeout=VISIBILITY,
            MemorySize=1769,
        )
        function.create_event_source_mapping(
            EventSourceArn=self._arn(self.queue),
            FunctionName=self.name,
            BatchSize=10,
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )

    def call_function(self, event: Any) -> Any:
        answer = self.client("lambda").invoke(FunctionName=self.name, Payload=json.dumps(event).encode())
        payload = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, payload
        return payload

    def key(self, number: int) -> str:
        # A space and a plus: keys that arrive encoded.
        return f"incoming/2022 a+b/{day_name(number)}"

    def put_days(self, numbers: Iterable[int], correction: float = 0.0) -> None:
        """Puts days, eight at a time; a `correction` in kelvin makes revised ones."""
        folder = self.place.directory
        paths = {number: folder / f"{number}-{correction}.nc" for number in numbers}
        for number, path in paths.items():
            write_sst_day(path, number, grid=GRID, correction=correction)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: self.place.put(self.key(number), paths[number]), paths))

    def send(self, body: str, group: str = "sst") -> None:
        """A message that no bucket sent."""
        identity = str(time.monotonic_ns())
        named = {"MessageGroupId": group, "MessageDeduplicationId": identity} if self.fifo else {}
        self.client("sqs").send_message(QueueUrl=self.queue, MessageBody=body, **named)

    def counts(self, queue: str) -> tuple[int, int]:
        """Messages that wait, and that somebody has."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=list(names))["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def dead_bodies(self) -> list[str]:
        """What ended in the dead-letter queue."""
        answer = self.client("sqs").receive_message(QueueUrl=self.dead, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return sorted(message["Body"] for message in answer.get("Messages", []))

    def settled(self) -> bool:
        """Whether nothing is in the queue, and nothing waits in the inbox."""
        return self.counts(self.queue) == (0, 0) and self.collection().status().pending == 0

    def check(self, days: Iterable[int], blank: Iterable[int] = ()) -> None:
        """The store holds these days and blanks, as the files in the bucket say, and nothing else."""
        collection = self.collection()
        owned = {row["key"]: row["index"] for row in collection.ledger() if row["key"] is not None}
        expected = sorted(set(days))
        assert sorted(owned, key=lambda key: owned[key]) == [
            self.key(number).removeprefix("incoming/") for number in expected
        ]
        assert collection.status()["axis_length"] == len({*expected, *blank})
        assert len(collection.gaps()["blank"]) == len(set(blank))
        # The files are read again, and every value is compared.
        collection.verify().raise_for_failures()
        assert collection.plan().empty, collection.plan()

    def _arn(self, queue: str) -> str:
        attributes = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        return str(attributes["Attributes"]["QueueArn"])

    def _queue_pair(self) -> tuple[str, str]:
        suffix = ".fifo" if self.fifo else ""
        kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if self.fifo else {}
        create = self.client("sqs").create_queue
        dead = create(QueueName=f"{self.name}-dead{suffix}", Attributes=kind)["QueueUrl"]
        redrive = json.dumps({"deadLetterTargetArn": self._arn(dead), "maxReceiveCount": ATTEMPTS})
        attributes = {**kind, "VisibilityTimeout": str(VISIBILITY), "RedrivePolicy": redrive}
        return create(QueueName=f"{self.name}{suffix}", Attributes=attributes)["QueueUrl"], dead

    def _tell_by_event_bridge(self) -> None:
        events = self.client("events")
        pattern = {
            "source": ["aws.s3"],
            "detail-type": ["Object Created", "Object Deleted"],
            "detail": {"bucket": {"name": [self.place.bucket]}, "object": {"key": [{"prefix": "incoming/"}]}},
        }
        events.put_rule(Name=self.name, EventPattern=json.dumps(pattern))
        target = {"Id": "queue", "Arn": self._arn(self.queue), "SqsParameters": {"MessageGroupId": "sst"}}
        events.put_targets(Rule=self.name, Targets=[target])
        self._notify({"EventBridgeConfiguration": {}})

    def _tell_directly(self) -> None:
        names = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        rule = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "incoming/"}]}}
        queue = {"QueueArn": self._arn(self.queue), "Events": names, "Filter": rule}
        self._notify({"QueueConfigurations": [queue]})

    def _notify(self, configuration: dict[str, Any]) -> None:
        self.client("s3").put_bucket_notification_configuration(
            Bucket=self.place.bucket, NotificationConfiguration=configuration
        )


def until(true: Callable[[], bool], seconds: float, what: Callable[[], object] | None = None) -> None:
    """Waits until something is so; says `what` it was instead."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what and what()
        time.sleep(0.25)
