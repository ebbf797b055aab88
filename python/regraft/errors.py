"""The exceptions of regraft: six kinds, each named for what the caller does next.

The Rust core raises these classes, so ``except`` clauses, pickles and tracebacks see ordinary Python. Decide with
``error.kind`` and ``error.retryable``, never with the text.

| class | the caller | retryable | also a |
|---|---|---|---|
| `InvalidError` | mends the input (file, configuration, arguments) | no | `ValueError` |
| `NotFoundError` | names something that exists | no | `FileNotFoundError` |
| `ConflictError` | plans again: somebody else won | yes, from the plan on | `RuntimeError` |
| `UnavailableError` | tries again later | yes | `ConnectionError` |
| `CorruptError` | stops and looks: stored bytes contradict themselves | no | `RuntimeError` |
| `InternalError` | reports a bug | no | `RuntimeError` |
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ConflictError",
    "CorruptError",
    "InternalError",
    "InvalidError",
    "NotFoundError",
    "RegraftError",
    "UnavailableError",
    "error_class",
]


class RegraftError(Exception):
    """Everything that regraft raises on purpose.

    Args:
        message: What went wrong: lower case, no full stop, values in backticks, expected against found.
        hint: The repair, where one is known. It is printed after a blank line as ``hint: …``.
        kind: The machine-readable kind; by default that of the class.
        retryable: Whether the same call may succeed when it is made again; by default that of the class.

    Example:
        >>> error = InvalidError("expected `zarr2` or `zarr3`, found `zarr4`", "set `store.format`")
        >>> error.kind, error.retryable
        ('invalid', False)
        >>> print(error)
        expected `zarr2` or `zarr3`, found `zarr4`
        <BLANKLINE>
        hint: set `store.format`
    """

    default_kind: ClassVar[str] = "internal"
    default_retryable: ClassVar[bool] = False

    message: str
    hint: str | None
    kind: str
    retryable: bool

    def __init__(
        self, message: str, hint: str | None = None, *, kind: str | None = None, retryable: bool | None = None
    ) -> None:
        # One argument on purpose: `OSError`, a base of two of the classes, reads two as (errno, strerror).
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.kind = self.default_kind if kind is None else kind
        self.retryable = self.default_retryable if retryable is None else retryable

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default of `OSError` and of `Exception` loses the keyword-only fields; tracebacks cross processes whole.
        # Notes and the like live in the instance's dictionary, which is handed over as it is.
        return _rebuild, (type(self), self.message, self.hint), self.__dict__.copy()


class InvalidError(RegraftError, ValueError):
    """The input is wrong: mend the file, the configuration or the arguments."""

    default_kind = "invalid"


class NotFoundError(RegraftError, FileNotFoundError):
    """The thing named does not exist."""

    default_kind = "not_found"


class ConflictError(RegraftError, RuntimeError):
    """Somebody else changed it first: plan again."""

    default_kind = "conflict"
    default_retryable = True


class UnavailableError(RegraftError, ConnectionError):
    """A service did not answer in time: try again later."""

    default_kind = "unavailable"
    default_retryable = True


class CorruptError(RegraftError, RuntimeError):
    """Stored bytes contradict themselves: stop and look."""

    default_kind = "corrupt"


class InternalError(RegraftError, RuntimeError):
    """A bug in regraft: please report it."""

    default_kind = "internal"


_CLASSES: dict[str, type[RegraftError]] = {
    cls.default_kind: cls
    for cls in (InvalidError, NotFoundError, ConflictError, UnavailableError, CorruptError, InternalError)
}


def error_class(kind: str) -> type[RegraftError]:
    """The class that carries ``kind``.

    Args:
        kind: One of ``invalid``, ``not_found``, ``conflict``, ``unavailable``, ``corrupt``, ``internal``.

    Returns:
        The class; `InternalError` for a kind that this version does not know.
    """
    return _CLASSES.get(kind, InternalError)


def _rebuild(cls: type[RegraftError], message: str, hint: str | None) -> RegraftError:
    return cls(message, hint)
