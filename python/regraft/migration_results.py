"""What the verbs of a migration set give back; as for collections, documents over the core's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.errors import ConflictError, CorruptError, InvalidError, UnavailableError
from regraft.results import Document, frame, read_document, write_document

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from regraft.migrations import MigrationSet
    from regraft.progress import ProgressOption

__all__ = ["MigrationPlan", "MigrationReport", "MigrationStatus", "MigrationVerification", "Shard", "with_refused"]

Shard = tuple[int, int]
"""``(number, count)``, numbers from 1: part 2 of 8 is ``(2, 8)``."""

_FAILED = ("error", "conflict", "missing_step", "not_parquet")


class _Objects(Document):
    """A document about objects, each in a state."""

    @property
    def objects(self) -> list[dict[str, Any]]:
        """One mapping for each object: key, state, versions, bytes."""
        return list(self._document.get("objects", []))

    @property
    def counts(self) -> dict[str, int]:
        """Objects by state."""
        counted: dict[str, int] = {}
        for item in self.objects:
            counted[item["state"]] = counted.get(item["state"], 0) + 1
        return counted

    def to_pandas(self) -> pd.DataFrame:
        """The objects as a data frame."""
        return frame(self.objects)


class MigrationPlan(_Objects):
    """What an apply would do: plain data that can be printed, saved, reviewed, cut into shards and applied twice.

    Args:
        document: The plan's JSON.
        migrations: The set it was made by.

    Example:
        >>> plan = sensors.plan(to=3)  # doctest: +SKIP
        >>> plan.counts  # doctest: +SKIP
        {'pending': 7200}
        >>> plan.save("monday.plan.json")  # doctest: +SKIP
        >>> report = plan.apply()  # doctest: +SKIP
    """

    def __init__(self, document: Mapping[str, Any], migrations: MigrationSet) -> None:
        super().__init__(document)
        self.migrations = migrations

    @property
    def empty(self) -> bool:
        """Whether an apply would change nothing."""
        return not any(item["state"] == "pending" for item in self.objects)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Objects that cannot be migrated: a missing step, no Parquet file, an error."""
        return [item for item in self.objects if item["state"] in _FAILED]

    @property
    def estimate(self) -> dict[str, Any]:
        """Objects, bytes read, copied and written, requests, seconds and dollars that an apply would take."""
        return dict(self._document.get("totals", {}))

    def apply(
        self, *, shard: Shard | None = None, run: str | None = None, progress: ProgressOption = None
    ) -> MigrationReport:
        """Does what the plan says; see `MigrationSet.apply`."""
        return self.migrations.apply(self, shard=shard, run=run, progress=progress)

    async def apply_async(
        self, *, shard: Shard | None = None, run: str | None = None, progress: ProgressOption = None
    ) -> MigrationReport:
        """Like `apply`, for a running event loop; cancelling leaves a state that can be resumed."""
        return await self.migrations.apply_async(self, shard=shard, run=run, progress=progress)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan to a file that `load` and ``regraft parquet apply`` take.

        The configuration goes with it, so that the file is enough on another machine; secrets and Python code do not.

        Args:
            path: The file, JSON.
        """
        write_document(path, self._document, self.migrations.config)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        migrations: MigrationSet | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> MigrationPlan:
        """Reads a saved plan.

        Args:
            path: The file that `save` wrote.
            migrations: The set to apply it with; by default the one that is saved with the plan, whose Python steps
                must be importable.
            storage_options: Options of the object store, for secrets, which are not saved.

        Returns:
            The plan.

        Raises:
            NotFoundError: There is no such file.
            InvalidError: The file is no saved plan, or one of a later version.
        """
        document = read_document(path, "parquet-plan")
        config = document.pop("config", None)
        if migrations is None:
            if config is None:
                raise InvalidError(f"`{path}` does not say which migration set it belongs to", "pass `migrations=`")
            from regraft.migrations import open_migrations

            migrations = open_migrations(config, storage_options=storage_options)
        return cls(document, migrations)


class MigrationReport(_Objects):
    """What a run did; the run can be verified and rolled back.

    Args:
        document: The report's JSON.
        migrations: The set that made it.

    Example:
        >>> report = plan.apply()  # doctest: +SKIP
        >>> report.raise_for_failures()  # doctest: +SKIP
        >>> report.roll_back()  # doctest: +SKIP
    """

    def __init__(self, document: Mapping[str, Any], migrations: MigrationSet) -> None:
        super().__init__(document)
        self.migrations = migrations

    @property
    def run(self) -> str:
        """Id of the run; empty where nothing was done."""
        return str(self._document.get("run") or "")

    @property
    def outcome(self) -> str:
        """``done``, ``partial``, ``failed``, ``cancelled`` or ``nothing``."""
        return str(self._document.get("outcome", "done"))

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Objects that were not migrated, with message and hint."""
        return [item for item in self.objects if item["state"] in _FAILED]

    def raise_for_failures(self) -> None:
        """Raises if an object was not migrated.

        Raises:
            ConflictError: Objects were changed by somebody else: plan again.
            UnavailableError: Objects failed, and may succeed when the same is done again.
            InvalidError: Objects failed for good; the message names them.
        """
        failed = self.failed
        if not failed:
            return
        text = f"{len(failed)} of {len(self.objects)} objects were not migrated\n" + _reasons(failed)
        hint = next((item["hint"] for item in failed if item.get("hint")), None)
        if all(item["state"] == "conflict" for item in failed):
            raise ConflictError(text, hint or "plan again: they were changed by somebody else")
        if all(item.get("retryable") for item in failed):
            raise UnavailableError(text, hint or "do the same again: what is done is not done twice")
        raise InvalidError(text, hint)

    def verify(
        self, sample: float | None = None, *, seed: int = 0, full: bool = False, progress: ProgressOption = None
    ) -> MigrationVerification:
        """Checks what the run wrote; see `MigrationSet.verify`."""
        run = self._must_run("verify")
        return self.migrations.verify(sample, run=run, seed=seed, full=full, progress=progress)

    def roll_back(self, keys: Sequence[str] | None = None, *, progress: ProgressOption = None) -> MigrationReport:
        """Undoes the run; see `MigrationSet.roll_back`."""
        return self.migrations.roll_back(self._must_run("roll back"), keys=keys, progress=progress)

    def _must_run(self, verb: str) -> str:
        if not self.run:
            raise InvalidError(f"there is no run to {verb}: nothing was done")
        return self.run


class MigrationStatus(Document):
    """Which versions the data set's objects have, and what is known of runs."""


class MigrationVerification(Document):
    """What came of checking migrated objects."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Objects that are not what they should be."""
        return [item for item in self._document.get("objects", []) if item["state"] in ("failed", "error")]

    def raise_for_failures(self) -> None:
        """Raises if an object is not what it should be.

        Raises:
            CorruptError: The message names the first objects.
        """
        failed = self.failed
        if failed:
            raise CorruptError(
                f"{len(failed)} objects are not what the migration wrote\n" + _reasons(failed),
                "roll the run back, or look at what else writes to the data set",
            )

    def to_pandas(self) -> pd.DataFrame:
        """The objects as a data frame."""
        return frame(self._document.get("objects", []))


def with_refused(report: Mapping[str, Any], refused: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A report that also names the objects that the plan refused.

    Args:
        report: The report's JSON.
        refused: Objects of the plan.
    """
    if not refused:
        return dict(report)
    fields = ("key", "state", "from", "to", "message", "hint", "retryable")
    nothing = {"bytes_read": 0, "bytes_copied": 0, "bytes_written": 0, "seconds": 0.0}
    added = [{**nothing, **{name: item[name] for name in fields if name in item}} for item in refused]
    totals = dict(report.get("totals", {}))
    totals["objects"] = totals.get("objects", 0) + len(added)
    for item in added:
        totals[item["state"]] = totals.get(item["state"], 0) + 1
    outcome = report.get("outcome")
    outcome = "partial" if outcome in ("done", "nothing") else outcome
    return {**report, "objects": [*report.get("objects", []), *added], "totals": totals, "outcome": outcome}


def _reasons(failed: Sequence[Mapping[str, Any]]) -> str:
    said = [f"`{item.get('key')}`: {item.get('message') or item.get('state') or 'no reason given'}" for item in failed]
    return "\n".join(said[:5]) + (f"\nand {len(said) - 5} more" if len(said) > 5 else "")
