"""What a collection does with requests: taking them, settling them, waiting for them; the part that events use.

A request says which source is to be looked at. It is durable once `submit` returns, whoever holds the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from regraft.progress import ProgressOption, reporter
from regraft.results import Report
from regraft.results_inbox import Settlement, Submission, Unlocked
from regraft.seam import enter, in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regraft import _core
    from regraft._core import CancelToken
    from regraft.events import Event

    Operation = Literal["put", "remove", "forced_remove"]

__all__ = ["CollectionInbox"]


class CollectionInbox:
    """The requests of a collection; `regraft.Collection` has these verbs."""

    _core: _core.Collection

    @property
    def name(self) -> str:
        """The collection's name."""
        raise NotImplementedError

    def submit(self, keys: Iterable[str | Event | Mapping[str, Any]], *, operation: Operation = "put") -> Submission:
        """Asks for sources to be looked at, durably; writes nothing but the requests.

        Whoever drains looks at each source as it is then: told twice, late or out of order, it costs nothing.

        Args:
            keys: Keys below the source's URL, full URLs, events of `regraft.events`, or mappings ``{"key", "operation",
                "sequencer", "bucket"}``.
            operation: What happened to keys that are given as text: ``put``, ``remove``, or ``forced_remove`` for a
                removal though the file may still be there.

        Returns:
            The ids, how many requests waited already, and the keys that the collection does not take.

        Raises:
            UnavailableError: The object store did not answer: submit again.

        Example:
            >>> ids = collection.submit(["2022/a.nc"]).ids  # doctest: +SKIP
            >>> collection.drain()  # doctest: +SKIP
        """
        enter()
        keys = [keys] if isinstance(keys, str | Mapping) else keys
        blank = {"operation": operation, "sequencer": None, "bucket": None}
        intents = [{**blank, **_intent(key)} for key in keys]
        return Submission({"collection": self.name, **json.loads(self._core.submit(json.dumps(intents)))})

    def drain(
        self,
        *,
        wait: float | None = None,
        files: int | None = None,
        seconds: float | None = None,
        deadline: float | None = None,
        progress: ProgressOption = None,
        token: CancelToken | None = None,
    ) -> Report:
        """Settles everything that was submitted, in batches, one commit each.

        Args:
            wait: Seconds to wait while another writer holds the store; ``None`` returns at once, with the outcome
                ``busy`` and the ``holder``: what was submitted before is then settled by him.
            files: Gather until so many requests wait; by default ``run.batch.files`` where ``seconds`` is given.
            seconds: Gather for so many seconds at most; by default ``run.batch.wait`` where ``files`` is given.
            deadline: Start no commit after so many seconds.
            progress: As in `plan`.
            token: Stops it between two commits, from another thread; what was submitted still waits then.

        Returns:
            The report; ``settled`` counts the requests.

        Raises:
            ConflictError: The lease was lost in the middle: drain again.
            UnavailableError: The object store did not answer.
        """
        return self._drain(_drain_options(wait, files, seconds, deadline), progress, token)

    async def drain_async(
        self,
        *,
        wait: float | None = None,
        files: int | None = None,
        seconds: float | None = None,
        deadline: float | None = None,
        progress: ProgressOption = None,
    ) -> Report:
        """Like `drain`, for a running event loop; cancelling stops between two commits."""
        options = _drain_options(wait, files, seconds, deadline)
        return await in_thread(lambda token: self._drain(options, progress, token))

    def wait_for(self, ids: Iterable[str], timeout: float = 60.0) -> Settlement:
        """Waits until requests are settled by whoever drains.

        Args:
            ids: From `submit`.
            timeout: Seconds.

        Returns:
            By id the commit and the outcome (``done``, ``quarantined`` or ``nothing``), and the ids that still wait.

        Raises:
            UnavailableError: The object store did not answer.
        """
        enter()
        given = json.dumps([ids] if isinstance(ids, str) else list(ids))
        return Settlement({"collection": self.name, **json.loads(self._core.wait_for(given, timeout))})

    def unlock(self) -> Unlocked:
        """Takes the right to write from a holder that hangs: what it still tries to write is refused.

        Returns:
            Who held it (``was``), and the new epoch.

        Raises:
            UnavailableError: The object store did not answer.
        """
        enter()
        return Unlocked({"collection": self.name, **json.loads(self._core.unlock())})

    def _drain(self, options: str, progress: ProgressOption, token: CancelToken | None) -> Report:
        enter()
        with reporter(progress, f"drain {self.name}") as tell:
            return Report(json.loads(self._core.drain(options, tell, token)))


def _intent(key: str | Event | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(key, str):
        return {"key": key}
    return key if isinstance(key, Mapping) else key.intent()


def _drain_options(wait: float | None, files: int | None, seconds: float | None, deadline: float | None) -> str:
    return json.dumps({"wait": wait, "files": files, "seconds": seconds, "deadline": deadline})
