"""What is said about a plan, a report or a collection, as plain text: one wording for terminal and notebook."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from regraft.progress import bytes_text, usage_text
from regraft.results import Document, Gaps, Plan, Report, Status, Table, Verification
from regraft.results_backfill import ShardPlan, ShardReport
from regraft.results_inbox import Settlement, Submission, Unlocked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from regraft.collections import Collection

__all__ = ["ROWS", "STATES", "Facts", "Grid", "cell", "count", "facts"]

STATES = ("new", "replaced", "restored", "blanked", "moved")
"""States of a touched chunk, in the order of the legend."""

_ORDER = (
    "append",
    "insert",
    "fill_slot",
    "overwrite",
    "restore",
    "blank",
    "runner_up",
    "forget",
    "quarantine",
    "nothing",
)
ROWS = 20
"""Rows of a table that are shown."""


@dataclasses.dataclass
class Grid:
    """A table: heading, column names, rows of text; `more` rows are not shown."""

    heading: str
    columns: Sequence[str]
    rows: list[list[str]]
    more: int = 0


@dataclasses.dataclass
class Facts:
    """What is said about one object.

    Args:
        kind: Class name.
        title: One line.
        lines: Further lines.
        grids: Tables.
        arrays: Arrays with their touched chunks, for the chunk map.
        axis: Dimension of the axis.
    """

    kind: str
    title: str
    lines: list[str] = dataclasses.field(default_factory=list)
    grids: list[Grid] = dataclasses.field(default_factory=list)
    arrays: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    axis: str | None = None


def facts(subject: object) -> Facts:
    """Everything that is said about `subject`, a document, a table or a collection."""
    if isinstance(subject, Plan):
        return _plan(subject)
    if isinstance(subject, Report):
        return _report(subject)
    if isinstance(subject, Table):
        return Facts("Table", f"{subject.title} ({count(len(subject), 'row')})", grids=[_rows("", list(subject))])
    if isinstance(subject, Status):
        return _status(subject)
    if isinstance(subject, Gaps):
        return _gaps(subject)
    if isinstance(subject, Verification):
        return _verification(subject)
    if isinstance(subject, ShardPlan):
        return _shard_plan(subject)
    if isinstance(subject, ShardReport):
        return _shard_report(subject)
    if isinstance(subject, Submission | Settlement | Unlocked):
        return _requests(subject)
    from regraft.migration_facts import migration_facts

    said = migration_facts(subject)
    if said is not None:
        return said
    if isinstance(subject, Document):
        rows = [[name.replace("_", " "), cell(value)] for name, value in subject.items() if value]
        grids = [Grid("", ("what", "value"), rows)]
        return Facts(type(subject).__name__, str(subject.get("collection", "")), grids=grids)
    return _collection(subject)  # type: ignore[arg-type]


def _plan(plan: Plan) -> Facts:
    changed = [change for change in plan.changes if change["action"] != "nothing"]
    totals = plan.get("totals") or {}
    idle = totals.get("unchanged", len(plan.changes) - len(changed))
    store = plan.get("store", "")
    if plan.empty:
        title = f"{plan.get('collection', '')}: nothing to do, {store} is up to date"
    else:
        made = ", which is made new" if plan.get("creates_store") else ""
        title = f"{plan.get('collection', '')}: {count(len(changed), 'change')} for {store}{made}"
    said = Facts("Plan", title, axis=_axis_name(plan), arrays=list(plan.get("arrays", [])))
    said.lines = _axis_lines(plan)
    if plan.get("base") is not None:
        said.lines.append(f"based on log record {plan['base']}, format {plan.get('format', '?')}")
    if idle:
        said.lines.append(f"{count(idle, 'source')} unchanged")
    if totals and not plan.empty:
        said.lines.append(
            f"{count(totals.get('chunks', 0), 'chunk')} to write, "
            f"from {bytes_text(totals.get('bytes_source', 0))} of sources"
        )
    said.grids = [_actions(plan.changes), _changes(changed), _arrays(said.arrays)]
    return said


def _report(report: Report) -> Facts:
    done = [change for change in report.changes if change["action"] != "nothing"]
    failed = report.failed
    outcome = {"done": "done", "partial": "finished with failed sources", "nothing": "nothing to do"}
    outcome["busy"] = f"nothing done, since the store is held by {report.holder}"
    commits = report.get("commits", [])
    title = f"{report.get('collection') or report.get('store', '')}: {outcome.get(report.outcome, report.outcome)}"
    if commits:
        title += f", commit {', '.join(str(number) for number in commits)}"
    said = Facts("Report", title, axis=_axis_name(report), arrays=list(report.get("arrays", [])))
    said.lines = [f"store {report.get('store', '?')}", *_axis_lines(report)]
    written = {name: count for name, count in (report.get("written") or {}).items() if count}
    if written:
        said.lines.append(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in written.items()))
    usage = usage_text(report.get("usage"))
    if usage:
        said.lines.append(f"requests: {usage}")
    seconds = report.get("seconds") or {}
    if seconds:
        said.lines.append("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()))
    said.grids = [_actions(report.changes), _changes(done), _failures(failed), _arrays(said.arrays)]
    return said


def _status(status: Status) -> Facts:
    there = status.get("store_exists", True)
    title = str(status.get("store")) if there else f"there is no store at {status.get('store')} yet"
    said = Facts("Status", f"{status.get('collection')}: {title}")
    lease = status.get("lease") or {}
    if status.busy:
        since = f" since {lease['since']}" if lease.get("since") else ""
        said.lines.append(f"{lease.get('holder')} writes{since}, epoch {lease.get('epoch')}")
    if status.pending:
        said.lines.append(f"{count(status.pending, 'request')} to be settled: `regraft zarr drain`")
    if status.get("unfinished"):
        said.lines.append("a commit was left unfinished: the next worker repairs it before anything else")
    if backfill := status.get("backfill"):
        done, waiting = len(backfill["written"]), ", ".join(map(str, backfill["waiting"]))
        shards = (
            f"{done} of {count(backfill['count'], 'shard')} done, not yet: {waiting}" if done else "no shard done yet"
        )
        said.lines.append(f"a backfill is being written, plan {backfill['plan']}: {shards}; others wait until it ends")
    apart = ("collection", "store", "store_exists", "locked_by", "lease", "pending", "unfinished", "backfill")
    rows = [
        [name.replace("_", " "), cell(value)]
        for name, value in status.items()
        if there and name not in apart and value is not None
    ]
    said.grids = [Grid("", ("what", "value"), rows)]
    return said


def _shard_plan(shard: ShardPlan) -> Facts:
    totals = shard.get("totals") or {}
    states = {"written": "done already", "published": "the whole is published already"}
    what = states.get(shard.state, count(len(shard.changes), "change"))
    title = f"{shard.get('collection')}: shard {shard.number} of {shard.count}, {what}, for {shard.get('store')}"
    said = Facts("ShardPlan", title, axis=_axis_name(shard), arrays=list(shard.get("arrays", [])))
    said.lines = [*_axis_lines(shard), f"plan {shard.get('plan')}"]
    if shard.blocks:
        steps = sum(stop - start for start, stop in shard.blocks)
        said.lines.append(
            f"its own: indices {_ranges(shard['blocks'])} ({count(steps, 'step')}), "
            f"in blocks of {shard.get('block_length')}"
        )
        said.lines.append(
            f"{count(totals.get('chunks', 0), 'chunk')} to write, "
            f"from {bytes_text(totals.get('bytes_source', 0))} of sources"
        )
    said.grids = [_actions(shard.changes), _changes(shard.changes), _arrays(said.arrays)]
    return said


def _shard_report(shard: ShardReport) -> Facts:
    number, of = shard.get("shard", [0, 0])
    outcomes = {"published": "done, and with it the whole, which is published", "nothing": "published before"}
    waiting = f"done; {count(len(shard.waiting), 'shard')} of {of} not yet: {cell(shard.waiting)}"
    said = Facts("Shard", f"{shard.get('collection')}: shard {number} of {of} {outcomes.get(shard.outcome, waiting)}")
    if shard.get("indices"):
        said.lines.append(f"indices written: {_ranges(shard['indices'])}")
    said.grids = [_failures([{"key": key, **bad} for key, bad in shard.failed.items()])]
    return said


def _requests(subject: Submission | Settlement | Unlocked) -> Facts:
    name = subject.get("collection", "")
    if isinstance(subject, Unlocked):
        held = f"taken from {subject['was']}" if subject.get("was") else "nobody held it"
        given_up = f"; the backfill of plan {subject['backfill']} is given up" if subject.get("backfill") else ""
        return Facts("Unlocked", f"{name}: {held}; epoch {subject.get('epoch')}{given_up}")
    if isinstance(subject, Settlement):
        rows: list[dict[str, Any]] = [{"request": request, **settled} for request, settled in subject.done.items()]
        rows += [{"request": request, "commit": None, "outcome": "still waits"} for request in subject.pending]
        title = f"{name}: {count(len(subject.done), 'request')} settled, {len(subject.pending)} still waiting"
        return Facts("Settlement", title, grids=[_rows("", rows)])
    said = Facts("Submission", f"{name}: {count(len(subject.ids), 'request')} stored")
    if subject.duplicates:
        said.lines.append(f"{subject.duplicates} of them waited already")
    if subject.ignored:
        said.lines.append(f"not of this collection: {cell(subject.ignored)}")
    return said


def _gaps(gaps: Gaps) -> Facts:
    number = gaps.get("count", 0)
    said = Facts("Gaps", f"{gaps.get('collection')}: {count(number, 'gap')} along {gaps.get('axis')}")
    if gaps.get("step"):
        said.lines.append(f"step {gaps['step']}")
    labels = [[str(label), gap] for gap in ("missing", "blank") for label in gaps.get(gap, [])]
    said.grids = [Grid("", ("label", "gap"), labels[:ROWS], max(0, len(labels) - ROWS))]
    return said


def _verification(verification: Verification) -> Facts:
    failed = verification.get("failed", [])
    verdict = f"{len(failed)} differ" if failed else "all equal"
    said = Facts(
        "Verification",
        f"{verification.get('collection')}: {count(verification.get('checked', 0), 'region')} compared, {verdict}",
    )
    skipped = verification.get("skipped", [])
    if skipped:
        said.lines.append(f"{len(skipped)} skipped")
    said.grids = [_rows("differences", failed)]
    return said


def _collection(collection: Collection) -> Facts:
    config = collection.config
    region, store = config.region, config.store
    key = region.key if isinstance(region.key, str) else " + ".join(region.key)
    rows = [
        ["source", config.source.url],
        ["include", ", ".join(config.source.include)],
        ["store", store.url],
        ["format", f"{store.format}, {store.codec}"],
        ["chunks", cell(store.chunks) or "whole"],
    ]
    if store.shards:
        rows.append(["shards", cell(store.shards)])
    rows += [
        ["key", key if region.dimension is None else f"{key} along {region.dimension}"],
        ["axis", region.axis.policy],
        ["winner", f"{region.winner}: {', '.join(region.priority)}" if region.priority else region.winner],
        ["on remove", region.on_remove],
        ["variables", ", ".join(config.variables.include) or "all"],
    ]
    if config.source.preprocess:
        rows.append(["preprocess", config.source.preprocess])
    return Facts("Collection", config.name, grids=[Grid("", ("what", "value"), rows)])


def _axis_name(document: Plan | Report | ShardPlan) -> str | None:
    axis = document.get("axis") or {}
    name = axis.get("name")
    return str(name) if name is not None else None


def _axis_lines(document: Plan | Report | ShardPlan) -> list[str]:
    axis = document.get("axis") or {}
    if not axis:
        return []
    before, after = axis.get("length_before", 0), axis.get("length_after", 0)
    length = f"{before:,} labels" if before == after else f"{before:,} → {after:,} labels"
    moved = f", {axis['moved']:,} moved" if axis.get("moved") else ""
    return [f"axis {axis.get('name')} by {cell(axis.get('key'))}, {axis.get('policy')}: {length}{moved}"]


def _actions(changes: Sequence[Mapping[str, Any]]) -> Grid:
    sources = Counter(change["action"] for change in changes)
    labels: Counter[str] = Counter()
    for change in changes:
        labels[change["action"]] += change.get("label_count") or 0
    order = [*(action for action in _ORDER if action in sources), *sorted(set(sources) - set(_ORDER))]
    rows = [[action.replace("_", " "), f"{sources[action]:,}", f"{labels[action]:,}"] for action in order]
    return Grid("what happens", ("action", "sources", "labels"), rows)


def _changes(changes: Sequence[Mapping[str, Any]]) -> Grid:
    rows = []
    for change in changes[:ROWS]:
        # A blank label is a label, and worth seeing.
        labels = [str(label) or '""' for label in change.get("labels", [])]
        count = change.get("label_count") or len(labels)
        shown = labels[0] if len(labels) == 1 else f"{labels[0]} … {labels[-1]} ({count:,})" if labels else ""
        reason = change.get("message") or change.get("reason") or ""
        if change.get("category"):
            reason = f"{change['category']}: {reason}"
        if change.get("outcome") not in (None, "done"):
            reason = f"{change['outcome']}; {reason}" if reason else str(change["outcome"])
        rows.append(
            [str(change["key"]), change["action"].replace("_", " "), shown, _ranges(change.get("indices", [])), reason]
        )
    return Grid("sources", ("key", "action", "label", "indices", "why"), rows, max(0, len(changes) - ROWS))


def _failures(failed: Sequence[Mapping[str, Any]]) -> Grid:
    rows = [
        [
            str(item["key"]),
            str(item.get("category") or item.get("outcome") or ""),
            str(item.get("message") or item.get("reason") or ""),
            str(item.get("hint") or ""),
        ]
        for item in failed[:ROWS]
    ]
    return Grid("set aside", ("key", "category", "message", "hint"), rows, max(0, len(failed) - ROWS))


def _arrays(arrays: Sequence[Mapping[str, Any]]) -> Grid:
    rows = []
    for array in arrays[:ROWS]:
        states = Counter(chunk["state"] for chunk in array.get("touched", []))
        touched = array.get("touched_count", sum(states.values()))
        total = 1
        for length in array.get("grid", []):
            total *= length
        shard = f", shard {_shape(array['shard_shape'])}" if array.get("shard_shape") else ""
        rows.append(
            [
                str(array["name"]),
                _shape(array.get("shape", [])),
                f"{_shape(array.get('chunk_shape', []))}{shard}",
                f"{touched:,} of {total:,}",
                ", ".join(f"{states[state]:,} {state}" for state in STATES if states[state]),
            ]
        )
    columns = ("array", "shape", "chunk", "chunks touched", "of which")
    return Grid("arrays", columns, rows, max(0, len(arrays) - ROWS))


def _rows(heading: str, rows: Sequence[Mapping[str, Any]]) -> Grid:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell(row.get(name)) for name in columns] for row in rows[:ROWS]]
    return Grid(heading, columns, cells, max(0, len(rows) - ROWS))


def cell(value: object) -> str:
    """Any value of JSON as text of a table."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items() if item not in (None, 0, {}, []))
    if isinstance(value, list | tuple):
        shown = ", ".join(cell(item) for item in value[:5])
        return f"{shown}, … ({len(value):,})" if len(value) > 5 else shown
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _ranges(ranges: Sequence[Sequence[int]]) -> str:
    shown = [str(start) if stop == start + 1 else f"{start}:{stop}" for start, stop in ranges[:4]]
    return ", ".join(shown) + (", …" if len(ranges) > 4 else "")


def _shape(shape: Sequence[int]) -> str:
    return "\N{MULTIPLICATION SIGN}".join(str(length) for length in shape) or "scalar"


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `7,200 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
