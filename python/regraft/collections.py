"""The objects that users hold: a collection, its plans and its reports.

Everything here only arranges calls of the core: validate, hand over JSON, show progress, wrap the answer. The long
verbs have an ``_async`` twin for event loops; the rest is quick and has none.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import TYPE_CHECKING, Any

from regraft.collections_backfill import CollectionBackfill
from regraft.collections_inbox import CollectionInbox
from regraft.config_file import load_config
from regraft.errors import ConflictError, InvalidError
from regraft.progress import ProgressOption, reporter
from regraft.results import Gaps, Plan, Report, Status, Table, Verification
from regraft.seam import enter, in_thread
from regraft.since import since_text

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import numpy as np
    import xarray as xr

    from regraft._core import CancelToken
    from regraft.config import CollectionConfig

    Label = str | float | dt.date | np.datetime64

__all__ = ["Collection", "open_collection"]

_SYNC_TRIES = 3


def open_collection(
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Collection:
    """Opens a collection; neither the sources nor the store are touched.

    Args:
        config: A YAML or JSON file, ``definition:NAME`` for a ready-made one, or the same as a mapping.
        overrides: Merged over the configuration, deep.
        storage_options: Options of the object stores, secrets allowed: one mapping for every object storage URL, or
            ``{"source": {…}, "store": {…}}``.

    Returns:
        The collection.

    Raises:
        InvalidError: The configuration is wrong; the message says file, field, expected and found.
        NotFoundError: There is no such file or definition.

    Example:
        >>> sst = open_collection(
        ...     "definition:sst",
        ...     overrides={"source": {"url": "s3://bucket/sst/"}, "store": {"url": "sst.zarr"}},
        ... )  # doctest: +SKIP
    """
    return Collection(load_config(config, overrides=overrides, storage_options=storage_options))


class Collection(CollectionInbox, CollectionBackfill):
    """A named set of NetCDF sources and the Zarr store made from them.

    Make one with `open_collection`. It pickles, holds no connection that another process would miss, and every verb may
    be called from any thread.

    Args:
        config: The validated configuration.
    """

    def __init__(self, config: CollectionConfig) -> None:
        from regraft.config import core_json

        enter()
        from regraft import _core

        hook = None
        if config.source.preprocess is not None:
            # NumPy takes longer to import than a small commit takes to make: only where a hook needs it.
            from regraft.datasets import make_hook

            hook = make_hook(config)
        self.config = config
        self._core = _core.Collection(core_json(config), hook)

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.config.name

    @property
    def url(self) -> str:
        """URL or path of the store."""
        return self.config.store.url

    def __reduce__(self) -> tuple[Any, ...]:
        return Collection, (self.config,)

    def plan(
        self,
        keys: Iterable[str] | None = None,
        *,
        removed: Iterable[str] = (),
        since: str | dt.date | None = None,
        progress: ProgressOption = None,
    ) -> Plan:
        """Compares sources with the ledger, and says what an apply would do; writes nothing.

        Args:
            keys: Keys to look at, below the source's URL; ``None`` lists the whole source, where a key that the ledger
                knows and the listing does not is a removal.
            removed: Keys to treat as removed, whether or not the files still exist.
            since: List the whole source, but look only at what was modified since: a time, ISO text (UTC where it names
                no zone), or a duration such as ``2h``. Removals are not found that way.
            progress: ``None`` chooses by where the program runs; ``True``, ``False``, or a callable.

        Returns:
            The plan.

        Raises:
            UnavailableError: The object store did not answer.

        Example:
            >>> plan = collection.plan()  # doctest: +SKIP
            >>> plan.empty  # doctest: +SKIP
            False
        """
        return self._plan(_plan_request(keys, removed, since), progress, None)

    def apply(self, plan: Plan, *, wait: float | None = None, progress: ProgressOption = None) -> Report:
        """Does what a plan says, then settles what was submitted; safe to call twice, or on two machines.

        Args:
            plan: From `plan`, or `Plan.load`.
            wait: Seconds to wait while another writer holds the store; ``None`` waits a minute.
            progress: As in `plan`.

        Returns:
            The report. Sources that could not be used are in it; they raise nothing.

        Raises:
            ConflictError: The store changed since the plan was made, or another writer holds it: plan again.
            UnavailableError: The object store did not answer.
        """
        return self._apply(plan, progress, None, wait)

    def sync(
        self,
        *,
        since: str | dt.date | None = None,
        wait: float | None = None,
        progress: ProgressOption = None,
    ) -> Report:
        """Makes the store match the source, and tries again if another writer was faster.

        Each source is opened once, and what a worker dies of when it opens it is found out: after ``quarantine.after``
        deaths it is set aside.

        Args:
            since: As in `plan`, after lost events: cheaper where most files are old, and blind to removals.
            wait: As in `apply`.
            progress: As in `plan`.

        Returns:
            The report.

        Raises:
            ConflictError: Another writer holds the store, or was faster three times.
            UnavailableError: The object store did not answer.
        """
        return self._sync(_plan_request(None, (), since), wait, progress, None)

    def remove(self, keys: Iterable[str], *, wait: float | None = None, progress: ProgressOption = None) -> Report:
        """Takes sources out of the store, by the rule ``on_remove``; their files are not needed.

        Args:
            keys: Keys below the source's URL.
            wait: As in `apply`.
            progress: As in `plan`.

        Returns:
            The report.
        """
        return self._once(_plan_request([], keys), wait, progress, None)

    def verify(self, sample: float | None = None, *, seed: int = 0, progress: ProgressOption = None) -> Verification:
        """Reads sources again and compares them with the store.

        Args:
            sample: Fraction of the regions, above 0 and up to 1; ``None`` for all.
            seed: Which sample: the same seed takes the same regions.
            progress: As in `plan`.

        Returns:
            What was checked, and what differs.

        Raises:
            InvalidError: ``sample`` is no fraction.
        """
        return self._verify(_verify_request(sample, seed), progress, None)

    async def plan_async(
        self,
        keys: Iterable[str] | None = None,
        *,
        removed: Iterable[str] = (),
        since: str | dt.date | None = None,
        progress: ProgressOption = None,
    ) -> Plan:
        """Like `plan`, for a running event loop; cancelling stops it within a second."""
        request = _plan_request(keys, removed, since)
        return await in_thread(lambda token: self._plan(request, progress, token))

    async def apply_async(self, plan: Plan, *, wait: float | None = None, progress: ProgressOption = None) -> Report:
        """Like `apply`, for a running event loop; cancelling stops between two commits."""
        return await in_thread(lambda token: self._apply(plan, progress, token, wait))

    async def sync_async(
        self, *, since: str | dt.date | None = None, wait: float | None = None, progress: ProgressOption = None
    ) -> Report:
        """Like `sync`, for a running event loop; cancelling stops between two commits."""
        request = _plan_request(None, (), since)
        return await in_thread(lambda token: self._sync(request, wait, progress, token))

    async def verify_async(
        self, sample: float | None = None, *, seed: int = 0, progress: ProgressOption = None
    ) -> Verification:
        """Like `verify`, for a running event loop."""
        request = _verify_request(sample, seed)
        return await in_thread(lambda token: self._verify(request, progress, token))

    def status(self) -> Status:
        """What the store and its ledger hold."""
        enter()
        return Status({"collection": self.name, "store": self.url, **json.loads(self._core.status())})

    def history(self, limit: int | None = None) -> Table:
        """The commits, the newest first.

        Args:
            limit: Most commits to return; ``None`` for all.
        """
        enter()
        return Table(json.loads(self._core.history(limit)), f"{self.name}: history")

    def provenance(
        self,
        label: Label | None = None,
        *,
        index: int | None = None,
        key: str | None = None,
        **labels: Label,
    ) -> Table:
        """Which file wrote which region.

        Args:
            label: A label on the axis, as text or time.
            index: A position on the axis.
            key: Key of a source.
            **labels: The label by the name of the key or of the axis: ``provenance(time="2022-01-05")``.

        Returns:
            One row for each region: label, index, key, ETag, version, commit, time, runners-up.

        Raises:
            InvalidError: None or several of the arguments are given.
            NotFoundError: No region has that label, index or key.
        """
        names = {*([self.config.region.key] if isinstance(self.config.region.key, str) else self.config.region.key)}
        names.update([self.config.region.dimension] if self.config.region.dimension else [])
        unknown = [name for name in labels if name not in names]
        if unknown:
            raise InvalidError(
                f"expected one of {', '.join(f'`{name}`' for name in sorted(names))}, found `{unknown[0]}`"
            )
        given: dict[str, Any] = {"label": label, "index": index, "key": key, **labels}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1:
            raise InvalidError(
                f"expected one of a label, `index` and `key`, found {len(given)}", "`ledger()` gives every region"
            )
        ((name, value),) = given.items()
        request = {name: value} if name in ("index", "key") else {"label": _label_text(value)}
        enter()
        return Table(json.loads(self._core.provenance(json.dumps(request))), f"{self.name}: provenance")

    def ledger(self) -> Table:
        """Every region with the source version that owns it, and its runners-up."""
        enter()
        return Table(json.loads(self._core.provenance("{}")), f"{self.name}: ledger")

    def gaps(self) -> Gaps:
        """Labels that are missing from the axis, or blank."""
        enter()
        return Gaps({"collection": self.name, **json.loads(self._core.gaps())})

    def retry(self, keys: Iterable[str] = (), *, progress: ProgressOption = None) -> Report:
        """Takes sources out of quarantine and tries them again.

        Args:
            keys: Which; none named means all.
            progress: As in `plan`.

        Returns:
            The report of the new attempt.
        """
        enter()
        released = json.loads(self._core.retry(_keys(keys)))
        released = released["released"] if isinstance(released, dict) else released
        return self._once(_plan_request(released, ()), None, progress, None)

    def to_xarray(self, **arguments: Any) -> xr.Dataset:  # noqa: ANN401 - xarray's own
        """Opens the store as a plain `xarray.Dataset`.

        Args:
            **arguments: For `xarray.open_zarr`.

        Returns:
            The data set, lazily loaded.

        Raises:
            NotFoundError: There is no store yet.
        """
        from regraft.reading import open_store

        return open_store(self.url, self.config.store.storage_options, **arguments)

    def __repr__(self) -> str:
        from regraft import display

        return display.plain(self)

    def _repr_html_(self) -> str:
        from regraft import display_html

        return display_html.html(self)

    def _plan(self, request: str, progress: ProgressOption, token: CancelToken | None) -> Plan:
        enter()
        with reporter(progress, f"plan {self.name}") as tell:
            return Plan(json.loads(self._core.plan(request, tell, token)), self)

    def _apply(
        self, plan: Plan, progress: ProgressOption, token: CancelToken | None, wait: float | None = None
    ) -> Report:
        enter()
        with reporter(progress, f"apply {self.name}") as tell:
            return Report(json.loads(self._core.apply(plan.to_json(), tell, token, wait)))

    def _once(self, request: str, wait: float | None, progress: ProgressOption, token: CancelToken | None) -> Report:
        enter()
        with reporter(progress, f"sync {self.name}") as tell:
            return Report(json.loads(self._core.sync(request, tell, token, wait)))

    def _sync(self, request: str, wait: float | None, progress: ProgressOption, token: CancelToken | None) -> Report:
        left, began = wait, time.monotonic()
        for _ in range(_SYNC_TRIES - 1):
            try:
                return self._once(request, left, progress, token)
            except ConflictError:
                if wait is not None:
                    left = wait - (time.monotonic() - began)
                    # Whoever said how long to wait has waited so long.
                    if left <= 0:
                        raise
        return self._once(request, left, progress, token)

    def _verify(self, request: str, progress: ProgressOption, token: CancelToken | None) -> Verification:
        enter()
        with reporter(progress, f"verify {self.name}") as tell:
            return Verification({"collection": self.name, **json.loads(self._core.verify(request, tell, token))})


def _plan_request(keys: Iterable[str] | None, removed: Iterable[str], since: str | dt.date | None = None) -> str:
    gone = _keys(removed)
    mode = "keys" if keys is not None or gone else "sync"
    request = {"keys": None if mode == "sync" else _keys(keys or ()), "removed": gone, "mode": mode}
    if since is not None:
        if mode == "keys":
            raise InvalidError("`since` looks at the whole source, and keys were named", "give one of the two")
        request["since"] = since_text(since)
    return json.dumps(request)


def _keys(keys: Iterable[str]) -> list[str]:
    # One key in place of a list would be read letter by letter.
    return [keys] if isinstance(keys, str) else [str(key) for key in keys]


def _verify_request(sample: float | None, seed: int) -> str:
    if sample is not None and not 0 < sample <= 1:
        raise InvalidError(
            f"expected `sample` above 0 and up to 1, found `{sample}`", "`sample=0.01` is one in a hundred"
        )
    return json.dumps({"sample": sample, "seed": seed})


def _label_text(label: Any) -> str:  # noqa: ANN401 - text, number, date or datetime64
    return label.isoformat() if isinstance(label, dt.date) else str(label)
