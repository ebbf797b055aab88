"""Names of column types: what `adds` and `cast` say, as Arrow types, and which of them Parquet can hold.

The names are Arrow's own (`double`, `int32`, `timestamp[us, tz=UTC]`, `list<double>`, `struct<x: double, y: double>`),
so that ``str(pyarrow_type)`` is always understood, with the SQL names that people type beside them (`bigint`,
`varchar`, `decimal(10, 2)`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from regraft.config_errors import did_you_mean
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cast_column", "parquet_can_hold", "parse_type", "plain_type", "type_text"]

_UNITS = ("s", "ms", "us", "ns")
_SIMPLE: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "halffloat": pa.float16(),
    "float16": pa.float16(),
    "float": pa.float32(),
    "float32": pa.float32(),
    "real": pa.float32(),
    "double": pa.float64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "utf8": pa.string(),
    "str": pa.string(),
    "text": pa.string(),
    "varchar": pa.string(),
    "large_string": pa.large_string(),
    "large_utf8": pa.large_string(),
    "binary": pa.binary(),
    "blob": pa.binary(),
    "large_binary": pa.large_binary(),
    "date": pa.date32(),
    "date32": pa.date32(),
    "date32[day]": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
}
_PARAMETRIC = ("timestamp[us, tz=UTC]", "time64[us]", "decimal(10, 2)", "fixed_size_binary[16]", "list<double>")


def parse_type(text: str) -> pa.DataType:
    """The Arrow type of a name.

    Args:
        text: Arrow's name (as ``str(type)`` gives it) or a common SQL name; case does not matter.

    Returns:
        The type.

    Raises:
        InvalidError: There is no such type, or Parquet cannot hold it.

    Example:
        >>> parse_type("list<decimal(10, 2)>")
        ListType(list<item: decimal128(10, 2)>)
        >>> parse_type("varchar")
        DataType(string)
    """
    found = _Parser(text).whole()
    reason = parquet_can_hold(found)
    if reason is not None:
        raise InvalidError(f"Parquet cannot hold the type `{text}`: {reason}")
    return found


def type_text(given: object) -> str:
    """The name of a type, for a configuration.

    Args:
        given: A name, or an Arrow type.

    Raises:
        InvalidError: It is neither.

    Example:
        >>> type_text(pa.float64())
        'double'
    """
    if isinstance(given, str):
        return given
    if isinstance(given, pa.DataType):
        return str(given)
    raise InvalidError(
        f"expected a type such as `double`, or a `pyarrow.DataType`, found `{type(given).__name__}`",
        "`adds={'name': 'double'}` or `adds={'name': pyarrow.float64()}`",
    )


def parquet_can_hold(kind: pa.DataType) -> str | None:
    """Why Parquet cannot hold a type, or `None` where it can.

    Args:
        kind: The type, nested or not.
    """
    if pa.types.is_null(kind):
        return "nothing says what type its values would have"
    if pa.types.is_interval(kind) or pa.types.is_duration(kind):
        return "an interval has no fixed length; give seconds as a number instead"
    if pa.types.is_union(kind):
        return "it has no unions"
    if pa.types.is_run_end_encoded(kind) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return "it has no such layout"
    if isinstance(kind, pa.BaseExtensionType):
        return f"it does not know `{kind.extension_name}`"
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    if pa.types.is_dictionary(kind):
        inner.append(kind.value_type)
    return next((reason for each in inner if (reason := parquet_can_hold(each)) is not None), None)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The same type as readers of Parquet expect it: list items called `item`, time zone `UTC`, no enumerations.

    Args:
        kind: A type as an engine gives it.

    Example:
        >>> plain_type(pa.timestamp("us", "Etc/UTC"))
        TimestampType(timestamp[us, tz=UTC])
    """
    if pa.types.is_timestamp(kind) and kind.tz in ("Etc/UTC", "Etc/UCT", "Etc/GMT", "GMT", "+00:00"):
        return pa.timestamp(kind.unit, "UTC")
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(plain_type(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    return kind


def cast_column(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """Casts a column as Arrow casts safely.

    Args:
        column: The values.
        kind: The type wanted.
        name: The column's name, for errors.

    Returns:
        The column, itself where its type is the one wanted already.

    Raises:
        InvalidError: A value would overflow, lose a fraction, or is no such thing.
    """
    # Names of list items count, too: `==` does not look at them.
    if column.type.equals(kind, check_metadata=True):
        return column
    try:
        return column.cast(kind, safe=True)
    except pa.ArrowNotImplementedError:
        raise InvalidError(
            f"`{name}`: there is no cast from `{column.type}` to `{kind}`", "convert it in an SQL expression"
        ) from None
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise InvalidError(
            f"`{name}`: a value does not fit into `{kind}`: {reason[:1].lower()}{reason[1:]}",
            "declare a larger type, or round it in an SQL expression",
        ) from None


class _Parser:
    """A recursive descent over one type name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    def whole(self) -> pa.DataType:
        found = self.type()
        self.space()
        if self.place != len(self.text):
            raise self.wrong(f"`{self.text[self.place :]}` is left over")
        return found

    def type(self) -> pa.DataType:
        self.space()
        start = self.place
        name = self.match(r"[A-Za-z_][A-Za-z0-9_]*")
        if name is None:
            raise self.wrong("expected a name")
        word = name.lower()
        arguments = {
            "timestamp": self.timestamp,
            "time32": lambda: pa.time32(self.unit("s", "ms")),
            "time64": lambda: pa.time64(self.unit("us", "ns")),
            "decimal": self.decimal,
            "decimal128": self.decimal,
            "numeric": self.decimal,
            "decimal256": lambda: pa.decimal256(*self.numbers()),
            "fixed_size_binary": lambda: pa.binary(self.numbers(1)[0]),
            "list": lambda: pa.list_(self.only_item()),
            "large_list": lambda: pa.large_list(self.only_item()),
            "fixed_size_list": self.fixed_size_list,
            "dictionary": self.dictionary,
            "map": self.map,
            "struct": lambda: pa.struct(self.fields()),
        }
        self.space()
        following = self.text[self.place : self.place + 1]
        if word in arguments and following and following in "[(<":
            return self.made(arguments[word])
        if word == "date32" and self.match(r"\[day\]"):
            return pa.date32()
        if word in _SIMPLE:
            return _SIMPLE[word]
        known = [*_SIMPLE, *arguments]
        raise InvalidError(
            f"`{self.text}`: there is no type `{self.text[start : self.place].strip()}`",
            did_you_mean(word, known) or f"for instance `double`, `int64`, `string`, `{'`, `'.join(_PARAMETRIC)}`",
        )

    def made(self, make: Callable[[], pa.DataType]) -> pa.DataType:
        try:
            return make()
        except (ValueError, TypeError, pa.ArrowInvalid) as error:
            if isinstance(error, InvalidError):
                raise
            raise self.wrong(str(error)) from None

    def timestamp(self) -> pa.DataType:
        self.need("[")
        unit = self.match("|".join(sorted(_UNITS, key=len, reverse=True)))
        if unit is None:
            raise self.wrong("expected one of the units `s`, `ms`, `us`, `ns`")
        zone = None
        if self.match(r"\s*,\s*(tz\s*=\s*)?") is not None:
            zone = self.match(r"[A-Za-z0-9_+:/-]+")
        self.need("]")
        return pa.timestamp(unit, zone)

    def unit(self, *units: str) -> str:
        self.need("[")
        unit = self.match("|".join(units))
        if unit is None:
            raise self.wrong(f"expected one of the units `{'`, `'.join(units)}`")
        self.need("]")
        return unit

    def decimal(self) -> pa.DataType:
        precision, scale = self.numbers()
        return pa.decimal256(precision, scale) if precision > 38 else pa.decimal128(precision, scale)

    def numbers(self, count: int = 2) -> list[int]:
        found = self.match(r"[\[(]\s*\d+\s*(,\s*-?\d+\s*)*[\])]")
        values = [int(text) for text in re.findall(r"-?\d+", found or "")]
        if len(values) != count:
            raise self.wrong(f"expected {count} number{'s' if count > 1 else ''} in brackets")
        return values

    def item(self) -> pa.DataType:
        # Arrow prints the name of the item, `list<item: double>`, and `not null` behind it.
        self.space()
        self.match(r"(item|element|entries|values?|keys?|indices|l|array)\s*[:=]\s*")
        found = self.type()
        self.match(r"\s*not null")
        return found

    def only_item(self) -> pa.DataType:
        self.need("<")
        found = self.item()
        self.need(">")
        return found

    def fixed_size_list(self) -> pa.DataType:
        value = self.only_item()
        return pa.list_(value, self.numbers(1)[0])

    def dictionary(self) -> pa.DataType:
        self.need("<")
        first = self.item()
        self.need(",")
        self.space()
        named = self.text[: self.place].rstrip().endswith("values=") or "values=" in self.text
        second = self.item()
        self.match(r"\s*,\s*ordered=\d")
        self.need(">")
        # Arrow prints values first.
        values, indices = (first, second) if named else (second, first)
        return pa.dictionary(indices, values)

    def map(self) -> pa.DataType:
        self.need("<")
        key = self.item()
        self.need(",")
        value = self.item()
        self.match(r"\s*\('[^']*'\)")
        self.need(">")
        return pa.map_(key, value)

    def fields(self) -> list[pa.Field]:
        self.need("<")
        found: list[pa.Field] = []
        while True:
            self.space()
            name = self.match(r"\"(?:[^\"]|\"\")*\"|[^:<>,]+")
            if not name:
                raise self.wrong("expected `name: type`")
            if name.startswith('"'):
                name = name[1:-1].replace('""', '"')
            self.need(":")
            kind = self.type()
            found.append(pa.field(name.strip(), kind, nullable=self.match(r"\s*not null") is None))
            if self.match(r"\s*,") is None:
                break
        self.need(">")
        return found

    def space(self) -> None:
        self.match(r"\s*")

    def need(self, mark: str) -> None:
        self.space()
        if self.match(re.escape(mark)) is None:
            raise self.wrong(f"expected `{mark}` at character {self.place + 1}")

    def match(self, pattern: str) -> str | None:
        found = re.compile(pattern, re.IGNORECASE).match(self.text, self.place)
        if found is None:
            return None
        self.place = found.end()
        return found[0]

    def wrong(self, reason: str) -> InvalidError:
        return InvalidError(
            f"`{self.text}` is no type: {reason}",
            f"for instance `double`, `int64`, `string`, `{'`, `'.join(_PARAMETRIC)}`",
        )
