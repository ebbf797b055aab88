"""How many requests a change costs on S3, counted by a proxy in front of the server, not by the tools themselves.

Cases:
  region   one day overwritten in a store of 4 variables × 12 chunks of 5 × 100 × 100 (the shape of W1): 48 chunks
  far      regions 2, 5, 100 and 4001 of a store of 5,000 steps, revised in one commit

Peers on `region`: xarray with zarr-python over s3fs, where that can be imported. The sources are local files, so that
what is counted is the store.

  python tests/benches/request_counts.py --quick
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import inputs
from counting import Counting, counted
from measuring import table

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

from servers import ACCESS_KEY, SECRET_KEY, Server, ministack

HEADS = ("GET", "HEAD", "LIST", "PUT", "POST", "DELETE", "COPY")


def collection(folder: Path, server: Server, chunks: dict[str, int], bucket: str) -> Any:
    import regraft

    config = {
        "name": "requests",
        "source": {"url": str(folder)},
        "store": {"url": f"s3://{bucket}/store.zarr", "chunks": chunks},
        "region": {"key": "time"},
        "run": {"batch": {"files": 10_000}},
    }
    return regraft.open_collection(config, storage_options={"store": server.storage_options})


def region_case(folder: Path, server: Server, bucket: str) -> dict[str, Counter[str]]:
    shape = (300, 400)
    for day in range(10):
        inputs.write_day(folder / inputs.file_name(day), day, shape)
    opened = collection(folder, server, {"time": 5, "lat": 100, "lon": 100}, bucket)
    opened.sync(progress=False).raise_for_failures()
    (folder / inputs.file_name(4)).unlink()
    inputs.write_day(folder / inputs.file_name(4), 4, shape, version=1)
    plan = opened.plan(progress=False)
    Counting.counts.clear()
    report = plan.apply(progress=False)
    found = {"regraft, apply": Counter(Counting.counts)}
    own = {name.upper(): count for name, count in report["usage"].items() if name.upper() in HEADS}
    found["regraft's own count, source included"] = Counter(own)
    (folder / inputs.file_name(4)).unlink()
    inputs.write_day(folder / inputs.file_name(4), 4, shape)
    Counting.counts.clear()
    opened.sync(progress=False).raise_for_failures()
    found["regraft, plan and apply"] = Counter(Counting.counts)
    if importlib.util.find_spec("s3fs"):
        Counting.counts.clear()
        xarray_region(folder / inputs.file_name(4), server, bucket)
        found["xarray + zarr-python + s3fs"] = Counter(Counting.counts)
    return found


def xarray_region(path: Path, server: Server, bucket: str) -> None:
    import xarray as xr

    options = {"key": ACCESS_KEY, "secret": SECRET_KEY, "client_kwargs": {"endpoint_url": server.endpoint}}
    with xr.open_dataset(path) as dataset:
        values = dataset.drop_vars(["lat", "lon", "time"])
        for variable in values.variables.values():
            variable.encoding.clear()
        url = f"s3://{bucket}/store.zarr"
        values.to_zarr(url, region={"time": slice(4, 5)}, storage_options=options, zarr_format=3, consolidated=True)


def far_case(folder: Path, server: Server, bucket: str, *, quick: bool) -> dict[str, Counter[str]]:
    steps = 500 if quick else 5000
    revised = [2, 5, 100, 401 if quick else 4001]
    shape = (4, 6)
    for day in range(steps):
        inputs.write_day(folder / inputs.file_name(day), day, shape)
    opened = collection(folder, server, {"time": 10, "lat": 4, "lon": 6}, bucket)
    opened.sync(progress=False).raise_for_failures()
    for day in revised:
        (folder / inputs.file_name(day)).unlink()
        inputs.write_day(folder / inputs.file_name(day), day, shape, version=1)
    Counting.counts.clear()
    report = opened.sync(progress=False)
    if report.counts.get("overwrite") != len(revised) or len(report["commits"]) != 1:
        raise SystemExit(f"expected {len(revised)} overwrites in one commit, found {report.to_dict()}")
    name = f"regraft, regions {', '.join(map(str, revised))} of {steps:,}: 3 chunks × 4 variables"
    return {name: Counter(Counting.counts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=("region", "far"), default=["region", "far"])
    parser.add_argument("--quick", action="store_true", help="`far` with 500 steps")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary, ministack(Path(temporary)) as server, counted(server) as counting:
        for case in arguments.case:
            folder = Path(temporary) / case
            bucket = server.new_bucket()
            if case == "region":
                results[case] = region_case(folder, counting, bucket)
            else:
                results[case] = far_case(folder, counting, bucket, quick=arguments.quick)
            rows = [(peer, *(str(counts[head]) for head in HEADS)) for peer, counts in results[case].items()]
            if not arguments.json:
                print(table(f"\n{case}", rows, ("", *HEADS)))
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
