"""How steps are added to a migration set in Python: the decorator for functions, and SQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from regraft.config_errors import explain
from regraft.errors import InvalidError
from regraft.migration_config import MigrationSetConfig, StepConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from regraft.migration_steps import Function

__all__ = ["StepDefinitions"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class StepDefinitions:
    """The part of a migration set that holds its steps.

    Args:
        config: The validated configuration.
        functions: Functions of Python steps by the step's index.
    """

    def __init__(self, config: MigrationSetConfig, functions: Mapping[int, Function] | None = None) -> None:
        self.config = config
        self._functions = dict(functions or {})
        self._lock = threading.Lock()

    def step(
        self,
        from_version: int,
        to_version: int,
        *,
        reads: Sequence[str],
        adds: Mapping[str, object],
        rename: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        cast: Mapping[str, object] | None = None,
        name: str | None = None,
        revision: str | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Adds a step that a Python function computes.

        The function is called once for each row group, from several threads, and must give the same columns whenever it
        is given the same rows. Its source text is the step's definition.

        Args:
            from_version: The version that the step starts from.
            to_version: The version that it leads to.
            reads: Names of the columns that the function is given.
            adds: Types of the columns that it returns: names such as ``"double"``, or `pyarrow.DataType`.
            rename: Old names and new ones.
            drop: Columns to take out.
            cast: Columns that get another type.
            name: What people call the step; by default the function's name.
            revision: Says which definition it is, in place of the source text.

        Returns:
            A decorator for ``f(batch: pyarrow.RecordBatch)``, which returns the new columns only: Arrow data of any
            kind (PyCapsule interface), or a mapping from names to arrays.

        Raises:
            InvalidError: The step contradicts itself, or another step has the same ends.

        Example:
            >>> import pyarrow.compute as pc
            >>> sensors = open_migrations({"name": "sensors", "data": {"url": "s3://lake/sensors/"}})
            >>> @sensors.step(1, 2, reads=["temp_c"], adds={"temp_k": "double"})
            ... def kelvin(batch):
            ...     return {"temp_k": pc.add(batch["temp_c"], 273.15)}
        """
        from regraft.column_types import type_text

        def add(function: Decorated) -> Decorated:
            if not callable(function):
                raise InvalidError(f"expected a function to decorate, found `{type(function).__name__}`")
            called = getattr(function, "__name__", type(function).__name__)
            said = {
                "name": name or called,
                "python": f"{getattr(function, '__module__', '__main__')}:{called.strip('<>')}",
                "reads": list(reads),
                "adds": {column: type_text(kind) for column, kind in adds.items()},
                "rename": dict(rename or {}),
                "drop": list(drop),
                "cast": {column: type_text(kind) for column, kind in (cast or {}).items()},
                "revision": revision,
            }
            self._add(from_version, to_version, said, function)
            return function

        return add

    def sql_step(
        self,
        from_version: int,
        to_version: int,
        columns: Mapping[str, str] | None = None,
        *,
        adds: Mapping[str, object] | None = None,
        rename: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        cast: Mapping[str, object] | None = None,
        name: str | None = None,
    ) -> None:
        """Adds a step of SQL expressions, or one that only renames, drops and casts.

        Args:
            from_version: The version that the step starts from.
            to_version: The version that it leads to.
            columns: New columns, each with a scalar SQL expression over the columns as they are before the step.
            adds: Types of those new columns that shall not have their expression's own.
            rename: Old names and new ones.
            drop: Columns to take out.
            cast: Columns that get another type.
            name: What people call the step.

        Raises:
            InvalidError: The step contradicts itself, or another step has the same ends.

        Example:
            >>> sensors = open_migrations({"name": "sensors", "data": {"url": "s3://lake/sensors/"}})
            >>> sensors.sql_step(1, 2, {"dew_point_c": "temp_c - (100 - rh) / 5"}, rename={"rh": "humidity"})
        """
        types: dict[str, dict[str, str]] = {}
        for place, given in (("adds", adds), ("cast", cast)):
            if given:
                from regraft.column_types import type_text

                types[place] = {column: type_text(kind) for column, kind in given.items()}
        said = {"name": name, "sql": dict(columns or {}), "rename": dict(rename or {}), "drop": list(drop), **types}
        self._add(from_version, to_version, said, None)

    def _add(self, from_version: int, to_version: int, said: Mapping[str, Any], function: Function | None) -> None:
        tree = {"from": from_version, "to": to_version, **{key: item for key, item in said.items() if item is not None}}
        try:
            step = StepConfig.model_validate(tree)
        except ValidationError as error:
            raise explain(error, lambda _: f"step {from_version}→{to_version}", StepConfig, "migrations") from None
        with self._lock:
            known = {(other.from_, other.to): number for number, other in enumerate(self.config.steps)}
            number = known.get((step.from_, step.to))
            if number is not None and (step.python is None or self.config.steps[number].python != step.python):
                raise InvalidError(f"two steps lead from {step.from_} to {step.to}", "join them into one")
            # The same function again, as when a notebook's cell runs twice: the later definition counts.
            steps = [other for index, other in enumerate(self.config.steps) if index != number]
            functions = [self._functions.get(index) for index in range(len(self.config.steps)) if index != number]
            self.config = self.config.model_copy(update={"steps": [*steps, step]})
            self._functions = {index: each for index, each in enumerate([*functions, function]) if each is not None}
            self._steps_changed()

    def _steps_changed(self) -> None:
        """Told with the lock held."""

    def _all_functions(self) -> dict[int, Function]:
        """The functions of all Python steps, imported where the configuration names them."""
        found = dict(self._functions)
        for number, step in enumerate(self.config.steps):
            if step.python is not None and number not in found:
                from regraft.datasets import import_function

                found[number] = import_function(step.python)
        return found
