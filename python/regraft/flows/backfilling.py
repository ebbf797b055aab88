"""The flow that fills a store with years of files: one plan, its shards side by side, published once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from regraft.collections import open_collection
from regraft.flows.tasks import PATIENT, SHOWN, Config, artifact_key
from regraft.results import Plan

__all__ = ["backfill", "backfill_shard", "plan_backfill"]

_IDLE = {"nothing", "quarantine"}


@task(task_run_name="plan backfill", **PATIENT)
def plan_backfill(config: Config) -> dict[str, Any]:
    """Plans all that is new, for workers that each write a part of it.

    Args:
        config: A configuration file, ``definition:NAME``, or a mapping.

    Returns:
        ``{"plan": the plan, plain data; "blocks": into how many shards it can be cut; "id": of the plan}``.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        ConflictError: Another backfill is open.
        InvalidError: The configuration is wrong, or the plan moves labels or removes files.

    Example:
        >>> plan_backfill("sst.yaml")["blocks"]  # doctest: +SKIP
        122
    """
    plan = open_collection(config).plan(progress=False)
    get_run_logger().info("planned `%s`: %s", plan["collection"], plan.counts or "nothing to do")
    if all(change["action"] in _IDLE for change in plan.changes):
        return {"plan": plan.to_dict(), "blocks": 0, "id": None}
    whole = plan.shard(1, 1)
    return {"plan": plan.to_dict(), "blocks": whole["block_count"], "id": whole["plan"]}


@task(task_run_name="backfill shard {number} of {count}", **PATIENT)
def backfill_shard(config: Config, plan: dict[str, Any], number: int, count: int) -> dict[str, Any]:
    """Writes one shard of a plan, and publishes the whole where it is the last; done twice, it does nothing more.

    Args:
        config: As for `plan_backfill`.
        plan: From `plan_backfill`.
        number: Which shard it is, from 1.
        count: How many there are.

    Returns:
        The report, plain data.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        ConflictError: The store was changed since the plan was made, or another backfill is open.

    Example:
        >>> backfill_shard("sst.yaml", plan, 1, 16)  # doctest: +SKIP
    """
    report = Plan(plan, open_collection(config)).apply_shard(number, count, progress=False)
    get_run_logger().info("shard %d of %d: %s, indices %s", number, count, report.outcome, report.get("indices"))
    return report.to_dict()


@flow(name="regraft-backfill", flow_run_name="backfill")
def backfill(config: Config, shards: int = 4, retries: int = 3) -> dict[str, Any]:
    """Fills a store with years of files, with one task for each shard of the plan, side by side.

    A shard is a run of blocks of the axis that share no chunk with another's. Readers see nothing before the last shard
    publishes all in one commit, and nobody else commits until then: `unlock` gives up what nobody finishes. Run it
    again whenever it failed: shards that are done are not done twice. The task runner is yours to choose:
    ``backfill.with_options(task_runner=DaskTaskRunner())(…)``.

    Args:
        config: A configuration file, ``definition:NAME``, or a mapping. A worker elsewhere needs the file, too.
        shards: Tasks that the work is cut into, at most as many as it has blocks.
        retries: How often a task is tried again when its error is retryable.

    Returns:
        ``{"collection", "plan": its id, "outcome", "shards", "counts", "quarantined", "reports"}``.

    Raises:
        UnavailableError: The object store did not answer, even when asked again.
        ConflictError: The store was changed meanwhile, or another backfill is open.
        InvalidError: The configuration is wrong, or the plan moves labels or removes files, as `sync_collection` can.

    Example:
        >>> from regraft.flows import backfill
        >>> backfill("sst.yaml", shards=16)  # doctest: +SKIP
    """
    planned = plan_backfill.with_options(retries=retries)(config)
    plan, count = planned["plan"], min(max(1, shards), planned["blocks"])
    tasks = [
        backfill_shard.with_options(retries=retries).submit(config, plan, number, count)
        for number in range(1, count + 1)
    ]
    reports = [task_.result() for task_ in tasks]
    result = _filled(planned, reports)
    create_table_artifact(
        key=artifact_key(f"{plan['collection']}-backfill"),
        table=_rows(result),
        description=f"`{plan['collection']}`: {result['outcome']}, {result['counts'] or 'nothing to do'}",
    )
    return result


def _filled(planned: dict[str, Any], reports: list[dict[str, Any]]) -> dict[str, Any]:
    published = next((report["report"] for report in reports if report.get("report")), None)
    # Where nothing is written nothing is recorded: the plan says what it would set aside.
    refused = [change for change in planned["plan"]["changes"] if change["action"] == "quarantine"]
    quarantined = published["quarantined"] if published else refused if not reports else []
    changes = published["changes"] if published else []
    idle = "partial" if quarantined else "nothing"
    return {
        "collection": planned["plan"]["collection"],
        "plan": planned["id"],
        "outcome": published["outcome"] if published else idle,
        "shards": len(reports),
        "counts": dict(Counter(change["action"] for change in changes if change.get("outcome", "done") == "done")),
        "quarantined": quarantined,
        "reports": reports,
    }


def _rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each shard, and one for each file that is not in the store."""
    rows = [
        {
            "shard": str(number),
            "state": report["outcome"],
            "at": ", ".join(f"[{start}, {stop})" for start, stop in report["indices"]),
            "chunks": report["written"]["chunks_written"],
            "why": "",
        }
        for number, report in enumerate(result["reports"], 1)
    ]
    failed = {item["key"]: item for item in result["quarantined"]}
    failed |= {key: {"key": key, **bad} for report in result["reports"] for key, bad in report["bad"].items()}
    rows += [
        {
            "shard": item["key"],
            "state": item.get("category") or "",
            "at": "",
            "chunks": 0,
            "why": item.get("message") or "",
        }
        for item in list(failed.values())[:SHOWN]
    ]
    return rows or [{"shard": "", "state": "nothing", "at": "", "chunks": 0, "why": "the store matches its files"}]
