"""What a commit costs in ledgers of a thousand, a hundred thousand and a million sources.

A store with one step for each source is made, and a log that says which source owns which step; then one new file
is appended at a time, asked for by an intent. `cold` opens the collection anew for each file, as a Lambda function
does; `kept` goes on with one that is open, as a worker does that waits for events; `one turn` settles ten intents one
by one. `overwritten` revises a file in the middle, cold. `status` reads log, checkpoint and the ends of the axis.

`--region` revises a step of 200,000 values, ten steps in a chunk, in the middle of a store of few and of many steps,
all others of which are empty.

  python tests/benches/ledger_cost.py --rows 1000 100000 1000000
  python tests/benches/ledger_cost.py --rows --region 10 10000
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
REVISIONS = 15
REQUESTS = ("get", "head", "put", "delete", "list", "copy")


def source(path: Path, first: int, count: int, width: int = 4, version: int = 0, *, empty: bool = False) -> None:
    """A file of hourly steps, `width` values each; an empty one holds labels and no values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format="NETCDF4" if empty else "NETCDF3_CLASSIC") as file:
        file.createDimension("time", count)
        file.createDimension("x", width)
        axis = file.createVariable("time", "f8", ("time",))
        axis.units = "hours since 2020-01-01"
        axis[:] = np.arange(first, first + count)
        data = file.createVariable("sst", "i2", ("time", "x"), fill_value=-9999)
        data.set_auto_maskandscale(False)
        if not empty:
            data[:] = np.arange(first, first + count)[:, None] % 1000 + version + np.arange(width) % 7


def key_of(step: int) -> str:
    return f"hour-{step:08}.nc"


def configuration(folder: Path, chunks: dict[str, int] | None = None) -> dict[str, Any]:
    return {
        "kind": "zarr-collection",
        "name": "hours",
        "source": {"url": str(folder / "incoming"), "include": ["hour-*.nc"]},
        "store": {"url": str(folder / "store.zarr"), "chunks": chunks or {"time": 1000, "x": 4}},
        "region": {"key": "time", "axis": "sorted"},
        "run": {"batch": {"files": 1}},
    }


def prepare(folder: Path, rows: int, width: int = 4, chunks: dict[str, int] | None = None) -> None:
    """A store of `rows` steps, and a log that says that each came from a file of its own."""
    everything = configuration(folder, chunks)
    everything["source"] = {"url": str(folder / "seed")}
    source(folder / "seed" / "all.nc", 0, rows, width, empty=chunks is not None)
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
    collection = regraft.open_collection(configuration(folder, chunks))
    source(folder / "incoming" / key_of(rows), rows, 1, width)
    # The first commit after so long a log writes the first checkpoint.
    if rows >= 100 * STEPS_OF_RECORD:
        collection.apply(collection.plan(keys=[key_of(rows)]))
    else:
        few = configuration(folder, chunks)
        few["run"]["checkpoint"] = 1
        first_checkpoint = regraft.open_collection(few)
        first_checkpoint.apply(first_checkpoint.plan(keys=[key_of(rows)]))


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    return time.perf_counter() - wall, time.process_time() - cpu, answer


def commit(collection: regraft.Collection, key: str) -> tuple[float, float, int]:
    """Settles one intent: wall and CPU seconds, and all requests but those of submitting it."""
    collection.submit([key])
    wall, cpu, report = timed(lambda: collection.drain().to_dict())
    assert len(report["commits"]) == 1, report["outcome"]
    return wall, cpu, sum(report["usage"][name] for name in REQUESTS)


def summary(kind: str, runs: list[tuple[float, float, int]]) -> dict[str, Any]:
    return {
        f"{kind} wall ms": round(1000 * statistics.median(run[0] for run in runs), 1),
        f"{kind} cpu ms": round(1000 * statistics.median(run[1] for run in runs), 1),
        f"{kind} requests": round(statistics.median(run[2] for run in runs)),
    }


def measure(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="regraft-ledger-") as name:
        folder = Path(name)
        began = time.perf_counter()
        prepare(folder, rows)
        prepared = time.perf_counter() - began
        status = timed(lambda: regraft.open_collection(configuration(folder)).status())
        steps = iter(range(rows + 1, 2 * rows + 100))

        def arrive(step: int) -> str:
            source(folder / "incoming" / key_of(step), step, 1, version=1)
            return key_of(step)

        # The first one reads the whole axis where nothing says yet that it is in order.
        commit(regraft.open_collection(configuration(folder)), arrive(next(steps)))
        cold = [commit(regraft.open_collection(configuration(folder)), arrive(next(steps))) for _ in range(RUNS)]
        stays = regraft.open_collection(configuration(folder))
        kept = [commit(stays, arrive(next(steps))) for _ in range(RUNS + 1)][1:]
        stays.submit([arrive(next(steps)) for _ in range(WARM)])
        turn = timed(lambda: stays.drain().to_dict())
        assert len(turn[2]["commits"]) == WARM, turn[2]["commits"]
        middle = range(rows // 2, rows // 2 + RUNS)
        overwritten = [commit(regraft.open_collection(configuration(folder)), arrive(step)) for step in middle]
        files = list((folder / "store.zarr.regraft" / "checkpoint").glob("*"))
        return {
            "rows": rows,
            "checkpoint files": len(files),
            "checkpoint MB": round(sum(file.stat().st_size for file in files) / 1e6, 2),
            "status ms": round(1000 * status[0]),
            **summary("cold", cold),
            **summary("overwritten", overwritten),
            **summary("kept", kept),
            "one turn wall ms": round(1000 * turn[0] / WARM, 1),
            "one turn cpu ms": round(1000 * turn[1] / WARM, 1),
            "peak MB": round(peak_memory()),
            "prepared in s": round(prepared, 1),
        }


def measure_region(steps: int) -> dict[str, Any]:
    """One step in the middle of many, revised again and again."""
    with tempfile.TemporaryDirectory(prefix="regraft-region-") as name:
        folder, chunks, width = Path(name), {"time": 10, "x": 50_000}, 200_000
        prepare(folder, steps, width, chunks)
        versions = iter(range(1, 1000))

        def revise() -> str:
            path = folder / "incoming" / key_of(steps // 2)
            path.unlink(missing_ok=True)
            source(path, steps // 2, 1, width, next(versions))
            return path.name

        stays = regraft.open_collection(configuration(folder, chunks))
        commit(stays, revise())
        cold = [commit(regraft.open_collection(configuration(folder, chunks)), revise()) for _ in range(REVISIONS)]
        kept = [commit(stays, revise()) for _ in range(REVISIONS + 1)][1:]
        return {"steps": steps, **summary("cold", cold), **summary("kept", kept)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 100_000])
    parser.add_argument("--region", type=int, nargs="*", default=[], metavar="STEPS")
    arguments = parser.parse_args()
    for title, wanted, measured in (
        ("one file a commit", arguments.rows, measure),
        ("one region revised", arguments.region, measure_region),
    ):
        results = [measured(size) for size in wanted]
        if results:
            # A row for each number: there are more of them than sizes.
            rows = [tuple(str(result[head]) for result in results) for head in results[0]]
            named = [(head, *row) for head, row in zip(results[0], rows, strict=True)]
            print(table(title, named[1:], named[0]))


if __name__ == "__main__":
    main()
