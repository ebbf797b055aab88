"""The objects that users hold for plain Parquet data sets: a migration set, its plans and its reports.

Everything here only arranges calls of the core: validate, hand over JSON and the steps, show progress, wrap the answer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from regraft.errors import InvalidError
from regraft.migration_config import MigrationSetConfig, load_migrations, migrations_core_json
from regraft.migration_definition import StepDefinitions
from regraft.migration_results import (
    MigrationPlan,
    MigrationReport,
    MigrationStatus,
    MigrationVerification,
    Shard,
    with_refused,
)
from regraft.progress import ProgressOption, reporter
from regraft.results import Table
from regraft.seam import enter, in_thread

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from regraft._core import CancelToken, Migrations
    from regraft.migration_steps import Function

__all__ = ["MigrationSet", "open_migrations"]


def open_migrations(
    config: str | os.PathLike[str] | Mapping[str, Any] | MigrationSetConfig | MigrationSet,
    *,
    overrides: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> MigrationSet:
    """Opens a migration set; the data set is not touched.

    Args:
        config: A YAML or JSON file, the same as a mapping, or a set that is open already.
        overrides: Merged over the configuration, deep; a list such as `steps` replaces.
        storage_options: Options of the object store, secrets allowed.

    Returns:
        The migration set.

    Raises:
        InvalidError: The configuration is wrong; the message says file, field, expected and found.
        NotFoundError: There is no such file.

    Example:
        >>> sensors = open_migrations({"name": "sensors", "data": {"url": "s3://lake/sensors/"}})
        >>> sensors.sql_step(1, 2, {"temp_k": "temp_c + 273.15"})
        >>> sensors.target
        2
    """
    if isinstance(config, MigrationSet):
        return config
    if isinstance(config, MigrationSetConfig):
        return MigrationSet(config)
    return MigrationSet(load_migrations(config, overrides=overrides, storage_options=storage_options))


class MigrationSet(StepDefinitions):
    """A data set of plain Parquet files with its ordered steps.

    Make one with `open_migrations`. Steps stand in its file, or are added with `step` and `sql_step`. It may be used
    from any thread, and pickles where its functions do.

    Args:
        config: The validated configuration.
        functions: Functions of Python steps by the step's index, for those that are not to be imported by name.
    """

    def __init__(self, config: MigrationSetConfig, functions: Mapping[int, Function] | None = None) -> None:
        super().__init__(config, functions)
        self._opened: Migrations | None = None

    @property
    def name(self) -> str:
        """The set's name."""
        return self.config.name

    @property
    def url(self) -> str:
        """URL or path of the data set."""
        return self.config.data.url

    @property
    def target(self) -> int | None:
        """The version that a plan leads to where it names none; ``None`` without steps."""
        if self.config.target is not None:
            return self.config.target
        return max((step.to for step in self.config.steps), default=None)

    def __reduce__(self) -> tuple[Any, ...]:
        return MigrationSet, (self.config, self._functions)

    def plan(
        self,
        to: int | None = None,
        *,
        keys: Iterable[str] | None = None,
        sample: int | None = None,
        repair: bool = False,
        progress: ProgressOption = None,
    ) -> MigrationPlan:
        """Scans the data set, and says what an apply would do to each object; writes nothing.

        Args:
            to: The version to reach; by default the set's target.
            keys: Keys below the data set's URL; ``None`` lists them all.
            sample: Plan only so many of the objects that are to be migrated, for a first try.
            repair: Read the tags of objects at the target, too, and mend those that differ from the footer.
            progress: ``None`` chooses by where the program runs; ``True``, ``False``, or a callable.

        Returns:
            The plan.

        Raises:
            InvalidError: A step does not fit, or was edited after it had been applied.
            UnavailableError: The object store did not answer.

        Example:
            >>> plan = sensors.plan(to=3)  # doctest: +SKIP
            >>> plan.estimate["dollars"]["total"]  # doctest: +SKIP
            0.21
        """
        return self._plan(_plan_request(to, keys, sample, repair=repair), progress, None)

    def apply(
        self,
        plan: MigrationPlan,
        *,
        shard: Shard | None = None,
        run: str | None = None,
        progress: ProgressOption = None,
    ) -> MigrationReport:
        """Does what a plan says; safe to call twice, or on several machines.

        Args:
            plan: From `plan`, or `MigrationPlan.load`.
            shard: ``(number, count)`` to do only a part, numbers from 1.
            run: Id that several shards share, so that they are one run; by default a new one.
            progress: As in `plan`.

        Returns:
            The report. Objects that could not be migrated are in it, and without ``shard`` also those that the plan
            refused; they raise nothing.

        Raises:
            InvalidError: An applied step was edited since, or the plan is for another set.
            UnavailableError: The object store did not answer.
        """
        return self._apply(plan, shard, run, progress, None)

    def verify(
        self,
        sample: float | None = None,
        *,
        run: str | None = None,
        seed: int = 0,
        full: bool = False,
        progress: ProgressOption = None,
    ) -> MigrationVerification:
        """Checks migrated objects: rows, schema, page indexes, untouched columns, new columns computed again.

        Args:
            sample: Fraction of the objects, above 0 and up to 1; ``None`` for all.
            run: Only those of one run.
            seed: Which sample: the same seed takes the same objects.
            full: Read the whole old file within widened ones, too, and compare it with the checksum that was known of
                it: the columns that no step reads are proved by nothing else where the bucket keeps no versions.
            progress: As in `plan`.

        Returns:
            What was checked, and what is wrong.

        Raises:
            InvalidError: ``sample`` is no fraction.
            NotFoundError: There is no such run.
        """
        return self._verify(_verify_request(run, sample, seed, full=full), progress, None)

    def roll_back(
        self, run: str | None = None, *, keys: Sequence[str] | None = None, progress: ProgressOption = None
    ) -> MigrationReport:
        """Undoes a run, by bucket version or by the kept prefix; what was changed since is left alone and named.

        Args:
            run: Id of the run; ``None`` for the last one.
            keys: Only these objects.
            progress: As in `plan`.

        Returns:
            The report.

        Raises:
            NotFoundError: There is no such run.
        """
        return self._roll_back(_roll_back_request(run, keys), progress, None)

    async def plan_async(
        self,
        to: int | None = None,
        *,
        keys: Iterable[str] | None = None,
        sample: int | None = None,
        repair: bool = False,
        progress: ProgressOption = None,
    ) -> MigrationPlan:
        """Like `plan`, for a running event loop; cancelling stops it within a second."""
        request = _plan_request(to, keys, sample, repair=repair)
        return await in_thread(lambda token: self._plan(request, progress, token))

    async def apply_async(
        self,
        plan: MigrationPlan,
        *,
        shard: Shard | None = None,
        run: str | None = None,
        progress: ProgressOption = None,
    ) -> MigrationReport:
        """Like `apply`, for a running event loop; cancelling leaves a state that can be resumed."""
        return await in_thread(lambda token: self._apply(plan, shard, run, progress, token))

    async def verify_async(
        self,
        sample: float | None = None,
        *,
        run: str | None = None,
        seed: int = 0,
        full: bool = False,
        progress: ProgressOption = None,
    ) -> MigrationVerification:
        """Like `verify`, for a running event loop."""
        request = _verify_request(run, sample, seed, full=full)
        return await in_thread(lambda token: self._verify(request, progress, token))

    async def roll_back_async(
        self, run: str | None = None, *, keys: Sequence[str] | None = None, progress: ProgressOption = None
    ) -> MigrationReport:
        """Like `roll_back`, for a running event loop."""
        request = _roll_back_request(run, keys)
        return await in_thread(lambda token: self._roll_back(request, progress, token))

    def status(self, *, progress: ProgressOption = None) -> MigrationStatus:
        """Which versions the objects of the data set have; looks at each of them."""
        core = self._core()
        with reporter(progress, f"status {self.name}") as tell:
            return MigrationStatus({"set": self.name, "data": self.url, **json.loads(core.status("{}", tell))})

    def history(self, limit: int | None = None) -> Table:
        """The runs, the newest first.

        Args:
            limit: Most runs to return; ``None`` for all.
        """
        return Table(json.loads(self._core().history(limit))["runs"], f"{self.name}: runs")

    def _steps_changed(self) -> None:
        self._opened = None

    def __repr__(self) -> str:
        from regraft import display

        return display.plain(self)

    def _repr_html_(self) -> str:
        from regraft import display_html

        return display_html.html(self)

    def _core(self) -> Migrations:
        enter()
        with self._lock:
            if self._opened is None:
                from regraft import _core
                from regraft.migration_steps import Steps, fingerprint

                functions = self._all_functions()
                prints = [fingerprint(step, functions.get(number)) for number, step in enumerate(self.config.steps)]
                steps = Steps(self.config.steps, functions)
                self._opened = _core.Migrations(migrations_core_json(self.config, prints), steps)
            return self._opened

    def _plan(self, request: str, progress: ProgressOption, token: CancelToken | None) -> MigrationPlan:
        core = self._core()
        with reporter(progress, f"plan {self.name}") as tell:
            return MigrationPlan(json.loads(core.plan(request, tell, token)), self)

    def _apply(
        self,
        plan: MigrationPlan,
        shard: Shard | None,
        run: str | None,
        progress: ProgressOption,
        token: CancelToken | None,
    ) -> MigrationReport:
        options = _apply_options(shard, run)
        core = self._core()
        with reporter(progress, f"apply {self.name}") as tell:
            document = json.loads(core.apply(plan.to_json(), options, tell, token))
        # What the plan refused was never begun; a report of the whole names it, a shard leaves that to the plan.
        return MigrationReport(document if shard else with_refused(document, plan.failed), self)

    def _verify(self, request: str, progress: ProgressOption, token: CancelToken | None) -> MigrationVerification:
        core = self._core()
        with reporter(progress, f"verify {self.name}") as tell:
            return MigrationVerification({"set": self.name, **json.loads(core.verify(request, tell, token))})

    def _roll_back(self, request: str, progress: ProgressOption, token: CancelToken | None) -> MigrationReport:
        core = self._core()
        with reporter(progress, f"roll back {self.name}") as tell:
            return MigrationReport(json.loads(core.roll_back(request, tell, token)), self)


def _plan_request(to: int | None, keys: Iterable[str] | None, sample: int | None, *, repair: bool) -> str:
    if sample is not None and sample < 1:
        raise InvalidError(f"expected a `sample` of at least 1 object, found `{sample}`")
    return json.dumps({"to": to, "keys": _keys(keys), "sample": sample, "repair": repair})


def _apply_options(shard: Shard | None, run: str | None) -> str:
    if shard is not None:
        number, count = shard
        if not 1 <= number <= count:
            raise InvalidError(f"expected a shard from 1/{count} to {count}/{count}, found `{number}/{count}`")
    return json.dumps({"shard": list(shard) if shard is not None else None, "run": run})


def _verify_request(run: str | None, sample: float | None, seed: int, *, full: bool) -> str:
    if sample is not None and not 0 < sample <= 1:
        raise InvalidError(
            f"expected `sample` above 0 and up to 1, found `{sample}`", "`sample=0.01` is one in a hundred"
        )
    return json.dumps({"run": run, "sample": sample, "seed": seed, "full": full})


def _roll_back_request(run: str | None, keys: Iterable[str] | None) -> str:
    return json.dumps({"run": run, "keys": _keys(keys)})


def _keys(keys: Iterable[str] | None) -> list[str] | None:
    # One key in place of a list would be read letter by letter.
    return None if keys is None else [keys] if isinstance(keys, str) else [str(key) for key in keys]
