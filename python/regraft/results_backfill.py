"""What workers of a backfill are given and give back: documents, like those of `regraft.results`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.errors import InvalidError
from regraft.results import Document, Plan, Report, frame, read_document, write_document

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import pandas as pd

    from regraft.collections import Collection
    from regraft.progress import ProgressOption

__all__ = ["ShardPlan", "ShardReport"]


class ShardPlan(Document):
    """What one worker of a backfill would do: its blocks of the axis, its sources, its chunks.

    Args:
        document: The shard's JSON.
        whole: The plan that it is a part of.

    Example:
        >>> shard = plan.shard(3, 16)  # doctest: +SKIP
        >>> shard.blocks  # doctest: +SKIP
        [(120, 180)]
        >>> shard.save("worker-3.json")  # doctest: +SKIP
    """

    def __init__(self, document: Mapping[str, Any], whole: Plan) -> None:
        super().__init__(document)
        self.whole = whole

    @property
    def number(self) -> int:
        """Which shard, from 1."""
        return int(self._document["shard"][0])

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._document["shard"][1])

    @property
    def state(self) -> str:
        """``pending``, ``written`` (this shard is done, others may not be), or ``published`` (the whole is done)."""
        return str(self._document.get("state", "pending"))

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Index ranges of the axis that no other shard touches, ``[start, stop)``."""
        return [(start, stop) for start, stop in self._document.get("blocks", [])]

    @property
    def changes(self) -> list[dict[str, Any]]:
        """As in the plan, with the labels and indices that lie inside of the blocks."""
        return list(self._document.get("changes", []))

    @property
    def empty(self) -> bool:
        """Whether there is nothing for this shard to write."""
        return self.state != "pending" or not self.changes

    def apply(self, *, progress: ProgressOption = None) -> ShardReport:
        """Does the shard; see `Collection.apply_shard`."""
        return self.whole.apply_shard(self.number, self.count, progress=progress)

    def to_pandas(self) -> pd.DataFrame:
        """The changes as a data frame."""
        return frame(self.changes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the shard to a file that `load` and ``regraft zarr apply`` take.

        The whole plan and the configuration go with it, so that the file is enough on another machine; secrets do not.

        Args:
            path: The file, JSON.
        """
        write_document(path, {**self._document, "whole": self.whole.to_dict()}, self.whole.collection.config)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        collection: Collection | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> ShardPlan:
        """Reads a saved shard.

        Args:
            path: The file that `save` wrote.
            collection: The collection to apply it to; by default the one that is saved with it.
            storage_options: Options of the object stores, for secrets, which are not saved.

        Returns:
            The shard.

        Raises:
            NotFoundError: There is no such file.
            InvalidError: The file is no saved shard, or one of a later version.
        """
        document = read_document(path, "zarr-shard-plan")
        whole, config = document.pop("whole", None), document.pop("config", None)
        if whole is None or (config is None and collection is None):
            raise InvalidError(
                f"`{path}` does not hold the plan that it is a shard of", "save it with `ShardPlan.save`"
            )
        if collection is None:
            from regraft.collections import open_collection

            collection = open_collection(config, storage_options=storage_options)
        return cls(document, Plan(whole, collection))


class ShardReport(Document):
    """What one worker of a backfill did, and whether others are still at work."""

    @property
    def outcome(self) -> str:
        """``written`` (others are at work), ``published`` (this was the last), or ``nothing`` (published before)."""
        return str(self._document.get("outcome", "nothing"))

    @property
    def waiting(self) -> list[int]:
        """Numbers of the shards that are not done."""
        return list(self._document.get("waiting", []))

    @property
    def failed(self) -> dict[str, dict[str, Any]]:
        """By key: sources of this shard that could not be used, with category, message and hint."""
        return dict(self._document.get("bad", {}))

    @property
    def report(self) -> Report | None:
        """The report of the whole, where this worker published it."""
        report = self._document.get("report")
        return None if report is None else Report(report)
