"""Lambda: events in, durable requests first, then as many commits as the time allows.

```python
from regraft.aws import collection_handler

handler = collection_handler("sst.yaml")
```

What happens to a batch: every record is read, every key that the collection takes becomes a request beside the store,
and from then on the queue may forget it. Only then is the store written, by whichever invocation holds the lease, until
a fifth of the time is left. So an invocation that is cut off, or finds another at work, loses nothing, and no record is
failed because a *file* was bad: that file is set aside, and stands in the report.

What the queue gets back as failed is what nobody can deliver: a record that is no notification. It is tried again as
often as the queue says, and ends in its dead-letter queue.

FIFO queues get the same treatment, not powertools' `SqsFifoPartialProcessor`. That one fails every record behind a
failed one, to keep their order. Here the order of records decides nothing, since a request only says "look at this
key"; failed with their neighbour, good records would be counted up with it, and end in the dead-letter queue with it.

A schedule should call the function as well, every few minutes (`regraft deploy aws` makes one): it settles what an
invocation that died left behind. Such a call waits for the lease for as long as a dead holder keeps it; the others
return at once.

Alternatives considered: to fail the records of an invocation that finds the store busy, and let the queue try again:
that counts up the attempts of good records, and a busy hour ends in the dead-letter queue.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from regraft.collections import open_collection
from regraft.errors import InvalidError, RegraftError
from regraft.events import Event, fold_events, read_events

try:
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
except ImportError as error:
    raise ImportError("regraft.aws needs aws-lambda-powertools: pip install 'regraft[aws]'") from error

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from regraft.collections import Collection
    from regraft.results import Report

__all__ = ["collection_handler"]

_KEPT = 0.2
"""Share of the time that no commit is begun in."""
_LEASE_MARGIN = 5.0
"""Seconds that a scheduled call waits longer than a dead holder keeps the lease."""


def collection_handler(
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    logger: Logger | None = None,
) -> Callable[[Any, LambdaContext], dict[str, Any]]:
    """A Lambda handler that keeps one collection right.

    It takes what queues deliver (standard and FIFO; switch `ReportBatchItemFailures` on), notifications of S3,
    EventBridge and SNS without a queue between them, and scheduled events, which only settle what waits.

    Args:
        config: A YAML or JSON file, ``definition:NAME``, ``s3://bucket/key.yaml``, or the same as a mapping. It is read
            here, once, so that a wrong one fails the deployment and not the first event.
        overrides: Merged over the configuration, deep.
        storage_options: As in `regraft.open_collection`; the function's role needs none.
        logger: Where the structured lines go; by default powertools' own, of the service ``regraft``.

    Returns:
        The handler. For a queue it returns ``{"batchItemFailures": […]}``, otherwise what was done.

    Raises:
        InvalidError: The configuration is wrong.
        NotFoundError: There is no such file or definition.

    Example:
        >>> handler = collection_handler("sst.yaml")  # doctest: +SKIP
        >>> handler({"Records": [{"messageId": "1", "body": "s3://lab/a.nc", "eventSource": "aws:sqs"}]}, context)
        ... # doctest: +SKIP
        {'batchItemFailures': []}
    """
    if isinstance(config, str) and config.startswith("s3://"):
        config = _config_from_s3(config)
    collection = open_collection(config, overrides=overrides, storage_options=storage_options)
    log = Logger(service="regraft") if logger is None else logger

    def handler(event: Any, context: LambdaContext) -> dict[str, Any]:  # noqa: ANN401 - whatever Lambda delivers
        invocation = _Invocation(collection, context, log)
        if _is_call(event):
            return invocation.settle_what_waits()
        if _is_queue(event):
            return invocation.take_messages(event["Records"])
        return invocation.take_notification(event)

    return handler


class _Invocation:
    """One call of the function: what it read, and how much of its time is left."""

    def __init__(self, collection: Collection, context: LambdaContext, log: Logger) -> None:
        self.collection = collection
        self.context = context
        self.log = log
        self.kept = _KEPT * context.get_remaining_time_in_millis() / 1000
        self.events: list[Event] = []
        self.ignored = 0

    def take_messages(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Messages of a queue: those that cannot be read are failed, all others are done with."""
        # All of them at once would otherwise count as an error of the function.
        processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
        with processor(records, handler=self._take_message, lambda_context=self.context):
            processor.process()
        # When this raises, the whole batch comes again; requests that were stored by then are known by their sequencer.
        asked = self._submit()
        if asked:
            self._drain()
        return dict(processor.response())

    def take_notification(self, event: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever Lambda delivers
        """A notification without a queue: what can be read is done first, then the rest is an error of the call."""
        reading = read_events(event)
        self.events, self.ignored = reading.events, reading.ignored
        asked = self._submit()
        report = self._drain() if asked else None
        if reading.refused:
            raise reading.refused[0]
        return {"requests": asked, "ignored": self.ignored, "outcome": report.outcome if report else "nothing"}

    def settle_what_waits(self) -> dict[str, Any]:
        """A scheduled call: nothing to ask for; long enough to take over from a holder that died."""
        report = self._drain_now(wait=self.collection.config.run.lease + _LEASE_MARGIN)
        return {"requests": 0, "ignored": 0, "outcome": report.outcome}

    def _take_message(self, record: SQSRecord) -> None:
        # Powertools calls it with the keyword `record`.
        reading = read_events({"body": record.body})
        # What can be read of it is not held up by the rest, and is known when it comes again.
        self.events += reading.events
        self.ignored += reading.ignored
        for error in reading.refused:
            self.log.error("record refused", message_id=record.message_id, reason=error.message)
        if reading.refused:
            raise reading.refused[0]

    def _submit(self) -> int:
        """Makes the requests durable; gives back how many there are."""
        if not self.events:
            self.log.info("nothing asked for", collection=self.collection.name, ignored=self.ignored)
            return 0
        submission = self.collection.submit(fold_events(self.events))
        self.ignored += len(submission.ignored)
        self.log.info(
            "requests stored",
            collection=self.collection.name,
            events=len(self.events),
            requests=len(submission.ids),
            duplicates=submission.duplicates,
            ignored=self.ignored,
        )
        return len(submission.ids)

    def _drain(self) -> Report | None:
        """Settles what waits; an error is told and no more, since the requests are durable."""
        try:
            return self._drain_now(wait=None)
        except RegraftError as error:
            self.log.exception(
                "requests wait for the next call",
                collection=self.collection.name,
                kind=error.kind,
                retryable=error.retryable,
                reason=error.message,
            )
            return None

    def _drain_now(self, wait: float | None) -> Report:
        left = self.context.get_remaining_time_in_millis() / 1000 - self.kept
        deadline = max(0.0, left)
        report = self.collection.drain(
            wait=None if wait is None else min(wait, deadline), deadline=deadline, progress=False
        )
        self.log.info(
            "requests settled",
            collection=self.collection.name,
            outcome=report.outcome,
            settled=report.get("settled", 0),
            commits=report.get("commits", []),
            sources=report.counts,
            holder=report.holder,
            seconds=report.get("seconds", {}).get("wall"),
            usage=report.get("usage", {}),
        )
        for item in report.failed:
            self.log.warning(
                "source set aside",
                collection=self.collection.name,
                key=item["key"],
                category=item.get("category"),
                reason=item.get("message"),
            )
        return report


def _is_call(event: Any) -> bool:  # noqa: ANN401 - whatever Lambda delivers
    """A schedule, or a test call without anything in it."""
    return event is None or event == {} or (isinstance(event, dict) and event.get("detail-type") == "Scheduled Event")


def _is_queue(event: Any) -> bool:  # noqa: ANN401 - whatever Lambda delivers
    records = event.get("Records") if isinstance(event, dict) else None
    return (
        isinstance(records, list)
        and bool(records)
        and all(isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records)
    )


def _config_from_s3(url: str) -> dict[str, Any]:
    """A configuration that lies in a bucket; boto3 is part of Lambda's runtime, and is imported only for this."""
    import boto3
    import yaml
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode("utf-8")
        tree = json.loads(body) if key.endswith(".json") else yaml.safe_load(body)
    except (BotoCoreError, ClientError, UnicodeDecodeError, yaml.YAMLError, json.JSONDecodeError) as error:
        raise InvalidError(f"the configuration `{url}` cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise InvalidError(f"`{url}`: expected a mapping, found `{type(tree).__name__}`")
    return tree
