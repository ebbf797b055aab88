"""What no configuration may hold: secrets, and URLs that nothing can open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from regraft.config_errors import did_you_mean, listed
from regraft.errors import InvalidError

__all__ = ["SCHEME", "SECRET", "check_url", "refuse_secrets"]

SECRET = re.compile(
    r"secret|token|passw|credential|private_key|access_key|account_key|api_key|(?:^|_)sas(?:_|$)|bearer|master_key"
)
"""Names of options that hold a secret, in lower case."""
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
"""The beginning of a URL."""
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_SCHEMES = ("file", "memory", "s3", "s3a", "gs", "az", "abfs", "abfss", "azure", "adl", "http", "https")


def refuse_secrets(tree: Mapping[str, Any], name: str, places: Iterable[str]) -> None:
    """Refuses passwords and keys that stand in a file; references to the environment may.

    Args:
        tree: What the file says.
        name: The file.
        places: Sections with `url` and `storage_options`.

    Raises:
        InvalidError: There is one.
    """
    for place in places:
        section = tree.get(place)
        if not isinstance(section, Mapping):
            continue
        url = section.get("url")
        if isinstance(url, str) and re.match(r"[a-z0-9+]+://[^/@]*:[^/@]*@", url, re.IGNORECASE):
            raise InvalidError(
                f"`{name}`: `{place}.url` holds a password",
                "leave it out and set environment variables, or pass `storage_options=` in Python",
            )
        options = section.get("storage_options")
        if not isinstance(options, Mapping):
            continue
        for option, value in options.items():
            hidden = isinstance(value, str) and _REFERENCE.fullmatch(value)
            if SECRET.search(str(option).lower()) and not hidden:
                raise InvalidError(
                    f"`{name}`: `{place}.storage_options.{option}` looks like a secret, and secrets do not belong in a "
                    f"configuration",
                    f"set it in the environment and refer to it as `${{{str(option).upper()}}}`, or pass "
                    f"`storage_options=` in Python",
                )


def check_url(url: str, place: str, name: str, *, writes: bool) -> None:
    """Refuses an empty URL and one that no object store knows.

    Args:
        url: Path or URL.
        place: The section it stands in.
        name: The file.
        writes: Whether it is written to.

    Raises:
        InvalidError: It cannot be used.
    """
    if not url:
        raise InvalidError(f"`{name}`: `{place}.url` is empty")
    scheme = SCHEME.match(url)
    if scheme is None:
        return
    found = scheme[1].lower()
    if found not in _SCHEMES:
        raise InvalidError(
            f"`{name}`: `{place}.url`: expected a path or one of {listed([f'{known}://' for known in _SCHEMES])}, "
            f"found `{found}://`",
            did_you_mean(found, _SCHEMES, cutoff=0.5),
        )
    if writes and found in ("http", "https"):
        raise InvalidError(f"`{name}`: `{place}.url` cannot be written over `{found}://`")
