"""A worker beside a queue: takes notifications, and gives each back as done when its source is in the store.

One round gathers messages until ``run.batch`` is full or its time is over, stores a durable request for each source,
and settles what waits, in one commit or a few. A message is deleted when all its requests are settled, by this worker
or by another that held the store meanwhile. Until then its visibility is extended, so that no other worker is given it,
and no attempt is counted: a long commit, a busy store or an outage of the object storage sends nothing to the
dead-letter queue. What cannot be read as a notification is given back with a pause that doubles, and the queue's own
redrive policy decides how often.

In a FIFO queue the messages behind those in hand are held back by the queue, so a round begins as soon as no more come.

SIGTERM and Ctrl-C end the commit in hand, delete what it settled, give back the rest, and leave. A second Ctrl-C
interrupts.

Alternatives considered: to delete messages as soon as their requests are durable, as the Lambda handler does. That is
as safe; but who looks at the queue then sees it empty while work is still waiting, and a worker is for people who look.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from regraft.errors import InvalidError, RegraftError, UnavailableError
from regraft.events import Event, fold_events, read_events
from regraft.results import Document, Report
from regraft.sqs import LONGEST_POLL, Queue, Received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from regraft.collections import Collection

__all__ = ["WatchSummary", "watch"]

_log = logging.getLogger("regraft.watch")

_VISIBILITY = 30
"""Seconds for which a message in hand is hidden, which is extended three times as often. Short, because a message that
the queue gave to a worker that just died, or to a poll that a signal ended, comes back only after it."""
_LONGEST_PAUSE = 900
"""Seconds after which a message that cannot be read is seen again, at most."""
_RETRY = (0.5, 10.0)
"""Seconds between two tries while the storage does not answer or another worker writes, at first and at most."""
_MOST_ROUNDS = 10
"""No more is taken while so many batches wait to be settled."""
_TAKE_OVER = 5.0
"""Seconds to wait for the lease at a time: between them a signal is noticed."""


class WatchSummary(Document):
    """What a worker did from its start to its end."""


@dataclasses.dataclass
class _Message:
    """A message in hand."""

    receipt: str
    events: list[Event]
    waiting: set[str] | None = None
    """Ids of its requests that are not settled; ``None`` before they are stored."""


class _Stop(BaseException):
    """A signal came during a long poll; not an `Exception`, which HTTP clients catch and try again."""


def watch(
    collection: Collection,
    queue: Queue,
    *,
    once: bool = False,
    stop: threading.Event | None = None,
    tell: Callable[[Report], None] | None = None,
) -> WatchSummary:
    """Keeps a collection right by the notifications of a queue, until it is told to stop.

    Args:
        collection: The collection.
        queue: Where the notifications come from.
        once: Return when the queue is empty and everything is settled; an outage is an error then.
        stop: Ends it when set, within one long poll; in the main thread SIGTERM and Ctrl-C do so at once.
        tell: Is called with the report of each round that changed something.

    Returns:
        Counts of messages, requests and commits.

    Raises:
        InvalidError: The queue does not exist, or may not be read.
        CorruptError: The store or its ledger contradicts itself.
        UnavailableError: With `once`, the queue or the object storage did not answer.

    Example:
        >>> watch(regraft.open_collection("sst.yaml"), Queue(url), once=True)  # doctest: +SKIP
    """
    worker = _Worker(collection, queue, threading.Event() if stop is None else stop, tell)
    with worker.signals(), worker.kept_hidden():
        _log.info("%s: following %s", collection.name, queue.url)
        worker.run(once=once)
    return worker.summary()


class _Worker:
    def __init__(
        self,
        collection: Collection,
        queue: Queue,
        stop: threading.Event,
        tell: Callable[[Report], None] | None,
    ) -> None:
        from regraft import _core

        self.collection = collection
        self.queue = queue
        self.stop = stop
        self.tell = tell
        self.token = _core.CancelToken()
        self.held: dict[str, _Message] = {}
        self.fresh: list[_Message] = []
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.commits: list[int] = []
        self.set_aside: dict[str, dict[str, Any]] = {}
        self._polling = False

    def run(self, *, once: bool) -> None:
        """Round after round; `once` ends when nothing comes and nothing is held."""
        pause = _RETRY[0]
        while not self.stop.is_set():
            try:
                more = self._gather(once=once)
                if self.stop.is_set():
                    break
                settled = self._settle()
            except _Stop:
                break
            except UnavailableError as error:
                if self.stop.is_set():
                    break
                if once:
                    self._leave()
                    raise
                _log.warning("%s; trying again in %.1f s", error.message, pause)
                settled = more = False
            if once and not more and not self.held:
                break
            if settled or not self.held:
                pause = _RETRY[0]
            else:
                self.stop.wait(pause)
                pause = min(2 * pause, _RETRY[1])
        self._leave()

    def summary(self) -> WatchSummary:
        return WatchSummary(
            {
                "schema_version": 1,
                "kind": "zarr-watch",
                "collection": self.collection.name,
                "queue": self.queue.url,
                "messages": self.counts["messages"],
                "acknowledged": self.counts["acknowledged"],
                "refused": self.counts["refused"],
                "ignored": self.counts["ignored"],
                "requests": self.counts["requests"],
                "commits": self.commits,
                "quarantined": list(self.set_aside.values()),
            }
        )

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C stop it cleanly, where this is the main thread; elsewhere signals are not ours."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def noticed(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
            again = self.stop.is_set()
            self.stop.set()
            if again and number == signal.SIGINT:
                raise KeyboardInterrupt
            if self._polling:
                raise _Stop
            _log.info("stopping after the commit in hand")
            self.token.cancel()

        before = {number: signal.signal(number, noticed) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def kept_hidden(self) -> Iterator[None]:
        """Extends the visibility of what is in hand, beside whatever else goes on."""
        over = threading.Event()

        def extend() -> None:
            while not over.wait(_VISIBILITY / 3):
                with self.lock:
                    receipts = list(self.held)
                # A message that is settled meanwhile cannot be extended, and need not be.
                with contextlib.suppress(RegraftError):
                    self.queue.hide(receipts, _VISIBILITY)

        thread = threading.Thread(target=extend, name="regraft-visibility", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=5)

    def _gather(self, *, once: bool) -> bool:
        """Takes messages until a commit is worth while, and stores their requests; says whether any came."""
        batch = self.collection.config.run.batch
        end = math.inf
        while not self.stop.is_set() and len(self.held) < _MOST_ROUNDS * batch.files:
            left = end - time.monotonic()
            if left <= 0 or sum(len(message.events) for message in self.fresh) >= batch.files:
                break
            # With something in hand nobody may wait for what may never come.
            longest = 1 if once or (self.held and (self.queue.is_fifo or not self.fresh)) else LONGEST_POLL
            received = self._receive(math.ceil(min(longest, left)))
            if received and end == math.inf:
                end = time.monotonic() + batch.wait
            if not received and (once or self.queue.is_fifo or not self.fresh):
                break
        came = bool(self.fresh)
        if not self.stop.is_set():
            self._submit()
        return came

    def _receive(self, seconds: int) -> bool:
        """Takes messages that come within so many seconds; those that cannot be read are given back."""
        try:
            self._polling = True
            messages = self.queue.receive(seconds, _VISIBILITY)
        finally:
            self._polling = False
        for received in messages:
            reading = read_events({"Body": received.body})
            message = _Message(received.receipt, reading.events)
            self.fresh.append(message)
            self.counts["messages"] += 1
            self.counts["ignored"] += reading.ignored
            if reading.refused:
                self._give_back(received, reading.refused)
            else:
                with self.lock:
                    self.held[message.receipt] = message
        return bool(messages)

    def _give_back(self, received: Received, refused: Sequence[InvalidError]) -> None:
        self.counts["refused"] += 1
        for error in refused:
            _log.error("message %s, attempt %d: %s", received.identity, received.attempt, error.message)
        self.queue.hide([received.receipt], min(2 ** min(received.attempt, 10), _LONGEST_PAUSE))

    def _submit(self) -> None:
        """Makes requests durable, and notes which message waits for which."""
        events = fold_events(event for message in self.fresh for event in message.events)
        ids: dict[str, str] = {}
        if events:
            submission = self.collection.submit(events)
            ignored = set(submission.ignored)
            taken = [event.url for event in events if event.url not in ignored]
            ids = dict(zip(taken, submission.ids, strict=True))
            self.counts["requests"] += len(ids)
            self.counts["ignored"] += len(ignored)
        for message in self.fresh:
            message.waiting = {ids[event.url] for event in message.events if event.url in ids}
        self.fresh = []

    def _settle(self) -> bool:
        """Drains, and deletes the messages whose requests are settled; says whether any was."""
        if not self.held:
            return True
        try:
            report = self.collection.drain(wait=_TAKE_OVER, progress=False, token=self.token)
        except UnavailableError:
            self._acknowledge()
            raise
        except RegraftError as error:
            if not error.retryable:
                raise
            # Somebody took the store over; the requests are theirs now, or ours in the next round.
            _log.warning("%s", error.message)
            report = None
        if report is not None:
            self._note(report)
        return self._acknowledge()

    def _note(self, report: Report) -> None:
        self.commits += report.get("commits", [])
        for item in report.failed:
            self.set_aside[item["key"]] = item
            _log.error("`%s` set aside: %s", item["key"], item.get("message"))
        if report.get("commits"):
            _log.info(
                "%s: commit %s, %s, %.1f s",
                self.collection.name,
                ", ".join(str(number) for number in report["commits"]),
                report.counts,
                report.get("seconds", {}).get("wall", 0.0),
            )
            if self.tell is not None:
                self.tell(report)
        elif report.holder:
            _log.info("%s: another worker is writing, %s", self.collection.name, report.holder)

    def _acknowledge(self) -> bool:
        """Deletes the messages whose requests are settled; says whether there were any."""
        ids = sorted({name for message in self.held.values() for name in message.waiting or ()})
        if ids:
            pending = set(self.collection.wait_for(ids, timeout=0).pending)
            for message in self.held.values():
                if message.waiting is not None:
                    message.waiting &= pending
        done = [
            message.receipt for message in self.held.values() if message.waiting is not None and not message.waiting
        ]
        with self.lock:
            for receipt in done:
                del self.held[receipt]
        try:
            self.counts["acknowledged"] += self.queue.delete(done)
        except RegraftError as error:
            # They come again, and find nothing to do.
            _log.warning("%s", error.message)
        return bool(done)

    def _leave(self) -> None:
        """Deletes what is settled, and gives back the rest at once."""
        with contextlib.suppress(RegraftError):
            self._acknowledge()
        with contextlib.suppress(RegraftError):
            self.queue.hide(list(self.held), 0)
        with self.lock:
            self.held.clear()
