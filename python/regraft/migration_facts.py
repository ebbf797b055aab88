"""What is said about plans, reports and states of migrations, as plain text: one wording for terminal and notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.facts import ROWS, Facts, Grid, cell, count
from regraft.migration_results import MigrationPlan, MigrationReport, MigrationStatus, MigrationVerification
from regraft.progress import bytes_text, usage_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from regraft.migrations import MigrationSet

__all__ = ["migration_facts"]

_ORDER = (
    "pending",
    "done",
    "rolled_back",
    "conflict",
    "missing_step",
    "error",
    "not_parquet",
    "newer",
    "skipped",
)
_OUTCOMES = {
    "done": "done",
    "partial": "finished with failed files",
    "failed": "stopped, too many files failed",
    "cancelled": "stopped; the same again goes on from there",
    "nothing": "nothing to do",
}


def migration_facts(subject: object) -> Facts | None:
    """Everything that is said about `subject`, or `None` where it belongs to no migration."""
    if isinstance(subject, MigrationPlan):
        return _plan(subject)
    if isinstance(subject, MigrationReport):
        return _report(subject)
    if isinstance(subject, MigrationStatus):
        return _status(subject)
    if isinstance(subject, MigrationVerification):
        return _verification(subject)
    from regraft.migrations import MigrationSet

    return _set(subject) if isinstance(subject, MigrationSet) else None


def _plan(plan: MigrationPlan) -> Facts:
    totals = plan.estimate
    pending = [item for item in plan.objects if item["state"] == "pending"]
    where = f"{plan.get('set')}: {plan.get('data', '')}"
    if plan.empty:
        title = f"{where}: nothing to do for version {plan.get('target')}"
    else:
        size = bytes_text(totals.get("bytes", 0))
        title = f"{where}: {count(len(pending), 'file')} of {size} to version {plan.get('target')}"
    said = Facts("Plan", title)
    if pending:
        rewritten = sum(item.get("size", 0) for item in pending)
        said.lines = [
            f"read {bytes_text(totals.get('bytes_read', 0))}, write {bytes_text(totals.get('bytes_written', 0))}, "
            f"copied in place {bytes_text(totals.get('bytes_copied', 0))}; "
            f"rewriting would read and write {bytes_text(rewritten)} each",
            f"requests: {_requests(totals.get('requests')) or 'none'}",
            _cost(totals),
        ]
    said.lines += [f"note: {warning}" for warning in plan.get("warnings", [])]
    for step in plan.get("edited", []):
        said.lines.append(
            f"step {step['from']}→{step['to']} was edited after it had been applied to "
            f"{count(step['objects'], 'file')}, such as {step['key']}"
        )
    said.grids = [_states(plan.objects), _steps(plan.get("steps", [])), _pending(pending), _troubles(plan.failed)]
    return said


def _report(report: MigrationReport) -> Facts:
    outcome = _OUTCOMES.get(report.outcome, report.outcome)
    verb = "rolled back" if report.get("verb") == "roll_back" and report.outcome == "done" else outcome
    said = Facts("Report", f"{report.get('set')}: {verb}" + (f", run {report.run}" if report.run else ""))
    totals, estimate = report.get("totals") or {}, report.get("estimate") or {}
    moved = [f"{name} {bytes_text(totals.get(f'bytes_{name}', 0))}" for name in ("read", "written", "copied")]
    if report.objects:
        said.lines.append(", ".join(moved))
    if usage := usage_text(report.get("usage")):
        said.lines.append(f"requests: {usage}")
    seconds = (report.get("seconds") or {}).get("wall")
    if seconds is not None:
        rate = f", {len(report.objects) / seconds:,.3g} files/s" if seconds > 0 and report.objects else ""
        said.lines.append(f"{seconds:.2f} s{rate}")
    if estimate.get("objects"):
        said.lines.append(
            f"estimated: read {bytes_text(estimate.get('bytes_read', 0))}, "
            f"written {bytes_text(estimate.get('bytes_written', 0))}, {estimate.get('seconds', 0):.2f} s"
        )
    said.grids = [_states(report.objects), _troubles(report.failed)]
    return said


def _status(status: MigrationStatus) -> Facts:
    total = status.get("objects", 0)
    said = Facts(
        "Status",
        f"{status.get('set')}: {status.get('data')}, {count(total, 'file')}, {bytes_text(status.get('bytes', 0))}",
    )
    said.lines.append(f"target version {status.get('target')}")
    versions = [[f"version {version}", f"{number:,}"] for version, number in (status.get("versions") or {}).items()]
    said.grids.append(Grid("versions", ("what", "files"), versions))
    states = status.get("states") or {}
    said.grids.append(
        Grid("states", ("what", "files"), [[_word(name), f"{states[name]:,}"] for name in _sorted(states)])
    )
    troubles = [{"key": key, "state": state, **trouble} for key, state, trouble in status.get("troubles", [])]
    said.grids.append(_troubles(troubles))
    said.grids.append(_runs(status.get("runs", [])))
    return said


def _verification(verification: MigrationVerification) -> Facts:
    totals = verification.get("totals") or {}
    failed = verification.failed
    verdict = f"{len(failed)} not as they should be" if failed else "all as they should be"
    checked = totals.get("ok", 0) + len(failed)
    said = Facts("Verification", f"{verification.get('set')}: {count(checked, 'file')} checked, {verdict}")
    said.lines.append(f"new columns of {count(totals.get('recomputed', 0), 'row group')} computed again")
    if totals.get("compared"):
        said.lines.append(f"{count(totals['compared'], 'column chunk')} compared byte for byte")
    if totals.get("unproved"):
        said.lines.append(
            f"{count(totals['unproved'], 'file')} with columns that nothing proves; `to_pandas` says which"
        )
    if totals.get("skipped"):
        said.lines.append(f"{count(totals['skipped'], 'file')} left out: not as the run left them")
    said.grids = [_troubles(failed)]
    return said


def _set(migrations: MigrationSet) -> Facts:
    config = migrations.config
    rows = [
        ["data", config.data.url],
        ["files", ", ".join([*config.data.prefixes, f"*{config.data.contains}*{config.data.suffix}"])],
        ["version", f"{config.version_key}, {config.version.default} where a file says none"],
        ["target", str(migrations.target) if migrations.target is not None else "no steps yet"],
        ["layout", config.layout],
    ]
    steps = [
        {
            "from": step.from_,
            "to": step.to,
            "name": step.name,
            "adds": step.sql or step.adds,
            "drops": step.drop,
            "renames": step.rename,
            "casts": step.cast,
        }
        for step in config.steps
    ]
    return Facts("MigrationSet", config.name, grids=[Grid("", ("what", "value"), rows), _steps(steps)])


def _states(objects: Sequence[Mapping[str, Any]]) -> Grid:
    counted: dict[str, int] = {}
    for item in objects:
        counted[item["state"]] = counted.get(item["state"], 0) + 1
    rows = [[_word(state), f"{counted[state]:,}"] for state in _sorted(counted)]
    return Grid("what happens", ("state", "files"), rows)


def _steps(steps: Sequence[Mapping[str, Any]]) -> Grid:
    rows = []
    for step in steps:
        changes = [f"+ {name} {kind or ''}".rstrip() for name, kind in (step.get("adds") or {}).items()]
        changes += [f"- {name}" for name in step.get("drops") or []]
        changes += [f"{old} → {new}" for old, new in (step.get("renames") or {}).items()]
        changes += [f"{name} as {kind}" for name, kind in (step.get("casts") or {}).items()]
        reads = ", ".join(step.get("reads") or [])
        rows.append([f"{step['from']}→{step['to']}", step.get("name") or "", reads, "; ".join(changes)])
    return Grid("steps", ("step", "name", "reads", "changes"), rows)


def _pending(pending: Sequence[Mapping[str, Any]]) -> Grid:
    rows = [
        [
            str(item["key"]),
            f"{item.get('from')}→{item.get('to')}",
            bytes_text(item.get("size", 0)),
            bytes_text(item.get("bytes_read", 0)),
            bytes_text(item.get("bytes_written_estimate", 0)),
            str(item.get("layout") or ""),
            str(item.get("reason") or ""),
        ]
        for item in pending[:ROWS]
    ]
    columns = ("file", "versions", "size", "read", "written", "layout", "why")
    return Grid("files", columns, rows, max(0, len(pending) - ROWS))


def _troubles(failed: Sequence[Mapping[str, Any]]) -> Grid:
    rows = [
        [
            str(item.get("key")),
            _word(str(item.get("state", ""))),
            str(item.get("message") or ""),
            str(item.get("hint") or ""),
        ]
        for item in failed[:ROWS]
    ]
    return Grid("not migrated", ("file", "state", "message", "hint"), rows, max(0, len(failed) - ROWS))


def _runs(runs: Sequence[Mapping[str, Any]]) -> Grid:
    rows = [
        [
            str(run.get("run")),
            str(run.get("verb", "")).replace("_", " "),
            str(run.get("begun") or ""),
            str(run.get("outcome") or ""),
            f"{run.get('objects', 0):,}",
        ]
        for run in runs[:ROWS]
    ]
    return Grid("runs", ("run", "verb", "begun", "outcome", "files"), rows, max(0, len(runs) - ROWS))


def _requests(requests: Mapping[str, int] | None) -> str:
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in (requests or {}).items() if number)


def _cost(totals: Mapping[str, Any]) -> str:
    dollars = totals.get("dollars") or {}
    prices = dollars.get("price_table")
    return (
        f"about {cell(round(totals.get('seconds', 0), 1))} s and ${dollars.get('total', 0):.2g} "
        f"(requests ${dollars.get('requests', 0):.2g}, compute ${dollars.get('compute', 0):.2g}"
        + (f"; prices of {prices})" if prices else ")")
    )


def _sorted(states: Iterable[str]) -> list[str]:
    found = set(states)
    return [*(state for state in _ORDER if state in found), *sorted(found - set(_ORDER))]


def _word(state: str) -> str:
    return state.replace("_", " ")
