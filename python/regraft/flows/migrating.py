"""The flow that takes a data set of Parquet files to a version, its shards side by side."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from regraft.flows.tasks import PATIENT, SHOWN, Config, artifact_key
from regraft.migration_results import MigrationPlan
from regraft.migrations import open_migrations
from regraft.progress import bytes_text

__all__ = ["migrate", "migrate_shard", "plan_migration"]

_NOT_MIGRATED = {"error", "conflict", "missing_step", "not_parquet"}


@task(task_run_name="plan migration", **PATIENT)
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


@task(task_run_name="migrate shard {number} of {count}", **PATIENT)
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
        key=artifact_key(plan["set"]),
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
        for item in failed[:SHOWN]
    ]
    return rows or [
        {"shard": "", "files": 0, "state": "nothing", "read": "", "written": "", "why": "all at the target"}
    ]
