"""What a worker of a backfill gives back: a document, like those of `regraft.results`."""

from __future__ import annotations

from typing import Any

from regraft.results import Document, Report

__all__ = ["ShardReport"]


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
