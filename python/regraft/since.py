"""Moments that people write, as the core compares them with the times of objects."""

from __future__ import annotations

import datetime as dt
import re

from regraft.config import parse_duration
from regraft.errors import InvalidError

__all__ = ["since_text"]


def since_text(since: str | dt.date) -> str:
    """A moment in UTC, rounded down to the second, as object stores list the times of objects.

    Args:
        since: A date or time, ISO text of one, or a duration before now (``2h``, by this machine's clock); a time
            without a zone is UTC.

    Returns:
        Text such as ``2022-01-05T00:00:00.000Z``.

    Raises:
        InvalidError: The text is none of these.

    Example:
        >>> since_text("2022-01-05")
        '2022-01-05T00:00:00.000Z'
        >>> since_text("2022-01-05T12:00+02:00")
        '2022-01-05T10:00:00.000Z'
    """
    moment = _moment(since.strip()) if isinstance(since, str) else since
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime(moment.year, moment.month, moment.day, tzinfo=dt.UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", ".000Z")


def _moment(text: str) -> dt.datetime:
    try:
        if re.fullmatch(r"[0-9.]+\s*[A-Za-z]+", text):
            seconds = parse_duration(text)
            return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=float(str(seconds)))
        return dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise InvalidError(
            f"expected a time such as `2022-01-05T12:00Z`, or a duration such as `2h`, found `{text}`"
        ) from None
