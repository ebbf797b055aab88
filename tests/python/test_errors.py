from __future__ import annotations

import copy
import pickle

import pytest
from regraft import errors
from regraft.errors import InvalidError, NotFoundError, RegraftError, UnavailableError

CLASSES = [
    errors.InvalidError,
    errors.NotFoundError,
    errors.ConflictError,
    errors.UnavailableError,
    errors.CorruptError,
    errors.InternalError,
]


@pytest.mark.parametrize(
    ("cls", "kind", "after", "builtin"),
    [
        (errors.InvalidError, "invalid", "stop", ValueError),
        (errors.NotFoundError, "not_found", "stop", FileNotFoundError),
        (errors.ConflictError, "conflict", "retry", RuntimeError),
        (errors.UnavailableError, "unavailable", "retry", ConnectionError),
        (errors.CorruptError, "corrupt", "stop", RuntimeError),
        (errors.InternalError, "internal", "stop", RuntimeError),
    ],
)
def test_each_class_has_its_kind_and_its_builtin(
    cls: type[RegraftError], kind: str, after: str, builtin: type[Exception]
) -> None:
    error = cls("something is wrong", "mend it")
    assert isinstance(error, RegraftError)
    assert isinstance(error, builtin)
    assert (error.kind, error.retryable) == (kind, after == "retry")
    assert (error.message, error.hint) == ("something is wrong", "mend it")
    assert errors.error_class(kind) is cls


def test_text_is_message_then_blank_line_then_hint() -> None:
    assert str(InvalidError("expected `a`, found `b`", "write `a`")) == "expected `a`, found `b`\n\nhint: write `a`"
    assert str(NotFoundError("there is no store")) == "there is no store"


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("hint", [None, "mend it"])
def test_pickle_keeps_everything(cls: type[RegraftError], hint: str | None) -> None:
    error = cls("message", hint, kind="special", retryable=True)
    error.add_note("while reading `a.nc`")
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(back) is cls
        assert (back.message, back.hint, back.kind, back.retryable) == ("message", hint, "special", True)
        assert str(back) == str(error)
        assert back.__notes__ == ["while reading `a.nc`"]


def test_os_errors_have_no_errno_made_of_the_message() -> None:
    error = UnavailableError("no answer", "try again")
    assert error.errno is None
    assert error.args == ("no answer",)


def test_an_unknown_kind_is_a_bug() -> None:
    assert errors.error_class("tea") is errors.InternalError


def test_the_core_raises_kinds_that_have_a_class() -> None:
    core = pytest.importorskip("regraft._core")
    assert [errors.error_class(kind).default_kind for kind in core.error_kinds()] == core.error_kinds()
    assert set(core.error_kinds()) == {cls.default_kind for cls in CLASSES}
