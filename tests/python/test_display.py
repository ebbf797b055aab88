from __future__ import annotations

import re
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest
from regraft import chunk_map
from regraft.collections import Collection
from regraft.config_file import load_config
from regraft.facts import STATES
from regraft.progress import bytes_text, reporter, usage_text
from regraft.results import Gaps, Plan, Report, Status, Table, Verification
from regraft.results_backfill import ShardPlan
from regraft.results_inbox import Settlement, Submission, Unlocked
from regraft.watch import WatchSummary

HOSTILE = "2022/<script>alert(1)</script>&\"'.nc"

ARRAY: dict[str, Any] = {
    "name": "sst",
    "dimensions": ["time", "lat", "lon"],
    "shape": [6, 2250, 3000],
    "chunk_shape": [1, 500, 500],
    "shard_shape": [30, 500, 500],
    "grid": [6, 5, 6],
    "touched": [{"index": [5, i, j], "state": "new"} for i in range(5) for j in range(6)]
    + [{"index": [0, 0, 0], "state": "replaced"}],
    "touched_count": 31,
}

PLAN: dict[str, Any] = {
    "schema_version": 1,
    "kind": "zarr-plan",
    "collection": "sst",
    "store": "/data/sst.zarr",
    "source": "/data/in",
    "format": "zarr3",
    "base": 4,
    "creates_store": False,
    "axis": {"name": "time", "key": "time", "policy": "sorted", "length_before": 5, "length_after": 6, "moved": 2},
    "changes": [
        {
            "key": HOSTILE,
            "etag": "1",
            "size": 10,
            "action": "append",
            "labels": ["2022-01-05"],
            "label_count": 1,
            "indices": [[5, 6]],
            "reason": "new key, new label",
        },
        {
            "key": "old.nc",
            "action": "overwrite",
            "labels": ["a", "b"],
            "label_count": 9,
            "indices": [[0, 9]],
            "reason": "new ETag",
        },
        {
            "key": "same.nc",
            "action": "nothing",
            "labels": ["c"],
            "label_count": 1,
            "indices": [[2, 3]],
            "reason": "same",
        },
        {
            "key": "bad.nc",
            "action": "quarantine",
            "labels": [],
            "label_count": 0,
            "indices": [],
            "reason": "",
            "category": "unreadable",
            "message": "not a NetCDF file",
            "hint": "look at it",
        },
    ],
    "arrays": [ARRAY],
    "totals": {"sources": 3, "regions": 2, "chunks": 31, "bytes_source": 12_345_678, "unchanged": 1},
}

REPORT: dict[str, Any] = {
    **PLAN,
    "kind": "zarr-report",
    "commits": [5],
    "outcome": "partial",
    "changes": [
        {**change, "outcome": "quarantined" if change["action"] == "quarantine" else "done"}
        for change in PLAN["changes"]
    ],
    "quarantined": [
        {"key": "bad.nc", "category": "unreadable", "message": "not a NetCDF file", "hint": "look at it", "attempts": 1}
    ],
    "usage": {"get": 3, "put": 31, "bytes_read": 100, "bytes_written": 12345},
    "written": {"chunks_read": 1, "chunks_written": 31, "chunks_copied": 0},
    "seconds": {"wall": 0.5, "open": 0.1, "write": 0.3, "publish": 0.1},
}


def plan(**changes: Any) -> Plan:
    return Plan({**PLAN, **changes}, cast("Collection", None))


SHARD: dict[str, Any] = {
    **{name: PLAN[name] for name in ("collection", "store", "axis", "arrays")},
    "kind": "zarr-shard-plan",
    "plan": "0123456789ab",
    "shard": [3, 16],
    "state": "pending",
    "block_length": 30,
    "blocks": [[30, 60], [90, 100]],
    "changes": PLAN["changes"][:1],
    "totals": {"sources": 1, "regions": 1, "chunks": 31, "bytes_source": 10, "unchanged": 0},
}

SUBJECTS = {
    "plan": plan(),
    "shard": ShardPlan(SHARD, plan()),
    "shard done": ShardPlan({**SHARD, "state": "written"}, plan()),
    "report": Report(REPORT),
    "status": Status({"collection": "sst", "store": HOSTILE, "store_exists": True, "sources": 5, "locked_by": None}),
    "busy": Status(
        {
            "collection": "sst",
            "store": "/x",
            "pending": 3,
            "unfinished": True,
            "lease": {"holder": HOSTILE, "epoch": 4, "since": "2022-01-05T00:00:00.000Z", "free": False},
        }
    ),
    "busy report": Report({"collection": "sst", "outcome": "busy", "holder": HOSTILE, "changes": []}),
    "submission": Submission({"collection": "sst", "ids": ["1", "2"], "duplicates": 1, "ignored": [HOSTILE]}),
    "settlement": Settlement(
        {"collection": "sst", "done": {"1": {"commit": 7, "outcome": "done"}}, "pending": [HOSTILE]}
    ),
    "unlocked": Unlocked({"collection": "sst", "was": HOSTILE, "epoch": 5}),
    "watched": WatchSummary({"collection": "sst", "queue": HOSTILE, "messages": 7, "commits": [1, 2]}),
    "no store": Status({"collection": "sst", "store": "/x", "store_exists": False}),
    "gaps": Gaps(
        {"collection": "sst", "axis": "time", "step": "1D", "missing": ["2022-01-03"], "blank": [HOSTILE], "count": 2}
    ),
    "verification": Verification(
        {
            "collection": "sst",
            "checked": 5,
            "failed": [{"key": HOSTILE, "array": "sst", "label": "x", "message": "3 differ"}],
        }
    ),
    "table": Table([{"label": "2022", "key": HOSTILE, "runners_up": [{"key": "b", "etag": "2"}]}], "sst: ledger"),
}


def squeezed(text: str) -> str:
    """Text without what a terminal folds and a notebook escapes."""
    for escaped, plain in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x27;", "'"), ("&amp;", "&")):
        text = text.replace(escaped, plain)
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("name", SUBJECTS)
def test_notebook_and_terminal_say_the_same(name: str) -> None:
    subject = SUBJECTS[name]
    text, page = repr(subject), subject._repr_html_()
    assert "<script" not in page
    words = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^<>]*>", " ", page, flags=re.DOTALL)
    for line in text.splitlines():
        for cell in re.split(r"\s{2,}", line.strip()):
            if cell and not set(cell) <= {"\N{BOX DRAWINGS LIGHT HORIZONTAL}"}:
                assert squeezed(cell.removeprefix("Plan ").removeprefix("Report ").split(" ", 1)[-1]) in squeezed(
                    words
                ), cell


@pytest.mark.parametrize("name", SUBJECTS)
def test_html_is_well_formed_and_fetches_nothing(name: str) -> None:
    page = SUBJECTS[name]._repr_html_()
    ET.fromstring(page.replace("<details open>", '<details open="open">'))  # noqa: S314 - our own text
    assert not re.search(r"https?://|url\(|<script|\son\w+=", re.sub(r"<td>.*?</td>", "", page))
    assert " id=" not in page


def test_a_plan_says_what_will_happen() -> None:
    text = repr(plan())
    for fact in (
        "3 changes for /data/sst.zarr",
        "5 → 6 labels, 2 moved",
        "1 source unchanged",
        "from 12.3 MB of sources",
    ):
        assert fact in text
    assert HOSTILE in text
    assert "a … b (9)" in text
    assert "30 new, 1 replaced" in text
    assert "nothing to do" in repr(plan(changes=[PLAN["changes"][2]]))
    assert "made new" in repr(plan(creates_store=True))


def test_a_shard_says_what_is_its_own() -> None:
    text = repr(SUBJECTS["shard"])
    assert "sst: shard 3 of 16, 1 change, for /data/sst.zarr" in text
    assert "its own: indices 30:60, 90:100 (40 steps), in blocks of 30" in text
    assert "31 chunks to write, from 10 B of sources" in text
    assert "shard 3 of 16, done already" in repr(SUBJECTS["shard done"])
    assert "chunk map" in SUBJECTS["shard"]._repr_html_()


def test_long_lists_end_with_how_many_more() -> None:
    change = PLAN["changes"][0]
    text = repr(plan(changes=[{**change, "key": f"{number}.nc"} for number in range(50)]))
    assert "and 30 more" in text
    assert text.count(".nc") == 20


def test_a_report_says_what_was_done_and_what_was_not() -> None:
    report = Report(REPORT)
    text = repr(report)
    for fact in (
        "finished with failed sources, commit 5",
        "chunks written 31",
        "3 get, 31 put",
        "wall 0.50",
        "set aside",
    ):
        assert fact in text
    assert [item["key"] for item in report.failed] == ["bad.nc"]


def test_a_collection_shows_its_settings() -> None:
    config = load_config(
        "definition:argo",
        overrides={"source": {"url": "s3://a/"}, "store": {"url": "s3://b"}},
        storage_options={"token": "T0P"},
    )
    # Opened without the core: only its settings are looked at.
    collection = Collection.__new__(Collection)
    collection.config = config
    text = repr(collection)
    assert "DC_REFERENCE along N_PROF" in text
    assert "N_PROF 500, N_LEVELS 800" in text
    assert "T0P" not in text + collection._repr_html_()


def pictures(page: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]  # noqa: S314


def counts(svg: ET.Element) -> dict[str, int]:
    return {path.attrib["class"].rpartition("rg-")[2]: path.attrib["d"].count("M") for path in svg.iter("path")}


def test_chunk_map_colours_every_chunk() -> None:
    (svg,) = pictures(chunk_map.chunk_map([ARRAY], "time"))
    assert counts(svg) == {"new": 30, "replaced": 1, "untouched": 180 - 31}


def test_chunk_map_shows_every_state_with_its_count() -> None:
    touched = [{"index": [place], "state": state} for place, state in enumerate(STATES)]
    page = chunk_map.chunk_map([{"name": "a", "dimensions": ["x"], "shape": [9], "grid": [9], "touched": touched}], "x")
    (svg,) = pictures(page)
    assert counts(svg) == {**dict.fromkeys(STATES, 1), "untouched": 4}
    for state in STATES:
        assert f"{state} 1</span>" in page
        assert f".rg-{state}" in chunk_map.STYLE


def test_chunk_map_of_a_great_grid_is_small_and_loses_no_alarm() -> None:
    touched = [{"index": [place, place % 700], "state": "new"} for place in range(4096)]
    touched.append({"index": [4000, 3], "state": "blanked"})
    array = {"name": "a", "dimensions": ["x", "y"], "shape": [10**6, 10**6], "grid": [5000, 700], "touched": touched}
    page = chunk_map.chunk_map([array] * 9, "x")
    assert len(page) < 400_000
    assert "and 5 more" in page
    svg = pictures(page)[0]
    assert counts(svg)["blanked"] == 1
    assert float(svg.attrib["width"]) < 520
    assert float(svg.attrib["height"]) < 220
    assert "to a cell" in page


def test_chunk_map_of_scalars_and_of_unknown_axes() -> None:
    scalar = {"name": HOSTILE, "dimensions": [], "shape": [], "grid": [], "touched": [{"index": [], "state": "new"}]}
    page = chunk_map.chunk_map([scalar], "time")
    assert counts(pictures(page)[0]) == {"new": 1}
    assert "<script" not in page
    assert counts(pictures(chunk_map.chunk_map([ARRAY], None))[0])["new"] == 30
    assert chunk_map.chunk_map([{**ARRAY, "touched": []}], "time") == ""


def test_both_themes_are_provided_for() -> None:
    page = plan()._repr_html_()
    for selector in ("prefers-color-scheme:dark", "data-jp-theme-light=false", "vscode-dark", "data-theme=dark"):
        assert selector in page


def test_words_for_requests_and_bytes() -> None:
    assert (
        usage_text({"get": 1200, "put": 3, "copy": 0, "bytes_written": 2_000_000}) == "1,200 get, 3 put, 2.0 MB written"
    )
    assert usage_text(None) == ""
    assert [bytes_text(size) for size in (0, 999, 1000, 1_500_000, 2e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.0 TB",
    ]


EVENT = {"stage": "write", "done": 3, "total": 9, "item": "[sst]", "usage": {"put": 3}}


def test_progress_where_nobody_looks(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 31.0, 32.0])
    monkeypatch.setattr("regraft.progress.time.monotonic", lambda: next(clock))
    caplog.set_level("INFO", logger="regraft.progress")
    with reporter(None, "sync sst") as tell:
        assert tell is not None
        for _ in range(3):
            tell(EVENT)
    assert [record.getMessage() for record in caplog.records] == ["sync sst: write 3/9 [sst] (0.143/s, 3 put)"]


def test_progress_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[dict[str, Any]] = []
    with reporter(seen.append, "sync") as tell:
        assert tell is not None
        tell(EVENT)
    assert seen == [EVENT]
    with reporter(option=False, title="sync") as tell:
        assert tell is None
    with reporter(option=True, title="sync [sst]") as tell:
        assert tell is not None
        tell(EVENT)
        tell({**EVENT, "total": 0, "stage": "publish"})
    assert capsys.readouterr().out == ""


def test_progress_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("regraft.progress._in_notebook", lambda: True)
    with reporter(None, "sync sst") as tell:
        assert tell is not None
        tell(EVENT)
        tell({**EVENT, "stage": "publish", "total": 0})
    assert capsys.readouterr().out == ""


def test_who_writes_and_what_waits_is_said() -> None:
    text = repr(SUBJECTS["busy"])
    assert "writes since 2022-01-05T00:00:00.000Z, epoch 4" in text
    assert "3 requests to be settled" in text
    assert "left unfinished" in text
    assert cast("Status", SUBJECTS["busy"]).busy
    assert not cast("Status", SUBJECTS["no store"]).busy
    assert "the store is held by" in repr(SUBJECTS["busy report"])
    assert "1 request settled, 1 still waiting" in repr(SUBJECTS["settlement"])
    assert "1 of them waited already" in repr(SUBJECTS["submission"])
