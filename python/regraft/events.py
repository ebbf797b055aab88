"""Notifications about objects, in all the shapes in which they arrive, as one plain list.

An event is a hint that a key changed, and no more: whoever acts on it looks at the object as it is by then. So a
duplicate costs nothing, a removal of one version that was not the newest removes nothing, and what matters here is that
every record is read, that keys come out as they are in the bucket, and that one record which cannot be read stops no
other.

| shape | recognised by |
|---|---|
| S3 notification, also of MinIO and Ceph | `Records` with `s3` in them; keys are URL-encoded there |
| EventBridge | `source: aws.s3` and `detail-type`; keys are not encoded |
| SQS, as Lambda gets it and as `receive_message` gives it | `Records` with `body`; `Messages`; `Body` |
| SNS, straight or through SQS | `Type: Notification` with `Message`; `Sns`. Raw delivery leaves no trace to recognise |
| lists | URLs or keys, as JSON, one to a line, or JSON lines of any shape above |

Envelopes are opened down to the records, whatever is inside what. Inside a message plain text has to be URLs: a body
that is merely no JSON would otherwise be taken for a key that nobody has, and be acknowledged.

S3's `sequencer` orders the events of one key, and only those: numbers in hexadecimal of different lengths, which are
compared after padding on the right. `fold_events` keeps the last of each key.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote_plus

from regraft.errors import InvalidError

__all__ = ["Event", "Reading", "fold_events", "is_later", "parse_events", "read_events"]

_DEEPEST = 16
"""Layers inside each other: lists, messages, texts. S3 in SNS in SQS in Lambda makes six."""

_SHAPES = "an S3 notification, an EventBridge event of S3, an SNS or SQS message, or a list of URLs"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/?(.*)", re.DOTALL)
_WITH_BUCKET = ("s3", "s3a", "gs")
_JSON = ("{", "[")

_Operation = Literal["put", "remove"]

# What the first word of an event name says about the bytes of the object; `None` says nothing about them.
_FAMILIES: dict[str, _Operation | None] = {
    "ObjectCreated": "put",
    "ObjectRemoved": "remove",
    "LifecycleExpiration": "remove",
    "ReducedRedundancyLostObject": "remove",
    "ObjectRestore": None,
    "ObjectTagging": None,
    "ObjectAcl": None,
    "ObjectAccessed": None,
    "ObjectTransition": None,
    "LifecycleTransition": None,
    "IntelligentTiering": None,
    "Replication": None,
    "Scanner": None,
    "BucketCreated": None,
    "BucketRemoved": None,
    "TestEvent": None,
}
# An archived object that can be read again is one to look at.
_NAMES: dict[str, _Operation] = {"ObjectRestore:Completed": "put"}
_DETAIL_TYPES: dict[str, _Operation | None] = {
    "Object Created": "put",
    "Object Deleted": "remove",
    "Object Restore Completed": "put",
    "Object Restore Initiated": None,
    "Object Restore Expired": None,
    "Object Storage Class Changed": None,
    "Object Access Tier Changed": None,
    "Object ACL Updated": None,
    "Object Tags Added": None,
    "Object Tags Deleted": None,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """A hint that one object changed."""

    key: str
    """Key in the bucket, decoded; below a collection's source, or a whole URL, where no bucket is known."""
    bucket: str | None = None
    """The bucket, where the event says one."""
    operation: _Operation = "put"
    """`put` for an object that was written, `remove` for one that was deleted, or one version of it."""
    sequencer: str | None = None
    """Orders the events of one key; see `is_later`."""
    version: str | None = None
    """Version that was written, or the delete marker, or the version that was deleted."""
    scheme: str = "s3"
    """Scheme of the bucket's URL."""

    @property
    def url(self) -> str:
        """The object's URL, or what is known of it.

        Example:
            >>> Event("2022/a b.nc", "lab").url
            's3://lab/2022/a b.nc'
        """
        return self.key if self.bucket is None else f"{self.scheme}://{self.bucket}/{self.key}"

    def intent(self) -> dict[str, Any]:
        """What `Collection.submit` asks the core to remember.

        Returns:
            ``{"key", "operation", "sequencer", "bucket"}``; the key is a URL where the bucket is known.
        """
        return {"key": self.url, "operation": self.operation, "sequencer": self.sequencer, "bucket": self.bucket}


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What came out of a payload."""

    events: list[Event]
    """One for each record that says that an object was written or deleted, in the order of the payload."""
    ignored: int = 0
    """Records that say nothing about the bytes of an object: test events, tags, access lists."""
    refused: list[InvalidError] = dataclasses.field(default_factory=list)
    """One for each record that cannot be read; its message says where it is and what was found."""


def parse_events(payload: Any) -> list[Event]:  # noqa: ANN401 - whatever a queue delivers
    """The events of a payload in any of the shapes above.

    Args:
        payload: Text, bytes, or parsed JSON.

    Returns:
        Every event, in the order of the payload, duplicates included.

    Raises:
        InvalidError: Something in it cannot be read. `read_events` gives the rest all the same.

    Example:
        >>> parse_events('{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "lab"}')
        []
        >>> [event.url for event in parse_events(["s3://lab/2022/a.nc", "2022/b.nc"])]
        ['s3://lab/2022/a.nc', '2022/b.nc']
    """
    reading = read_events(payload)
    if not reading.refused:
        return reading.events
    first, *others = reading.refused
    if not others:
        raise first
    raise InvalidError(f"{len(reading.refused)} records cannot be read; the first: {first.message}", first.hint)


def read_events(payload: Any) -> Reading:  # noqa: ANN401 - whatever a queue delivers
    """The events of a payload, and what in it cannot be read.

    Args:
        payload: As in `parse_events`.

    Returns:
        The events, what was ignored, and one error for each record that was refused; nothing is raised.

    Example:
        >>> reading = read_events({"Records": [{"s3": {}}, {"body": "s3://lab/a.nc"}]})
        >>> len(reading.events), reading.refused[0].message
        (1, '`Records[0].s3.bucket.name`: expected text, found nothing')
    """
    reader = _Reader()
    reader.read(payload)
    return Reading(reader.events, reader.ignored, reader.refused)


def fold_events(events: Iterable[Event]) -> list[Event]:
    """The last event of each key.

    Args:
        events: In the order in which they arrived.

    Returns:
        One event for each bucket and key, in the order in which the keys came first.

    Example:
        >>> first, second = Event("a.nc", sequencer="0A1"), Event("a.nc", operation="remove", sequencer="0A")
        >>> fold_events([first, second]) == fold_events([second, first]) == [first]
        True
    """
    last: dict[tuple[str, str | None, str], Event] = {}
    for event in events:
        object_ = (event.scheme, event.bucket, event.key)
        known = last.get(object_)
        if known is None or not is_later(known.sequencer, event.sequencer):
            last[object_] = event
    return list(last.values())


def is_later(sequencer: str | None, than: str | None) -> bool:
    """Whether an event of the same key happened after another one.

    Args:
        sequencer: Hexadecimal digits, or ``None`` where there were none.
        than: Those of the other event.

    Returns:
        ``False`` also for the same event, and where one of them has no sequencer: then only the order of arrival is
        known.

    Example:
        >>> is_later("0055AED6DCD90281E6", than="0055AED6DCD90281E5")
        True
        >>> is_later("0A", than="0A0")
        False
    """
    if sequencer is None or than is None:
        return False
    width = max(len(sequencer), len(than))
    return sequencer.upper().ljust(width, "0") > than.upper().ljust(width, "0")


class _Reader:
    """Opens envelopes down to the records, and goes on where one cannot be read."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ignored = 0
        self.refused: list[InvalidError] = []

    def read(self, payload: Any, place: str = "", depth: int = 0, *, message: bool = False) -> None:  # noqa: ANN401
        """Reads whatever it is; `message` says that an envelope is around it."""
        try:
            self._read(payload, place, depth, message)
        except InvalidError as error:
            self.refused.append(error)

    def _read(self, payload: Any, place: str, depth: int, message: bool) -> None:  # noqa: ANN401, FBT001
        if depth > _DEEPEST:
            raise InvalidError(f"{_at(place)}expected at most {_DEEPEST} layers inside each other, found more")
        if isinstance(payload, bytes | bytearray):
            try:
                payload = payload.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidError(f"{_at(place)}expected UTF-8 text, found {error.reason}") from None
        if isinstance(payload, str):
            self._text(payload.strip("\ufeff \t\r\n"), place, depth, message)
        elif isinstance(payload, Mapping):
            self._mapping(payload, place, depth)
        elif isinstance(payload, Sequence):
            for index, item in enumerate(payload):
                where = f"{place}[{index}]"
                if isinstance(item, str) and item[:1] not in _JSON:
                    # A list says that it is a list of keys, wherever it is.
                    self._line(item, where)
                else:
                    self.read(item, where, depth + 1, message=message)
        else:
            raise _unknown(payload, place)

    def _text(self, text: str, place: str, depth: int, message: bool) -> None:  # noqa: FBT001
        if text[:1] in _JSON:
            try:
                payload = json.loads(text)
            except RecursionError:
                raise InvalidError(f"{_at(place)}expected {_SHAPES}, found brackets without end") from None
            except ValueError as error:
                if "\n" not in text:
                    raise InvalidError(f"{_at(place)}expected {_SHAPES}, found text that is no JSON: {error}") from None
            else:
                return self.read(payload, place, depth + 1, message=message)
        lines = text.splitlines()
        for number, line in enumerate(map(str.strip, lines), 1):
            where = place if len(lines) == 1 else f"{place} line {number}".strip()
            if line[:1] in _JSON:
                self.read(line, where, depth + 1, message=message)
            elif message and line and _SCHEME.fullmatch(line) is None:
                self.refused.append(InvalidError(f"{_at(where)}expected {_SHAPES}, found the text `{_short(line)}`"))
            elif line:
                self._line(line, where)
        return None

    def _line(self, line: str, place: str) -> None:
        """A key, or a URL."""
        found = _SCHEME.fullmatch(line)
        if found is not None and found[1].lower() not in _WITH_BUCKET:
            found = None
        if not line or (found is not None and not (found[2] and found[3])):
            self.refused.append(InvalidError(f"{_at(place)}expected a key or the URL of an object, found `{line}`"))
        elif found is not None:
            self.events.append(Event(found[3], found[2], scheme=found[1].lower()))
        else:
            self.events.append(Event(line))

    def _mapping(self, payload: Mapping[str, Any], place: str, depth: int) -> None:
        inside = f"{place}." if place else ""
        for name in ("Records", "Messages"):
            records = payload.get(name)
            if isinstance(records, Sequence) and not isinstance(records, str):
                for index, record in enumerate(records):
                    where = f"{inside}{name}[{index}]"
                    if isinstance(record, Mapping):
                        self.read(record, where, depth + 1)
                    else:
                        self.refused.append(_unknown(record, where))
                return
        if isinstance(payload.get("s3"), Mapping):
            self._s3(payload, inside)
        elif "detail-type" in payload and "source" in payload:
            self._event_bridge(payload, inside)
        elif isinstance(payload.get("Sns"), Mapping):
            self.read(_text_at(payload, "Sns.Message", inside), f"{inside}Sns.Message", depth + 1, message=True)
        elif "Type" in payload and "TopicArn" in payload:
            if payload["Type"] != "Notification":
                raise InvalidError(f"`{inside}Type`: expected `Notification`, found `{_short(payload['Type'])}`")
            self.read(_text_at(payload, "Message", inside), f"{inside}Message", depth + 1, message=True)
        elif payload.get("Event") == "s3:TestEvent":
            self.ignored += 1
        elif "body" in payload or "Body" in payload:
            name = "body" if "body" in payload else "Body"
            self.read(_text_at(payload, name, inside), f"{inside}{name}", depth + 1, message=True)
        elif "key" in payload and set(payload) <= {field.name for field in dataclasses.fields(Event)}:
            self._own(payload, inside)
        else:
            raise _unknown(payload, place)

    def _s3(self, record: Mapping[str, Any], inside: str) -> None:
        version = record.get("eventVersion")
        if version is not None and not str(version).startswith("2."):
            raise InvalidError(f"`{inside}eventVersion`: expected `2.x`, found `{_short(version)}`")
        bucket, key = _text_at(record, "s3.bucket.name", inside), _text_at(record, "s3.object.key", inside)
        name = _text_at(record, "eventName", inside).removeprefix("s3:")
        family = name.partition(":")[0]
        if family not in _FAMILIES:
            raise InvalidError(f"`{inside}eventName`: expected an event of an object, found `{_short(name)}`")
        operation = _NAMES.get(name, _FAMILIES[family])
        if operation is None:
            self.ignored += 1
            return
        try:
            key = unquote_plus(key, errors="strict")
        except UnicodeDecodeError:
            raise InvalidError(f"`{inside}s3.object.key`: expected URL-encoded UTF-8, found `{_short(key)}`") from None
        object_, place = record["s3"]["object"], f"{inside}s3.object."
        sequencer, version = _sequencer(object_, place), _optional(object_, "versionId", place)
        self.events.append(Event(key, bucket, operation, sequencer, version))

    def _event_bridge(self, event: Mapping[str, Any], inside: str) -> None:
        if event["source"] != "aws.s3":
            raise InvalidError(f"`{inside}source`: expected `aws.s3`, found `{_short(event['source'])}`")
        kind = event["detail-type"]
        if not isinstance(kind, str) or kind not in _DETAIL_TYPES:
            raise InvalidError(
                f"`{inside}detail-type`: expected `Object Created` or `Object Deleted`, found `{_short(kind)}`",
                "the rule should select these two, and the bucket should have EventBridge switched on",
            )
        operation = _DETAIL_TYPES[kind]
        if operation is None:
            self.ignored += 1
            return
        bucket, key = _text_at(event, "detail.bucket.name", inside), _text_at(event, "detail.object.key", inside)
        object_ = event["detail"]["object"]
        place = f"{inside}detail.object."
        sequencer, version = _sequencer(object_, place), _optional(object_, "version-id", place)
        self.events.append(Event(key, bucket, operation, sequencer, version))

    def _own(self, record: Mapping[str, Any], inside: str) -> None:
        """An `Event` as it is, from a list that a program made."""
        key, operation = _text_at(record, "key", inside), record.get("operation", "put")
        if operation not in ("put", "remove"):
            raise InvalidError(f"`{inside}operation`: expected `put` or `remove`, found `{_short(operation)}`")
        found = _SCHEME.fullmatch(key)
        bucket, scheme = _optional(record, "bucket", inside), _optional(record, "scheme", inside) or "s3"
        if bucket is None and found is not None and found[1].lower() in _WITH_BUCKET and found[3]:
            scheme, bucket, key = found[1].lower(), found[2], found[3]
        version = _optional(record, "version", inside)
        self.events.append(Event(key, bucket, operation, _sequencer(record, inside), version, scheme))


def _text_at(record: Mapping[str, Any], path: str, inside: str) -> str:
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value:
        raise InvalidError(f"`{inside}{path}`: expected text, found {_found(value)}")
    return value


def _optional(record: Mapping[str, Any], name: str, inside: str) -> str | None:
    value = record.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidError(f"`{inside}{name}`: expected text, found {_found(value)}")
    return value


def _sequencer(record: Mapping[str, Any], inside: str) -> str | None:
    value = _optional(record, "sequencer", inside)
    if value is not None and re.fullmatch(r"[0-9A-Fa-f]+", value) is None:
        raise InvalidError(f"`{inside}sequencer`: expected hexadecimal digits, found `{_short(value)}`")
    return value


def _unknown(payload: Any, place: str) -> InvalidError:  # noqa: ANN401 - JSON
    return InvalidError(f"{_at(place)}expected {_SHAPES}, found {_found(payload)}")


def _found(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping) and value:
        return "a mapping with " + ", ".join(f"`{_short(name)}`" for name in list(value)[:6])
    return "nothing" if value is None else "empty text" if value == "" else f"a value of type `{type(value).__name__}`"


def _at(place: str) -> str:
    return f"`{place}`: " if place else ""


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
