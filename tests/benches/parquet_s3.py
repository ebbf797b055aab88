"""What four new columns cost in a wide file on S3: CPU of the client, bytes over the wire, requests.

The file is that of `parquet_columns.py`. The server is ministack in a process of its own, and a proxy in front of it
counts requests and bytes: neither is part of what is measured, the CPU of the process that does the work. Peers fetch
the object with boto3, compute, and put the new one, as the scripts do that this job replaces; `cp` fetches and puts it
as it is. Of regraft it is shown that the old object is the beginning of the new one.

  python tests/benches/parquet_s3.py --quick        few rows: shows that it runs
  python tests/benches/parquet_s3.py                the real thing
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parquet_columns
from counting import Counting, counted
from measuring import in_child, measured, table

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

from servers import Server, ministack

KEY = "set/file.parquet"


def regraft_peer(server: Server, bucket: str) -> Callable[[], object]:
    import regraft

    config = {
        "name": "bench",
        "data": {"url": f"s3://{bucket}/set/"},
        "steps": [{"from": 1, "to": 2, "sql": parquet_columns.EXPRESSIONS}],
    }
    migrations = regraft.open_migrations(config, storage_options=server.storage_options)

    def work() -> None:
        migrations.plan(progress=False).apply(progress=False).raise_for_failures()

    return work


def script_peer(change: Callable[[bytes], bytes]) -> Callable[[Server, str], Callable[[], object]]:
    """Get, change, put."""

    def peer(server: Server, bucket: str) -> Callable[[], object]:
        client = server.client()

        def work() -> None:
            body = client.get_object(Bucket=bucket, Key=KEY)["Body"].read()
            client.put_object(Bucket=bucket, Key=KEY, Body=change(body))

        return work

    return peer


def pandas_pyarrow(body: bytes) -> bytes:
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(body), engine="pyarrow")
    for name, values in parquet_columns.formulas(frame["d000"], frame["d001"]).items():
        frame[name] = values
    return bytes(frame.to_parquet(None, engine="pyarrow", compression="snappy"))


def pandas_fastparquet(body: bytes) -> bytes:
    import fastparquet

    frame = fastparquet.ParquetFile(io.BytesIO(body)).to_pandas()
    for name, values in parquet_columns.formulas(frame["d000"], frame["d001"]).items():
        frame[name] = values
    return bytes(frame.to_parquet(None, engine="fastparquet", compression="SNAPPY"))


def polars(body: bytes) -> bytes:
    import polars as pl

    made = parquet_columns.formulas(pl.col("d000"), pl.col("d001"), lambda column: column.exp())
    out = io.BytesIO()
    pl.read_parquet(io.BytesIO(body)).with_columns(**made).write_parquet(out, compression="snappy")
    return out.getvalue()


PEERS: dict[str, tuple[Callable[[Server, str], Callable[[], object]], tuple[str, ...]]] = {
    "regraft": (regraft_peer, ("regraft", "duckdb")),
    "pandas + fastparquet": (script_peer(pandas_fastparquet), ("pandas", "fastparquet")),
    "pandas + pyarrow": (script_peer(pandas_pyarrow), ("pandas", "pyarrow")),
    "polars": (script_peer(polars), ("polars",)),
    "cp (get and put)": (script_peer(bytes), ()),
}


def check(server: Server, bucket: str, peer: str, source: bytes) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    body = server.client().get_object(Bucket=bucket, Key=KEY)["Body"].read()
    if peer.startswith("cp"):
        if body != source:
            raise SystemExit("cp: another object than before")
        return
    old, new = pq.read_table(io.BytesIO(source)), pq.read_table(io.BytesIO(body))
    for name, wanted in parquet_columns.formulas(old["d000"].to_numpy(), old["d001"].to_numpy()).items():
        if not np.allclose(new[name].to_numpy(), wanted, rtol=1e-9, atol=1e-9):
            raise SystemExit(f"{peer}: `{name}` is not what numpy computes")
    for name in old.schema.names:
        if not new[name].cast(old[name].type).equals(old[name]):
            raise SystemExit(f"{peer}: `{name}` is not what it was")
    if peer == "regraft" and body[: len(source)] != source:
        raise SystemExit("regraft: the old object is not the beginning of the new one")


def worker(arguments: argparse.Namespace) -> None:
    """One tool in this process; says how many times it worked, for the counts of the proxy."""
    server, direct = Server("counted", arguments.endpoint), Server("direct", arguments.direct)
    source = arguments.source.read_bytes()
    work = PEERS[arguments.worker][0](server, arguments.bucket)

    def deliver(_: int) -> None:
        # Deleted first: ministack keeps the tags of what is overwritten.
        direct.client().delete_object(Bucket=arguments.bucket, Key=KEY)
        direct.client().put_object(Bucket=arguments.bucket, Key=KEY, Body=source)

    cost = measured(work, deliver, arguments.runs)
    check(direct, arguments.bucket, arguments.worker, source)
    sys.stdout.write(json.dumps({**cost.to_dict(), "times": arguments.runs + 1}) + "\n")


def compare(server: Server, counting: Server, source: Path, runs: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for peer, (_, packages) in PEERS.items():
        if any(importlib.util.find_spec(package) is None for package in packages):
            continue
        bucket = server.new_bucket()
        Counting.counts.clear()
        Counting.moved.clear()
        script = [
            sys.executable,
            __file__,
            "--worker",
            peer,
            "--endpoint",
            counting.endpoint,
            "--direct",
            server.endpoint,
        ]
        cost = in_child([*script, "--bucket", bucket, "--source", str(source), "--runs", str(runs)])
        times = cost["times"]
        requests = sum(Counting.counts.values()) / times
        moved = {way: count / times / 1e6 for way, count in Counting.moved.items()}
        found[peer] = {**cost, "requests": requests, "received": moved["to"], "sent": moved["from"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="write all numbers here")
    for hidden in ("--worker", "--endpoint", "--direct", "--bucket"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    rows = parquet_columns.QUICK if arguments.quick else parquet_columns.FULL
    everything = {}
    with tempfile.TemporaryDirectory(prefix="regraft-bench-") as temporary:
        folder = Path(temporary)
        with ministack(folder) as server, counted(server) as counting:
            for groups in arguments.groups:
                source = folder / f"source-{groups}.parquet"
                parquet_columns.make(source, rows, groups)
                everything[str(groups)] = found = compare(server, counting, source, arguments.runs)
                base = found.get("pandas + fastparquet", {}).get("cpu")
                lines = [
                    (
                        peer,
                        f"{cost['cpu']:.3f}",
                        f"{cost['wall']:.3f}",
                        f"{base / cost['cpu']:.1f}" if base else "",
                        f"{cost['peak']:.0f}",
                        f"{cost['received']:.2f}",
                        f"{cost['sent']:.2f}",
                        f"{cost['requests']:.0f}",
                    )
                    for peer, cost in found.items()
                ]
                heads = ("", "CPU s", "wall s", "times less CPU", "RSS MB", "received MB", "sent MB", "requests")
                size = source.stat().st_size / 1e6
                print(table(f"\n{rows:,} rows × 170 columns, {size:.0f} MB, row groups: {groups}", lines, heads))
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
