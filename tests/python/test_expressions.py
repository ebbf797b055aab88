"""SQL steps: what is allowed, what it gives, and that it is the same at every try."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regraft.errors import InvalidError
from regraft.expressions import Expressions

BATCH = pa.record_batch(
    {
        "temp_c": [20.0, None, -3.5],
        "rh": [50.0, 60.0, 100.0],
        "count": [1, 2, None],
        "My Col": ["a", None, "c"],
        "dotted.name": [1, 2, 3],
        "position": [{"x": 1.0, "y": 2.0}, None, {"x": 3.0, "y": None}],
        "values": [[1, 2], None, []],
        "tags": ['{"a": 1}', None, "{}"],
        "moment": pa.array([0, 86_400_000_000, None], pa.timestamp("us")),
        "moment_utc": pa.array([0, 1, None], pa.timestamp("ns", "Europe/Berlin")),
        "kind": pa.array(["x", "y", None]).dictionary_encode(),
        "day": pa.array([0, 1, None], pa.date32()),
        "price": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("2.25")], pa.decimal128(10, 2)),
        "small": pa.array([1, 2, 3], pa.uint8()),
        "wide": pa.array(["p", "q", "r"], pa.large_string()),
        "raw": [b"a", b"b", None],
        "flag": [True, False, None],
    }
)


def computed(text: str, declared: dict[str, pa.DataType] | None = None) -> pa.Array:
    step = Expressions({"new": text}, declared)
    bound = step.bind(BATCH.schema)
    result = step.compute(BATCH.select(bound.reads))
    assert result.schema == bound.adds
    return result.column(0)


def refused(text: str) -> str:
    with pytest.raises(InvalidError) as caught:
        Expressions({"new": text}).bind(BATCH.schema)
    assert caught.value.message.startswith("`new`: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "reads", "values"),
    [
        ("temp_c - (100 - rh) / 5", ["temp_c", "rh"], [10.0, None, -3.5]),
        ("TEMP_C + 1", ["temp_c"], [21.0, None, -2.5]),
        ('"my col" || \'!\'', ["My Col"], ["a!", None, "c!"]),
        ('"dotted.name" * 2', ["dotted.name"], [2, 4, 6]),
        ("position.x", ["position"], [1.0, None, 3.0]),
        ("position['y']", ["position"], [2.0, None, None]),
        ("list_transform(values, lambda temp_c: temp_c + 1)", ["values"], [[2, 3], None, []]),
        ("[value * 2 for value in values if value > 1]", ["values"], [[4], None, []]),
        ("values[1]", ["values"], [1, None, None]),
        ("tags->'$.a'", ["tags"], ["1", None, None]),
        ("CASE WHEN rh >= 60 THEN 'wet' ELSE kind END", ["rh", "kind"], ["x", "wet", "wet"]),
        ("coalesce(temp_c, 0) BETWEEN -5 AND 10", ["temp_c"], [False, True, True]),
        ("count IN (1, 3)", ["count"], [True, False, None]),
        ("upper(kind)", ["kind"], ["X", "Y", None]),
        ("CAST(moment AS DATE)", ["moment"], [dt.date(1970, 1, 1), dt.date(1970, 1, 2), None]),
        ("date_part('year', day)", ["day"], [1970, 1970, None]),
        ("price * 2", ["price"], [decimal.Decimal("2.20"), None, decimal.Decimal("4.50")]),
        ("if(flag, 1, 0)", ["flag"], [1, 0, 0]),
        ("nullif(small, 2)", ["small"], [1, None, 3]),
        ("struct_pack(a := small, b := flag)", ["small", "flag"], [{"a": 1, "b": True}, {"a": 2, "b": False}, {"a": 3, "b": None}]),  # noqa: E501
        ("'v' || 1", [], ["v1", "v1", "v1"]),
        ("rh -- per cent", ["rh"], [50.0, 60.0, 100.0]),
        ("position.x; ", ["position"], [1.0, None, 3.0]),
        ("EXTRACT(hour FROM moment_utc::TIMESTAMPTZ)", ["moment_utc"], [0, 0, None]),
    ],
)  # fmt: skip
def test_expressions(text: str, reads: list[str], values: list[Any]) -> None:
    step = Expressions({"new": text.rstrip("; ")})
    bound = step.bind(BATCH.schema)
    assert bound.reads == reads
    assert step.compute(BATCH.select(reads)).column(0).to_pylist() == values


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("temp_c * 2", pa.float64()),
        ("1.5", pa.decimal128(2, 1)),
        ("temp_c * 1.5", pa.float64()),
        ("count * 2", pa.int64()),
        ("count / 2", pa.float64()),
        ("list_sum(values)", pa.decimal128(38, 0)),
        ("count::HUGEINT", pa.decimal128(38, 0)),
        ("kind", pa.string()),
        ("kind::ENUM('x', 'y')", pa.string()),
        ("'5d6ec5e4-1b49-4d27-a0a5-1b2c3d4e5f60'::UUID", pa.string()),
        ("tags::JSON", pa.string()),
        ("moment_utc", pa.timestamp("ns", "UTC")),
        ("to_timestamp(count)", pa.timestamp("us", "UTC")),
        ("moment + INTERVAL 1 DAY", pa.timestamp("us")),
        ("'12:00'::TIME", pa.time64("us")),
        ("values", pa.list_(pa.int64())),
        ("MAP {'a': count}", pa.map_(pa.string(), pa.int64())),
        ("wide", pa.string()),
        ("small", pa.uint8()),
        ("[{'a': [values]}]", pa.list_(pa.struct([("a", pa.list_(pa.list_(pa.int64())))]))),
        ("MAP {'a': [values]}", pa.map_(pa.string(), pa.list_(pa.list_(pa.int64())))),
        ("array_value(count, count)", pa.list_(pa.int64(), 2)),
    ],
)
def test_types(text: str, kind: pa.DataType) -> None:
    # Names of list items are part of what is written.
    assert computed(text).type.equals(kind, check_metadata=True)


def test_a_declared_type_wins() -> None:
    for text, kind in (("1.5", pa.float64()), ("count", pa.float32()), ("NULL", pa.string()), ("rh", pa.int16())):
        assert computed(text, {"new": kind}).type == kind
    assert computed("list_sum(values)", {"new": pa.int64()}).to_pylist() == [3, None, None]
    with pytest.raises(InvalidError, match="`new`: a value does not fit into `int8`"):
        computed("rh * 10", {"new": pa.int8()})
    with pytest.raises(InvalidError, match="a value does not fit into `int64`"):
        computed("temp_c / 8", {"new": pa.int64()})


def test_too_many_digits_are_an_error() -> None:
    with pytest.raises(InvalidError, match="`new`: .*170141183460469231731687303715884105727"):
        computed("(count::HUGEINT * 0) + 170141183460469231731687303715884105727")


@pytest.mark.parametrize(
    "text",
    [
        "now()",
        "current_date",
        "CURRENT_TIMESTAMP",
        "current_date()",
        "today()",
        "localtime",
        "get_current_timestamp()",
        "random()",
        "main.random()",
        "gen_random_uuid()",
        "uuid()",
        "'now'::TIMESTAMP",
        "CAST(' Today ' AS DATE)",
        "DATE 'yesterday'",
        "age(moment)",
        "ago(INTERVAL 1 DAY)",
        "nextval('s')",
        "txid_current()",
        "current_setting('threads')",
        "getvariable('x')",
        "current_user",
        "version()",
        "list_transform(values, lambda v: random())",
    ],
)
def test_what_changes_is_refused(text: str) -> None:
    assert "is not the same at every try" in refused(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sum(rh)", "`sum` is an aggregate"),
        ("count(*)", "is an aggregate"),
        ("list(rh)", "`list` is an aggregate"),
        ("sum(rh) OVER ()", "a window function"),
        ("row_number() OVER ()", "a window function"),
        ("(SELECT 1)", "a subquery"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("rh IN (SELECT 1)", "a subquery"),
        ("unnest(values)", "`unnest` gives a table"),
        ("*", "found `*`"),
        ("COLUMNS('t.*')", "found `*`"),
        ("position.*", "found `*`"),
        ("$1", "a parameter"),
        ("rh FROM x", "found `FROM`"),
        ("rh FROM '/etc/passwd'", "found `FROM`"),
        ("rh WHERE true", "found `WHERE`"),
        ("rh LIMIT 1", "found `LIMIT`"),
        ("DISTINCT rh", "found `DISTINCT`"),
        ("rh ORDER BY 1", "found `ORDER BY`"),
        ("rh GROUP BY 1", "found `GROUP BY`"),
        ("rh UNION SELECT 1", "found a query"),
        ("rh, temp_c", "found 2"),
        ("rh AS other", "found `AS other`"),
        ("rh; DROP TABLE x", "it is no SQL expression"),
        ("rh; SELECT 2", "found 2 statements"),
        ("rh)) --", "it is no SQL expression"),
        ("", "it is no SQL expression"),
        ("read_text('/etc/passwd')", "`read_text` gives a table"),
        ("query('SELECT 1')", "`query` gives a table"),
        ("tmp_c", "hint: did you mean `temp_c`?"),
        ("t.rh", "there is no column `t`"),
        ("rowid", "there is no column `rowid`"),
        ("rooond(rh)", "hint: did you mean `round`?"),
        ("getenv('HOME')", "there is no function `getenv`"),
        ("'a' + flag", "`new`: "),
        ("moment - moment", "of type `INTERVAL`"),
        ("NULL", "nothing says what type"),
        ("count::BIT", "of type `BIT`"),
        ("union_value(k := 1)", "of type `UNION"),
    ],
)
def test_what_is_no_scalar_expression_is_refused(text: str, reason: str) -> None:
    assert reason in refused(text)


def test_nothing_outside_is_reached(tmp_path: Path) -> None:
    """Below the checks of the syntax tree, the engine itself is locked."""
    from regraft.expressions import _engine

    (tmp_path / "secret.csv").write_text("a\n1\n")
    connection = _engine.cursor()
    for statement in (
        f"FROM read_csv('{tmp_path}/secret.csv')",
        f"FROM '{tmp_path}/secret.csv'",
        f"ATTACH '{tmp_path}/x.db'",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        "SET enable_external_access = true",
        "SET threads = 2",
        "INSTALL httpfs",
        "LOAD httpfs",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(statement)


def test_columns_that_differ_in_case_only() -> None:
    batch = pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "A"])
    assert Expressions({"new": "a + 1"}).bind(batch.schema).reads == ["a"]
    assert Expressions({"new": '"A" + 1'}).compute(batch.select(["A"])).column(0).to_pylist() == [3]
    with pytest.raises(InvalidError, match="differ in case only"):
        Expressions({"new": 'a + "A"'}).bind(batch.schema)
    other = pa.schema([("aB", pa.int8()), ("Ab", pa.int8())])
    with pytest.raises(InvalidError, match="`ab` may mean `aB`, `Ab`"):
        Expressions({"new": "ab"}).bind(other)


def test_a_column_may_be_called_like_a_function() -> None:
    batch = pa.record_batch({"current_date": [7], "version": ["v"]})
    step = Expressions({"new": "current_date + 1", "other": "version"})
    assert step.bind(batch.schema).reads == ["current_date", "version"]
    assert step.compute(batch).to_pydict() == {"new": [8], "other": ["v"]}


def test_columns_of_the_same_step_are_not_seen() -> None:
    with pytest.raises(InvalidError, match="`b`: it reads `a`, which the same step makes"):
        Expressions({"a": "rh + 1", "b": "a * 2"}).bind(BATCH.schema)


def test_the_failing_expression_is_named() -> None:
    step = Expressions({"fine": "rh + 1", "broken": '"My Col"::INTEGER'})
    with pytest.raises(InvalidError, match="`broken`: could not convert string 'a'"):
        step.compute(BATCH.select(step.bind(BATCH.schema).reads))


def test_rows_keep_their_order() -> None:
    rows = 500_000
    batch = pa.record_batch({"n": np.arange(rows), "text": pa.array(np.arange(rows).astype(str))})
    step = Expressions({"next": "n + 1", "long": "text || '-' || text"})
    result = step.compute(batch)
    assert result.num_rows == rows
    assert np.array_equal(result.column(0).to_numpy(), np.arange(1, rows + 1))
    assert result.column(1)[rows - 1].as_py() == f"{rows - 1}-{rows - 1}"


def test_no_rows_and_no_columns() -> None:
    step = Expressions({"new": "rh + 1", "constant": "'x'"})
    empty = step.compute(BATCH.select(["rh"]).slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema == step.bind(BATCH.schema).adds
    constant = Expressions({"constant": "'x'"}).compute(BATCH.select([]))
    assert constant.to_pydict() == {"constant": ["x"] * 3}


def test_many_threads_at_once() -> None:
    step = Expressions({"new": "n * 2 + 1"})
    failures: list[str] = []

    def work(number: int) -> None:
        for _ in range(20):
            start = number * 1000
            batch = pa.record_batch({"n": np.arange(start, start + 1000)})
            if step.compute(batch).column(0).to_pylist() != [value * 2 + 1 for value in range(start, start + 1000)]:
                failures.append(str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@given(st.lists(st.one_of(st.none(), st.floats(width=64)), max_size=50))
def test_the_same_rows_give_the_same_bytes(values: list[float | None]) -> None:
    batch = pa.record_batch({"x": pa.array(values, pa.float64())})
    step = Expressions({"new": "sin(x) / (x + 1)", "text": "x::VARCHAR"})
    first, second = step.compute(batch), Expressions({"new": "sin(x) / (x + 1)", "text": "x::VARCHAR"}).compute(batch)
    assert parquet_bytes(first) == parquet_bytes(second)


def parquet_bytes(batch: pa.RecordBatch) -> bytes:
    """What is under a null is chance, and is never stored."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), sink)
    return sink.getvalue()
