"""What `verify` finds: damage to indexes, to filters, and to columns that no step ever read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regraft
from places import Place
from proxy import Proxy, Request, before
from servers import Server

ROWS = 4000


def migrations(url: str, storage_options: dict[str, str] | None = None, **more: Any) -> regraft.MigrationSet:
    config = {
        "name": "proved",
        "data": {"url": url},
        "steps": [{"from": 1, "to": 2, "sql": {"b": "a + 1"}}],
        **more,
    }
    return regraft.open_migrations(config, storage_options=storage_options)


def write(path: Path, rows: int = ROWS, **how: Any) -> bytes:
    chance = np.random.default_rng(7)
    columns = {"a": np.arange(rows), "unread": chance.standard_normal(rows), "word": [f"w{row}" for row in range(rows)]}
    how = {"row_group_size": rows // 2 or 1, "data_page_size": 4096, "write_page_index": True} | how
    pq.write_table(pa.table(columns), path, use_dictionary=False, compression=None, **how)
    return path.read_bytes()


def damage(path: Path, place: int) -> None:
    """One bit, as a disk would do it: nobody is told."""
    stat, body = path.stat(), bytearray(path.read_bytes())
    body[place] ^= 1
    with path.open("r+b") as file:
        file.write(body)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def offset_index(path: Path, column: int) -> int:
    """Where the offset index of a column of the first row group lies, found by what it says."""
    chunk = pq.read_metadata(path).row_group(0).column(column)
    assert chunk.has_offset_index
    return path.read_bytes().rindex(zigzag(chunk.data_page_offset))


def zigzag(number: int) -> bytes:
    """A number as Thrift's compact protocol writes it, with the header of the field before it."""
    number, out = number << 1, bytearray(b"\x16")
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize("layout", ["widened", "contiguous"])
def test_page_indexes_are_looked_at(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "one.parquet"
    write(path)
    sets = migrations(str(tmp_path), layout=layout)
    report = sets.plan(progress=False).apply(progress=False)
    report.raise_for_failures()
    checked = sets.verify(progress=False)
    assert checked["outcome"] == "ok"
    assert "page indexes" in checked["objects"][0]["checked"]
    good = path.read_bytes()
    names = pq.read_schema(path).names
    # A kept column that is read, one that is not, and the new one.
    for name in ("a", "unread", "b"):
        stat = path.stat()
        damage(path, offset_index(path, names.index(name)) + 1)
        found = sets.verify(progress=False)
        assert found["outcome"] == "failed", name
        (item,) = found.failed
        assert f"column `{name}` of row group `0`" in item["message"], name
        assert "offset index" in item["message"], name
        path.write_bytes(good)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sets.verify(progress=False)["outcome"] == "ok"
    # Footers alone do not tell.
    assert sets.verify(1e-9, progress=False)["totals"]["sampled"] == 0


@pytest.mark.s3
@pytest.mark.parametrize(("name", "rows"), [("ministack", ROWS), ("ministack", 400_000), ("weed", 400_000)])
def test_columns_that_no_step_reads_are_proved(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, rows: int
) -> None:
    """A small file by the checksum of what was read whole, a large one by the `ETag` that it had."""
    server: Server = request.getfixturevalue(f"{name}_server")
    place = Place(tmp_path, server, server.new_bucket())
    body = write(place.directory / "made.parquet", rows)
    assert (len(body) > 5 << 20) == (rows > ROWS)
    place.put("set/one.parquet", body)
    with before(server) as proxy:
        proved_and_damaged(place, proxy, pq.read_metadata(place.directory / "made.parquet").row_group(0).column(1))


def proved_and_damaged(place: Place, proxy: Proxy, unread: Any) -> None:
    sets = migrations(place.url("set/"), proxy.server.storage_options)
    sets.plan(progress=False).apply(progress=False).raise_for_failures()
    assert "prefix" not in sets.verify(progress=False)["objects"][0]["checked"]
    checked = sets.verify(full=True, progress=False)
    assert checked["outcome"] == "ok"
    assert "prefix" in checked["objects"][0]["checked"]
    assert checked["totals"]["unproved"] == 0

    damaged = unread.data_page_offset + unread.total_compressed_size // 2

    def flip(request: Request, start: int, content: bytes) -> bytes:
        body = bytearray(content)
        if request.path.endswith("one.parquet") and 0 <= damaged - start < len(body):
            body[damaged - start] ^= 1
        return bytes(body)

    proxy.alter = flip
    assert sets.verify(progress=False)["outcome"] == "ok"
    found = sets.verify(full=True, progress=False)
    assert found["outcome"] == "failed"
    assert "of the file before, found" in found.failed[0]["message"]


def test_what_nothing_proves_is_said(tmp_path: Path) -> None:
    write(tmp_path / "one.parquet")
    sets = migrations(str(tmp_path))
    sets.plan(progress=False).apply(progress=False).raise_for_failures()
    checked = sets.verify(full=True, progress=False)
    assert (checked["outcome"], checked["totals"]["unproved"]) == ("ok", 1)
    assert "columns that no step reads are not proved" in checked["objects"][0]["message"]
    assert "1 file with columns that nothing proves" in repr(checked)
