from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regraft.column_types import cast_column, parquet_can_hold, parse_type, plain_type, type_text
from regraft.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("double", pa.float64()),
        ("DOUBLE", pa.float64()),
        ("float", pa.float32()),
        ("bigint", pa.int64()),
        ("varchar", pa.string()),
        ("date", pa.date32()),
        ("timestamp", pa.timestamp("us")),
        ("timestamp[ns]", pa.timestamp("ns")),
        ("timestamp[ms, Europe/Berlin]", pa.timestamp("ms", "Europe/Berlin")),
        ("decimal(10,2)", pa.decimal128(10, 2)),
        ("decimal(50, 2)", pa.decimal256(50, 2)),
        ("list<list<int8>>", pa.list_(pa.list_(pa.int8()))),
        ("map<string, list<double>>", pa.map_(pa.string(), pa.list_(pa.float64()))),
        ('struct<x: double, "a b": int8>', pa.struct([("x", pa.float64()), ("a b", pa.int8())])),
    ],
)
def test_names_are_understood(text: str, kind: pa.DataType) -> None:
    assert parse_type(text) == kind


def kinds() -> st.SearchStrategy[pa.DataType]:
    leaves = st.sampled_from(
        [
            pa.bool_(),
            pa.int8(),
            pa.uint64(),
            pa.float16(),
            pa.float32(),
            pa.string(),
            pa.large_string(),
            pa.binary(),
            pa.binary(16),
            pa.date32(),
            pa.time32("ms"),
            pa.time64("ns"),
            pa.timestamp("us"),
            pa.timestamp("ns", "Europe/Berlin"),
            pa.decimal128(38, 10),
            pa.decimal256(60, 3),
            pa.dictionary(pa.int32(), pa.string()),
        ]
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(pa.list_),
            inner.map(pa.large_list),
            inner.map(lambda kind: pa.list_(kind, 3)),
            inner.map(lambda kind: pa.map_(pa.string(), kind)),
            st.lists(inner, min_size=1, max_size=3).map(
                lambda all_: pa.struct([(f"field{number}", kind) for number, kind in enumerate(all_)])
            ),
        ),
        max_leaves=5,
    )


@given(kinds())
def test_what_arrow_prints_is_understood(kind: pa.DataType) -> None:
    assert parse_type(str(kind)) == kind
    assert parse_type(type_text(kind)) == kind


@given(st.text(max_size=30))
def test_no_text_crashes(text: str) -> None:
    try:
        parse_type(text)
    except InvalidError as error:
        assert error.message  # noqa: PT017 - most texts are no types, some are


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("dubble", "there is no type `dubble`", "did you mean `double`?"),
        ("list<dubble>", "there is no type `dubble`", "did you mean `double`?"),
        ("list<double", "expected `>`", None),
        ("timestamp[parsec]", "units", None),
        ("decimal(10)", "expected 2 numbers", None),
        ("decimal(99, 2)", "is no type", None),
        ("double double", "left over", None),
        ("", "expected a name", None),
    ],
)
def test_errors_help(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_type(text)
    assert message in caught.value.message
    if hint:
        assert caught.value.hint == hint


def test_what_parquet_cannot_hold() -> None:
    assert parquet_can_hold(pa.list_(pa.struct([("a", pa.map_(pa.string(), pa.int8()))]))) is None
    for kind in (
        pa.null(),
        pa.duration("s"),
        pa.month_day_nano_interval(),
        pa.list_(pa.duration("s")),
        pa.sparse_union([pa.field("a", pa.int8())]),
        pa.list_view(pa.int8()),
    ):
        assert parquet_can_hold(kind), kind


def test_plain_types() -> None:
    assert plain_type(pa.dictionary(pa.uint8(), pa.string())) == pa.string()
    assert plain_type(pa.list_(pa.field("l", pa.timestamp("us", "Etc/UTC")))) == pa.list_(pa.timestamp("us", "UTC"))


def test_casts_lose_nothing() -> None:
    assert cast_column(pa.array([1, None]), pa.float64(), "x").to_pylist() == [1.0, None]
    for values, kind in (([1.5], pa.int64()), ([300], pa.int8()), (["x"], pa.int64())):
        with pytest.raises(InvalidError, match="`x`: a value does not fit"):
            cast_column(pa.array(values), kind, "x")
    with pytest.raises(InvalidError, match="there is no cast"):
        cast_column(pa.array([[1]]), pa.float64(), "x")


def test_a_type_is_a_name_or_arrow() -> None:
    with pytest.raises(InvalidError, match="pyarrow.DataType"):
        type_text(float)
