"""What an SQL expression is made of, from DuckDB's own syntax tree: the columns it reads, the functions it calls.

One row in, one row out, and the same bytes at every try: aggregates, windows, subqueries, table functions and whatever
depends on time, chance or session are refused here, before anything is bound or run. The tree is walked as plain JSON,
class by class, and a class that is not known to be harmless is refused.

Volatile functions are those that ``duckdb_functions()`` does not call consistent, and three that it wrongly does or
cannot see: ``current_…`` in any form, ``age`` of one argument, and text such as ``'now'`` that is cast to a time.
A macro is judged by its definition. What is left is a text *column* that holds the word ``now`` and is cast to a time.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from regraft.config_errors import did_you_mean, listed
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["FunctionKinds", "Reading", "read_expression", "resolve"]

Node = dict[str, Any]

_HARMLESS = {"BETWEEN", "CASE", "CAST", "COLLATE", "COMPARISON", "CONJUNCTION", "CONSTANT", "OPERATOR", "TYPE"}
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "`*`",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by its number",
    "DEFAULT": "`DEFAULT`",
}
_CLAUSES = {
    "where_clause": "`WHERE`",
    "having": "`HAVING`",
    "qualify": "`QUALIFY`",
    "sample": "`USING SAMPLE`",
    "group_expressions": "`GROUP BY`",
}
_MODIFIERS = {
    "DISTINCT_MODIFIER": "`DISTINCT`",
    "LIMIT_MODIFIER": "`LIMIT`",
    "LIMIT_PERCENT_MODIFIER": "`LIMIT`",
    "ORDER_MODIFIER": "`ORDER BY`",
}
_MOMENTS = {"now", "today", "tomorrow", "yesterday"}
_SESSION = re.compile(
    r"(get_)?current_\w+|(session_|system_)?user|local(time|timestamp)|pg_\w+|duckdb_\w+|has_\w+_privilege|version"
)


@dataclasses.dataclass(frozen=True)
class FunctionKinds:
    """What ``duckdb_functions()`` says, by lower-case name."""

    kinds: Mapping[str, frozenset[str]]
    """``scalar``, ``macro``, ``aggregate``, ``window``, ``table``, …"""
    inconsistent: frozenset[str]
    """Scalar functions that do not always give the same result."""
    macros: Mapping[str, Sequence[str]]
    """Definitions of scalar macros."""


@dataclasses.dataclass
class Reading:
    """What was found in one expression."""

    columns: list[str] = dataclasses.field(default_factory=list)
    """First part of each column reference, in order, once each, as written."""
    maybe_columns: list[str] = dataclasses.field(default_factory=list)
    """Names left of ``->``: a column in ``json -> '$.a'``."""
    functions: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    """Name and number of arguments of each call."""


def read_expression(
    text: str,
    serialized: Mapping[str, Any],
    functions: FunctionKinds,
    parse: Callable[[str], Mapping[str, Any]],
) -> Reading:
    """Reads the syntax tree of ``SELECT expression``, and refuses what is no scalar expression.

    Args:
        text: The expression, for errors.
        serialized: What ``json_serialize_sql`` gave.
        functions: What the engine knows.
        parse: Gives the tree of another expression: the definition of a macro.

    Returns:
        Columns and functions.

    Raises:
        InvalidError: It is no expression, or not one of the kind that is allowed.
    """
    if serialized.get("error"):
        reason = str(serialized.get("error_message", "it cannot be parsed")).splitlines()[0]
        raise InvalidError(f"it is no SQL expression: {reason[:1].lower()}{reason[1:]}")
    reading = Reading()
    _walk(_only_expression(serialized), reading, frozenset())
    for name, arguments in reading.functions:
        _check_function(name, arguments, functions, parse, ())
    for column in reading.columns:
        if not column.strip():
            raise InvalidError(f"it names a column without a name: `{text}`")
    return reading


def resolve(name: str, columns: Iterable[str], *, siblings: Iterable[str] = ()) -> str:
    """The column that an SQL name means: the same spelling, or else the only one that differs in case.

    Args:
        name: As written in the expression.
        columns: Names in the file's schema.
        siblings: Columns that the same step makes, for a better error.

    Returns:
        The name in the schema.

    Raises:
        InvalidError: There is none, or several differ in case only.

    Example:
        >>> resolve("TEMP_C", ["temp_c", "rh"])
        'temp_c'
    """
    known = list(columns)
    if name in known:
        return name
    close = [column for column in known if column.lower() == name.lower()]
    if len(close) == 1:
        return close[0]
    if close:
        raise InvalidError(
            f"`{name}` may mean {listed(close)}, which differ in case only", "spell it as one of them, in double quotes"
        )
    if name in siblings:
        raise InvalidError(
            f"it reads `{name}`, which the same step makes",
            "a step sees the columns as they are before it: repeat the expression, or make a step of its own",
        )
    if _SESSION.fullmatch(name.lower()):
        raise InvalidError(f"`{name}` is not the same at every try", _hint_volatile())
    raise InvalidError(
        f"there is no column `{name}`", did_you_mean(name, known) or f"the file has {_some(known) or 'no columns'}"
    )


def _only_expression(serialized: Mapping[str, Any]) -> Node:
    statements = serialized.get("statements", [])
    if len(statements) != 1:
        raise InvalidError(f"expected one SQL expression, found {len(statements)} statements")
    node: Node = statements[0].get("node", {})
    if node.get("type") != "SELECT_NODE":
        raise InvalidError("expected an SQL expression, found a query")
    if (node.get("from_table") or {}).get("type", "EMPTY") != "EMPTY":
        raise InvalidError("expected an SQL expression, found `FROM`", "leave `FROM` out: columns are the file's")
    for key, name in _CLAUSES.items():
        if node.get(key):
            raise InvalidError(f"expected one row for each row, found {name}")
    for modifier in node.get("modifiers", []):
        kind = modifier.get("type", "")
        raise InvalidError(f"expected one row for each row, found {_MODIFIERS.get(kind, f'`{kind}`')}")
    if (node.get("cte_map") or {}).get("map"):
        raise InvalidError("expected an SQL expression, found `WITH`")
    expressions = node.get("select_list", [])
    if len(expressions) != 1:
        raise InvalidError(
            f"expected one SQL expression, found {len(expressions)}", "give each column a line of its own"
        )
    expression: Node = expressions[0]
    if expression.get("alias"):
        raise InvalidError(
            f"expected an expression without a name, found `AS {expression['alias']}`", "the key is the column's name"
        )
    return expression


def _walk(node: object, reading: Reading, bound: frozenset[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _walk(item, reading, bound)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind == "COLUMN_REF":
        name = str(node["column_names"][0])
        if name.lower() not in bound and name not in reading.columns:
            reading.columns.append(name)
        return
    if kind == "LAMBDA":
        _walk_lambda(node, reading, bound)
        return
    if kind == "FUNCTION":
        _walk_function(node, reading)
    elif kind == "CAST":
        _walk_cast(node)
    elif kind is not None and kind not in _HARMLESS:
        raise InvalidError(f"expected one row for each row, found {_REFUSED.get(kind, f'`{kind}`')}")
    for key, item in node.items():
        if key != "qualified_name" and isinstance(item, dict | list):
            _walk(item, reading, bound)


def _walk_lambda(node: Node, reading: Reading, bound: frozenset[str]) -> None:
    names = [str(found["column_names"][0]) for found in _column_refs(node.get("lhs"))]
    if node.get("syntax_type") == "LAMBDA_KEYWORD":
        _walk(node.get("expr"), reading, bound | {name.lower() for name in names})
        return
    # `->` is the JSON operator as well: its left side is then an expression over columns.
    reading.maybe_columns += [name for name in names if name.lower() not in bound]
    before = list(reading.columns)
    _walk(node.get("lhs"), reading, bound)
    reading.columns[:] = before
    _walk(node.get("expr"), reading, bound | {name.lower() for name in names})


def _column_refs(node: object) -> Iterable[Node]:
    if isinstance(node, list):
        for item in node:
            yield from _column_refs(item)
    elif isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield node
        for item in node.values():
            yield from _column_refs(item)


def _walk_function(node: Node, reading: Reading) -> None:
    arguments: list[Node] = node.get("arguments") or node.get("children") or []
    reading.functions.append((str(node.get("function_name", "")).lower(), len(arguments)))
    orders = (node.get("order_bys") or {}).get("orders")
    if node.get("distinct") or node.get("filter") or orders:
        raise InvalidError(f"expected one row for each row, found the aggregate `{node.get('function_name')}`")


def _walk_cast(node: Node) -> None:
    child = node.get("child") or {}
    literal = child.get("literal") or child.get("value") or {}
    said = str(literal.get("text", literal.get("value", ""))).strip().lower()
    if child.get("class") == "CONSTANT" and said in _MOMENTS:
        raise InvalidError(f"`'{said}'` is not the same at every try", _hint_volatile())


def _check_function(
    name: str,
    arguments: int,
    functions: FunctionKinds,
    parse: Callable[[str], Mapping[str, Any]],
    above: tuple[str, ...],
) -> None:
    kinds = functions.kinds.get(name, frozenset())
    shown = above[0] if above else name
    if name in functions.inconsistent or _SESSION.fullmatch(name) or (name == "age" and arguments == 1):
        raise InvalidError(f"`{shown}` is not the same at every try", _hint_volatile())
    if "aggregate" in kinds or "window" in kinds:
        raise InvalidError(
            f"`{shown}` is an aggregate, and a migration makes one row from one row",
            "for the values inside a list there are `list_sum`, `list_max`, `list_aggregate`, …",
        )
    if "macro" in kinds and name not in above:
        for definition in functions.macros.get(name, ()):
            inside = Reading()
            _walk(_only_expression(parse(definition)), inside, frozenset())
            if any(_SESSION.fullmatch(column.lower()) for column in inside.columns):
                raise InvalidError(f"`{shown}` is not the same at every try", _hint_volatile())
            for called, count in inside.functions:
                _check_function(called, count, functions, parse, (*above, name))
        return
    if "scalar" in kinds or "macro" in kinds:
        return
    if kinds:
        raise InvalidError(f"`{shown}` gives a table, and a migration makes one row from one row")
    scalars = [known for known, found in functions.kinds.items() if "scalar" in found or "macro" in found]
    raise InvalidError(f"there is no function `{shown}`", did_you_mean(name, scalars, cutoff=0.7))


def _hint_volatile() -> str:
    return "a file that is tried again must get the same bytes: write the value itself, or read it from a column"


def _some(names: Sequence[str]) -> str:
    return listed(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
