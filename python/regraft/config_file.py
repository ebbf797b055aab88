"""Reading configuration: files, inheritance, environment, and errors that say where and what.

The order is: read (YAML or JSON) → refuse secrets → fill in ``${VAR}`` → make paths absolute, relative to the file →
merge over what ``extends`` names → overrides → validate. Each file is interpolated and made absolute by itself before
it is merged, so that a parent in another folder means what it says.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from regraft.config import CollectionConfig
from regraft.config_checks import SCHEME, SECRET, check_url, refuse_secrets
from regraft.config_errors import did_you_mean, explain, listed
from regraft.errors import InvalidError, NotFoundError

__all__ = [
    "ConfigKind",
    "definition_names",
    "definition_text",
    "load_config",
    "merge",
    "parse_overrides",
    "public_config",
    "read_config",
]

# The same loader in C, where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEFINITION = "definition:"
_DEFINITIONS = Path(__file__).with_name("definitions")
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:[^}])*))?\}")

Tree = dict[str, Any]
Path_ = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclasses.dataclass(frozen=True)
class ConfigKind(Generic[Model]):
    """What reading must know of one kind of file."""

    model: type[Model]
    places: tuple[str, ...]
    """Sections with `url` and `storage_options`."""
    written: tuple[str, ...]
    """Those of them that are written to."""
    schema: str
    """Name of the JSON Schema."""
    absent: str
    """The hint where there is no such file."""


_COLLECTION = ConfigKind(
    CollectionConfig,
    places=("source", "store"),
    written=("store",),
    schema="collection",
    absent="make one with `regraft zarr init FILE.nc`, or extend a ready-made one",
)


def load_config(
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> CollectionConfig:
    """Reads and validates the configuration of a collection.

    Args:
        config: A YAML or JSON file, ``definition:NAME`` for a ready-made one, or the same as a mapping.
        overrides: Merged over the configuration, deep: mappings merge, everything else replaces.
        storage_options: Options of the object stores, secrets allowed, which are written nowhere: either one mapping
            for every object storage URL, or ``{"source": {…}, "store": {…}}``.

    Returns:
        The validated configuration, with absolute paths.

    Raises:
        InvalidError: A key is unknown, a value is wrong, a variable is not set, or a secret is in the file.
        NotFoundError: The file, or one that it extends, does not exist.

    Example:
        >>> config = load_config({"extends": "definition:sst", "source": {"url": "/data/sst"}, "store": {"url": "/x"}})
        >>> config.region.key
        'time'
    """
    return read_config(_COLLECTION, config, overrides=overrides, storage_options=storage_options)


def read_config(
    kind: ConfigKind[Model],
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Model:
    """Reads and validates a configuration of any kind; see `load_config`.

    Args:
        kind: Which.
        config: A YAML or JSON file, ``definition:NAME``, or a mapping.
        overrides: Merged over the configuration, deep.
        storage_options: Options of the object stores, secrets allowed.

    Returns:
        The validated configuration, with absolute paths.

    Raises:
        InvalidError: Something in it is wrong.
        NotFoundError: The file, or one that it extends, does not exist.
    """
    reader = _Reader(kind)
    if overrides:
        reader.remember(overrides, "overrides")
    if isinstance(config, Mapping):
        reader.remember(config, reader.name)
        tree = reader.mapping(config, reader.name, Path.cwd())
    else:
        tree = reader.file(config)
    if overrides:
        tree = merge(tree, reader.mapping(overrides, "overrides", Path.cwd()))
    tree.pop("$schema", None)
    try:
        loaded = kind.model.model_validate(tree)
    except ValidationError as error:
        raise explain(error, reader.place, kind.model, kind.schema) from None
    for place in kind.places:
        check_url(getattr(loaded, place).url, place, reader.name, writes=place in kind.written)
    return _with_storage_options(loaded, kind.places, storage_options) if storage_options else loaded


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Merges two configuration trees.

    Args:
        base: The parent.
        over: What is said on top of it: mappings merge, everything else replaces, ``null`` goes back to the default.

    Returns:
        A new tree.

    Example:
        >>> merge({"store": {"format": "zarr2", "url": "a"}}, {"store": {"url": "b"}})
        {'store': {'format': 'zarr2', 'url': 'b'}}
    """
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            if key == "axis" and isinstance(below, str):
                # One word in the parent, a mapping here.
                below = {"policy": below}
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def parse_overrides(assignments: Iterable[str]) -> Tree:
    """Overrides from ``store.chunks.time=1``, the form of the command line.

    Args:
        assignments: ``KEY=VALUE`` texts; the key has dots, the value is YAML.

    Returns:
        The tree that `load_config` takes as ``overrides``.

    Raises:
        InvalidError: There is no ``=``, or the value is no YAML.

    Example:
        >>> parse_overrides(["store.url=/data/x.zarr", "store.chunks.time=1"])
        {'store': {'url': '/data/x.zarr', 'chunks': {'time': 1}}}
    """
    tree: Tree = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise InvalidError(
                f"expected `KEY=VALUE`, found `{assignment}`", "for instance `--set store.url=/data/x.zarr`"
            )
        try:
            value = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
        except yaml.YAMLError as error:
            raise InvalidError(f"the value of `{key}` is no YAML: {_first_line(error)}") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merge(tree, value)
    return tree


def definition_names() -> list[str]:
    """Names of the ready-made collections, for ``definition:NAME``."""
    return sorted(path.stem for path in _DEFINITIONS.glob("*.yaml"))


def definition_text(name: str) -> str:
    """The YAML of a ready-made collection, with its comments.

    Args:
        name: One of `definition_names`.

    Raises:
        NotFoundError: There is none of that name.
    """
    names = definition_names()
    if name not in names:
        raise NotFoundError(
            f"there is no ready-made collection `{name}`",
            did_you_mean(name, names) or f"known: {listed(names)}",
        )
    return (_DEFINITIONS / f"{name}.yaml").read_text("utf-8")


def public_config(config: BaseModel) -> Tree:
    """The configuration as plain data that may be saved: options that look like secrets are left out."""
    tree: Tree = config.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    tree["kind"] = getattr(config, "kind", None)
    for section in tree.values():
        options = section.get("storage_options", {}) if isinstance(section, dict) else {}
        for name in [name for name in options if SECRET.search(name.lower())]:
            del options[name]
    return tree


class _Reader:
    """Reads one configuration and everything that it extends; remembers where each key was said."""

    def __init__(self, kind: ConfigKind[Any]) -> None:
        self.kind = kind
        self.name = "configuration"
        # The first to say a key keeps it: overrides are remembered first, then the file itself, then its parents.
        self.lines: dict[Path_, str] = {}
        self._unread: list[tuple[str, str]] = []
        self._open: list[str] = []

    def file(self, given: str | os.PathLike[str], folder: Path | None = None) -> Tree:
        name = os.fspath(given)
        if name.startswith(_DEFINITION):
            text = definition_text(name.removeprefix(_DEFINITION))
            identity, home = name, Path.cwd()
        else:
            path = (folder or Path.cwd()) / Path(name).expanduser()
            try:
                text = path.read_text("utf-8")
            except FileNotFoundError:
                raise NotFoundError(
                    f"there is no configuration file `{path}`",
                    f"{self.kind.absent}: {listed([_DEFINITION + known for known in definition_names()])}"
                    if self.kind is _COLLECTION
                    else self.kind.absent,
                ) from None
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidError(f"`{path}` cannot be read as text: {error}") from error
            identity, home = str(path.resolve()), path.resolve().parent
        if identity in self._open:
            raise InvalidError(f"`{name}` extends itself: {' → '.join([*self._open, identity])}")
        if not self._open:
            self.name = name
        try:
            tree = json.loads(text) if name.endswith(".json") else yaml.load(text, _Loader)  # noqa: S506 - a safe loader
        except (yaml.YAMLError, json.JSONDecodeError) as error:
            language = "JSON" if name.endswith(".json") else "YAML"
            raise InvalidError(f"`{name}` is no valid {language}: {_first_line(error)}") from None
        if not isinstance(tree, dict):
            raise InvalidError(f"`{name}`: expected a mapping, found `{type(tree).__name__}`")
        if not name.endswith(".json"):
            self._unread.append((name, text))
        self._open.append(identity)
        try:
            return self.mapping(tree, name, home)
        finally:
            self._open.pop()

    def mapping(self, given: Mapping[str, Any], name: str, folder: Path) -> Tree:
        refuse_secrets(given, name, self.kind.places)
        tree: Tree = _interpolate(given, name)
        parent = tree.pop("extends", None)
        for place in self.kind.places:
            section = tree.get(place)
            if isinstance(section, dict) and isinstance(section.get("url"), str):
                section["url"] = _absolute(section["url"], folder)
        _absolute_functions(tree, folder)
        if parent is None:
            return tree
        if not isinstance(parent, str):
            raise InvalidError(f"`{name}`: `extends`: expected a path or `definition:NAME`, found `{parent}`")
        return merge(self.file(parent, folder), tree)

    def remember(self, given: Mapping[str, Any], name: str, path: Path_ = ()) -> None:
        """Notes that `name` says these keys; a mapping has no lines."""
        for key, value in given.items():
            self.lines.setdefault((*path, str(key)), name)
            if isinstance(value, Mapping):
                self.remember(value, name, (*path, str(key)))

    def place(self, path: Path_) -> str:
        """`file:line` of a key, or of the closest key above it."""
        # Only who made a mistake waits for the second parse.
        while self._unread:
            name, text = self._unread.pop(0)
            self._remember_lines(yaml.compose(text, Loader=_Loader), name, ())
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return self.name

    def _remember_lines(self, node: yaml.Node | None, name: str, path: Path_) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                below = (*path, str(key.value))
                self.lines.setdefault(below, f"{name}:{key.start_mark.line + 1}")
                self._remember_lines(value, name, below)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.lines.setdefault((*path, index), f"{name}:{value.start_mark.line + 1}")
                self._remember_lines(value, name, (*path, index))


def _interpolate(value: Any, name: str) -> Any:  # noqa: ANN401 - a YAML tree
    if isinstance(value, Mapping):
        return {key: _interpolate(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_interpolate(item, name) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return os.fspath(value) if isinstance(value, Path) else value

    def replace(found: re.Match[str]) -> str:
        variable, default = found[1], found[2]
        if variable is None:
            return "${"
        known = os.environ.get(variable)
        # As in a shell, `:-` also stands in for a variable that is set to nothing.
        if known or (known is not None and default is None):
            return known
        if default is None:
            raise InvalidError(
                f"`{name}`: the environment variable `{variable}` is not set",
                f"set it, or give a default: `${{{variable}:-default}}`",
            )
        return default

    return _VARIABLE.sub(replace, value)


def _absolute(url: str, folder: Path) -> str:
    if SCHEME.match(url) or not url:
        return url
    path = Path(url).expanduser()
    # `normpath` and not `resolve`: a symbolic link that the user named stays named.
    absolute = os.path.normpath(path if path.is_absolute() else folder / path)
    return f"{absolute}/" if url.endswith("/") and not absolute.endswith("/") else absolute


def _absolute_functions(tree: Tree, folder: Path) -> None:
    """`file.py:function` is meant from the file that says it: the hook of a source, the functions of steps."""
    steps = tree.get("steps")
    holders = [(tree.get("source"), "preprocess"), *((step, "python") for step in steps or () if steps is not None)]
    for holder, key in holders:
        if isinstance(holder, dict) and isinstance(named := holder.get(key), str):
            path, _, function = named.rpartition(":")
            # Steps may stand in a module beside the configuration, which no `sys.path` needs to know.
            if key == "python" and (folder / f"{path}.py").is_file():
                path += ".py"
            if path.endswith(".py"):
                holder[key] = f"{_absolute(path, folder)}:{function}"


def _with_storage_options(config: Model, places: Iterable[str], given: Mapping[str, Any]) -> Model:
    apart = set(given) <= set(places) and all(isinstance(options, Mapping) for options in given.values())
    changed: Tree = {}
    for place in places:
        section = getattr(config, place)
        scheme = SCHEME.match(section.url)
        # One mapping for all: files on disk know none of these options.
        local = scheme is None or scheme[1].lower() in ("file", "memory")
        options = given.get(place, {}) if apart else ({} if local else given)
        text = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in options.items()}
        changed[place] = section.model_copy(update={"storage_options": {**section.storage_options, **text}})
    return config.model_copy(update=changed)


def _first_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return str(error).splitlines()[0]
