"""Steps that run: what the core calls for each row group, and what names a step's definition.

The core knows one object with two methods, `bind` and `compute`, for SQL expressions, Python functions and casts alike.
A step is stateless: the same columns in give the same columns out, from any thread, in any order. The GIL is held
only inside these calls.

A **fingerprint** names a step's definition. It is written into every migrated file, so that an edited step that was
already applied is noticed. It covers the SQL text, the declared types and names, and for a Python function its source
text, comments included and decorators left out; what the function calls is not seen: declare a `revision` where that
matters, or where there is no source.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from regraft.column_types import cast_column, parse_type
from regraft.config_errors import did_you_mean, listed
from regraft.errors import InvalidError, RegraftError

try:
    import pyarrow as pa
except ImportError as error:
    raise InvalidError("migrations need pyarrow, which is not installed", "pip install 'regraft[parquet]'") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regraft.expressions import Expressions
    from regraft.migration_config import StepConfig

__all__ = ["Function", "Steps", "fingerprint"]

Function = Callable[[pa.RecordBatch], Any]
"""Takes a batch of the input columns; returns the new columns as anything with the Arrow PyCapsule interface, or as a
mapping from names to arrays (Arrow, NumPy, lists)."""


def fingerprint(step: StepConfig, function: Function | None = None) -> str:
    """Names the definition of a step.

    Args:
        step: What the configuration says.
        function: The function of a Python step.

    Returns:
        16 hexadecimal digits.

    Raises:
        InvalidError: The function has no source text, and no ``revision`` is declared.
    """
    said: dict[str, Any] = {
        "ends": [step.from_, step.to],
        "sql": {name: text.strip() for name, text in step.sql.items()},
        "adds": step.adds,
        "rename": step.rename,
        "drop": step.drop,
        "cast": step.cast,
    }
    if step.python is not None:
        said["reads"] = step.reads
        said["code"] = step.revision if step.revision is not None else _source(function, step)
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def _source(function: Function | None, step: StepConfig) -> str:
    try:
        lines, _ = inspect.getsourcelines(inspect.unwrap(function))  # type: ignore[arg-type]
        text = textwrap.dedent("".join(lines))
        (definition,) = ast.parse(text).body
    except (TypeError, OSError, SyntaxError, ValueError):
        raise InvalidError(
            f"step `{step.label}`: `{step.python}` has no source text to tell one definition from another",
            "declare `revision: 1`, and another one whenever it changes",
        ) from None
    if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and definition.decorator_list:
        text = "\n".join(text.splitlines()[definition.lineno - 1 :])
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


class Steps:
    """All steps of a set, as the core calls them.

    Args:
        steps: The steps of the configuration, in order.
        functions: The functions of Python steps, by the step's index.

    Raises:
        InvalidError: An expression or a type is wrong; the message names the step.
    """

    def __init__(self, steps: Sequence[StepConfig], functions: Mapping[int, Function]) -> None:
        self._steps = list(steps)
        self._functions = dict(functions)
        self._types: list[dict[str, pa.DataType]] = []
        self._expressions: dict[int, Expressions] = {}
        for number, step in enumerate(self._steps):
            try:
                self._types.append(_types(step))
                if step.sql:
                    # DuckDB takes a tenth of a second to import: only where a step needs it.
                    from regraft.expressions import Expressions

                    # The type that `cast` gives to a column computed anew counts as declared.
                    self._expressions[number] = Expressions(step.sql, self._types[number])
            except InvalidError as error:
                # Whatever `bind` and `compute` raise, the core says of which step, file and row group it is.
                raise InvalidError(f"step `{step.label}`: {error.message}", error.hint) from error

    def bind(self, step: int, schema: object) -> tuple[list[str], pa.Schema]:
        """Finds the columns that a step reads and those that it makes.

        Args:
            step: Its index.
            schema: An Arrow schema (PyCapsule interface): the columns as they are before the step.

        Returns:
            Names of the input columns in the order of the file, and the schema of the new columns.

        Raises:
            InvalidError: The step does not fit the schema.
        """
        config, types = self._steps[step], self._types[step]
        given = pa.schema(schema)
        reads: list[str] = []
        adds: list[pa.Field] = []
        if step in self._expressions:
            bound = self._expressions[step].bind(given)
            reads, adds = list(bound.reads), list(bound.adds)
        elif config.python is not None:
            _need_columns(config.reads or [], given)
            reads = list(config.reads or [])
            adds = [pa.field(name, types[name]) for name in config.adds]
        computed = {field.name for field in adds}
        casts = [name for name in config.cast if name not in computed]
        _need_columns(list(config.cast), given)
        adds += [given.field(name).with_type(types[name]).remove_metadata() for name in casts]
        reads = [name for name in given.names if name in {*reads, *casts}]
        return reads, pa.schema(adds)

    def compute(self, step: int, batch: object) -> pa.RecordBatch:
        """Computes the new columns of one row group.

        Args:
            step: The step's index.
            batch: The columns that `bind` asked for (PyCapsule interface).

        Returns:
            The new columns, as many rows.

        Raises:
            InvalidError: A value cannot be computed, or the function returned something else than it declared.
        """
        config, types = self._steps[step], self._types[step]
        given = pa.record_batch(batch)
        made: dict[str, pa.Array] = {}
        if step in self._expressions:
            result = self._expressions[step].compute(given)
            made = dict(zip(result.schema.names, result.columns, strict=True))
        elif config.python is not None:
            made = self._call(step, config, given.select(config.reads or []))
        for name in config.cast:
            if name not in made:
                made[name] = cast_column(given.column(name), types[name], name)
        # A zero-column batch would forget its rows; a step that makes nothing is never computed.
        return pa.RecordBatch.from_arrays(list(made.values()), names=list(made))

    def _call(self, step: int, config: StepConfig, given: pa.RecordBatch) -> dict[str, pa.Array]:
        try:
            returned = self._functions[step](given)
        except RegraftError:
            raise
        except Exception as error:
            raise InvalidError(f"`{config.python}` failed: {type(error).__name__}: {error}") from error
        columns = _columns(returned, config)
        missing = [name for name in config.adds if name not in columns]
        extra = [name for name in columns if name not in config.adds]
        if missing or extra:
            meant = did_you_mean(extra[0], missing) if missing and extra else None
            raise InvalidError(
                f"`{config.python}`: expected the columns {listed(config.adds)}, found {listed(columns) or 'none'}",
                meant or "return the new columns only, those that `adds` names",
            )
        made: dict[str, pa.Array] = {}
        for name in config.adds:
            column = _array(columns[name], self._types[step][name], name)
            if len(column) != given.num_rows:
                raise InvalidError(f"`{name}`: expected {given.num_rows} rows, found {len(column)}")
            made[name] = cast_column(column, self._types[step][name], name)
        return made


def _types(step: StepConfig) -> dict[str, pa.DataType]:
    found = {}
    for place, declared in (("adds", step.adds), ("cast", step.cast)):
        for name, text in declared.items():
            try:
                found[name] = parse_type(text)
            except InvalidError as error:
                raise InvalidError(f"`{place}.{name}`: {error.message}", error.hint) from None
    return found


def _need_columns(names: Sequence[str], schema: pa.Schema) -> None:
    for name in names:
        count = schema.names.count(name)
        if count == 0:
            close = next((known for known in schema.names if known.lower() == name.lower()), None)
            hint = f"did you mean `{close}`?" if close else did_you_mean(name, schema.names)
            raise InvalidError(f"there is no column `{name}`", hint or f"the file has {listed(schema.names[:12])}")
        if count > 1:
            raise InvalidError(f"the file has {count} columns `{name}`")


def _columns(returned: object, config: StepConfig) -> Mapping[str, Any]:
    """What the function returned, by name."""
    if isinstance(returned, Mapping):
        return {str(name): column for name, column in returned.items()}
    if hasattr(returned, "__arrow_c_array__"):
        batch = pa.record_batch(returned)
        return dict(zip(_once(batch.schema.names, config), batch.columns, strict=True))
    if hasattr(returned, "__arrow_c_stream__"):
        table = pa.table(returned)
        return dict(zip(_once(table.schema.names, config), table.columns, strict=True))
    raise InvalidError(
        f"`{config.python}`: expected Arrow data or a mapping of arrays, found `{type(returned).__name__}`",
        "return a `pyarrow.RecordBatch`, a polars or pandas data frame, or `{name: array}`",
    )


def _once(names: list[str], config: StepConfig) -> list[str]:
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise InvalidError(f"`{config.python}` returned two columns `{doubled[0]}`")
    return names


def _array(column: object, kind: pa.DataType, name: str) -> pa.Array:
    try:
        if isinstance(column, pa.ChunkedArray):
            joined = column.combine_chunks()
            return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)
        if isinstance(column, pa.Array):
            return column
        if hasattr(column, "__arrow_c_stream__"):
            return _array(pa.chunked_array(column), kind, name)
        if hasattr(column, "__arrow_c_array__"):
            return pa.array(column)
        # A number in an array of another type is cast below, strictly; lists take the declared type at once.
        return pa.array(column) if hasattr(column, "dtype") else pa.array(column, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
        if isinstance(error, RegraftError):
            raise
        raise InvalidError(
            f"`{name}`: expected an array of `{kind}`, found `{type(column).__name__}`: {error}"
        ) from None
