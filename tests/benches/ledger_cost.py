"""What a commit costs in ledgers of a thousand, a hundred thousand and a million sources.

A store with one step for each source is made, and a log that says which source owns which step; then one new file
is appended at a time. `cold` opens the collection anew for each file, as a Lambda function does; `warm` settles ten
intents one by one in one turn. `status` reads log, checkpoint and axis, and changes nothing.

  python tests/benches/ledger_cost.py --rows 1000 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import regraft
from measuring import peak_memory, table

HOUR = 3_600_000
STEPS_OF_RECORD = 1000
RUNS = 5
WARM = 10


def source(path: Path, first: int, count: int) -> None:
    """A file of hourly steps, four values each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", count)
        file.createDimension("x", 4)
        axis = file.createVariable("time", "f8", ("time",))
        axis.units = "hours since 2020-01-01"
        axis[:] = np.arange(first, first + count)
        data = file.createVariable("sst", "i2", ("time", "x"), fill_value=-9999)
        data.set_auto_maskandscale(False)
        data[:] = np.arange(first, first + count)[:, None] % 1000


def key_of(step: int) -> str:
    return f"hour-{step:08}.nc"


def configuration(folder: Path) -> dict[str, Any]:
    return {
        "kind": "zarr-collection",
        "name": "hours",
        "source": {"url": str(folder / "incoming"), "include": ["hour-*.nc"]},
        "store": {"url": str(folder / "store.zarr"), "chunks": {"time": 1000, "x": 4}},
        "region": {"key": "time", "axis": "sorted"},
        "run": {"batch": {"files": 1}},
    }


def prepare(folder: Path, rows: int) -> regraft.Collection:
    """A store of `rows` steps, and a log that says that each came from a file of its own."""
    everything = configuration(folder)
    everything["source"] = {"url": str(folder / "seed")}
    source(folder / "seed" / "all.nc", 0, rows)
    regraft.open_collection(everything).sync()
    log = folder / "store.zarr.regraft" / "log"
    for record in log.glob("*.json"):
        record.unlink()
    start = 1_577_836_800_000
    for number, first in enumerate(range(0, rows, STEPS_OF_RECORD), 1):
        steps = range(first, min(rows, first + STEPS_OF_RECORD))
        sources = [
            {
                "key": key_of(step),
                "action": "append",
                "version": {"etag": f'"{step:032x}"', "size": 4000, "modified": "2020-01-01T00:00:00Z"},
                "labels": [{"time": start + step * HOUR}],
            }
            for step in steps
        ]
        record = {
            "number": number,
            "epoch": 1,
            "nonce": f"{number:032x}",
            "kind": "commit",
            "collection": "hours",
            "time": "2020-01-01T00:00:00Z",
            "sources": sources,
            "owners": [[{"time": start + step * HOUR}, key_of(step)] for step in steps],
            "axis_length": steps[-1] + 1,
        }
        (log / f"{number:020}.json").write_text(json.dumps(record))
    collection = regraft.open_collection(configuration(folder))
    source(folder / "incoming" / key_of(rows), rows, 1)
    # The first commit after so long a log writes the first checkpoint.
    if rows >= 100 * STEPS_OF_RECORD:
        collection.apply(collection.plan(keys=[key_of(rows)]))
    else:
        few = configuration(folder)
        few["run"]["checkpoint"] = 1
        first_checkpoint = regraft.open_collection(few)
        first_checkpoint.apply(first_checkpoint.plan(keys=[key_of(rows)]))
    return collection


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    return time.perf_counter() - wall, time.process_time() - cpu, answer


def measure(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="regraft-ledger-") as name:
        folder = Path(name)
        began = time.perf_counter()
        prepare(folder, rows)
        prepared = time.perf_counter() - began
        status = timed(lambda: regraft.open_collection(configuration(folder)).status())
        next_step = rows + 1
        cold = []
        for _ in range(RUNS):
            source(folder / "incoming" / key_of(next_step), next_step, 1)

            def commit(key: str = key_of(next_step)) -> dict[str, Any]:
                collection = regraft.open_collection(configuration(folder))
                plan = collection.plan(keys=[key])
                return collection.apply(plan).to_dict()

            cold.append(timed(commit))
            next_step += 1
        keys = [key_of(step) for step in range(next_step, next_step + WARM)]
        for step, key in enumerate(keys, next_step):
            source(folder / "incoming" / key, step, 1)
        collection = regraft.open_collection(configuration(folder))
        collection.submit(keys)
        warm = timed(lambda: collection.drain().to_dict())
        assert len(warm[2]["commits"]) == WARM, warm[2]["commits"]
        usage = cold[-1][2]["usage"]
        files = list((folder / "store.zarr.regraft" / "checkpoint").glob("*"))
        return {
            "rows": rows,
            "checkpoint files": len(files),
            "checkpoint MB": round(sum(file.stat().st_size for file in files) / 1e6, 2),
            "status wall s": round(status[0], 3),
            "cold wall s": round(statistics.median(run[0] for run in cold), 3),
            "cold cpu s": round(statistics.median(run[1] for run in cold), 3),
            "cold requests": sum(usage[name] for name in ("get", "head", "put", "delete", "list", "copy")),
            "cold kB read": round(usage["bytes_read"] / 1000),
            "warm wall s": round(warm[0] / WARM, 3),
            "warm cpu s": round(warm[1] / WARM, 3),
            "warm kB read": round(warm[2]["usage"]["bytes_read"] / WARM / 1000),
            "peak MB": round(peak_memory()),
            "prepared in s": round(prepared, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000])
    arguments = parser.parse_args()
    results = [measure(rows) for rows in arguments.rows]
    heads = tuple(results[0])
    print(table("one file appended", [tuple(str(row[name]) for name in heads) for row in results], heads))


if __name__ == "__main__":
    main()
