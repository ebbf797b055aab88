"""SQL steps: scalar expressions, computed by DuckDB over Arrow batches.

Problem: `temp_c - (100 - rh) / 5` must become a column, in a dialect that people know, quickly, without a way to reach
files, network or settings from a configuration, and with the same bytes at every try.

Design: DuckDB in memory, external access off, extensions neither loaded nor installed, configuration locked, time zone
UTC, one thread with insertion order preserved, so that row *n* out is row *n* in. The expression's own syntax tree says
which columns it reads and what it calls (`expression_syntax`); its types come from running it over the schema's empty
table. One database for the process; each thread has its own connection.

Types: what DuckDB gives is what is stored, but for

| DuckDB | Arrow, and so Parquet |
|---|---|
| `HUGEINT`, `UHUGEINT` (sums of integers in lists, factorials) | `decimal128(38, 0)`; more digits are an error |
| `ENUM`, `UUID`, `JSON` | `string` |
| `DECIMAL`; a literal such as `1.5` is one | `decimal128(p, s)`; say `adds: {name: double}` for a double |
| `TIMESTAMP WITH TIME ZONE` | `timestamp[us, tz=UTC]` |
| `INTERVAL`, `BIT`, `TIMETZ`, `UNION`, `BIGNUM`, `VARIANT`, a bare `NULL` | refused: declare a type, or convert |

A type declared in `adds` wins. Values are cast as Arrow casts safely: what would overflow, or lose a fraction, is an
error.

Alternatives: DataFusion in the core (doubles the build), `pyarrow.compute` (no language), pandas `eval` (no nulls).
Caveats: versions of DuckDB differ in what a function gives (1.4 refuses `sin` of infinity, 2.0 does not): let all
machines that work on one data set have the same. A text column that holds the word `now` and is cast to a time is not
noticed. SQL identifiers ignore case; two columns that differ in case only cannot both be read.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING, Any

from regraft.column_types import cast_column, parquet_can_hold, plain_type
from regraft.config_errors import listed
from regraft.errors import InvalidError
from regraft.expression_syntax import FunctionKinds, Reading, read_expression, resolve

try:
    import duckdb
    import pyarrow as pa
except ImportError as error:
    raise InvalidError(
        f"SQL steps need DuckDB and pyarrow, and `{error.name}` is not installed", "pip install 'regraft[parquet]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Bound", "Expressions"]

_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_directory": "",
    "threads": "1",
    "preserve_insertion_order": "true",
}
_SETTINGS = ("SET TimeZone = 'UTC'", "SET python_enable_replacements = false", "SET lock_configuration = true")
_WIDE = ("HUGEINT", "UHUGEINT")
_UNSTORABLE = ("BIT", "TIME WITH TIME ZONE", "TIMETZ", "UNION", "BIGNUM", "VARINT", "VARIANT", "GEOMETRY", "INTERVAL")
_ROWS = "regraft rows"


@dataclasses.dataclass(frozen=True)
class Bound:
    """A step that has met a schema.

    Args:
        reads: Names of the columns that are needed, as the schema spells them.
        adds: The columns that come of it.
    """

    reads: list[str]
    adds: pa.Schema


@dataclasses.dataclass(frozen=True)
class _Compiled:
    expressions: dict[str, str]
    types: list[pa.DataType]

    @property
    def select(self) -> str:
        return ", ".join(f"{text} AS {_quoted(name)}" for name, text in self.expressions.items())


class Expressions:
    """The SQL expressions of one step; it may be used from many threads.

    Args:
        expressions: SQL by the name of the new column.
        declared: Arrow types by name, for the columns that shall not get the type of their expression.

    Raises:
        InvalidError: Something is no scalar expression, or not the same at every try; the message names the column.

    Example:
        >>> step = Expressions({"dew_point_c": "temp_c - (100 - rh) / 5"})
        >>> batch = pa.record_batch({"temp_c": [20.0, None], "rh": [50.0, 60.0]})
        >>> step.bind(batch.schema).reads
        ['temp_c', 'rh']
        >>> step.compute(batch).to_pydict()
        {'dew_point_c': [10.0, None]}
    """

    def __init__(self, expressions: Mapping[str, str], declared: Mapping[str, pa.DataType] | None = None) -> None:
        self._expressions = dict(expressions)
        self._declared = dict(declared or {})
        self._readings = {name: _read(name, text) for name, text in self._expressions.items()}
        self._compiled: dict[pa.Schema, _Compiled] = {}

    def bind(self, schema: pa.Schema) -> Bound:
        """Finds the input columns and the types of the new ones.

        Args:
            schema: The columns as they are before the step.

        Returns:
            What is read and what comes of it.

        Raises:
            InvalidError: A column is missing, types do not fit the expression, or Parquet cannot hold the result.
        """
        reads: list[str] = []
        for name, reading in self._readings.items():
            for column in _columns(name, reading, schema.names, list(self._expressions)):
                if column not in reads:
                    reads.append(column)
        _refuse_doubles(reads, schema)
        # In the order of the file: whoever reads them goes through it once.
        reads.sort(key=schema.names.index)
        inputs = pa.schema([schema.field(name) for name in reads])
        compiled = self._compile(inputs)
        fields = [pa.field(name, kind) for name, kind in zip(self._expressions, compiled.types, strict=True)]
        return Bound(reads, pa.schema(fields))

    def compute(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Computes the new columns of a batch.

        Args:
            batch: The columns that `bind` asked for, in any order.

        Returns:
            The new columns; row *n* of the result is made from row *n* of the batch.

        Raises:
            InvalidError: A value does not fit: overflow, a text that is no number, a declared type that is too small.
        """
        compiled = self._compile(batch.schema)
        if batch.num_rows == 0:
            arrays = [pa.array([], kind) for kind in compiled.types]
            return pa.RecordBatch.from_arrays(arrays, names=list(self._expressions))
        try:
            made = _run(batch, compiled.select)
        except duckdb.Error as error:
            raise InvalidError(f"{_culprit(batch, compiled.expressions)}{_first_line(error)}") from None
        if made.num_rows != batch.num_rows:
            raise InvalidError(f"expected {batch.num_rows} rows, found {made.num_rows}")
        arrays = []
        for column, (name, kind) in zip(made.columns, zip(self._expressions, compiled.types, strict=True), strict=True):
            joined = column.combine_chunks()
            if isinstance(joined, pa.ChunkedArray):
                raise InvalidError(f"`{name}`: a row group makes more than 2 GiB of text", "declare it `large_string`")
            arrays.append(cast_column(joined, kind, name))
        return pa.RecordBatch.from_arrays(arrays, names=list(self._expressions))

    def _compile(self, inputs: pa.Schema) -> _Compiled:
        inputs = inputs.remove_metadata()
        found = self._compiled.get(inputs)
        if found is None:
            bound = {name: self._bind_one(name, text, inputs) for name, text in self._expressions.items()}
            found = _Compiled({name: text for name, (text, _) in bound.items()}, [kind for _, kind in bound.values()])
            self._compiled[inputs] = found
        return found

    def _bind_one(self, name: str, text: str, inputs: pa.Schema) -> tuple[str, pa.DataType]:
        # The line break ends a comment that the expression may end with.
        expression = f"({text}\n)"
        try:
            relation = _relation(_empty(inputs), expression)
            engine = str(relation.types[0])
            if engine in _WIDE:
                expression = f"CAST({expression} AS DECIMAL(38, 0))"
                relation = _relation(_empty(inputs), expression)
            natural = relation.to_arrow_table().schema.field(0).type
        except duckdb.Error as error:
            raise InvalidError(f"`{name}`: {_first_line(error)}") from None
        declared = self._declared.get(name)
        if declared is not None:
            return expression, declared
        reason = parquet_can_hold(natural)
        if reason is not None or engine.split("(")[0] in _UNSTORABLE:
            raise InvalidError(
                f"`{name}`: Parquet cannot hold the result, of type `{engine}`" + (f": {reason}" if reason else ""),
                f"declare a type, `adds: {{{name}: double}}`, or convert it in the expression",
            )
        return expression, plain_type(natural)


def _columns(name: str, reading: Reading, names: list[str], siblings: list[str]) -> list[str]:
    try:
        found = [resolve(column, names, siblings=siblings) for column in reading.columns]
    except InvalidError as error:
        raise InvalidError(f"`{name}`: {error.message}", error.hint) from None
    lower = {known.lower() for known in names}
    return found + [resolve(column, names) for column in reading.maybe_columns if column.lower() in lower]


def _refuse_doubles(reads: list[str], schema: pa.Schema) -> None:
    seen: dict[str, str] = {}
    for name in reads:
        if schema.names.count(name) > 1:
            raise InvalidError(f"the file has {schema.names.count(name)} columns `{name}`")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise InvalidError(
                f"it reads {listed([other, name])}, which differ in case only, and SQL cannot tell them apart",
                "use a Python step, or rename one of them in a step before",
            )


def _read(name: str, text: str) -> Reading:
    try:
        return read_expression(text, _syntax(text), _functions(), _syntax)
    except InvalidError as error:
        raise InvalidError(f"`{name}`: {error.message}", error.hint) from None


class _Engine(threading.local):
    """One database for the process, one connection for each thread."""

    connection: duckdb.DuckDBPyConnection | None = None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        if self.connection is None:
            self.connection = _database().cursor()
        return self.connection


_lock = threading.Lock()
_opened: list[duckdb.DuckDBPyConnection] = []
_engine = _Engine()


def _database() -> duckdb.DuckDBPyConnection:
    with _lock:
        if not _opened:
            database = duckdb.connect(":memory:", config=_LOCKED)
            for setting in _SETTINGS:
                database.execute(setting)
            _opened.append(database)
        return _opened[0]


def _syntax(text: str) -> Mapping[str, Any]:
    # All rows are fetched, here and below: DuckDB refuses other work on a connection with a result half read.
    ((serialized,),) = _engine.cursor().execute("SELECT json_serialize_sql($1)", [f"SELECT {text}\n"]).fetchall()
    tree: dict[str, Any] = json.loads(serialized)
    return tree


_known: list[FunctionKinds] = []


def _functions() -> FunctionKinds:
    if not _known:
        kinds: dict[str, set[str]] = {}
        macros: dict[str, list[str]] = {}
        inconsistent = set()
        rows = (
            _engine.cursor()
            .execute("SELECT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()")
            .fetchall()
        )
        for name, kind, stability, definition in rows:
            kinds.setdefault(name, set()).add(kind)
            if kind == "scalar" and stability != "CONSISTENT":
                inconsistent.add(name)
            if kind == "macro" and definition:
                macros.setdefault(name, []).append(definition)
        frozen = {name: frozenset(found) for name, found in kinds.items()}
        _known.append(FunctionKinds(frozen, frozenset(inconsistent), macros))
    return _known[0]


def _relation(table: pa.Table, select: str) -> duckdb.DuckDBPyRelation:
    return _engine.cursor().from_arrow(table).project(select)


def _run(batch: pa.RecordBatch, select: str) -> pa.Table:
    table = pa.Table.from_batches([batch])
    if not batch.num_columns:
        # DuckDB has no table without columns; constants need the rows all the same.
        table = pa.table({_ROWS: pa.nulls(batch.num_rows, pa.int8())})
    return _relation(table, select).to_arrow_table()


def _empty(inputs: pa.Schema) -> pa.Table:
    # Not `empty_table`: it makes arrays from lists, and so loads pandas where that is installed.
    return pa.Table.from_batches([], schema=inputs if len(inputs) else pa.schema([(_ROWS, pa.int8())]))


def _culprit(batch: pa.RecordBatch, expressions: Mapping[str, str]) -> str:
    """Which of the expressions fails; they ran as one query."""
    for name, text in expressions.items():
        try:
            _run(batch, text)
        except duckdb.Error:
            return f"`{name}`: "
    return ""


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _first_line(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), "DuckDB gives no reason")
    _, colon, reason = line.partition(" Error: ")
    reason = reason if colon else line
    # A word in capitals is a name.
    return reason if reason[1:2].isupper() else f"{reason[:1].lower()}{reason[1:]}"
