"""When a winner is removed the runner-up's data come back, in the version on record as long as the bucket has it."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest
import regraft
import zarr
from places import Place
from servers import Server

KEYS = ("a.nc", "b.nc")


@pytest.fixture(params=[pytest.param("ministack", marks=pytest.mark.s3), pytest.param("weed", marks=pytest.mark.s3)])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A bucket that keeps versions."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    bucket = server.new_bucket()
    server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return Place(tmp_path, server, bucket)


def collection(place: Place) -> regraft.Collection:
    """Of two files of one day `a.nc` wins."""
    config = {
        "name": "rivals",
        "source": {"url": place.url("incoming/")},
        "store": {"url": place.url("store.zarr"), "chunks": {"time": 2}},
        "region": {"key": "time", "winner": "priority", "priority": ["a*", "b*"]},
    }
    return regraft.open_collection(config, storage_options=place.storage_options)


def put(place: Place, key: str, days: list[int], value: int) -> None:
    file = netCDF4.Dataset(key, "w", memory=1024)
    file.createDimension("time", len(days))
    file.createDimension("x", 3)
    axis = file.createVariable("time", "f8", ("time",))
    axis.units = "days since 2020-01-01"
    axis[:] = days
    data = file.createVariable("sst", "i4", ("time", "x"), fill_value=-1)
    data[:] = np.full((len(days), 3), value)
    place.put(f"incoming/{key}", bytes(file.close()))


def stored(place: Place) -> dict[int, int]:
    """What the store says of each day."""
    group = zarr.open_group(place.local_store("store.zarr"), mode="r")
    steps = zip(group["time"][:].tolist(), group["sst"][:].tolist(), strict=True)
    return {int(day): step[0] for day, step in steps if len(set(step)) == 1}


def versions(place: Place, key: str) -> list[str]:
    """The ids of a key's versions, the newest first."""
    assert place.server is not None
    listed = place.server.client().list_object_versions(Bucket=place.bucket, Prefix=f"incoming/{key}")
    return [version["VersionId"] for version in listed["Versions"]]


def rivals(place: Place) -> regraft.Collection:
    put(place, "a.nc", [5], 1)
    put(place, "b.nc", [5, 6], 2)
    made = collection(place)
    made.sync(progress=False).raise_for_failures()
    assert stored(place) == {5: 1, 6: 2}
    return made


def take_away(place: Place) -> regraft.Report:
    """The winner goes, and only of it somebody tells."""
    place.delete("incoming/a.nc")
    made = collection(place)
    made.submit(["a.nc"])
    report = made.drain(progress=False)
    assert report.counts == {"restore": 1}
    return report


@pytest.mark.parametrize("hidden", ["overwritten", "deleted"])
def test_the_version_on_record_comes_back(kept: Place, hidden: str) -> None:
    made = rivals(kept)
    (recorded,) = versions(kept, "b.nc")
    assert {row["key"]: row["version"] for row in made.ledger()} == {
        "a.nc": versions(kept, "a.nc")[0],
        "b.nc": recorded,
    }
    if hidden == "overwritten":
        put(kept, "b.nc", [7, 8], 3)
    else:
        kept.delete("incoming/b.nc")
    report = take_away(kept)
    assert stored(kept) == {5: 2, 6: 2}
    (change,) = report.changes
    assert f"`b.nc` as it was in version `{recorded}`, which is not its present one" in change["reason"]
    # Whoever looks at the bucket finds what it holds by now.
    made.sync(progress=False).raise_for_failures()
    assert stored(kept) == ({5: -1, 6: -1, 7: 3, 8: 3} if hidden == "overwritten" else {5: -1, 6: -1})


def test_a_version_that_was_set_aside_does_not_stand_in_the_way(kept: Place) -> None:
    made = rivals(kept)
    kept.put("incoming/b.nc", b"no NetCDF")
    assert [item["key"] for item in made.sync(progress=False)["quarantined"]] == ["b.nc"]
    kept.delete("incoming/a.nc")
    report = made.sync(progress=False)
    assert stored(kept) == {5: 2, 6: 2}
    assert "`b.nc` as it was in version" in report.changes[0]["reason"]
    assert made.status()["quarantined"] == 1
    assert made.plan(progress=False).empty


def test_a_version_that_was_deleted_for_good_does_not(kept: Place) -> None:
    rivals(kept)
    (recorded,) = versions(kept, "b.nc")
    put(kept, "b.nc", [5, 6], 3)
    assert kept.server is not None
    kept.server.client().delete_object(Bucket=kept.bucket, Key="incoming/b.nc", VersionId=recorded)
    kept.delete("incoming/a.nc")
    made = collection(kept)
    made.submit(["a.nc"])
    report = made.drain(progress=False)
    assert stored(kept) == {5: 3, 6: 3}
    reasons = {change["key"]: change["reason"] for change in report.changes}
    assert reasons["a.nc"] == "removed: a runner-up's data come back"
    assert "b.nc" in reasons


def test_without_versions_it_comes_back_as_it_is_now(place: Place) -> None:
    rivals(place)
    put(place, "b.nc", [5, 6], 3)
    place.delete("incoming/a.nc")
    made = collection(place)
    made.submit(["a.nc"])
    report = made.drain(progress=False)
    assert stored(place) == {5: 3, 6: 3}
    assert {change["key"] for change in report.changes} == set(KEYS)
    assert {row["version"] for row in made.ledger()} == {None}
