"""What four new columns cost in a wide file, beside other tools, on the same file, in the same run.

The file is the one of the article that this job began with: 139,000 rows × 170 columns (120 double, 30 int64, 19
string, 1 timestamp), Snappy, in one row group and in eight; four doubles are computed from two columns.

Each tool works in a process of its own, in process (imports done, median of several after a warm-up) and as a whole
process from the shell. Bytes are what the process read and wrote (`rchar`, `wchar`), copies inside the kernel
(`copy_file_range`) included. The new columns are compared with numpy's, value by value, and the old ones
with the source; of regraft it is shown that the old file is the beginning of the new one. `cp` is the floor of anything
that leaves a second file behind.

  python tests/benches/parquet_columns.py --quick        a minute, few rows: shows that it runs
  python tests/benches/parquet_columns.py                the real thing
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import in_child, measured, table, whole_process

FULL, QUICK = 139_000, 6_000
NEW = ("dew_point", "kelvin", "vapour", "wet")
EXPRESSIONS = {
    "dew_point": "d000 - (100 - d001) / 5",
    "kelvin": "d000 + 273.15",
    "vapour": "d001 / 100 * exp(17.27 * d000 / (237.7 + d000))",
    "wet": "d000 * d001",
}


def formulas(temp: Any, humidity: Any, exp: Callable[[Any], Any] = np.exp) -> dict[str, Any]:
    """The same four columns for whatever computes like numpy."""
    return {
        "dew_point": temp - (100 - humidity) / 5,
        "kelvin": temp + 273.15,
        "vapour": humidity / 100 * exp(17.27 * temp / (237.7 + temp)),
        "wet": temp * humidity,
    }


def make(path: Path, rows: int, groups: int) -> None:
    random = np.random.default_rng(11)
    columns: dict[str, Any] = {}
    for number in range(120):
        values = random.normal(15, 8, rows)
        # Half of them have all their digits, which makes the 120 MB of the article; half are what sensors really send.
        columns[f"d{number:03d}"] = np.round(values, 2) if number % 2 == 0 else values
    columns["d000"] = np.round(random.normal(15, 8, rows), 3)
    columns["d001"] = np.round(random.uniform(20, 100, rows), 3)
    for number in range(30):
        columns[f"i{number:02d}"] = random.integers(0, 10 ** (1 + number % 6), rows)
    for number in range(19):
        columns[f"s{number:02d}"] = pa.array([f"text {value}" for value in random.integers(0, 50 * (number + 1), rows)])
    columns["time"] = pa.array(np.arange(rows) * 1_000_000 + 1_600_000_000_000_000, pa.timestamp("us"))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="snappy", row_group_size=-(-rows // groups))


class Bench:
    """One file, and what each tool makes of it."""

    def __init__(self, folder: Path, groups: int, *, quick: bool) -> None:
        self.rows = QUICK if quick else FULL
        self.groups, self.quick = groups, quick
        self.source = folder / f"source-{groups}-{self.rows}.parquet"
        self.folder = folder / f"work-{groups}-{self.rows}"

    def file(self, peer: str) -> Path:
        return self.folder / peer / "file.parquet"

    def config(self, peer: str) -> Path:
        return self.folder / f"{peer}.json"

    def prepare(self) -> None:
        if not self.source.exists():
            make(self.source, self.rows, self.groups)
        self.folder.mkdir(parents=True, exist_ok=True)
        for peer in PEERS:
            self.file(peer).parent.mkdir(exist_ok=True)
            config = {
                "name": "bench",
                "data": {"url": str(self.file(peer).parent)},
                "steps": [{"from": 1, "to": 2, "sql": EXPRESSIONS}],
            }
            self.config(peer).write_text(json.dumps(config))

    def deliver(self, peer: str) -> None:
        """The file as it was, where the tool replaces it in place; nothing beside it."""
        shutil.copy(self.source, self.file(peer))
        for left in self.folder.glob(f"{peer}/out*"):
            left.unlink()

    def check(self, peer: str) -> str:
        path = self.file(peer)
        if peer == "cp":
            return ""
        old, new = pq.read_table(self.source), pq.read_table(path)
        if new.num_rows != old.num_rows:
            raise SystemExit(f"{peer}: expected {old.num_rows} rows, found {new.num_rows}")
        wanted = formulas(old["d000"].to_numpy(), old["d001"].to_numpy())
        for name in NEW:
            if not np.allclose(new[name].to_numpy(), wanted[name], rtol=1e-9, atol=1e-9):
                raise SystemExit(f"{peer}: `{name}` is not what numpy computes")
        for name in old.schema.names:
            if not new[name].cast(old[name].type).equals(old[name]):
                raise SystemExit(f"{peer}: `{name}` is not what it was")
        if peer != "regraft":
            return ""
        before = self.source.read_bytes()
        if path.read_bytes()[: len(before)] != before:
            raise SystemExit("regraft: the old file is not the beginning of the new one")
        return f"new[:len(old)] == old, {path.stat().st_size - len(before):,} bytes behind it"


def regraft_peer(path: Path, config: Path) -> Callable[[], object]:
    import regraft

    migrations = regraft.open_migrations(config)

    def work() -> None:
        migrations.plan(progress=False).apply(progress=False).raise_for_failures()

    return work


def fastparquet_peer(path: Path, _: Path) -> Callable[[], object]:
    import fastparquet
    import pandas as pd  # noqa: F401 - its import is not measured

    def work() -> None:
        frame = fastparquet.ParquetFile(str(path)).to_pandas()
        for name, values in formulas(frame["d000"], frame["d001"]).items():
            frame[name] = values
        out = path.with_name("out.parquet")
        fastparquet.write(str(out), frame, compression="SNAPPY")
        out.replace(path)

    return work


def pandas_peer(path: Path, _: Path) -> Callable[[], object]:
    import pandas as pd

    def work() -> None:
        frame = pd.read_parquet(path, engine="pyarrow")
        for name, values in formulas(frame["d000"], frame["d001"]).items():
            frame[name] = values
        out = path.with_name("out.parquet")
        frame.to_parquet(out, engine="pyarrow", compression="snappy")
        out.replace(path)

    return work


def polars_peer(path: Path, _: Path) -> Callable[[], object]:
    import polars as pl

    def work() -> None:
        made = formulas(pl.col("d000"), pl.col("d001"), lambda column: column.exp())
        out = path.with_name("out.parquet")
        pl.scan_parquet(path).with_columns(**made).sink_parquet(out, compression="snappy")
        out.replace(path)

    return work


def duckdb_peer(path: Path, _: Path) -> Callable[[], object]:
    import duckdb

    columns = ", ".join(f"{text} AS {name}" for name, text in EXPRESSIONS.items())

    def work() -> None:
        out = path.with_name("out.parquet")
        query = f"SELECT *, {columns} FROM '{path}'"  # noqa: S608 - of our own making
        duckdb.connect().execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION snappy)")
        out.replace(path)

    return work


def copy_peer(path: Path, _: Path) -> Callable[[], object]:
    def work() -> None:
        out = path.with_name("out.parquet")
        with path.open("rb") as source, out.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        out.replace(path)

    return work


PEERS: dict[str, tuple[Callable[[Path, Path], Callable[[], object]], tuple[str, ...]]] = {
    "regraft": (regraft_peer, ("regraft", "duckdb", "pyarrow")),
    "pandas + fastparquet": (fastparquet_peer, ("pandas", "fastparquet")),
    "pandas + pyarrow": (pandas_peer, ("pandas", "pyarrow")),
    "polars": (polars_peer, ("polars",)),
    "duckdb": (duckdb_peer, ("duckdb",)),
    "cp": (copy_peer, ()),
}


def moved() -> tuple[int, int]:
    """Bytes that this process has read and written."""
    said = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(said["rchar"]), int(said["wchar"])


def worker(bench: Bench, peer: str, runs: int, *, once: bool) -> None:
    """One tool in this process; `once`, for a whole process, just does it."""
    make_work, _ = PEERS[peer]
    work = make_work(bench.file(peer), bench.config(peer))
    if once:
        work()
        return
    transfers: list[tuple[int, int]] = []

    def counted() -> None:
        before = moved()
        work()
        after = moved()
        transfers.append((after[0] - before[0], after[1] - before[1]))

    cost = measured(counted, lambda _: bench.deliver(peer), runs)
    read, written = sorted(transfers)[len(transfers) // 2]
    said = bench.check(peer)
    answer = {**cost.to_dict(), "read": read / 1e6, "written": written / 1e6, "note": said}
    sys.stdout.write(json.dumps(answer) + "\n")


def compare(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    bench.prepare()
    found: dict[str, Any] = {}
    for peer, (_, packages) in PEERS.items():
        if any(importlib.util.find_spec(package) is None for package in packages):
            continue
        script = [sys.executable, __file__, "--worker", peer, "--groups", str(bench.groups)]
        script += ["--folder", str(arguments.folder), "--runs", str(arguments.runs)]
        script += ["--quick"] if bench.quick else []
        found[peer] = {"in_process": in_child(script)}
        command = [*script, "--once"]
        if peer == "regraft":
            command = [sys.executable, "-m", "regraft", "parquet", "apply", str(bench.config(peer)), "-q"]
        if peer == "cp":
            command = ["cp", "--reflink=never", str(bench.file(peer)), str(bench.file(peer).with_name("out.parquet"))]

        def deliver(_: int, peer: str = peer) -> None:
            bench.deliver(peer)

        found[peer]["whole"] = whole_process(command, deliver, arguments.runs, bytecode=True).to_dict()
        bench.check(peer)
    return found


def show(bench: Bench, found: dict[str, Any]) -> None:
    rows = []
    base = found.get("pandas + fastparquet", {}).get("in_process", {}).get("cpu")
    for peer, costs in found.items():
        inside, whole = costs["in_process"], costs["whole"]
        ratio = f"{base / inside['cpu']:.1f}" if base and inside["cpu"] else ""
        rows.append(
            (
                peer,
                f"{inside['cpu']:.3f}",
                f"{inside['wall']:.3f}",
                ratio,
                f"{inside['peak']:.0f}",
                f"{inside['read']:.1f}",
                f"{inside['written']:.1f}",
                f"{whole['cpu']:.2f}",
                f"{whole['wall']:.2f}",
            )
        )
    heads = ("", "CPU s", "wall s", "times less CPU", "RSS MB", "read MB", "written MB", "whole: CPU s", "wall s")
    size = bench.source.stat().st_size / 1e6
    groups = f"{bench.groups} row group{'s' if bench.groups > 1 else ''}"
    print(table(f"{bench.rows:,} rows × 170 columns, {size:.0f} MB, {groups}", rows, heads))
    print(found.get("regraft", {}).get("in_process", {}).get("note", ""), "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        bench = Bench(arguments.folder, arguments.groups[0], quick=arguments.quick)
        worker(bench, arguments.worker, arguments.runs, once=arguments.once)
        return
    with tempfile.TemporaryDirectory(prefix="regraft-bench-") as temporary:
        arguments.folder = arguments.folder or Path(temporary)
        everything = {}
        for groups in arguments.groups:
            bench = Bench(arguments.folder, groups, quick=arguments.quick)
            everything[str(groups)] = found = compare(bench, arguments)
            show(bench, found)
        if arguments.json:
            arguments.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
