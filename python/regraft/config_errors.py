"""What a user reads when a configuration is wrong: file and line, field, expected, found, the closest known word."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from regraft.config import CollectionConfig
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["did_you_mean", "explain", "listed"]

Path_ = tuple[str | int, ...]


def explain(error: ValidationError, place: Callable[[Path_], str]) -> InvalidError:
    """One line for each mistake, in our own grammar, and the repairs that are known.

    Args:
        error: What pydantic found.
        place: Gives ``file:line`` for the path of a field.

    Returns:
        The error to raise.
    """
    lines: list[str] = []
    hints: list[str] = []
    for mistake in error.errors(include_url=False):
        path: Path_ = tuple(mistake["loc"])
        dotted = ".".join(str(part) for part in path)
        message, hint = _explain(mistake, path, dotted)
        lines.append(f"`{place(path)}`: {message}")
        if hint:
            hints.append(hint)
    hint = "; ".join(dict.fromkeys(hints)) if hints else "`regraft schema collection` prints every key that is known"
    return InvalidError("\n".join(lines), hint)


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


def _explain(mistake: Mapping[str, Any], path: Path_, dotted: str) -> tuple[str, str | None]:
    kind: str = mistake["type"]
    context: Mapping[str, Any] = mistake.get("ctx", {})
    found = f"found `{mistake['input']}`"
    if kind == "missing":
        hint = None
        if path in {("source", "url"), ("store", "url"), ("source",), ("store",)}:
            hint = f"say where the {'files are' if path[0] == 'source' else 'store is'}: `{path[0]}: {{url: …}}`"
        return f"`{dotted}` is missing", hint
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
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
    if kind == "string_pattern_mismatch" and path[-1] == "preprocess":
        return f"`{dotted}`: expected `package.module:function` or `file.py:function`, {found}", None
    if kind == "string_pattern_mismatch":
        return f"`{dotted}`: expected letters, digits, `.`, `_` and `-`, {found}", None
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        word = {"greater_than": "above", "greater_than_equal": "of at least", "less_than_equal": "of at most"}[kind]
        bound = context.get("gt", context.get("ge", context.get("le")))
        return f"`{dotted}`: expected a number {word} {bound}, {found}", None
    expected = next((text for prefix, text in _EXPECTED.items() if kind.startswith(prefix)), str(mistake["msg"]))
    return f"`{dotted}`: expected {expected}, {found}", None


def _known_keys(path: Sequence[str | int]) -> list[str]:
    model: Any = CollectionConfig
    for part in path:
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            # A key of a mapping (`packing.NAME`): its value type is the model to go on with.
            inner = [item for item in get_args(model) if isinstance(item, type) and issubclass(item, BaseModel)]
            model = inner[0] if inner else None
        else:
            model = field.annotation
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [*(["extends"] if model is CollectionConfig else []), *model.model_fields]


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """A hint with the closest known word, if one is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=cutoff)
    return f"did you mean `{close[0]}`?" if close else None


def listed(names: Iterable[str]) -> str:
    """Names in backticks, as errors list them."""
    return ", ".join(f"`{name}`" for name in names)
