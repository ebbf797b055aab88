"""What a small change of a big store costs, beside other tools, on the same files, in the same run.

Cases (design, section 9; `--case` picks some):
  W1     one day overwritten, chunks 5 × 500 × 500, zstd 3: every touched chunk is read, patched and written
  W1b    one day overwritten, chunks 1 × 500 × 500: nothing has to be read
  ten    ten days revised that share one time chunk (10 × 500 × 500): one commit, and file by file; one run, no warm-up
  shard  one day into a shard of 30 days, inner chunks 1 × 500 × 500; and the whole shard decoded and encoded again
  pass   ten days appended, chunks and codecs as the files have them: encoded bytes are copied; beside `cp` of the files

Peers: xarray with zarr-python, tensorstore where it can be imported. Each works on a copy of the same store, in a
process of its own; the result is compared with the file, value by value. The floor is what nobody can avoid: inflate
the file's chunks, decompress the store's touched chunks, compress them again, in one thread, without any I/O, by zlib
and zstd as numcodecs has them. CPU seconds are the number to compare on a machine that does other work; wall seconds
need a quiet one. Whole processes find compiled bytecode, as installed packages have it; `--no-bytecode` takes it away.

  python tests/benches/region_update.py --quick          a minute, a small grid: shows that it runs
  python tests/benches/region_update.py --case W1 W1b    the real thing
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from measuring import Cost, in_child, measured, table, whole_process

CASES: dict[str, dict[str, Any]] = {
    "W1": {"chunk": 5, "shard": None, "days": 10, "revised": [4]},
    "W1b": {"chunk": 1, "shard": None, "days": 10, "revised": [4]},
    # Whoever goes file by file works for most of a minute: once says enough, and nobody starts ten processes for it.
    "ten": {"chunk": 10, "shard": None, "days": 10, "revised": list(range(10)), "once": True},
    "shard": {"chunk": 1, "shard": 30, "days": 30, "revised": [14]},
    "pass": {
        "chunk": 1,
        "shard": None,
        "days": 11,
        "revised": list(range(1, 11)),
        "codec": "source",
        "format": "zarr2",
        "append": True,
    },
}


class Bench:
    """One case on a disk: files in two versions, a store, a configuration."""

    def __init__(self, folder: Path, case: str, *, quick: bool) -> None:
        self.case, self.quick = case, quick
        self.settings = CASES[case]
        self.shape = inputs.QUICK if quick else inputs.FULL
        cell = 100 if quick else 500
        as_file = (-(-self.shape[0] // 3), -(-self.shape[1] // 3))
        self.cells = as_file if self.settings.get("codec") == "source" else (cell, cell)
        size = "quick" if quick else "full"
        self.made = folder / f"files-{size}"
        self.folder = folder / f"{case}-{size}"
        self.incoming = self.folder / "incoming"
        self.config = self.folder / "bench.yaml"

    def source(self, day: int, version: int) -> Path:
        return self.made / f"v{version}" / inputs.file_name(day)

    def store(self, peer: str) -> Path:
        """The store that a peer works on: regraft on the collection's own, the others on a copy."""
        return self.folder / ("store.zarr" if peer.startswith("regraft") else f"{peer.split()[0]}.zarr")

    def prepare(self) -> None:
        """Makes the files and the store, once; regraft builds it, zarr-python and tensorstore read it."""
        import regraft

        for day in range(self.settings["days"]):
            inputs.write_day(self.source(day, 0), day, self.shape)
        for day in self.settings["revised"]:
            inputs.write_day(self.source(day, 1), day, self.shape, 1)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.incoming.mkdir(parents=True)
        appended = self.settings["revised"] if self.settings.get("append") else []
        for day in range(self.settings["days"]):
            if day not in appended:
                shutil.copyfile(self.source(day, 0), self.incoming / inputs.file_name(day))
        chunks = {"time": self.settings["chunk"], "lat": self.cells[0], "lon": self.cells[1]}
        store: dict[str, Any] = {"url": "store.zarr", "chunks": chunks}
        store |= {"format": self.settings.get("format", "zarr3"), "codec": self.settings.get("codec", "zstd")}
        if self.settings["shard"]:
            store["shards"] = {**chunks, "time": self.settings["shard"]}
        config = {"kind": "zarr-collection", "name": self.case.lower(), "source": {"url": "incoming"}}
        config |= {"store": store, "region": {"key": "time"}}
        self.config.write_text(json.dumps(config))
        report = regraft.open_collection(self.config).sync(progress=False)
        report.raise_for_failures()
        for kept in (".zarr", ".zarr.regraft"):
            shutil.copytree(self.folder / f"store{kept}", self.folder / f"original{kept}")

    def deliver(self, number: int) -> None:
        """Lets revised files arrive: versions take turns, so that every run has something to do."""
        version = (number + 1) % 2
        if self.settings.get("append"):
            # The store as it was before the day came.
            for kept in (".zarr", ".zarr.regraft"):
                shutil.rmtree(self.folder / f"store{kept}")
                shutil.copytree(self.folder / f"original{kept}", self.folder / f"store{kept}")
        for day in self.settings["revised"]:
            partial = self.incoming / "next.partial"
            shutil.copyfile(self.source(day, version), partial)
            partial.rename(self.incoming / inputs.file_name(day))

    def check(self, store: Path) -> None:
        """The revised days of a store are the files' values, all others are untouched."""
        import zarr

        if store == self.store("cp"):
            return
        group = zarr.open_group(store, mode="r")
        for day in range(self.settings["days"]):
            for name, expected in inputs.read_raw(self.incoming / inputs.file_name(day)).items():
                found = group[name][day : day + 1]
                if not np.array_equal(found, expected):
                    raise SystemExit(f"{store}: `{name}` of day {day} is wrong")

    def check_kept(self, store: Path) -> str:
        """Every inner chunk of another day has the very bytes that it had before."""
        kept = 0
        original = self.folder / "original.zarr"
        for path in sorted(original.rglob("c/0/*/*")):
            shards = (path, store / path.relative_to(original))
            before, after = (inner_chunks(shard, self.settings["shard"]) for shard in shards)
            for day, (old, new) in enumerate(zip(before, after, strict=True)):
                if day in self.settings["revised"]:
                    continue
                if old != new:
                    raise SystemExit(f"{path}: the inner chunk of day {day} was encoded again")
                kept += old is not None
        return f"{kept} inner chunks of other days are byte for byte as before"


def inner_chunks(shard: Path, days: int) -> list[bytes | None]:
    """The encoded chunks of a shard; its index is at its end: offset and length of each, then a CRC-32C."""
    content = shard.read_bytes()
    index = np.frombuffer(content[-4 - 16 * days : -4], "<u8").reshape(days, 2)
    absent = np.iinfo("u8").max
    return [None if start == absent else content[start : start + length] for start, length in index.tolist()]


def regraft_peer(bench: Bench, store: Path) -> Callable[[], object]:
    """One sync: all that was revised in one commit; the store is the configuration's."""
    import regraft

    collection = regraft.open_collection(bench.config)
    action = "append" if bench.settings.get("append") else "overwrite"

    def work() -> None:
        report = collection.sync(progress=False)
        if report.counts.get(action) != len(bench.settings["revised"]):
            raise SystemExit(f"expected {action}, found {report.counts}")

    return work


def copy_peer(bench: Bench, store: Path) -> Callable[[], object]:
    """The file copied beside the store, durable as the store is."""

    def work() -> None:
        for day in bench.settings["revised"]:
            with (
                (bench.incoming / inputs.file_name(day)).open("rb") as source,
                store.with_suffix(".nc").open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 1 << 20)
                os.fsync(target.fileno())

    return work


def regraft_single_peer(bench: Bench, store: Path) -> Callable[[], object]:
    """File by file: what one event for each file costs."""
    import regraft

    collection = regraft.open_collection(bench.config)

    def work() -> None:
        for day in bench.settings["revised"]:
            collection.plan([inputs.file_name(day)], progress=False).apply(progress=False)

    return work


def xarray_peer(bench: Bench, store: Path) -> Callable[[], object]:
    """What its documentation shows: open, then write a region; values are decoded and encoded on the way."""
    import xarray as xr

    def work() -> None:
        for day in bench.settings["revised"]:
            with xr.open_dataset(bench.incoming / inputs.file_name(day)) as dataset:
                values = dataset.drop_vars(["lat", "lon", "time"])
                for variable in values.variables.values():
                    variable.encoding.clear()
                values.to_zarr(store, region={"time": slice(day, day + 1)}, zarr_format=3, consolidated=True)

    return work


def tensorstore_peer(bench: Bench, store: Path) -> Callable[[], object]:
    """Raw values from netCDF4 into its arrays, all variables at once."""
    import tensorstore

    def work() -> None:
        for day in bench.settings["revised"]:
            values = inputs.read_raw(bench.incoming / inputs.file_name(day))
            opened = {
                name: tensorstore.open(
                    {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store}/{name}/"}}, open=True
                )
                for name in values
            }
            writes = [opened[name].result()[day : day + 1].write(array) for name, array in values.items()]
            for write in writes:
                write.result()

    return work


def tensorstore_whole_peer(bench: Bench, store: Path) -> Callable[[], object]:
    """The whole shard decoded, one day replaced, all of it encoded again: what a writer without partial shards does."""
    import tensorstore

    def work() -> None:
        days = bench.settings["shard"]
        for day in bench.settings["revised"]:
            for name, values in inputs.read_raw(bench.incoming / inputs.file_name(day)).items():
                kvstore = {"driver": "file", "path": f"{store}/{name}/"}
                array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
                first = day // days * days
                block = array[first : first + days].read().result()
                block[day - first] = values[0]
                array[first : first + days].write(block).result()

    return work


PEERS = {
    "cp": copy_peer,
    "regraft": regraft_peer,
    "regraft, file by file": regraft_single_peer,
    "xarray + zarr-python": xarray_peer,
    "tensorstore": tensorstore_peer,
    "tensorstore, whole shard": tensorstore_whole_peer,
}


def floor(bench: Bench, runs: int) -> dict[str, Cost]:
    """Inflate, decompress and compress what the update touches: one thread, from memory to memory."""
    from numcodecs import Zstd

    zstd = Zstd(level=3)
    chunk = bench.settings["chunk"]
    height, width = bench.cells
    deflated, compressed, plain = [], [], []
    for day in bench.settings["revised"]:
        deflated += inputs.read_encoded(bench.source(day, 1))
    starts = sorted({day // chunk * chunk for day in bench.settings["revised"]})
    for start in starts:
        days = [inputs.read_raw(bench.source(day, 0)) for day in range(start, start + chunk)]
        for name in inputs.VARIABLES:
            stacked = np.concatenate([day[name] for day in days])
            for row in range(0, bench.shape[0], height):
                for column in range(0, bench.shape[1], width):
                    block = np.full((chunk, height, width), inputs.FILLS[name], dtype=stacked.dtype)
                    part = stacked[:, row : row + height, column : column + width]
                    block[:, : part.shape[1], : part.shape[2]] = part
                    plain.append(block.tobytes())
                    compressed.append(zstd.encode(plain[-1]))
    # A chunk that is written whole is not read.
    reads = compressed if len(bench.settings["revised"]) < chunk * len(starts) else []
    steps: dict[str, Callable[[], object]] = {
        "inflate": lambda: [zlib.decompress(block) for block in deflated],
        "decompress": lambda: [zstd.decode(block) for block in reads],
        "compress": lambda: [zstd.encode(block) for block in plain],
    }
    return {name: measured(step, lambda number: number, runs) for name, step in steps.items()}


def worker(bench: Bench, peer: str, runs: int, warm_ups: int) -> None:
    """Measures one peer in this process and prints one line of JSON."""
    store = bench.store(peer)
    if not peer.startswith("regraft"):
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(bench.folder / "original.zarr", store)
    cost = measured(PEERS[peer](bench, store), bench.deliver, runs, warm_ups)
    bench.check(store)
    kept = bench.check_kept(store) if peer == "regraft" and bench.settings["shard"] else ""
    print(json.dumps({**cost.to_dict(), "kept": kept}))


def compare(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every peer on one case, the floor first."""
    script = [sys.executable, __file__, "--folder", str(arguments.folder), *(["--quick"] if arguments.quick else [])]
    once = bench.settings.get("once", False)
    runs, warm_ups = (1, 0) if once else (arguments.runs, 1)
    found: dict[str, Any] = {"floor": {name: cost.to_dict() for name, cost in floor(bench, runs).items()}}
    peers = ["cp", "regraft"] if bench.settings.get("append") else ["regraft", "xarray + zarr-python"]
    peers += ["regraft, file by file"] if len(bench.settings["revised"]) > 1 else []
    if importlib.util.find_spec("tensorstore") and not bench.settings.get("append"):
        peers += ["tensorstore", *(["tensorstore, whole shard"] if bench.settings["shard"] else [])]
    for peer in peers:
        options = ["--worker", peer, "--case", bench.case, "--runs", str(runs), "--warm-ups", str(warm_ups)]
        found[peer] = {"in_process": in_child([*script, *options])}
        if arguments.processes and not once and "," not in peer and peer != "cp":
            command = [sys.executable, "-m", "regraft", "zarr", "sync", str(bench.config), "--quiet"]
            if peer != "regraft":
                command = [*script, "--worker", peer, "--case", bench.case, "--once"]
            cost = whole_process(command, bench.deliver, runs, bytecode=arguments.bytecode)
            found[peer]["process"] = cost.to_dict()
    return found


def show(case: str, found: dict[str, Any]) -> None:
    base = sum(step["cpu"] for step in found["floor"].values())
    parts = ", ".join(f"{name} {step['cpu']:.2f}" for name, step in found["floor"].items())
    rows = [("floor, one thread", "", f"{base:.2f}", "1.00", "", "", "", "")]
    for peer, costs in found.items():
        if peer == "floor":
            continue
        inside, outside = costs["in_process"], costs.get("process")
        rows.append(
            (
                peer,
                f"{inside['wall']:.2f}",
                f"{inside['cpu']:.2f}",
                f"{inside['cpu'] / base:.2f}",
                f"{inside['cpu'] / inside['wall']:.2f}",
                f"{inside['peak']:.0f}",
                f"{outside['wall']:.2f}" if outside else "",
                f"{outside['cpu']:.2f}" if outside else "",
            )
        )
    heads = ("", "wall s", "CPU s", "CPU / floor", "cores", "peak MB", "process wall s", "process CPU s")
    print(table(f"\n{case}   (floor, CPU s: {parts})", rows, heads))
    for peer, costs in found.items():
        if costs.get("in_process", {}).get("kept"):
            print(f"{peer}: {costs['in_process']['kept']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), help="which (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="measured runs, of which the median counts (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a grid of 450 × 600, one run")
    parser.add_argument("--folder", type=Path, help="keep files and stores here (default: a temporary folder)")
    parser.add_argument("--no-processes", dest="processes", action="store_false", help="leave out whole processes")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--no-bytecode", dest="bytecode", action="store_false", help="Python compiles at each start")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--warm-ups", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        bench = Bench(arguments.folder, arguments.case[0], quick=arguments.quick)
        if arguments.once:
            PEERS[arguments.worker](bench, bench.store(arguments.worker))()
        else:
            worker(bench, arguments.worker, arguments.runs, arguments.warm_ups)
        return
    if arguments.quick:
        arguments.runs = 1
    with tempfile.TemporaryDirectory() as temporary:
        arguments.folder = (arguments.folder or Path(temporary)).absolute()
        results = {}
        for case in arguments.case:
            bench = Bench(arguments.folder, case, quick=arguments.quick)
            bench.prepare()
            results[case] = compare(bench, arguments)
            if not arguments.json:
                show(case, results[case])
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
