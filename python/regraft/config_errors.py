"""What a user reads when a configuration is wrong: file and line, field, expected, found, the closest known word."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from regraft.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pydantic.fields import FieldInfo

__all__ = ["did_you_mean", "explain", "listed"]

Path_ = tuple[str | int, ...]


def explain(error: ValidationError, place: Callable[[Path_], str], model: type[BaseModel], schema: str) -> InvalidError:
    """One line for each mistake, in our own grammar, and the repairs that are known.

    Args:
        error: What pydantic found.
        place: Gives ``file:line`` for the path of a field.
        model: What the whole configuration is.
        schema: Name of its JSON Schema.

    Returns:
        The error to raise.
    """
    lines: list[str] = []
    hints: list[str] = []
    for mistake in error.errors(include_url=False):
        path: Path_ = tuple(mistake["loc"])
        dotted = ".".join(str(part) for part in path)
        message, hint = _explain(mistake, path, dotted, model)
        lines.append(f"`{place(path)}`: {message}")
        if hint:
            hints.append(hint)
    hint = "; ".join(dict.fromkeys(hints)) if hints else f"`regraft schema {schema}` prints every key that is known"
    return InvalidError("\n".join(lines), hint)


_PLACES = {"source": "files are", "store": "store is", "data": "files are"}
_EXPECTED: dict[str, str] = {
    "bool": "true or false",
    "dict": "a mapping",
    "model": "a mapping",
    "list": "a list",
    "float": "a number",
    "int": "a whole number",
    "finite": "a finite number",
    "string": "text",
}


def _explain(mistake: Mapping[str, Any], path: Path_, dotted: str, model: type[BaseModel]) -> tuple[str, str | None]:
    kind: str = mistake["type"]
    context: Mapping[str, Any] = mistake.get("ctx", {})
    found = f"found `{mistake['input']}`"
    if kind == "missing":
        hint = None
        if path[1:] in ((), ("url",)) and path[0] in _PLACES:
            hint = f"say where the {_PLACES[str(path[0])]}: `{path[0]}: {{url: …}}`"
        return f"`{dotted}` is missing", hint
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1], model)
        section = ".".join(str(part) for part in path[:-1])
        where = f" in `{section}`" if section else ""
        return (
            f"unknown key `{path[-1]}`{where}",
            did_you_mean(str(path[-1]), known) or f"known keys{where}: {listed(known)}",
        )
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "`")
        choices = re.findall(r"`([^`]+)`", expected)
        return f"`{dotted}`: expected {expected}, {found}", did_you_mean(str(mistake["input"]), choices)
    if kind == "value_error":
        return f"`{dotted}`: {context['error']}", None
    if kind == "string_pattern_mismatch" and path[-1] in ("preprocess", "python"):
        return f"`{dotted}`: expected `package.module:function` or `file.py:function`, {found}", None
    if kind == "string_pattern_mismatch":
        return f"`{dotted}`: expected letters, digits, `.`, `_` and `-`, {found}", None
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        word = {"greater_than": "above", "greater_than_equal": "of at least", "less_than_equal": "of at most"}[kind]
        bound = context.get("gt", context.get("ge", context.get("le")))
        return f"`{dotted}`: expected a number {word} {bound}, {found}", None
    expected = next((text for prefix, text in _EXPECTED.items() if kind.startswith(prefix)), str(mistake["msg"]))
    return f"`{dotted}`: expected {expected}, {found}", None


def _known_keys(path: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    model: Any = root
    for part in path:
        field = _fields(model).get(str(part))
        if field is None:
            # A key of a mapping (`packing.NAME`) or a place in a list (`steps.0`): its value type goes on.
            inner = [item for item in get_args(model) if isinstance(item, type) and issubclass(item, BaseModel)]
            model = inner[0] if inner else None
        else:
            model = field.annotation
    return [*(["extends"] if model is root else []), *_fields(model)]


def _fields(model: object) -> dict[str, FieldInfo]:
    """Fields by the names that a file gives them."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return {}
    return {field.alias or name: field for name, field in model.model_fields.items()}


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """A hint with the closest known word, if one is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=cutoff)
    return f"did you mean `{close[0]}`?" if close else None


def listed(names: Iterable[str]) -> str:
    """Names in backticks, as errors list them."""
    return ", ".join(f"`{name}`" for name in names)
