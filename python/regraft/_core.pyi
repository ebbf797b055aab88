"""The Rust core of regraft: the seam, one level below what users call.

Everything but arrays crosses as JSON text, so that a plan or a report is the same in Rust, in Python and in a file.
Every function releases the GIL, notices Ctrl-C within a second, and raises the classes of `regraft.errors`.
"""

from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from regraft.encoded import EncodedDataset, Hook, Progress

__all__ = [
    "CancelToken",
    "Collection",
    "Migrations",
    "__version__",
    "describe_netcdf",
    "error_kinds",
    "init_config",
    "probe_store",
    "read_zarr",
    "write_region",
]

__version__: str
"""Version of the package, from ``Cargo.toml``."""

@final
class CancelToken:
    """Stops a long verb from another thread.

    Example:
        >>> token = CancelToken()
        >>> token.cancel()  # the verb that was given the token raises within a second
    """

    def __new__(cls) -> Self: ...
    def cancel(self) -> None:
        """Asks the verb to stop; what was committed stays, and the next run goes on from there."""

@final
class Collection:
    """A collection, opened.

    Args:
        config: JSON of `regraft.config.CollectionConfig` with every default filled in, from `regraft.config.core_json`.
        hook: Opens and prepares a source, instead of the core's own reader.

    Raises:
        InvalidError: The configuration contradicts itself, or an option of an object store is unknown.

    Example:
        >>> config = regraft.core_json(regraft.load_config("sst.yaml"))
        >>> plan = json.loads(Collection(config).plan('{"keys": null, "removed": [], "mode": "sync"}'))
    """

    def __new__(cls, config: str, hook: Hook | None = None) -> Self: ...
    def plan(self, request: str, progress: Progress | None = None, token: CancelToken | None = None) -> str:
        """Compares sources with the ledger, and says what an apply would do; writes nothing.

        Args:
            request: ``{"keys": [..] | null, "removed": [..], "mode": "sync" | "keys"}``. ``sync`` lists the source
                prefix: what the ledger knows and the listing does not is a removal.
            progress: Told about the stages ``list`` and ``open``.
            token: Stops the call.

        Returns:
            The plan as JSON, ``kind`` ``zarr-plan``.

        Raises:
            UnavailableError: The object store did not answer.
            InvalidError: The request or the store does not fit the configuration.

        Example:
            >>> collection.plan('{"keys": ["2022/a.nc"], "removed": [], "mode": "keys"}')
        """

    def apply(
        self,
        plan: str,
        progress: Progress | None = None,
        token: CancelToken | None = None,
        wait: float | None = None,
    ) -> str:
        """Does what a plan says, as commits, then settles what was submitted; safe to call twice.

        Args:
            plan: The JSON that `plan` returned.
            progress: Told about the stages ``open``, ``write`` and ``publish``.
            token: Stops the call between two commits.
            wait: Seconds to wait while another writer holds the store; ``None`` waits a minute.

        Returns:
            The report as JSON, ``kind`` ``zarr-report``.

        Raises:
            ConflictError: The store changed since the plan was made, or another writer holds it.
            UnavailableError: The object store did not answer.

        Example:
            >>> report = json.loads(collection.apply(plan))
        """

    def sync(
        self,
        request: str,
        progress: Progress | None = None,
        token: CancelToken | None = None,
        wait: float | None = None,
    ) -> str:
        """Does what a plan of the same request would say, opening each source once; then settles what was submitted.

        Args:
            request: As for `plan`.
            progress: Told about the stages ``list``, ``open``, ``write`` and ``publish``.
            token: Stops the call between two commits.
            wait: As for `apply`.

        Returns:
            The report as JSON, ``kind`` ``zarr-report``.

        Raises:
            ConflictError: Another writer holds the store, or changed it meanwhile.
            UnavailableError: The object store did not answer.

        Example:
            >>> report = json.loads(collection.sync('{"keys": null, "removed": [], "mode": "sync"}'))
        """

    def apply_shard(
        self,
        plan: str,
        number: int,
        count: int,
        progress: Progress | None = None,
        token: CancelToken | None = None,
    ) -> str:
        """Does one shard of a plan beside other workers, and publishes the plan when all are done; safe to call twice.

        Args:
            plan: The JSON that `plan` returned, the same for all workers.
            number: Which shard, counted from 1.
            count: How many shards there are.
            progress: Told about the stages ``open``, ``write`` and ``publish``.
            token: Stops the call; done again, it goes on.

        Returns:
            JSON, ``kind`` ``zarr-shard-report``: ``outcome`` (``written``, ``published``, ``nothing``), ``waiting``
            (shards that are not done), ``bad`` (sources that could not be used), ``indices``, ``written``, and the
            ``report`` of the commit where this call published it.

        Raises:
            InvalidError: The plan moves the tail of the axis or removes sources, or there is no such shard.
            ConflictError: The store changed since the plan was made, or another backfill is open.
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(collection.apply_shard(plan, 1, 1))["outcome"]
            'published'
        """

    def plan_shard(self, plan: str, number: int, count: int) -> str:
        """Says what `apply_shard` would do; writes nothing.

        Args:
            plan: The JSON that `plan` returned.
            number: Which shard, counted from 1.
            count: How many shards there are.

        Returns:
            JSON, ``kind`` ``zarr-shard-plan``: ``plan`` (its id), ``state`` (``pending``, ``written``, ``published``),
            ``block_length`` in steps of the axis, ``block_count``, ``blocks`` (its index ranges, ``[start, stop)``),
            ``changes`` and ``arrays`` as in a plan, of this shard only, ``totals``.

        Raises:
            InvalidError: The plan moves the tail of the axis or removes sources, or there is no such shard.
            ConflictError: The store changed since the plan was made, or another backfill is open.
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(collection.plan_shard(plan, 3, 16))["blocks"]
            [[120, 180]]
        """

    def submit(self, intents: str) -> str:
        """Asks for sources to be looked at, durably.

        Args:
            intents: JSON list of ``{"key", "operation": "put" | "remove" | "forced_remove", "sequencer", "bucket"}``.
                Keys are below the source URL, full URLs, or, where ``bucket`` is named, the bucket's own.

        Returns:
            JSON ``{"ids": [..], "duplicates": n, "ignored": [keys]}``.

        Raises:
            UnavailableError: The object store did not answer: submit again.

        Example:
            >>> collection.submit('[{"key": "a.nc", "operation": "put", "sequencer": null, "bucket": null}]')
        """

    def drain(self, options: str, progress: Progress | None = None, token: CancelToken | None = None) -> str:
        """Settles everything that was submitted, in batches, one commit each.

        Args:
            options: JSON ``{"wait", "files", "seconds", "deadline"}``, each a number or null: seconds to wait for the
                lease (null returns at once), gather until so many requests wait or for so many seconds, start no commit
                after so many seconds.
            progress: Told about the stages ``gather``, ``open``, ``write`` and ``publish``.
            token: Stops the call between two commits.

        Returns:
            The report as JSON; outcome ``busy`` with ``holder`` where another writer holds the store.

        Raises:
            ConflictError: The lease was lost in the middle.
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(collection.drain("{}"))["outcome"]
        """

    def wait_for(self, ids: str, timeout: float, token: CancelToken | None = None) -> str:
        """Waits until requests are settled.

        Args:
            ids: JSON list of the ids that `submit` returned.
            timeout: Seconds.
            token: Stops the call.

        Returns:
            JSON ``{"done": {id: {"commit": n | null, "outcome": "done" | "quarantined" | "nothing"}},
            "pending": [ids]}``.

        Raises:
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(collection.wait_for(json.dumps(ids), 60.0))["pending"]
        """

    def unlock(self) -> str:
        """Takes the right to write from a holder that hangs; what it still tries to write is refused.

        Returns:
            JSON ``{"was": the holder or null, "epoch": n, "backfill": id of the plan that was given up or null}``.

        Raises:
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(collection.unlock())["epoch"]
        """

    def status(self) -> str:
        """What the store and its ledger hold.

        Returns:
            JSON ``{"store_exists", "axis_length", "sources", "runners_up", "quarantined", "last_commit", "locked_by",
            "lease": {"holder", "epoch", "since", "free"} | null, "pending", "unfinished",
            "backfill": {"plan", "count", "written", "waiting"} | null, "format", "size"}``.

        Raises:
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(collection.status())["axis_length"]
        """

    def history(self, limit: int | None) -> str:
        """The commits, the newest first.

        Args:
            limit: Most commits to return; ``None`` for all.

        Returns:
            JSON list of ``{"number", "kind", "time", "sources", "actions", "keys", "usage"}``.

        Raises:
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(collection.history(5))
        """

    def provenance(self, request: str) -> str:
        """Which source version owns which region.

        Args:
            request: ``{"label": ".."}``, ``{"index": n}``, ``{"key": ".."}``, or ``{}`` for every region.

        Returns:
            JSON list of ``{"label", "index", "key", "etag", "version", "commit", "time", "runners_up"}``.

        Raises:
            NotFoundError: No region has that label or index.

        Example:
            >>> json.loads(collection.provenance('{"label": "2022-01-05"}'))
        """

    def gaps(self) -> str:
        """Labels that are missing from the axis, or blank.

        Returns:
            JSON ``{"axis", "step", "missing", "blank", "count"}``.

        Raises:
            NotFoundError: There is no store yet.

        Example:
            >>> json.loads(collection.gaps())["missing"]
        """

    def verify(self, request: str, progress: Progress | None = None, token: CancelToken | None = None) -> str:
        """Reads sources again and compares them with the store.

        Args:
            request: ``{"sample": fraction of the regions or null for all, "seed": n}``.
            progress: Told about the stage ``verify``.
            token: Stops the call.

        Returns:
            JSON ``{"checked", "failed", "skipped", "outcome"}``.

        Raises:
            NotFoundError: There is no store yet.

        Example:
            >>> json.loads(collection.verify('{"sample": 0.01, "seed": 0}'))["outcome"]
        """

    def retry(self, keys: list[str]) -> str:
        """Takes sources out of quarantine.

        Args:
            keys: Which; an empty list means all.

        Returns:
            JSON ``{"released": [keys]}``.

        Raises:
            NotFoundError: A key is not in quarantine.

        Example:
            >>> json.loads(collection.retry([]))["released"]
        """

@final
class Migrations:
    """A migration set, opened.

    Args:
        config: JSON of `regraft.migration_config.MigrationSetConfig`, from `migrations_core_json`.
        steps: Binds and computes the steps, usually `regraft.migration_steps.Steps`: ``bind(step, schema) -> (reads,
            adds)`` and ``compute(step, batch) -> batch``, with Arrow PyCapsule objects for schemas and batches.

    Raises:
        InvalidError: Steps contradict each other, or an option of an object store is unknown.

    Example:
        >>> migrations = Migrations(migrations_core_json(config, fingerprints), Steps(config.steps, {}))
        >>> plan = json.loads(migrations.plan("{}"))
    """

    def __new__(cls, config: str, steps: object) -> Self: ...
    def plan(self, request: str, progress: Progress | None = None, token: CancelToken | None = None) -> str:
        """Looks at the data set, and says what an apply would do; writes nothing.

        Args:
            request: ``{"to": int | null, "keys": [..] | null, "sample": n | null, "repair": bool}``. ``sample`` keeps
                so many of the objects that are to be migrated; ``repair`` also reads the tags of objects at the target,
                and plans to mend those that differ from the footer.
            progress: Told about the stage ``scan``.
            token: Stops the call.

        Returns:
            The plan as JSON, ``kind`` ``parquet-plan``; ``sidecars`` are keys of `_metadata` and `_common_metadata`
            files that tell readers about pending objects.

        Raises:
            InvalidError: Two ways of equally many steps lead to the target.
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(migrations.plan('{"to": 3}'))["totals"]["pending"]
        """

    def apply(self, plan: str, options: str, progress: Progress | None = None, token: CancelToken | None = None) -> str:
        """Does what a plan says; safe to call twice, or on two machines.

        Args:
            plan: The JSON that `plan` returned.
            options: ``{"shard": [i, n] | null, "run": id | null}``; shards are counted from 1 and may share a run.
            progress: Told about the stage ``migrate``.
            token: Stops the call; objects that were not begun stay ``pending``.

        Returns:
            The report as JSON, ``kind`` ``parquet-report``. What went wrong with one object is in its entry.

        Raises:
            InvalidError: The plan is of another set or of other steps, or an applied step was edited.
            UnavailableError: The run could not be recorded.

        Example:
            >>> json.loads(migrations.apply(plan, "{}"))["outcome"]
            'done'
        """

    def status(self, request: str, progress: Progress | None = None) -> str:
        """Looks at the data set, and counts versions and states.

        Args:
            request: As for `plan`.
            progress: Told about the stage ``scan``.

        Returns:
            JSON ``{"set", "data", "target", "objects", "bytes", "versions": {version: n}, "states": {state: n},
            "troubles": [[key, state, {"message", "hint"}]], "runs": [..]}``, ``kind`` ``parquet-status``.

        Raises:
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(migrations.status("{}"))["versions"]
        """

    def history(self, limit: int | None) -> str:
        """The runs, the newest first.

        Args:
            limit: Most runs to return; ``None`` for all.

        Returns:
            JSON ``{"set", "runs": [{"run", "verb", "shard", "begun", "ended", "target", "of", "objects", "outcome",
            "totals", "usage", "seconds"}]}``; ``outcome`` is ``unfinished`` where a run was killed or goes on.

        Raises:
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(migrations.history(1))["runs"][0]["run"]
        """

    def verify(self, request: str, progress: Progress | None = None, token: CancelToken | None = None) -> str:
        """Compares migrated objects with what they should be.

        Args:
            request: ``{"run": id | null, "sample": 0.01 | null, "seed": n, "keys": [..] | null, "full": bool}``:
                without a run every object that this set migrated; ``sample`` is the share whose bytes are read and
                computed again; ``full`` reads the old file within widened ones, too.
            progress: Told about the stages ``scan`` and ``verify``.
            token: Stops the call.

        Returns:
            JSON ``{"outcome": "ok" | "failed" | "nothing", "objects": [{"key", "state", "checked", "recomputed",
            "compared", "message", "hint"}], "totals", "usage", "seconds"}``, ``kind`` ``parquet-verification``.

        Raises:
            NotFoundError: There is no such run.
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(migrations.verify('{"sample": 0.1}'))["outcome"]
            'ok'
        """

    def roll_back(self, request: str, progress: Progress | None = None, token: CancelToken | None = None) -> str:
        """Undoes a run, where nobody changed the objects since; safe to call twice.

        Args:
            request: ``{"run": id | null, "keys": [..] | null}``: without a run the latest that applied something.
            progress: Told about the stage ``roll_back``.
            token: Stops the call.

        Returns:
            The report as JSON, ``kind`` ``parquet-report`` and ``verb`` ``roll_back``; what was changed since is
            ``skipped``, what cannot be undone an ``error``.

        Raises:
            NotFoundError: There is no such run.
            UnavailableError: The object store did not answer.

        Example:
            >>> json.loads(migrations.roll_back("{}"))["totals"]["rolled_back"]
        """

def write_region(
    dataset: EncodedDataset,
    url: str,
    storage_options: dict[str, str],
    region: str,
    progress: Progress | None = None,
    token: CancelToken | None = None,
) -> str:
    """Writes a data set into a region of a store that exists.

    Args:
        dataset: The values, encoded as the store has them.
        url: The store.
        storage_options: Options of the object store.
        region: JSON ``"auto"`` (by coordinate labels) or ``{dimension: [start, stop]}``.
        progress: Told about the stages ``write`` and ``publish``.
        token: Stops the call.

    Returns:
        The report as JSON.

    Raises:
        NotFoundError: There is no store at the URL.
        InvalidError: Labels, shapes or types do not fit the store.

    Example:
        >>> write_region(encoded, "/data/sst.zarr", {}, '{"time": [3, 4]}')
    """

def init_config(path_or_url: str, options: str) -> str:
    """The structure of a sample file, for guessing a configuration.

    Args:
        path_or_url: A NetCDF file.
        options: JSON ``{"storage_options": {..}}``.

    Returns:
        JSON ``{"dimensions": {name: {"size", "unlimited"}}, "variables": [{"name", "dtype", "dimensions", "shape",
        "chunk_shape", "attributes"}], "attributes"}``.

    Raises:
        InvalidError: The file is no NetCDF file that the core reads.
        NotFoundError: There is no such file.

    Example:
        >>> json.loads(init_config("a.nc", "{}"))["dimensions"]["time"]
    """

def describe_netcdf(path: str) -> str:
    """The structure of a NetCDF file with its attributes, as JSON.

    Args:
        path: A file.

    Returns:
        JSON of the root group.

    Raises:
        InvalidError: The file is no NetCDF file that the core reads.

    Example:
        >>> json.loads(describe_netcdf("a.nc"))
    """

def probe_store(url: str, storage_options: dict[str, str]) -> str:
    """Tries on scratch objects below a URL what commits and rewrites depend on, and removes them.

    Args:
        url: A place, which need not exist yet.
        storage_options: Options of the object store.

    Returns:
        JSON: ``url`` and ``checks``, each with ``what``, ``state`` (``ok``, ``missing``, ``failed``), ``detail`` and,
        where one is known, ``hint``.

    Raises:
        InvalidError: The URL or an option is not understood.

    Example:
        >>> json.loads(probe_store("memory://scratch", {}))["checks"][0]["what"]
        'create-only put'
    """

def read_zarr(
    url: str, options: dict[str, str], array: str, start: list[int], shape: list[int]
) -> NDArray[np.generic] | list[str]:
    """Reads a box of one array, decoded from its chunks, not unpacked.

    Args:
        url: The store.
        options: Options of the object store.
        array: Name of the array.
        start: First index along each dimension.
        shape: Elements along each dimension.

    Returns:
        An array of ``shape``, or text in C order for a string array.

    Raises:
        NotFoundError: There is no such store or array.
        InvalidError: The box is not inside the array.

    Example:
        >>> read_zarr("/data/sst.zarr", {}, "sst", [0, 0, 0], [1, 10, 10])
    """

def error_kinds() -> list[str]:
    """The kinds that the core raises, for comparison with `regraft.errors`.

    Returns:
        ``["invalid", "not_found", "conflict", "unavailable", "corrupt", "internal"]``.

    Raises:
        InternalError: Never; every function of the core may raise it for a bug.

    Example:
        >>> error_kinds()[0]
        'invalid'
    """
