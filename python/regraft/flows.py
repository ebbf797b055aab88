"""Prefect: flows that make a store match its files, or migrate a data set, with one task for each shard of the plan.

Never one task for each file: a few thousand mapped tasks make a self-hosted Prefect server unstable (PrefectHQ/prefect
#18883), and a commit of many files touches every chunk once instead of many times. A shard is a run of consecutive
sources of the plan. Shards are applied one after the other, because a store has one writer; each plans its own keys
again before it writes, so that a shard which is retried, or runs beside events from elsewhere, does what is right by
then. A migration's shards are applied side by side: its files are independent of each other.

Retries ask the error, not its text: `retryable` is true for what may go well the next time. A file that cannot be used
is no error of a task: it is set aside, and stands in the artifact.

Secrets are no parameters, since Prefect shows those: the object stores read them from the environment of the worker.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from regraft.collections import open_collection
from regraft.errors import RegraftError
from regraft.migration_results import MigrationPlan
from regraft.migrations import open_migrations
from regraft.progress import bytes_text

try:
    from prefect import flow, get_run_logger, task
    from prefect.artifacts import create_table_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.tasks import exponential_backoff
except ImportError as error:
    raise ImportError("regraft.flows needs Prefect: pip install 'regraft[prefect]'") from error

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

__all__ = ["apply_shard", "migrate", "migrate_shard", "plan_collection", "plan_migration", "sync_collection"]

Config = str | dict[str, Any]
Shard = dict[str, list[str]]
"""``{"keys": [..], "removed": [..]}``: what a plan is asked to look at."""

_UNTOUCHED = {"nothing"}
_GONE = {"restore", "blank", "forget"}
_NOT_MIGRATED = {"error", "conflict", "missing_step", "not_parquet"}
_SHOWN = 100
"""Failed files that an artifact shows."""


def retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Whether a failed task may go well the next time, by the error itself."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RegraftError) and error.retryable


@task(
    cache_policy=NO_CACHE,
    task_run_name="plan",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=retryable,
)
def plan_collection(config: Config, shards: int) -> list[Shard]:
    """Lists the source, compares it with the ledger, and cuts what is to be done into shards.

    Args:
        config: A configuration file, ``definition:NAME``, or a mapping.
        shards: How many, at most; there are never empty ones.

    Returns:
        What each shard is to look at, in the order of the plan.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        InvalidError: The configuration is wrong.

    Example:
        >>> plan_collection("sst.yaml", shards=4)  # doctest: +SKIP
    """
    plan = open_collection(config).plan(progress=False)
    get_run_logger().info("planned `%s`: %s", plan["collection"], plan.counts or "nothing to do")
    return _cut([change for change in plan.changes if change["action"] not in _UNTOUCHED], shards)


@task(
    cache_policy=NO_CACHE,
    task_run_name="apply shard {number} of {count}",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=retryable,
)
def apply_shard(config: Config, shard: Shard, number: int, count: int) -> dict[str, Any]:
    """Plans the keys of one shard again and applies that plan.

    Args:
        config: As for `plan_collection`.
        shard: Which keys.
        number: Which shard it is, from 1.
        count: How many there are.

    Returns:
        The report, plain data.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        ConflictError: Another writer holds the store, or was faster every time.

    Example:
        >>> apply_shard("sst.yaml", {"keys": ["a.nc"], "removed": []}, 1, 1)  # doctest: +SKIP
    """
    plan = open_collection(config).plan(shard["keys"], removed=shard["removed"], progress=False)
    report = plan.apply(progress=False)
    get_run_logger().info("shard %d of %d: %s, %s", number, count, report.outcome, report.counts)
    return report.to_dict()


@flow(name="regraft-sync-collection", flow_run_name="sync")
def sync_collection(config: Config, shards: int = 4, retries: int = 3) -> dict[str, Any]:
    """Makes a store match its files.

    Run it again whenever it failed: what is done is in the ledger, and is not done twice.

    Args:
        config: A configuration file, ``definition:NAME``, or a mapping. A worker elsewhere needs the file, too.
        shards: Tasks that the work is cut into, one commit or more each.
        retries: How often a task is tried again when its error is retryable.

    Returns:
        ``{"collection", "outcome", "shards", "counts", "quarantined", "usage", "reports"}``.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        ConflictError: Another writer holds the store.
        InvalidError: The configuration is wrong.

    Example:
        >>> from regraft.flows import sync_collection
        >>> sync_collection("sst.yaml", shards=8)  # doctest: +SKIP
        >>> sync_collection.serve(name="nightly", cron="0 3 * * *")  # doctest: +SKIP
    """
    name = open_collection(config).name
    cut = plan_collection.with_options(retries=retries)(config, shards)
    reports = [
        apply_shard.with_options(retries=retries)(config, shard, number, len(cut))
        for number, shard in enumerate(cut, 1)
    ]
    result = _summary(name, reports)
    create_table_artifact(
        key=_artifact_key(name),
        table=_rows(reports),
        description=f"`{name}`: {result['outcome']}, {result['counts'] or 'nothing to do'}",
    )
    return result


def _cut(changes: list[dict[str, Any]], shards: int) -> list[Shard]:
    """Consecutive changes in at most so many shards, equally long but for one."""
    size = max(1, -(-len(changes) // max(1, shards)))
    runs = [changes[start : start + size] for start in range(0, len(changes), size)]
    return [
        {
            "keys": [change["key"] for change in run if change["action"] not in _GONE],
            "removed": [change["key"] for change in run if change["action"] in _GONE],
        }
        for run in runs
    ]


def _summary(name: str, reports: list[dict[str, Any]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    usage: Counter[str] = Counter()
    for report in reports:
        counts.update(change["action"] for change in report["changes"] if change.get("outcome", "done") == "done")
        usage.update(report.get("usage", {}))
    quarantined = [item for report in reports for item in report.get("quarantined", [])]
    outcomes = {report["outcome"] for report in reports} - {"nothing"}
    return {
        "collection": name,
        "outcome": "partial" if "partial" in outcomes else "done" if outcomes else "nothing",
        "shards": len(reports),
        "counts": dict(counts),
        "quarantined": quarantined,
        "usage": dict(usage),
        "reports": reports,
    }


def _rows(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row of the artifact for each source, or one that says that there was none."""
    rows = [
        {
            "shard": number,
            "file": change["key"],
            "done": change["action"],
            "at": ", ".join(f"[{start}, {stop})" for start, stop in change.get("indices") or []),
            "why": change.get("message") or change.get("reason", ""),
        }
        for number, report in enumerate(reports, 1)
        for change in report["changes"]
    ]
    return rows or [{"shard": "", "file": "", "done": "nothing", "at": "", "why": "the store matches its files"}]


@task(
    cache_policy=NO_CACHE,
    task_run_name="plan migration",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=retryable,
)
def plan_migration(config: Config, to: int | None) -> dict[str, Any]:
    """Scans a data set and plans its migration.

    Args:
        config: A configuration file of a migration set, or a mapping.
        to: The version to reach; by default the set's target.

    Returns:
        The plan, plain data.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        InvalidError: The configuration is wrong, or a step was edited after it had been applied.

    Example:
        >>> plan_migration("sensors.yaml", None)  # doctest: +SKIP
    """
    plan = open_migrations(config).plan(to, progress=False)
    get_run_logger().info("planned `%s`: %s", plan["set"], plan.counts or "no files")
    return plan.to_dict()


@task(
    cache_policy=NO_CACHE,
    task_run_name="migrate shard {number} of {count}",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=retryable,
)
def migrate_shard(config: Config, plan: dict[str, Any], number: int, count: int, run: str) -> dict[str, Any]:
    """Applies one shard of a plan; what is done already is not done twice.

    Args:
        config: As for `plan_migration`.
        plan: From `plan_migration`.
        number: Which shard it is, from 1.
        count: How many there are.
        run: Id that all shards share.

    Returns:
        The report, plain data.

    Raises:
        UnavailableError: Files failed that may succeed when tried again.
        InvalidError: The plan does not fit the configuration.

    Example:
        >>> migrate_shard("sensors.yaml", plan, 1, 8, "20260101-monday")  # doctest: +SKIP
    """
    report = MigrationPlan(plan, open_migrations(config)).apply(shard=(number, count), run=run, progress=False)
    get_run_logger().info("shard %d of %d: %s, %s", number, count, report.outcome, report.counts)
    if report.failed and all(item.get("retryable") for item in report.failed):
        # The task is tried again; the files that were migrated are seen to be done.
        report.raise_for_failures()
    return report.to_dict()


@flow(name="regraft-migrate", flow_run_name="migrate")
def migrate(config: Config, to: int | None = None, shards: int = 4, retries: int = 3) -> dict[str, Any]:
    """Takes a data set of Parquet files to a version, with one task for each shard of the plan, side by side.

    Run it again whenever it failed: what is done is seen in the files themselves. The task runner is yours to choose:
    ``migrate.with_options(task_runner=DaskTaskRunner())(…)``.

    Args:
        config: A configuration file of a migration set, or a mapping. A worker elsewhere needs the file, and the code
            of Python steps, too.
        to: The version to reach; by default the set's target.
        shards: Tasks that the work is cut into.
        retries: How often a task is tried again when its error is retryable.

    Returns:
        ``{"set", "run", "outcome", "shards", "counts", "failed", "usage", "reports"}``.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        InvalidError: The configuration is wrong.

    Example:
        >>> from regraft.flows import migrate
        >>> migrate("sensors.yaml", to=3, shards=16)  # doctest: +SKIP
    """
    plan = plan_migration.with_options(retries=retries)(config, to)
    pending = sum(item["state"] == "pending" for item in plan["objects"])
    count = min(max(1, shards), pending)
    # The same plan is the same run, so that a task which is tried again goes on in it.
    run = "flow-" + hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    tasks = [
        migrate_shard.with_options(retries=retries).submit(config, plan, number, count, run)
        for number in range(1, count + 1)
    ]
    reports = [task_.result() for task_ in tasks]
    result = _migrated(plan, run, reports)
    create_table_artifact(
        key=_artifact_key(plan["set"]),
        table=_migration_rows(plan, reports),
        description=f"`{plan['set']}` to version {plan['target']}: {result['outcome']}, {result['counts']}",
    )
    return result


def _migrated(plan: dict[str, Any], run: str, reports: list[dict[str, Any]]) -> dict[str, Any]:
    usage: Counter[str] = Counter()
    states = Counter(item["state"] for item in plan["objects"] if item["state"] != "pending")
    failed = [item for item in plan["objects"] if item["state"] in _NOT_MIGRATED]
    for report in reports:
        states.update(item["state"] for item in report["objects"])
        usage.update({name: number for name, number in report.get("usage", {}).items() if isinstance(number, int)})
        failed += [item for item in report["objects"] if item["state"] in _NOT_MIGRATED]
    outcome = "partial" if failed else "done" if reports else "nothing"
    return {
        "set": plan["set"],
        "run": run if reports else None,
        "outcome": outcome,
        "shards": len(reports),
        "counts": dict(states),
        "failed": failed,
        "usage": dict(usage),
        "reports": reports,
    }


def _migration_rows(plan: dict[str, Any], reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each shard, and one for each file that was not migrated: an artifact is no place for 7,200 rows."""
    rows = [
        {
            "shard": str(number),
            "files": len(report["objects"]),
            "state": report["outcome"],
            "read": bytes_text(report["totals"].get("bytes_read", 0)),
            "written": bytes_text(report["totals"].get("bytes_written", 0)),
            "why": "",
        }
        for number, report in enumerate(reports, 1)
    ]
    failed = [item for source in (plan, *reports) for item in source["objects"] if item["state"] in _NOT_MIGRATED]
    rows += [
        {
            "shard": item["key"],
            "files": 1,
            "state": item["state"],
            "read": "",
            "written": "",
            "why": item.get("message") or "",
        }
        for item in failed[:_SHOWN]
    ]
    return rows or [
        {"shard": "", "files": 0, "state": "nothing", "read": "", "written": "", "why": "all at the target"}
    ]


def _artifact_key(name: str) -> str:
    return "regraft-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
