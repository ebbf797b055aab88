"""The flow that makes a store match its files, one shard of the plan after the other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from regraft.collections import open_collection
from regraft.flows.tasks import PATIENT, Config, artifact_key

__all__ = ["apply_shard", "plan_collection", "sync_collection"]

Shard = dict[str, list[str]]
"""``{"keys": [..], "removed": [..]}``: what a plan is asked to look at."""

_UNTOUCHED = {"nothing"}
_GONE = {"restore", "blank", "forget"}


@task(task_run_name="plan", **PATIENT)
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


@task(task_run_name="apply shard {number} of {count}", **PATIENT)
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
        key=artifact_key(name),
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
