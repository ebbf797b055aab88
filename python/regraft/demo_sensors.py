"""The second half of `regraft demo`: a small data set of sensor files is taken from version 1 to 3, and back.

As in the first half every event is followed by what a user would call, and at the end the files are read with pyarrow
and compared: old columns with copies that regraft never saw, new columns with a computation of their own.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import CorruptError
from regraft.migrations import open_migrations
from regraft.progress import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from regraft.migration_results import MigrationReport

__all__ = ["CONFIG", "READINGS", "STEPS", "TITLE", "play", "print_table", "write_sensor_file", "write_set"]

TITLE = "A data set of sensor files (plain Parquet) from version 1 to 3, and back"
FILES = 8
ROWS = 12_000
READINGS = 18
"""Columns that no step looks at."""

CONFIG = """\
# Sensor files gain two computed columns, one is renamed and one goes; everything else stays as it is, byte for byte.
kind: migration-set
name: demo-sensors
data: {url: sensors, suffix: .parquet}
target: 3
steps:
  - {from: 1, to: 2, sql: {dew_point_c: "temp_c - (100 - rh) / 5"}}
  - from: 2
    to: 3
    python: steps:feels_like
    reads: [temp_c, rh]
    adds: {feels_like_c: double}
    rename: {rh: humidity}
    drop: [legacy_id]
"""

STEPS = '''\
"""Steps of demo-sensors that are easier in Python than in SQL."""

import numpy as np


def feels_like(batch):
    """Steadman's apparent temperature without wind, degrees Celsius."""
    temp = batch["temp_c"].to_numpy(zero_copy_only=False)
    humidity = batch["rh"].to_numpy(zero_copy_only=False)
    vapour = humidity / 100 * 6.105 * np.exp(17.27 * temp / (237.7 + temp))
    return {"feels_like_c": temp + 0.33 * vapour - 4.0}
'''


def sensor_table(number: int, rows: int = ROWS) -> pa.Table:
    """One file's rows: the same number gives the same values."""
    import pyarrow as pa

    random = np.random.default_rng(number)
    hours = np.arange(rows) / 60
    columns: dict[str, Any] = {
        "sensor_id": pa.array([f"buoy-{number:02d}"] * rows),
        "time": pa.array((np.arange(rows) + number * rows) * 60_000_000, pa.timestamp("us")),
        "temp_c": 14 + 6 * np.sin(hours * np.pi / 12) + random.normal(0, 0.4, rows),
        "rh": np.clip(70 - 15 * np.sin(hours * np.pi / 12) + random.normal(0, 3, rows), 5, 100),
        "legacy_id": np.arange(rows) + number * 1_000_000,
    }
    columns |= {f"reading_{reading:02d}": random.normal(reading, 1, rows) for reading in range(READINGS)}
    return pa.table(columns)


def write_sensor_file(path: Path, number: int, *, version: int | None = None, rows: int = ROWS) -> Path:
    """Writes one file of the data set.

    Args:
        path: Where to.
        number: Which sensor: the same number gives the same values.
        version: What its footer says; ``None`` says nothing, which means version 1.
        rows: How many.

    Returns:
        The path.
    """
    import pyarrow.parquet as pq

    table = sensor_table(number, rows)
    if version is not None:
        table = table.replace_schema_metadata({"schema:demo-sensors:version": str(version)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4_000)
    return path


def write_set(folder: Path, files: int = FILES, rows: int = ROWS) -> Path:
    """Writes the data set with its configuration and its steps.

    Args:
        folder: Where to.
        files: How many, in two months.
        rows: Rows of each.

    Returns:
        The configuration.
    """
    for number in range(files):
        write_sensor_file(_file(folder, number), number, rows=rows)
    (folder / "steps.py").write_text(STEPS)
    config = folder / "sensors.yaml"
    config.write_text(CONFIG)
    return config


def play(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Lets everything happen, and checks it.

    Args:
        folder: The demo's folder.

    Returns:
        A row for each event, and how many values were compared at the end.

    Raises:
        CorruptError: A file is not what it should be: a bug, worth a report.
    """
    config = write_set(folder)
    data, kept = folder / "sensors", folder / "sensors-kept"
    shutil.copytree(data, kept)
    rows: list[dict[str, Any]] = []

    def step(arrived: str, expected: dict[str, int], act: Callable[[], MigrationReport]) -> MigrationReport:
        started = time.perf_counter()
        report = act()
        rows.append(_row(arrived, report, (time.perf_counter() - started) * 1000))
        if report.counts != expected:
            raise CorruptError(f"{arrived}: expected `{expected}`, found `{report.counts}`", "please report it")
        return report

    sensors = open_migrations(config)
    step(
        f"{FILES} files, to version 2 (SQL)",
        {"done": FILES},
        lambda: sensors.plan(to=2, progress=False).apply(progress=False),
    )
    write_sensor_file(data / "year=2026" / "month=02" / "old.parquet", 90, version=0)
    write_sensor_file(_file(folder, FILES), FILES)
    shutil.copy(_file(folder, FILES), kept / _file(folder, FILES).relative_to(data))
    plan = sensors.plan(progress=False)
    if plan.counts != {"pending": FILES + 1, "missing_step": 1}:
        raise CorruptError(f"expected one file without a step, found `{plan.counts}`", "please report it")
    changed = _file(folder, 2)
    write_sensor_file(changed, 50)
    report = step(
        "a new file, one without a step, one changed by\nsomebody else; to version 3 (Python)",
        {"done": FILES, "conflict": 1, "missing_step": 1},
        lambda: plan.apply(progress=False),
    )
    _must(changed.read_bytes() == _written(50), "the changed file to be left alone")
    step(
        "the same again: the changed file, 1→2→3 at once",
        {"done": 1, "missing_step": 1},
        lambda: sensors.plan(progress=False).apply(progress=False),
    )
    shutil.copy(_made(folder, 50), kept / changed.relative_to(data))
    checked = sensors.verify(progress=False)
    checked.raise_for_failures()
    compared = _compare(folder, kept)
    step(
        "the larger run is rolled back",
        {"rolled_back": FILES},
        lambda: sensors.roll_back(report.run, progress=False),
    )
    _must(
        _file(folder, FILES).read_bytes() == (kept / _file(folder, FILES).relative_to(data)).read_bytes(),
        "the new file to be as it came, byte for byte",
    )
    shutil.rmtree(folder / "sensors-made")
    return rows, compared


def _file(folder: Path, number: int) -> Path:
    return folder / "sensors" / "year=2026" / f"month={1 + number % 2:02d}" / f"sensor-{number:02d}.parquet"


def _made(folder: Path, number: int) -> Path:
    path = folder / "sensors-made" / f"{number}.parquet"
    return path if path.exists() else write_sensor_file(path, number)


def _written(number: int) -> bytes:
    """What `write_sensor_file` writes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_sensor_file(Path(folder) / "file.parquet", number).read_bytes()


def _row(arrived: str, report: MigrationReport, milliseconds: float) -> dict[str, Any]:
    words = {"done": "migrated", "missing_step": "no step", "conflict": "left alone", "rolled_back": "rolled back"}
    did = "; ".join(f"{count} {words.get(state, state)}" for state, count in report.counts.items())
    totals = report["totals"]
    usage = report.get("usage", {})
    return {
        "arrived": arrived,
        "did": did,
        "actions": report.counts,
        "bytes_read": totals.get("bytes_read", 0),
        "bytes_written": totals.get("bytes_written", 0),
        "bytes_kept": totals.get("bytes_copied", 0),
        "requests": sum(usage.get(name, 0) for name in ("get", "head", "put", "delete", "list", "copy")),
        "milliseconds": round(milliseconds, 1),
    }


def _compare(folder: Path, kept: Path) -> int:
    """Compares every migrated file with the copy of what it was."""
    import pyarrow.parquet as pq

    compared = 0
    for path in sorted((folder / "sensors").rglob("sensor-*.parquet")):
        old = pq.read_table(kept / path.relative_to(folder / "sensors"), partitioning=None)
        new = pq.read_table(path, partitioning=None)
        names = ["humidity" if name == "rh" else name for name in old.schema.names if name != "legacy_id"]
        _must(new.schema.names == [*names, "dew_point_c", "feels_like_c"], f"columns of {path.name}")
        for name in names:
            _must(new[name].equals(old["rh" if name == "humidity" else name]), f"`{name}` of {path.name}")
        temp, rh = old["temp_c"].to_numpy(), old["rh"].to_numpy()
        vapour = rh / 100 * 6.105 * np.exp(17.27 * temp / (237.7 + temp))
        for name, wanted in (("dew_point_c", temp - (100 - rh) / 5), ("feels_like_c", temp + 0.33 * vapour - 4.0)):
            _must(np.array_equal(new[name].to_numpy(), wanted), f"`{name}` of {path.name}")
        compared += new.num_rows * new.num_columns
    return compared


def _must(holds: bool, expected: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise CorruptError(f"the data set is not as it should be: expected {expected}", "please report it")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints what happened, as the first half of the demo does."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what happened")
    table.add_column("what regraft did")
    for name in ("read", "written", "left as it was", "ms"):
        table.add_column(name, justify="right")
    for row in rows:
        moved = [bytes_text(row[name]) for name in ("bytes_read", "bytes_written", "bytes_kept")]
        table.add_row(row["arrived"], row["did"], *moved, f"{row['milliseconds']:.0f}")
    Console(highlight=False).print(table)
