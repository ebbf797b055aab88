"""What the verbs give back: documents that print well, convert to pandas and JSON, and hold nothing but plain data.

A document is a read-only mapping over the JSON that the core made, with the few questions that everybody asks as
properties. How it looks is `display`'s business.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from regraft.errors import ConflictError, CorruptError, InvalidError, NotFoundError

if TYPE_CHECKING:
    import os

    import pandas as pd
    from pydantic import BaseModel

    from regraft.collections import Collection
    from regraft.progress import ProgressOption
    from regraft.results_backfill import ShardPlan, ShardReport

__all__ = [
    "Document",
    "Gaps",
    "Plan",
    "Report",
    "Status",
    "Table",
    "Verification",
    "frame",
    "read_document",
    "write_document",
]

_SCHEMA_VERSION = 1
_IDLE = ("nothing",)


class Document(Mapping[str, Any]):
    """A read-only mapping over JSON from the core.

    Args:
        document: The parsed JSON.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = dict(document)

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - JSON
        return self._document[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)

    def to_dict(self) -> dict[str, Any]:
        """The document as plain data, safe to change."""
        copy: dict[str, Any] = json.loads(self.to_json())
        return copy

    def to_json(self, indent: int | None = None) -> str:
        """The document as JSON text.

        Args:
            indent: Spaces for each level; ``None`` for one line.
        """
        return json.dumps(self._document, indent=indent, ensure_ascii=False)

    def __repr__(self) -> str:
        from regraft import display

        return display.plain(self)

    def _repr_html_(self) -> str:
        from regraft import display_html

        return display_html.html(self)


class Table(Sequence[Mapping[str, Any]]):
    """Rows from the core: a read-only sequence of mappings.

    Args:
        rows: The rows.
        title: What they are.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], title: str) -> None:
        self._rows = [dict(row) for row in rows]
        self.title = title

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Table:
        if isinstance(index, slice):
            return Table(self._rows[index], self.title)
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def to_json(self, indent: int | None = None) -> str:
        """The rows as JSON text."""
        return json.dumps(self._rows, indent=indent, ensure_ascii=False)

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a data frame."""
        return frame(self._rows)

    def __repr__(self) -> str:
        from regraft import display

        return display.plain(self)

    def _repr_html_(self) -> str:
        from regraft import display_html

        return display_html.html(self)


class Plan(Document):
    """What an apply would do: plain data that can be printed, saved, reviewed, cut into shards and applied twice.

    Args:
        document: The plan's JSON.
        collection: The collection it was made by.

    Example:
        >>> plan = collection.plan()  # doctest: +SKIP
        >>> plan.counts  # doctest: +SKIP
        {'append': 3, 'overwrite': 1}
        >>> plan.save("monday.plan.json")  # doctest: +SKIP
        >>> report = plan.apply()  # doctest: +SKIP
    """

    def __init__(self, document: Mapping[str, Any], collection: Collection) -> None:
        super().__init__(document)
        self.collection = collection

    @property
    def changes(self) -> list[dict[str, Any]]:
        """One mapping for each source: key, action, labels, indices, reason."""
        return list(self._document.get("changes", []))

    @property
    def counts(self) -> dict[str, int]:
        """Sources by action."""
        return dict(Counter(change["action"] for change in self.changes))

    @property
    def empty(self) -> bool:
        """Whether an apply would change neither the store nor the ledger."""
        return all(change["action"] in _IDLE for change in self.changes)

    @property
    def quarantined(self) -> list[dict[str, Any]]:
        """The sources that would be set aside, with category, message and hint."""
        return [change for change in self.changes if change["action"] == "quarantine"]

    def apply(self, *, wait: float | None = None, progress: ProgressOption = None) -> Report:
        """Does what the plan says; see `Collection.apply`."""
        return self.collection.apply(self, wait=wait, progress=progress)

    def shard(self, number: int, count: int) -> ShardPlan:
        """What one of many workers would do; see `Collection.plan_shard`."""
        return self.collection.plan_shard(self, number, count)

    def apply_shard(self, number: int, count: int, *, progress: ProgressOption = None) -> ShardReport:
        """Does one shard of the plan; see `Collection.apply_shard`."""
        return self.collection.apply_shard(self, number, count, progress=progress)

    async def apply_async(self, *, wait: float | None = None, progress: ProgressOption = None) -> Report:
        """Like `apply`, for a running event loop; cancelling stops between two commits."""
        return await self.collection.apply_async(self, wait=wait, progress=progress)

    def to_pandas(self) -> pd.DataFrame:
        """The changes as a data frame."""
        return frame(self.changes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan to a file that `load` and ``regraft zarr apply`` take.

        The configuration goes with it, so that the file is enough on another machine; secrets do not.

        Args:
            path: The file, JSON.
        """
        write_document(path, self._document, self.collection.config)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        collection: Collection | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Reads a saved plan.

        Args:
            path: The file that `save` wrote.
            collection: The collection to apply it to; by default the one that is saved with the plan.
            storage_options: Options of the object stores, for secrets, which are not saved.

        Returns:
            The plan.

        Raises:
            NotFoundError: There is no such file.
            InvalidError: The file is no saved plan, or one of a later version.
        """
        document = read_document(path, "zarr-plan")
        config = document.pop("config", None)
        if collection is None:
            if config is None:
                raise InvalidError(f"`{path}` does not say which collection it belongs to", "pass `collection=`")
            from regraft.collections import open_collection

            collection = open_collection(config, storage_options=storage_options)
        return cls(document, collection)


class Report(Document):
    """What an apply did.

    Example:
        >>> report = plan.apply()  # doctest: +SKIP
        >>> report.raise_for_failures()  # doctest: +SKIP
    """

    @property
    def changes(self) -> list[dict[str, Any]]:
        """As in the plan; ``action`` is what was done, ``outcome`` how it went."""
        return list(self._document.get("changes", []))

    @property
    def counts(self) -> dict[str, int]:
        """Sources that were done, by action."""
        return dict(Counter(change["action"] for change in self.changes if change.get("outcome", "done") == "done"))

    @property
    def outcome(self) -> str:
        """``done``, ``partial``, ``nothing``, or ``busy``: another writer holds the store."""
        return str(self._document.get("outcome", "done"))

    @property
    def holder(self) -> str | None:
        """Who held the store, where that kept the run from doing more."""
        holder = self._document.get("holder")
        return None if holder is None else str(holder)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The sources that are not in the store: set aside, or lost to another writer."""
        failed = list(self._document.get("quarantined", []))
        known = {item["key"] for item in failed}
        failed += [
            change
            for change in self.changes
            if change.get("outcome") in ("conflict", "quarantined") and change["key"] not in known
        ]
        return failed

    def raise_for_failures(self) -> None:
        """Raises if a source is not in the store.

        Raises:
            ConflictError: Another writer was faster: plan again.
            InvalidError: Sources were set aside; the message names them.
        """
        conflicts = [change["key"] for change in self.changes if change.get("outcome") == "conflict"]
        if conflicts:
            raise ConflictError(
                f"{len(conflicts)} sources were changed by another writer: {_some(conflicts)}", "plan again"
            )
        failed = self.failed
        if failed:
            reasons = [f"`{item['key']}`: {item.get('message', 'no reason given')}" for item in failed[:5]]
            more = f"\nand {len(failed) - 5} more" if len(failed) > 5 else ""
            hint = next((item["hint"] for item in failed if item.get("hint")), None)
            raise InvalidError(f"{len(failed)} sources were set aside\n" + "\n".join(reasons) + more, hint)

    def to_pandas(self) -> pd.DataFrame:
        """The changes as a data frame."""
        return frame(self.changes)


class Status(Document):
    """What the store and its ledger hold, who writes, and what waits."""

    @property
    def pending(self) -> int:
        """Requests that wait to be settled."""
        return int(self._document.get("pending") or 0)

    @property
    def busy(self) -> bool:
        """Whether a worker holds the store, dead or alive."""
        lease = self._document.get("lease") or {"free": True}
        return not lease["free"]


class Gaps(Document):
    """Labels that are missing from the axis, or blank."""

    def to_pandas(self) -> pd.DataFrame:
        """One row for each label, with the column ``gap`` = ``missing`` or ``blank``."""
        return frame([{"label": label, "gap": gap} for gap in ("missing", "blank") for label in self.get(gap, [])])


class Verification(Document):
    """What came of reading sources again."""

    def raise_for_failures(self) -> None:
        """Raises if a region differs from its source.

        Raises:
            CorruptError: The message names the first differences.
        """
        failed = self.get("failed", [])
        if failed:
            reasons = [
                f"`{item.get('key')}`, `{item.get('array')}` at `{item.get('label')}`: {item.get('message')}"
                for item in failed[:5]
            ]
            raise CorruptError(
                f"{len(failed)} of {self.get('checked')} regions differ from their sources\n" + "\n".join(reasons),
                "name the keys in `plan(keys=[...])` and apply, or look at what else writes to the store",
            )

    def to_pandas(self) -> pd.DataFrame:
        """The differences as a data frame."""
        return frame(self.get("failed", []))


def write_document(path: str | os.PathLike[str], document: Mapping[str, Any], config: BaseModel) -> None:
    """Saves a plan, for `read_document`.

    Args:
        path: The file, JSON.
        document: The plan's JSON.
        config: The configuration that goes with it, under ``config``, without its secrets.
    """
    from regraft.config_file import public_config

    saved = {**document, "config": public_config(config)}
    Path(path).write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_document(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Reads a saved plan.

    Args:
        path: The file.
        kind: What it must be.

    Returns:
        The plan's JSON, and the configuration that was saved with it under ``config``.

    Raises:
        NotFoundError: There is no such file.
        InvalidError: The file is no saved plan of that kind, or one of a later version.
    """
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"there is no saved plan `{path}`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"`{path}` is no saved plan: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        found = document.get("kind") if isinstance(document, dict) else type(document).__name__
        raise InvalidError(f"`{path}`: expected the kind `{kind}`, found `{found}`")
    if document.get("schema_version", 0) > _SCHEMA_VERSION:
        raise InvalidError(
            f"`{path}`: expected schema version {_SCHEMA_VERSION} at most, found {document['schema_version']}",
            "apply it with the version of regraft that made it, or plan again",
        )
    return document


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame.

    Raises:
        InvalidError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise InvalidError("a data frame needs the package `pandas`", "`pip install pandas`") from error
    return pd.DataFrame([dict(row) for row in rows])


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:5]) + (", …" if len(names) > 5 else "")
