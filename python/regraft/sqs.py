"""The door to SQS: one queue, the three requests that a worker makes of it, and errors of our kinds."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any

from regraft.errors import InvalidError, RegraftError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["LONGEST_POLL", "Queue", "Received"]

LONGEST_POLL = 20
"""Seconds of a long poll, the most that SQS allows."""
_AT_ONCE = 10
"""Messages of one request, the most that SQS allows."""

_AMAZON = re.compile(r"(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")
_WRONG = re.compile(r"NonExistentQueue|QueueDoesNotExist|AccessDenied|InvalidAddress|InvalidClientTokenId|Signature")


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """A message as the queue gave it."""

    receipt: str
    """What deletes it, or hides it for longer."""
    identity: str
    """Its id."""
    body: str
    attempt: int
    """How often it was given to somebody, this time included."""


class Queue:
    """One queue, standard or FIFO.

    Args:
        url: Its URL. A host that is not Amazon's is the endpoint; one of Amazon's names the region.
        storage_options: Options of an object store: region and keys are taken from them where they are set.
        endpoint_url: Another endpoint; the environment's ``AWS_ENDPOINT_URL_SQS`` and ``AWS_ENDPOINT_URL`` hold too.
        region: Another region.

    Raises:
        InvalidError: boto3 is not installed, or the URL is none of a queue.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, str] | None = None,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
    ) -> None:
        self.url = url
        self._client = _client(url, storage_options or {}, endpoint_url, region)

    @property
    def is_fifo(self) -> bool:
        """Whether messages behind those that somebody has are held back."""
        return self.url.endswith(".fifo")

    def receive(self, seconds: int, hidden: int) -> list[Received]:
        """Up to ten messages.

        Args:
            seconds: How long to wait for the first, 20 at most.
            hidden: Seconds for which nobody else is given them.

        Raises:
            InvalidError: The queue does not exist, or may not be read.
            UnavailableError: It does not answer.
        """
        try:
            answer = self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=_AT_ONCE,
                WaitTimeSeconds=seconds,
                VisibilityTimeout=hidden,
                AttributeNames=["ApproximateReceiveCount"],
            )
        except Exception as error:
            raise _explain(error, self.url) from error
        return [
            Received(
                message["ReceiptHandle"],
                message["MessageId"],
                message["Body"],
                int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for message in answer.get("Messages", [])
        ]

    def delete(self, receipts: Sequence[str]) -> int:
        """Tells the queue that messages are done with; gives back how many it deleted.

        Raises:
            UnavailableError: The queue does not answer.
        """
        deleted = 0
        for entries in _entries(receipts):
            try:
                answer = self._client.delete_message_batch(QueueUrl=self.url, Entries=entries)
            except Exception as error:
                raise _explain(error, self.url) from error
            deleted += len(answer.get("Successful", []))
        return deleted

    def hide(self, receipts: Sequence[str], seconds: int) -> None:
        """Hides messages for so many seconds from now; 0 gives them back. What is gone by then is passed over.

        Raises:
            UnavailableError: The queue does not answer.
        """
        for entries in _entries(receipts):
            hidden = [{**entry, "VisibilityTimeout": seconds} for entry in entries]
            try:
                self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=hidden)
            except Exception as error:
                raise _explain(error, self.url) from error


def _client(url: str, storage_options: Mapping[str, str], endpoint_url: str | None, region: str | None) -> Any:  # noqa: ANN401
    found = re.fullmatch(r"(https?://([^/]+))/.+", url)
    if found is None:
        raise InvalidError(
            f"expected the URL of a queue, found `{url}`",
            "it looks like `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`",
        )
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise InvalidError("a queue needs the package `boto3`", "`pip install 'regraft[aws]'`") from error
    amazon = _AMAZON.fullmatch(found[2])
    options = {name.lower().removeprefix("aws_"): value for name, value in storage_options.items()}
    elsewhere = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"))
    if endpoint_url is None and amazon is None and not elsewhere:
        endpoint_url = found[1]
    if region is None:
        region = (amazon[1] or amazon[2]) if amazon else options.get("region", options.get("default_region"))
    try:
        return boto3.client(
            "sqs",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id=options.get("access_key_id"),
            aws_secret_access_key=options.get("secret_access_key"),
            aws_session_token=options.get("session_token", options.get("token")),
            # A long poll must not be taken for a dead connection.
            config=Config(read_timeout=LONGEST_POLL + 30, retries={"mode": "standard", "max_attempts": 5}),
        )
    except (BotoCoreError, ValueError) as error:
        raise InvalidError(f"no client can be made for the queue `{url}`: {error}") from error


def _entries(receipts: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(receipts), _AT_ONCE):
        some = receipts[start : start + _AT_ONCE]
        yield [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(some)]


def _explain(error: Exception, url: str) -> RegraftError:
    # botocore makes its exceptions at run time; their code is the only stable name.
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if _WRONG.search(code):
        return InvalidError(f"the queue `{url}` cannot be used: {error}")
    return UnavailableError(f"the queue `{url}` does not answer: {error}")
