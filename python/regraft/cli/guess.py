"""A first configuration from one sample file, with the reasons written beside each guess.

Guesses are made to be read and changed: the text explains what each line does to cost. What is guessed: which files
belong (the folder, and the file name with its dates and numbers replaced by `*`), the axis (from the key's own
dimension), chunks (one step of the axis, and 1 to 4 MB of raw values in space), shards (thirty steps), and variables.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from regraft.config_errors import did_you_mean, listed
from regraft.config_file import load_config, public_config
from regraft.errors import InvalidError, NotFoundError
from regraft.progress import bytes_text
from regraft.seam import enter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Guess", "guess_config", "guess_text", "parse_chunks"]

_LARGEST_CHUNK = 4_000_000
_LONGEST_SIDE = 1000
_SMALL_STEP = 64_000
_SMALL_CHUNK = 1_000_000
_STEPS_PER_SHARD = 30
_NUMBER = re.compile(r"(?:u?int|float)(8|16|32|64)")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


@dataclasses.dataclass(frozen=True)
class Guess:
    """A guessed configuration: the commented YAML, and what it says."""

    text: str
    config: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Variable:
    name: str
    dtype: str
    dimensions: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def item_size(self) -> int:
        """Bytes of one element."""
        found = _NUMBER.fullmatch(self.dtype)
        return int(found[1]) // 8 if found else 1

    @property
    def text(self) -> bool:
        return self.dtype in ("char", "string")

    @property
    def supported(self) -> bool:
        return self.text or _NUMBER.fullmatch(self.dtype) is not None


def parse_chunks(text: str | None) -> dict[str, int]:
    """Chunk lengths from ``time=1,lat=500``.

    Args:
        text: What the command line says.

    Returns:
        Length by dimension.

    Raises:
        InvalidError: The text is not of that form.

    Example:
        >>> parse_chunks("time=1, lat=500")
        {'time': 1, 'lat': 500}
    """
    lengths: dict[str, int] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        found = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([1-9][0-9]*)\s*", part)
        if found is None:
            raise InvalidError(
                f"`--chunks`: expected `NAME=LENGTH`, found `{part.strip()}`", "for instance `time=1,lat=500`"
            )
        lengths[found[1]] = int(found[2])
    return lengths


def guess_config(
    file: str, *, store: str, key: str, chunks: Mapping[str, int], name: str | None, output: Path | None
) -> Guess:
    """Guesses a configuration from a sample file.

    Args:
        file: Path or URL of a NetCDF file.
        store: URL or path of the store to make.
        key: Variable whose values place a file.
        chunks: Chunk lengths that are known better.
        name: Name of the collection; by default from the store's.
        output: Where the text will be written: paths are made relative to it.

    Returns:
        The guess; it has been read back and validated.

    Raises:
        NotFoundError: The file has no such variable.
        InvalidError: The file cannot be read, or the key places nothing.
    """
    enter()
    from regraft import _core

    structure = json.loads(_core.init_config(file, "{}"))
    folder = output.resolve().parent if output is not None else Path.cwd()
    text = guess_text(structure, file=file, store=store, key=key, chunks=chunks, name=name, folder=folder)
    # Relative paths mean the folder of the file that is yet to be written.
    tree = yaml.safe_load(text)
    for place in ("source", "store"):
        if "://" not in tree[place]["url"]:
            tree[place]["url"] = str(folder / tree[place]["url"])
    return Guess(text, public_config(load_config(tree)))


def guess_text(
    structure: Mapping[str, Any],
    *,
    file: str,
    store: str,
    key: str,
    chunks: Mapping[str, int],
    name: str | None,
    folder: Path,
) -> str:
    """The commented YAML for a file of this structure; pure.

    Args:
        structure: ``{"dimensions": …, "variables": […]}`` of the sample file.
        file: Its path or URL.
        store: The store to make.
        key: The key.
        chunks: Chunk lengths that are known better.
        name: Name of the collection, or ``None``.
        folder: Where the text will be written.

    Returns:
        YAML.
    """
    sizes = _sizes(structure["dimensions"])
    variables = [
        _Variable(item["name"], str(item["dtype"]), tuple(item["dimensions"]), item.get("attributes") or {})
        for item in structure["variables"]
    ]
    by_name = {variable.name: variable for variable in variables}
    if key not in by_name:
        raise NotFoundError(
            f"`{file}` has no variable `{key}`",
            did_you_mean(key, by_name) or f"it has {listed(sorted(by_name)[:20])}",
        )
    placing = by_name[key]
    if not placing.dimensions:
        raise InvalidError(f"`{key}` has no dimension, so it cannot place a file along an axis")
    unknown = [dimension for dimension in chunks if dimension not in sizes]
    if unknown:
        raise NotFoundError(
            f"`--chunks`: `{file}` has no dimension `{unknown[0]}`",
            did_you_mean(unknown[0], sizes) or f"it has {listed(sizes)}",
        )

    axis = placing.dimensions[0]
    lengths = {**_chunks(variables, sizes, axis), **chunks}
    largest = _largest(variables, sizes, axis)
    chunk_bytes = _chunk_bytes(largest, sizes, lengths) if largest else 0
    sharded = lengths[axis] == 1
    url, pattern = _files(file, folder)
    lines = [
        f"# Guessed from {Path(file).name}",
        "# Check the lines below, then: regraft zarr plan THIS_FILE",
        "# Every key: regraft schema collection",
        "kind: zarr-collection",
        f"name: {_scalar(name or _name(store))}",
        "",
        "source:",
        f"  url: {_scalar(url)}",
        "  # Globs on the key below `url`; `re:…` is a regular expression. Numbers of the sample's name became `*`.",
        f"  include: [{_scalar(pattern, flow=True)}]",
        "",
        "store:",
        f"  url: {_scalar(_store(store, folder))}",
        "  format: zarr3",
    ]
    if largest is not None:
        lines.append(f"  # A chunk of `{largest.name}` holds {bytes_text(chunk_bytes)} before compression.")
    if sharded:
        lines.append(f"  # One step of `{axis}` for each chunk: a new file re-encodes nothing of its neighbours.")
    else:
        lines.append(
            f"  # Steps of `{axis}` are small: many share a chunk, which is read and encoded again for a new one."
        )
    lines.append(f"  chunks: {_mapping(lengths)}")
    if sharded:
        lines += [
            f"  # {_STEPS_PER_SHARD} chunks in one object: few objects, and neighbours are copied as they are.",
            f"  shards: {_mapping({**lengths, axis: _STEPS_PER_SHARD})}",
        ]
    lines += [
        "  codec: zstd            # zstd | blosc | gzip | zlib | none | source (the file's own, chunks are copied)",
        "",
        "region:",
        f"  key: {_scalar(key)}",
    ]
    if axis != key:
        lines.append(f"  dimension: {_scalar(axis)}")
    if placing.text:
        lines.append("  axis: arrival          # labels are text: append, and find again by label")
    else:
        lines.append(
            "  axis: sorted           # late files are inserted; `regular` (start, step) finds slots by arithmetic"
        )
    lines += [
        "  winner: latest         # two files with one label: latest | priority | error",
        "  on_remove: restore     # the file is gone: bring the runner-up back, else blank",
        "",
        "variables:",
        *_variable_lines(variables, sizes, axis),
        "  missing: fill          # a variable that one file lacks: fill | error",
    ]
    return "\n".join(lines) + "\n"


def _sizes(dimensions: Any) -> dict[str, int]:  # noqa: ANN401 - JSON
    if isinstance(dimensions, list):
        return {item["name"]: int(item["size"]) for item in dimensions}
    return {name: int(item["size"] if isinstance(item, dict) else item) for name, item in dimensions.items()}


def _largest(variables: Sequence[_Variable], sizes: Mapping[str, int], axis: str) -> _Variable | None:
    # Text comes last: its innermost dimension is the length of a string, and is no dimension of the store.
    data = [
        variable for variable in variables if axis in variable.dimensions and variable.supported and not variable.text
    ]
    if not data:
        return None
    return max(data, key=lambda item: item.item_size * math.prod(sizes.get(name, 1) for name in item.dimensions))


def _chunk_bytes(variable: _Variable, sizes: Mapping[str, int], lengths: Mapping[str, int]) -> int:
    return variable.item_size * math.prod(lengths.get(name, sizes.get(name, 1)) for name in variable.dimensions)


def _chunks(variables: Sequence[_Variable], sizes: Mapping[str, int], axis: str) -> dict[str, int]:
    """One step of the axis, and sides of 500 to 1000 in equal parts, halved until a chunk has at most 4 MB."""
    largest = _largest(variables, sizes, axis)
    if largest is None:
        return {axis: 1}
    lengths = {axis: 1}
    for dimension in largest.dimensions:
        size = sizes.get(dimension, 1)
        if dimension != axis and size > 1:
            parts = math.ceil(size / _LONGEST_SIDE)
            lengths[dimension] = math.ceil(size / parts)
    while _chunk_bytes(largest, sizes, lengths) > _LARGEST_CHUNK:
        longest = max((name for name in lengths if name != axis), key=lambda name: lengths[name])
        lengths[longest] = math.ceil(lengths[longest] / 2)
    step = _chunk_bytes(largest, sizes, lengths)
    if step < _SMALL_STEP:
        lengths[axis] = max(1, min(_LONGEST_SIDE, _SMALL_CHUNK // max(1, step)))
    return lengths


def _variable_lines(variables: Sequence[_Variable], sizes: Mapping[str, int], axis: str) -> list[str]:
    lines = [
        "  # Values keep their packing: integers stay integers. Coordinates and the key are stored always.",
        "  include:",
    ]
    skipped = []
    for variable in variables:
        if not variable.supported:
            skipped.append(variable.name)
            continue
        if variable.dimensions == (variable.name,):
            continue
        packing = ", ".join(
            f"{short} {variable.attributes[attribute]}"
            for attribute, short in (("scale_factor", "scale"), ("add_offset", "offset"))
            if attribute in variable.attributes
        )
        still = "" if axis in variable.dimensions else "; stored once"
        shape = "\N{MULTIPLICATION SIGN}".join(str(sizes.get(name, "?")) for name in variable.dimensions) or "scalar"
        lines.append(
            f"    - {_scalar(variable.name)}  # {variable.dtype} {shape}{', ' + packing if packing else ''}{still}"
        )
    if lines[-1] == "  include:":
        lines[-1] = "  include: []            # all"
    if skipped:
        lines.append(f"  # of types that are not read: {', '.join(skipped)}")
    return lines


def _files(file: str, folder: Path) -> tuple[str, str]:
    if "://" in file:
        base, _, last = file.rpartition("/")
        return f"{base}/", f"**/{_glob(last)}"
    path = Path(file).resolve()
    return _relative(path.parent, folder), f"**/{_glob(path.name)}"


def _glob(name: str) -> str:
    # Dates and times first, as one: 20110901T000000Z; then other numbers of four digits or more, or that end a word.
    starred = re.sub(
        r"\d{4}-?\d{2}-?\d{2}(?:[T_-]?\d{2}:?\d{2}(?::?\d{2})?Z?)?", "*", re.sub(r"([\[\]{}?*])", r"[\1]", name)
    )
    starred = re.sub(r"\d{4,}|(?<=[_-])\d{3}(?=[_.-])", "*", starred)
    starred = re.sub(r"\*[*]+", "*", starred)
    return starred if "*" in starred else "*.nc"


def _store(store: str, folder: Path) -> str:
    return store if "://" in store else _relative(Path(store).resolve(), folder)


def _relative(path: Path, folder: Path) -> str:
    relative = Path(os.path.relpath(path, folder))
    # A long way round says less than the path itself.
    return str(path) if relative.parts[:2] == ("..", "..") else str(relative)


def _name(store: str) -> str:
    last = store.rstrip("/").rpartition("/")[2].removesuffix(".zarr")
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")
    return cleaned or "collection"


def _mapping(lengths: Mapping[str, int]) -> str:
    return "{" + ", ".join(f"{_scalar(name, flow=True)}: {length}" for name, length in lengths.items()) + "}"


def _scalar(text: str, *, flow: bool = False) -> str:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS
    if plain or (not flow and re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*[A-Za-z_/][A-Za-z0-9_./-]*", text)):
        return text
    return json.dumps(text, ensure_ascii=False)
