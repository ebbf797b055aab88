"""Parquet files by every writer that people use: the same rows, each with the writer's own habits.

Every file has `id` (int64, 0 and up, sorted), `temp` (double with nulls) and `text`; most have columns that only this
writer makes.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1300

Columns = dict[str, Any]


def columns(rows: int = ROWS) -> Columns:
    random = np.random.default_rng(7)
    temp = random.normal(15, 8, rows)
    return {
        "id": pa.array(np.arange(rows, dtype=np.int64)),
        "temp": pa.array(temp, mask=random.random(rows) < 0.1),
        "text": pa.array([None if number % 11 == 0 else f"station {number % 37}" for number in range(rows)]),
    }


def nested(rows: int) -> Columns:
    return {
        "list": pa.array(
            [None if n % 5 == 0 else [None if k == 1 else n + k for k in range(n % 4)] for n in range(rows)],
            pa.list_(pa.int32()),
        ),
        "struct": pa.array(
            [None if n % 7 == 0 else {"x": n * 0.5, "tags": ["a"] * (n % 3)} for n in range(rows)],
            pa.struct([("x", pa.float64()), ("tags", pa.list_(pa.string()))]),
        ),
        "map": pa.array([[(f"k{n % 3}", n)] if n % 4 else [] for n in range(rows)], pa.map_(pa.string(), pa.int64())),
    }


def kinds(rows: int) -> Columns:
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    return {
        "moment": pa.array([start + dt.timedelta(hours=n) for n in range(rows)], pa.timestamp("us", "UTC")),
        "nanos": pa.array(np.arange(rows) * 1_000_000_007, pa.timestamp("ns")),
        "day": pa.array([dt.date(2020, 1, 1) + dt.timedelta(days=n % 365) for n in range(rows)]),
        "price": pa.array([decimal.Decimal(n).scaleb(-2) for n in range(rows)], pa.decimal128(12, 2)),
        "kind": pa.array([f"kind {n % 5}" for n in range(rows)]).dictionary_encode(),
        "raw": pa.array([bytes([n % 256]) * (n % 5) for n in range(rows)]),
        "large": pa.array([f"large {n}" for n in range(rows)], pa.large_string()),
        "small": pa.array(np.arange(rows) % 100, pa.int8()),
        "flag": pa.array([None if n % 9 == 0 else n % 2 == 0 for n in range(rows)]),
        "half": pa.array((np.arange(rows) % 50).astype(np.float32)),
    }


def arrow(path: Path, made: Columns, **options: Any) -> None:
    pq.write_table(pa.table(made), path, **options)


def pandas_index(path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({name: column.to_pandas() for name, column in columns().items()})
    frame.index = pd.date_range("2020-01-01", periods=len(frame), freq="min", name="minute")
    frame.to_parquet(path)


def fastparquet(path: Path) -> None:
    import fastparquet as fp
    import pandas as pd

    frame = pd.DataFrame({name: column.to_pandas() for name, column in columns().items()})
    frame["text"] = frame["text"].astype(object)
    fp.write(str(path), frame, row_group_offsets=500, compression="SNAPPY", object_encoding={"text": "utf8"})


def duckdb(path: Path) -> None:
    import duckdb as engine

    table = pa.table(columns() | nested(ROWS))
    connection = engine.connect()
    connection.register("made", table)
    connection.execute(f"COPY (FROM made ORDER BY id) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")


def polars(path: Path) -> None:
    import polars as pl

    made = {name: column for name, column in (columns() | nested(ROWS)).items() if name != "map"}
    pl.from_arrow(pa.table(made)).write_parquet(path, row_group_size=400)  # type: ignore[union-attr]


def parquet_rs(path: Path) -> None:
    """parquet-rs, through DataFusion."""
    import datafusion

    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
    made = context.create_dataframe([pa.table(columns() | nested(ROWS)).to_batches()])
    folder = path.with_suffix(".folder")
    made.write_parquet(str(folder))
    (written,) = [folder] if folder.is_file() else sorted(folder.glob("*.parquet"))
    written.rename(path)
    if folder.is_dir():
        folder.rmdir()


WRITERS: dict[str, Callable[[Path], None]] = {
    "arrow-groups": lambda path: arrow(path, columns() | kinds(ROWS), row_group_size=100, write_page_index=True),
    "arrow-one-group": lambda path: arrow(path, columns() | kinds(ROWS), compression="zstd"),
    "arrow-no-rows": lambda path: arrow(path, columns(0) | nested(0)),
    "arrow-no-group": lambda path: pq.ParquetWriter(path, pa.table(columns(0)).schema).close(),
    "arrow-nested": lambda path: arrow(path, columns() | nested(ROWS), row_group_size=500),
    "arrow-v2": lambda path: arrow(
        path, columns() | nested(ROWS), use_dictionary=False, data_page_version="2.0", compression="zstd"
    ),
    "arrow-deltas": lambda path: arrow(
        path,
        columns(),
        use_dictionary=False,
        compression="gzip",
        column_encoding={"id": "DELTA_BINARY_PACKED", "temp": "BYTE_STREAM_SPLIT", "text": "DELTA_BYTE_ARRAY"},
    ),
    "arrow-lengths": lambda path: arrow(
        path, columns(), use_dictionary=False, column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY"}
    ),
    "arrow-no-schema": lambda path: arrow(path, columns() | kinds(ROWS), store_schema=False, row_group_size=700),
    "arrow-int96": lambda path: arrow(
        path, columns() | {"nanos": kinds(ROWS)["nanos"]}, use_deprecated_int96_timestamps=True
    ),
    "arrow-small-pages": lambda path: arrow(
        path, columns(), data_page_size=512, write_batch_size=64, write_page_index=True, compression="none"
    ),
    "pandas-index": pandas_index,
    "fastparquet": fastparquet,
    "duckdb": duckdb,
    "polars": polars,
    "parquet-rs": parquet_rs,
}
"""What writes a file at a path; Spark's are made by `spark_files`."""


def spark_files(session: Any, folder: Path) -> list[Path]:
    """Two files by Spark: bloom filters, page index and small pages; then data pages v2 in 13 row groups."""
    made = session.range(0, ROWS, 1, 1).selectExpr(
        "id",
        "if(id % 10 = 3, null, cast(id as double) / 3) as temp",
        "if(id % 11 = 0, null, concat('station ', id % 37)) as text",
        "timestamp_micros(id * 1000000) as moment",
        "cast(id as decimal(12, 2)) as price",
        "if(id % 5 = 0, null, array(id, null, id + 1)) as list",
        "named_struct('x', id * 0.5D, 'tags', array('a')) as struct",
        "map(concat('k', id % 3), id) as map",
    )
    variants: dict[str, dict[str, Any]] = {
        "spark-v1": {
            "parquet.bloom.filter.enabled#text": "true",
            "parquet.page.row.count.limit": 100,
            "parquet.block.size": 8192,
            "parquet.block.row.count.limit": 200,
        },
        "spark-v2": {"parquet.writer.version": "v2", "parquet.block.row.count.limit": 100, "compression": "zstd"},
    }
    paths = []
    for name, options in variants.items():
        target = folder / f"{name}.folder"
        writer = made.coalesce(1).write
        for option, value in options.items():
            writer = writer.option(option, value)
        writer.parquet(str(target))
        (written,) = target.glob("*.parquet")
        paths.append(written.rename(folder / f"{name}.parquet"))
    return paths
