from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import regraft
from regraft import seam
from regraft.collections import Collection
from regraft.errors import ConflictError, CorruptError, InvalidError, NotFoundError
from regraft.regions import write_region
from regraft.results import Gaps, Plan, Report, Table, Verification


def sample(path: Path, day: int, value: int = 5, *, lat: int = 4) -> Path:
    netcdf = pytest.importorskip("netCDF4")
    path.parent.mkdir(parents=True, exist_ok=True)
    with netcdf.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("lat", lat)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "days since 2022-01-01"
        time[:] = [day]
        file.createVariable("lat", "f4", ("lat",))[:] = range(lat)
        packed = file.createVariable("sst", "i2", ("time", "lat"), fill_value=-1)
        packed.scale_factor = 0.5
        packed.set_auto_maskandscale(False)
        packed[:] = [[value] * lat]
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("regraft._core")
    for day in range(3):
        sample(tmp_path / "in" / f"{day}.nc", day, day + 1)
    return tmp_path


def open_sst(folder: Path, **overrides: Any) -> Collection:
    return regraft.open_collection(
        {
            "name": "sst",
            "source": {"url": str(folder / "in")},
            "store": {"url": str(folder / "sst.zarr")},
            "region": {"key": "time"},
        },
        overrides=overrides,
    )


def values(collection: Collection) -> list[float]:
    pytest.importorskip("xarray")
    with collection.to_xarray(mask_and_scale=False) as dataset:
        return [float(value) for value in dataset.sst.values[:, 0]]


def test_plan_apply_and_again(folder: Path) -> None:
    sst = open_sst(folder)
    plan = sst.plan()
    assert not plan.empty
    assert plan.counts == {"append": 3}
    assert not (folder / "sst.zarr").exists()
    report = plan.apply()
    assert report.outcome == "done"
    assert report.counts == {"append": 3}
    report.raise_for_failures()
    assert values(sst) == [1, 2, 3]
    assert sst.plan().empty
    assert sst.sync().outcome == "nothing"
    assert sst.status()["axis_length"] == 3


def test_revised_late_removed_and_back(folder: Path) -> None:
    sst = open_sst(folder)
    sst.sync()
    sample(folder / "in" / "1.nc", 1, 20)
    sample(folder / "in" / "early.nc", -1, 9)
    assert sst.sync().counts == {"overwrite": 1, "insert": 1}
    assert values(sst) == [9, 1, 20, 3]
    report = sst.remove(["2.nc"])
    assert report.counts == {"blank": 1}
    assert values(sst) == [9, 1, 20, -1]
    assert sst.gaps()["count"] == 1
    (row,) = sst.provenance(time="2022-01-02")
    assert row["key"] == "1.nc"
    assert [row["key"] for row in sst.ledger()] == ["early.nc", "0.nc", "1.nc", None]
    assert len(sst.history()) == 3
    assert len(sst.history(1)) == 1


def test_verify_finds_what_somebody_else_changed(folder: Path) -> None:
    zarr = pytest.importorskip("zarr")
    sst = open_sst(folder)
    sst.sync()
    assert sst.verify()["outcome"] == "done"
    zarr.open_group(folder / "sst.zarr")["sst"][1, 0] = 77
    checked = sst.verify(progress=False)
    assert [item["key"] for item in checked["failed"]] == ["1.nc"]
    with pytest.raises(CorruptError, match=r"`1\.nc`"):
        checked.raise_for_failures()


def test_a_bad_file_stops_nothing_else(folder: Path) -> None:
    (folder / "in" / "bad.nc").write_bytes(b"no")
    sample(folder / "in" / "grid.nc", 7, lat=5)
    sst = open_sst(folder)
    report = sst.sync()
    assert report.outcome == "partial"
    assert {item["key"] for item in report.failed} == {"bad.nc", "grid.nc"}
    assert values(sst) == [1, 2, 3]
    with pytest.raises(InvalidError, match="2 sources were set aside"):
        report.raise_for_failures()
    sample(folder / "in" / "bad.nc", 4, 8)
    assert sst.retry(["bad.nc"]).counts == {"append": 1}
    assert values(sst) == [1, 2, 3, 8]


def test_a_saved_plan_is_enough(folder: Path) -> None:
    open_sst(folder).plan().save(folder / "a.plan.json")
    plan = Plan.load(folder / "a.plan.json")
    assert plan.collection.name == "sst"
    assert plan.apply().counts == {"append": 3}


def test_an_old_plan_is_a_conflict_or_harmless(folder: Path) -> None:
    sst = open_sst(folder)
    plan = sst.plan()
    plan.apply()
    before = values(sst)
    with contextlib.suppress(ConflictError):
        plan.apply()
    assert values(sst) == before


def test_a_hook_prepares_what_is_stored(folder: Path) -> None:
    pytest.importorskip("xarray")
    (folder / "hooks.py").write_text("def tidy(dataset, source):\n    return dataset * 2\n")
    sst = open_sst(folder, source={"preprocess": str(folder / "hooks.py") + ":tidy"})
    sst.sync().raise_for_failures()
    with sst.to_xarray() as dataset:
        np.testing.assert_allclose(dataset.sst.values[:, 0], [1, 2, 3])


def test_async_twins(folder: Path) -> None:
    sst = open_sst(folder)

    async def work() -> tuple[Plan, Report, Report, Verification]:
        plan = await sst.plan_async()
        return plan, await plan.apply_async(), await sst.sync_async(), await sst.verify_async()

    plan, report, again, checked = asyncio.run(work())
    assert plan.counts == report.counts == {"append": 3}
    assert again.outcome == "nothing"
    assert checked["outcome"] == "done"


def test_progress_is_told(folder: Path) -> None:
    events: list[dict[str, Any]] = []
    open_sst(folder).sync(progress=events.append)
    assert {"stage", "done", "total", "item", "usage"} <= set(events[0])
    assert {event["stage"] for event in events} <= {"list", "open", "write", "publish"}


def test_a_collection_pickles(folder: Path) -> None:
    sst = open_sst(folder)
    back = pickle.loads(pickle.dumps(sst))  # noqa: S301 - our own bytes
    assert back.config == sst.config
    assert back.plan().counts == {"append": 3}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_is_refused_with_the_repair(folder: Path) -> None:
    script = (
        "import os, sys, regraft\n"
        f"sst = regraft.open_collection({str(sst_file(folder))!r})\n"
        "sst.status()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        sst.status()\n"
        "    except regraft.InvalidError as error:\n"
        "        os._exit(7 if 'spawn' in error.hint else 8)\n"
        "    os._exit(9)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60).returncode == 7


def sst_file(folder: Path) -> Path:
    path = folder / "sst.json"
    path.write_text(
        json.dumps(
            {
                "name": "sst",
                "source": {"url": "in"},
                "store": {"url": "sst.zarr"},
                "region": {"key": "time"},
            }
        )
    )
    return path


def test_write_region(folder: Path) -> None:
    xr = pytest.importorskip("xarray")
    sst = open_sst(folder)
    sst.sync()
    with sst.to_xarray() as dataset:
        day = dataset.isel(time=[1]).load()
    day["sst"] = xr.full_like(day.sst, 6.5)
    write_region(day, folder / "sst.zarr")
    assert values(sst) == [1, 13, 3]
    write_region(day.drop_vars(["time", "lat"]), folder / "sst.zarr", {"time": slice(2, 3)})
    assert values(sst) == [1, 13, 13]
    with pytest.raises(NotFoundError):
        write_region(day, folder / "none.zarr")


@pytest.mark.parametrize(
    "region", ["all", {"time": slice(None)}, {"time": slice(3, 2)}, {"time": slice(-1, 2)}, {"time": slice(0, 4, 2)}]
)
def test_regions_that_say_nothing_are_refused(region: Any) -> None:
    xr = pytest.importorskip("xarray")
    with pytest.raises(InvalidError, match="expected"):
        write_region(xr.Dataset(), "a.zarr", region)


def test_the_door_knows_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "_process", os.getpid() + 1)
    with pytest.raises(InvalidError, match="forked") as caught:
        seam.enter()
    assert "spawn" in str(caught.value.hint)


def test_provenance_takes_one_question(folder: Path) -> None:
    sst = open_sst(folder)
    with pytest.raises(InvalidError, match="found `tine`"):
        sst.provenance(tine="2022")
    with pytest.raises(InvalidError, match="found 0"):
        sst.provenance()
    with pytest.raises(InvalidError, match="found 2"):
        sst.provenance(index=3, key="a")
    with pytest.raises(InvalidError, match=r"found `1\.5`"):
        sst.verify(1.5)


def plan_of(*actions: str) -> Plan:
    changes = [{"key": f"{number}.nc", "action": action} for number, action in enumerate(actions)]
    return Plan({"kind": "zarr-plan", "schema_version": 1, "changes": changes}, cast("Collection", None))


def test_documents_are_mappings_that_nobody_changes() -> None:
    plan = plan_of("append", "nothing")
    assert plan["kind"] == "zarr-plan"
    assert dict(plan).keys() == {"kind", "schema_version", "changes"}
    assert plan.to_dict() == json.loads(plan.to_json())
    plan.to_dict()["changes"].clear()
    assert len(plan.changes) == 2
    with pytest.raises(TypeError):
        cast("Any", plan)["kind"] = "other"


def test_an_empty_plan_does_nothing() -> None:
    assert plan_of().empty
    assert plan_of("nothing", "nothing").empty
    assert not plan_of("nothing", "forget").empty
    assert plan_of("append", "quarantine").quarantined == [{"key": "1.nc", "action": "quarantine"}]


def test_data_frames() -> None:
    pytest.importorskip("pandas")
    assert list(plan_of("append").to_pandas().action) == ["append"]
    assert list(Gaps({"missing": ["a"], "blank": ["b"]}).to_pandas().gap) == ["missing", "blank"]
    table = Table([{"a": 1}, {"a": 2}], "rows")
    assert list(table.to_pandas().a) == [1, 2]
    assert (len(table[:1]), table[1]["a"]) == (1, 2)


def test_conflicts_in_a_report_are_to_be_planned_again() -> None:
    report = Report({"changes": [{"key": "a.nc", "action": "append", "outcome": "conflict"}]})
    assert report.failed
    with pytest.raises(ConflictError, match=r"`a\.nc`"):
        report.raise_for_failures()
    Report({"changes": [{"key": "a.nc", "action": "append", "outcome": "done"}]}).raise_for_failures()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no saved plan"),
        ("[]", "found `list`"),
        ('{"kind": "zarr-report"}', "found `zarr-report`"),
        ('{"kind": "zarr-plan", "schema_version": 9}', "found 9"),
        ('{"kind": "zarr-plan", "schema_version": 1}', "which collection"),
    ],
)
def test_files_that_are_no_plans(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidError, match=words):
        Plan.load(path)
    with pytest.raises(NotFoundError):
        Plan.load(tmp_path / "none.json")
