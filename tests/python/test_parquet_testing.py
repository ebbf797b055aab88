"""Files that nobody here wrote: parquet-testing, whole, broken on purpose, encrypted, and broken by chance.

A file is migrated, and then equal in every reader that could read the original, or it is refused with a clear error and
left as it was.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regraft
from parquet_readers import READERS, Values, readable, spark, spark_session, verdict, verdicts

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MUTANTS = 1000 if os.environ.get("REGRAFT_LONG") else 150
LAYOUTS = ("widened", "contiguous")
ONCE = ("pyarrow", "duckdb", "polars", "datafusion")

FOR_SPARK = {
    "alltypes_plain.snappy.parquet",
    "alltypes_tiny_pages_plain.parquet",
    "data_index_bloom_encoding_with_length.parquet",
    "datapage_v2.snappy.parquet",
    "delta_byte_array.parquet",
    "fixed_length_decimal_legacy.parquet",
    "int64_decimal.parquet",
    "list_columns.parquet",
    "nested_lists.snappy.parquet",
    "nested_maps.snappy.parquet",
    "nulls.snappy.parquet",
}
"""Files for the short form: one of each kind."""

# What no reader agrees on, or what is refused on purpose: name and the words of the error.
REFUSED = {"encrypted": "encrypt"}


def migrations(folder: Path, **more: Any) -> regraft.MigrationSet:
    """A step that reads nothing of these files' own columns, and one column that every file can get."""
    return regraft.open_migrations(
        {
            "name": "testing",
            "data": {"url": str(folder), "suffix": ""},
            "steps": [{"from": 1, "to": 2, "sql": {"regraft_added": "'new'", "regraft_number": "1.5"}}],
            "run": {"concurrency": 4},
            **more,
        }
    )


@pytest.fixture(scope="module")
def testing(sample_data: Path) -> Path:
    path = sample_data / "parquet-testing"
    if not path.is_dir():
        pytest.skip(f"no files in `{path}`")
    return path


@pytest.fixture(scope="module")
def migrated(
    testing: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, regraft.MigrationReport]]:
    """All files in one data set, once for each layout."""
    made = {}
    for layout in LAYOUTS:
        folder = tmp_path_factory.mktemp(layout) / "set"
        shutil.copytree(testing, folder, ignore=shutil.ignore_patterns("README.md"))
        report = migrations(folder, layout=layout).plan(progress=False).apply(progress=False)
        made[layout] = (folder, report)
    return made


def names(folder: str) -> list[str]:
    root = Path(os.environ.get("REGRAFT_SAMPLE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    below = root / "parquet-testing"
    return sorted(
        path.relative_to(below).as_posix()
        for path in (below / folder).rglob("*")
        if path.is_file() and path.name != "README.md"
    )


def outcome(migrated: dict[str, Any], layout: str, name: str) -> dict[str, Any]:
    _, report = migrated[layout]
    found: list[dict[str, Any]] = [item for item in report.objects if item["key"] == name]
    assert len(found) == 1, name
    return found[0]


@pytest.mark.parametrize("name", [*names("data"), *names("shredded_variant")])
def test_equal_or_refused(testing: Path, migrated: dict[str, Any], name: str) -> None:
    original = testing / name
    for layout in LAYOUTS:
        folder, _ = migrated[layout]
        item = outcome(migrated, layout, name)
        if item["state"] != "done":
            assert item["state"] in ("error", "not_parquet"), item
            assert item["message"], item
            assert (folder / name).read_bytes() == original.read_bytes()
            continue
        for reader in ONCE:
            assert verdict(reader, original, folder / name) in ("equal", "unreadable"), (layout, reader)
        old = readable("pyarrow", original)
        if old:
            rows = len(next(iter(old.values())))
            assert READERS["pyarrow"](folder / name)["regraft_added"] == ["new"] * rows


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fastparquet_sees_the_same(testing: Path, migrated: dict[str, Any], layout: str, tmp_path: Path) -> None:
    """In a process of its own: some of these files make it crash, before any migration."""
    folder, report = migrated[layout]
    migrated_keys = (item["key"] for item in report.objects if item["state"] == "done")
    done = [key for key in migrated_keys if not key.startswith("bad_data/")]
    found = verdicts("fastparquet", [(testing / name, folder / name) for name in done])
    assert found.count("equal") > 100
    others = [name for name, said in zip(done, found, strict=True) if said not in ("equal", "unreadable")]
    # It takes nulls in nested integers as long as no flat column stands beside them, whoever wrote the file: then the
    # same table, written by Arrow, is no better.
    for number, name in enumerate(others):
        pq.write_table(pq.read_table(folder / name), tmp_path / f"{number}.parquet")
    again = verdicts("fastparquet", [(tmp_path / f"{number}.parquet",) * 2 for number in range(len(others))])
    assert dict(zip(others, again, strict=True)) == dict.fromkeys(others, "unreadable")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with spark_session(tmp_path_factory.mktemp("spark")) as made:
        yield made


def seen_by_spark(session: Any, path: Path, *, vectorized: bool, splits: int) -> Values | None:
    """What Spark sees, or nothing where it cannot read the file."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        return spark(session, path, vectorized=vectorized, splits=splits)
    except (Py4JJavaError, PySparkException, ValueError, OverflowError):
        return None


@pytest.mark.spark
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_spark_sees_the_same(testing: Path, migrated: dict[str, Any], session: Any) -> None:
    """Page indexes, bloom filters, both versions of pages, nested columns, INT96, decimals, every encoding."""
    equal: Counter[str] = Counter()
    for name in sorted(path.name for path in (testing / "data").glob("*.parquet")):
        if not os.environ.get("REGRAFT_LONG") and name not in FOR_SPARK:
            continue
        for vectorized in (True, False):
            old = seen_by_spark(session, testing / "data" / name, vectorized=vectorized, splits=1)
            for layout in LAYOUTS:
                folder, _ = migrated[layout]
                if old is None or outcome(migrated, layout, f"data/{name}")["state"] != "done":
                    continue
                for splits in (1, 3) if os.environ.get("REGRAFT_LONG") else (3,):
                    new = seen_by_spark(session, folder / "data" / name, vectorized=vectorized, splits=splits)
                    assert new is not None, (name, layout, vectorized, splits)
                    rows = len(next(iter(old.values()), []))
                    assert sorted(map(repr, rows_of(new, old))) == sorted(map(repr, rows_of(old, old))), (name, layout)
                    assert new["regraft_added"] == ["new"] * rows, (name, layout)
                    equal[name] += 1
    print(f"{len(equal)} files, {equal.total()} times equal in Spark")
    # Both readers and both layouts.
    assert set(equal) >= FOR_SPARK, FOR_SPARK - set(equal)
    assert all(equal[name] in (4, 8) for name in FOR_SPARK), equal


def rows_of(values: Values, columns: Values) -> list[tuple[Any, ...]]:
    """Rows of some columns: splits come in any order."""
    return list(zip(*(values[column] for column in columns), strict=True))


def test_most_of_them_are_migrated(migrated: dict[str, Any]) -> None:
    for layout in LAYOUTS:
        _, report = migrated[layout]
        whole = [item for item in report.objects if not item["key"].startswith("bad_data/")]
        refused = [item for item in whole if item["state"] != "done"]
        assert len(refused) < len(whole) / 4, [(item["key"], item.get("message")) for item in refused]


def test_encrypted_files_are_refused(migrated: dict[str, Any]) -> None:
    for layout in LAYOUTS:
        for name in names("data"):
            if "encrypt" in name and "external_key" not in name:
                item = outcome(migrated, layout, name)
                assert item["state"] != "done", name
                assert "encrypt" in item["message"], item


@pytest.mark.parametrize("name", names("bad_data"))
def test_bad_data_is_refused_or_kept(testing: Path, migrated: dict[str, Any], name: str) -> None:
    """Broken pages in columns that nobody reads are copied as they are; a broken footer is refused."""
    for layout in LAYOUTS:
        folder, _ = migrated[layout]
        item = outcome(migrated, layout, name)
        before, after = (testing / name).read_bytes(), (folder / name).read_bytes()
        if item["state"] == "done":
            if layout == "widened":
                assert after[: len(before)] == before
        else:
            assert item["message"]
            assert after == before


def mutants(count: int) -> list[tuple[int, bytes]]:
    """One good file with bytes changed, cut off, doubled or put in, near the footer more often than elsewhere."""
    table = pa.table({"id": list(range(300)), "temp": [value * 0.5 for value in range(300)], "text": ["x"] * 300})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=100, write_page_index=True)
    good = sink.getvalue().to_pybytes()
    made = []
    for seed in range(count):
        chance = random.Random(seed)
        content = bytearray(good)
        for _ in range(chance.choice((1, 1, 2, 5))):
            low = len(content) - 2000 if chance.random() < 0.7 else 0
            place = chance.randrange(max(0, low), len(content))
            match chance.choice(("flip", "flip", "byte", "cut", "insert", "double")):
                case "flip":
                    content[place] ^= 1 << chance.randrange(8)
                case "byte":
                    content[place] = chance.randrange(256)
                case "cut":
                    del content[place : place + chance.randrange(1, 50)]
                case "insert":
                    content[place:place] = chance.randbytes(chance.randrange(1, 20))
                case "double":
                    content[place:place] = content[place : place + chance.randrange(1, 100)]
        made.append((seed, bytes(content)))
    return made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mutants(tmp_path: Path, layout: str) -> None:
    """No crash, no hang; what is not migrated stays as it was, and what is migrated keeps its bytes or its values."""
    made = mutants(MUTANTS)
    for seed, content in made:
        (tmp_path / f"{seed:04}.parquet").write_bytes(content)
    step = {"from": 1, "to": 2, "sql": {"twice": "temp * 2", "half": "id / 2"}}
    plan = migrations(tmp_path, layout=layout, steps=[step]).plan(progress=False)
    report = plan.apply(progress=False)
    found = {item["key"]: item for item in (*plan.objects, *report.objects)}
    assert len(found) == len(made)
    done = 0
    for seed, content in made:
        path, item = tmp_path / f"{seed:04}.parquet", found[f"{seed:04}.parquet"]
        after = path.read_bytes()
        if item["state"] == "done":
            done += 1
            if layout == "widened":
                assert after[: len(content)] == content
        else:
            assert item["state"] in ("error", "not_parquet"), item
            assert item["message"]
            assert after == content, seed
    # Bytes that nothing looks at: the others must not be refused for show.
    assert 0 < done < len(made)
