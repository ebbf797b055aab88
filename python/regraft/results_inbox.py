"""What the verbs about requests give back: documents, like those of `regraft.results`."""

from __future__ import annotations

from typing import Any

from regraft.results import Document

__all__ = ["Settlement", "Submission", "Unlocked"]


class Submission(Document):
    """Requests that were left for whoever settles them."""

    @property
    def ids(self) -> list[str]:
        """One for each key that the collection takes, in the order given; for `Collection.wait_for`."""
        return list(self._document.get("ids", []))

    @property
    def duplicates(self) -> int:
        """How many of them waited already."""
        return int(self._document.get("duplicates", 0))

    @property
    def ignored(self) -> list[str]:
        """Keys and URLs that the collection does not take."""
        return list(self._document.get("ignored", []))


class Settlement(Document):
    """What became of requests."""

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        """By id: ``commit`` (``None`` where there was nothing to do) and ``outcome``."""
        return dict(self._document.get("done", {}))

    @property
    def pending(self) -> list[str]:
        """Ids that still wait."""
        return list(self._document.get("pending", []))

    @property
    def settled(self) -> bool:
        """Whether none waits any more."""
        return not self.pending


class Unlocked(Document):
    """Who held the right to write (``was``), and the new epoch (``epoch``), below which nobody writes any more."""
