"""A data set with `_metadata` or `_common_metadata`, which would tell readers something wrong after a migration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import regraft
from places import Place
from regraft.errors import InvalidError
from servers import Server


def fill(place: Place, *sidecars: str, folder: str = "") -> dict[str, bytes]:
    """Two partitions, and sidecars as pyarrow and Dask write them."""
    made, collected = place.directory / "made", []
    for day in (1, 2):
        path = made / f"{folder}day={day}" / "part.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"gone": range(1000), "a": [1000 * day + row for row in range(1000)], "word": ["w"] * 1000})
        pq.write_table(table, path, metadata_collector=collected, use_dictionary=False, compression=None)
        collected[-1].set_file_path(f"day={day}/part.parquet")
    if "_common_metadata" in sidecars:
        pq.write_metadata(table.schema, made / folder / "_common_metadata")
    if "_metadata" in sidecars:
        pq.write_metadata(table.schema, made / folder / "_metadata", metadata_collector=collected)
    files = {path.relative_to(made).as_posix(): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    for key, body in files.items():
        place.put(f"set/{key}", body)
    return files


def migrations(place: Place, **data: Any) -> regraft.MigrationSet:
    config = {
        "name": "beside",
        "layout": "contiguous",
        "data": {"url": place.url("set/"), **data},
        "steps": [{"from": 1, "to": 2, "sql": {"b": "a + 1"}, "drop": ["gone"]}],
    }
    return regraft.open_migrations(config, storage_options=place.storage_options)


@pytest.fixture(params=["local", pytest.param("ministack", marks=pytest.mark.s3)])
def some_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder and a bucket."""
    if request.param == "local":
        return Place(tmp_path)
    server: Server = request.getfixturevalue("ministack_server")
    return Place(tmp_path, server, server.new_bucket())


@pytest.mark.parametrize("data", [{}, {"prefixes": ["day=1/pa", "day=2/"]}, {"suffix": "part.parquet"}])
def test_footers_of_others_stop_a_migration_until_they_are_deleted(some_place: Place, data: dict[str, Any]) -> None:
    place = some_place
    files = fill(place, "_metadata")
    sets = migrations(place, **data)
    plan = sets.plan(progress=False)
    assert plan["sidecars"] == ["_metadata"]
    assert any("`_metadata` repeats the footers of files" in text for text in plan["warnings"])
    with pytest.raises(InvalidError, match="repeats the footers of files that would be migrated") as caught:
        plan.apply(progress=False)
    assert "delete it, and write it again afterwards; or say `data: {sidecars: keep}`" in str(caught.value)
    assert place.read_all("set/") == {f"set/{key}": body for key, body in files.items()}
    place.delete("set/_metadata")
    # The same plan.
    plan.apply(progress=False).raise_for_failures()
    assert sets.plan(progress=False)["sidecars"] == []


def test_what_is_refused_would_be_wrong(local_place: Place) -> None:
    """A reader of `_metadata` finds the bytes of other columns, or none."""
    files = fill(local_place, "_metadata")
    root = local_place.directory / "set"
    assert ds.parquet_dataset(root / "_metadata").to_table()["a"].to_pylist()[:2] == [1000, 1001]
    sets = migrations(local_place, sidecars="keep")
    plan = sets.plan(progress=False)
    assert plan["sidecars"] == ["_metadata"]
    plan.apply(progress=False).raise_for_failures()
    assert (root / "_metadata").read_bytes() == files["_metadata"]
    try:
        lie = ds.parquet_dataset(root / "_metadata").to_table()["a"].to_pylist()
    except (OSError, pa.ArrowException):
        lie = None
    assert lie != [1000 * day + row for day in (1, 2) for row in range(1000)]
    truth = ds.dataset(root, format="parquet", exclude_invalid_files=True).to_table()
    assert truth["b"].to_pylist() == [1001 + 1000 * day + row for day in (0, 1) for row in range(1000)]


def test_a_schema_beside_the_files_is_warned_of(local_place: Place) -> None:
    fill(local_place, "_common_metadata")
    plan = migrations(local_place).plan(progress=False)
    assert plan["sidecars"] == ["_common_metadata"]
    (warning,) = [text for text in plan["warnings"] if "_common_metadata" in text]
    assert "readers that use it will miss new columns" in warning
    plan.apply(progress=False).raise_for_failures()


def test_only_what_lies_below_counts(local_place: Place) -> None:
    """Files that are not migrated, and sidecars of other folders, do not matter; asked keys are looked above."""
    fill(local_place, "_metadata", folder="old/")
    fill(local_place, folder="new/")
    plan = migrations(local_place, prefixes=["new/"]).plan(progress=False)
    assert (plan["sidecars"], plan.counts) == ([], {"pending": 2})
    both = migrations(local_place)
    assert both.plan(keys=["new/day=1/part.parquet"], progress=False)["sidecars"] == []
    assert both.plan(keys=["old/day=1/part.parquet"], progress=False)["sidecars"] == ["old/_metadata"]
    plan.apply(progress=False).raise_for_failures()
    assert migrations(local_place, prefixes=["old/day=1"]).plan(progress=False)["sidecars"] == ["old/_metadata"]
