"""How fast a NetCDF day is decoded: 4500 × 6000 cells, 12 bytes each, 324 MB, deflate 4 and shuffle.

regraft decodes into a store in memory without compression, whose chunks are the file's: what is measured is finding the
chunks, reading, inflating, unshuffling, and one copy. Peers: netCDF4 with raw values, xarray with its defaults (values
become floats). The floor is inflating alone, with zlib, in one thread and in as many as there are cores.

  python tests/benches/decode.py --quick
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import inputs
import netCDF4
import numpy as np
from measuring import Cost, in_child, measured, table

SHAPE = (4500, 6000)
QUICK = (900, 1200)
EXTRA = "dt_analysis"
"""A variable more, so that a cell has 2 + 2 + 4 + 4 bytes."""


def write_file(path: Path, shape: tuple[int, int]) -> Path:
    """One day with int16, int16, float32, float32."""
    cut = (1, -(-shape[0] // 3), -(-shape[1] // 3))
    made = inputs.fields(0, shape)
    made.pop("quality_level")
    made[EXTRA] = (made["wind_speed"] * np.float32(0.37)).astype(np.float32)
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("time", None), ("lat", shape[0]), ("lon", shape[1])):
            file.createDimension(name, size)
        time = file.createVariable("time", "i4", ("time",))
        time.units = "days since 1981-01-01"
        time[:] = [inputs.FIRST_DAY]
        for name, values in made.items():
            variable = file.createVariable(
                name,
                values.dtype,
                ("time", "lat", "lon"),
                fill_value=values.dtype.type(-999),
                compression="zlib",
                complevel=4,
                shuffle=True,
                chunksizes=cut,
            )
            variable.set_auto_maskandscale(False)
            variable[0] = values
    return path


def regraft_peer(path: Path) -> tuple[Callable[[], object], Callable[[int], object]]:
    import regraft

    with netCDF4.Dataset(path) as file:
        chunks = dict(zip(("time", "lat", "lon"), file["sst_dtime"].chunking(), strict=True))
    opened: list[regraft.Collection] = []

    def prepare(number: int) -> None:
        config = {
            "name": "decode",
            "source": {"url": str(path.parent), "include": [path.name]},
            "store": {"url": f"memory://decode-{number}/store.zarr", "chunks": chunks, "codec": "none"},
            "region": {"key": "time"},
        }
        opened[:] = [regraft.open_collection(config)]

    return lambda: opened[0].sync(progress=False).raise_for_failures(), prepare


def netcdf4_peer(path: Path) -> tuple[Callable[[], object], Callable[[int], object]]:
    def work() -> None:
        with netCDF4.Dataset(path) as file:
            file.set_auto_maskandscale(False)
            for variable in file.variables.values():
                variable[:]

    return work, lambda number: number


def xarray_peer(path: Path) -> tuple[Callable[[], object], Callable[[int], object]]:
    import xarray as xr

    return lambda: xr.load_dataset(path), lambda number: number


PEERS = {"regraft": regraft_peer, "netCDF4, raw": netcdf4_peer, "xarray, default": xarray_peer}


def floor(path: Path, runs: int) -> dict[str, Cost]:
    deflated = []
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        for name, variable in file.variables.items():
            if name == "time":
                continue
            values, cut = variable[0], variable.chunking()[1:]
            for row in range(0, values.shape[0], cut[0]):
                for column in range(0, values.shape[1], cut[1]):
                    block = np.ascontiguousarray(values[row : row + cut[0], column : column + cut[1]])
                    shuffled = block.view(np.uint8).reshape(-1, block.itemsize).T.tobytes()
                    deflated.append(zlib.compress(shuffled, 4))
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        return {
            "inflate, 1 thread": measured(lambda: [zlib.decompress(b) for b in deflated], lambda number: number, runs),
            f"inflate, {cores} threads": measured(
                lambda: list(pool.map(zlib.decompress, deflated)), lambda number: number, runs
            ),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="measured runs, of which the median counts (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a grid of 900 × 1200, one run")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--worker", nargs=2, metavar=("PEER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work, prepare = PEERS[arguments.worker[0]](Path(arguments.worker[1]))
        print(json.dumps(measured(work, prepare, arguments.runs).to_dict()))
        return
    runs = 1 if arguments.quick else arguments.runs
    with tempfile.TemporaryDirectory() as temporary:
        path = write_file(Path(temporary) / "day.nc", QUICK if arguments.quick else SHAPE)
        results = {name: cost.to_dict() for name, cost in floor(path, runs).items()}
        for peer in PEERS:
            results[peer] = in_child([sys.executable, __file__, "--runs", str(runs), "--worker", peer, str(path)])
        size = path.stat().st_size / 1e6
    if arguments.json:
        print(json.dumps(results))
        return
    base = min(cost["wall"] for cost in results.values())
    rows = [
        (name, f"{cost['wall']:.2f}", f"{cost['cpu']:.2f}", f"{cost['wall'] / base:.2f}", f"{cost['peak']:.0f}")
        for name, cost in results.items()
    ]
    print(table(f"one day, {size:.0f} MB as a file", rows, ("", "wall s", "CPU s", "wall / best", "peak MB")))


if __name__ == "__main__":
    main()
