"""`regraft.events`: every record of every shape, and one that cannot be read stops no other."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notifications import (
    TEST_EVENT,
    event_bridge,
    minio,
    s3,
    s3_record,
    sns,
    sns_lambda,
    sqs_lambda,
    sqs_received,
    text,
)
from regraft.errors import InvalidError
from regraft.events import Event, fold_events, is_later, parse_events, read_events

ODD = "in/a b+ü%41&=#?.nc"
"""A key that comes out wrong wherever it is decoded once too often or too seldom."""


def seen(payload: Any) -> list[tuple[str, str]]:
    return [(event.operation, event.url) for event in parse_events(payload)]


ONE_OBJECT: dict[str, Callable[[str], Any]] = {
    "s3": lambda key: s3(s3_record(key)),
    "one record": s3_record,
    "event_bridge": event_bridge,
    "minio": minio,
    "minio in a message": lambda key: sqs_lambda(minio(key)),
    "sqs_lambda(s3)": lambda key: sqs_lambda(s3(s3_record(key))),
    "sqs_lambda(event_bridge)": lambda key: sqs_lambda(event_bridge(key)),
    "sqs_lambda(sns(s3))": lambda key: sqs_lambda(sns(s3(s3_record(key)))),
    "sqs_lambda(sns(event_bridge))": lambda key: sqs_lambda(sns(event_bridge(key))),
    "sns_lambda": lambda key: sns_lambda(s3(s3_record(key))),
    "received": lambda key: sqs_received(s3(s3_record(key))),
    "one received message": lambda key: sqs_received(s3(s3_record(key)))["Messages"][0],
    "list of events": lambda key: [event_bridge(key)],
    "list of URLs": lambda key: [f"s3://lab-data/{key}"],
    "URL in a message": lambda key: sqs_lambda(f"s3://lab-data/{key}"),
    "list in a message": lambda key: sqs_lambda([f"s3://lab-data/{key}"]),
    "own": lambda key: [{"key": key, "bucket": "lab-data"}],
    "own URL": lambda key: {"key": f"s3://lab-data/{key}", "operation": "put"},
}


@pytest.mark.parametrize("shape", ONE_OBJECT)
def test_every_shape_gives_the_same_object(shape: str) -> None:
    payload = ONE_OBJECT[shape](ODD)
    expected = [("put", f"s3://lab-data/{ODD}")]
    assert seen(payload) == expected
    assert seen(json.dumps(payload)) == expected
    assert seen(json.dumps(payload, indent=2).encode()) == expected
    assert seen("\ufeff" + json.dumps(payload) + "\r\n") == expected


def test_every_record_of_a_batch_is_read() -> None:
    keys = [f"2022/{number}.nc" for number in range(12)]
    payload = sqs_lambda(
        s3(*map(s3_record, keys[:3])), sns(s3(*map(s3_record, keys[3:6]))), *map(event_bridge, keys[6:])
    )
    assert seen(payload) == [("put", f"s3://lab-data/{key}") for key in keys]


@pytest.mark.parametrize(
    ("payload", "operation"),
    [
        (s3_record("a.nc", "ObjectCreated:CompleteMultipartUpload"), "put"),
        (s3_record("a.nc", "s3:ObjectCreated:Copy"), "put"),
        (s3_record("a.nc", "ObjectRemoved:Delete"), "remove"),
        (s3_record("a.nc", "ObjectRemoved:DeleteMarkerCreated", size=0, eTag="", versionId="95"), "remove"),
        (s3_record("a.nc", "LifecycleExpiration:DeleteMarkerCreated"), "remove"),
        (s3_record("a.nc", "ObjectRestore:Completed"), "put"),
        (event_bridge("a.nc", "Object Deleted", reason="Lifecycle Expiration"), "remove"),
        (event_bridge("a.nc", "Object Restore Completed"), "put"),
        (minio("a.nc", "s3:ObjectRemoved:DeleteMarkerCreated"), "remove"),
    ],
)
def test_what_happened(payload: Any, operation: str) -> None:
    assert seen(payload) == [(operation, "s3://lab-data/a.nc")]


@pytest.mark.parametrize(
    "payload",
    [
        TEST_EVENT,
        sqs_lambda(TEST_EVENT),
        sqs_lambda(sns(TEST_EVENT)),
        s3_record("a.nc", "ObjectTagging:Put"),
        s3_record("a.nc", "ObjectRestore:Post"),
        minio("a.nc", "s3:ObjectAccessed:Get"),
        event_bridge("a.nc", "Object Tags Added"),
    ],
)
def test_what_says_nothing_about_bytes_is_ignored(payload: Any) -> None:
    reading = read_events(payload)
    assert (reading.events, reading.ignored, reading.refused) == ([], 1, [])


@pytest.mark.parametrize("payload", ["", " \n ", b"", [], "[]", {"Records": []}, {"Messages": []}])
def test_nothing_gives_nothing(payload: Any) -> None:
    assert parse_events(payload) == []


def test_versions_and_sequencers_are_kept() -> None:
    (event,) = parse_events(s3_record("a.nc", versionId="v7", sequencer="0A"))
    assert event == Event("a.nc", "lab-data", "put", "0A", "v7")
    assert event.intent() == {
        "key": "s3://lab-data/a.nc",
        "operation": "put",
        "sequencer": "0A",
        "bucket": "lab-data",
    }
    (event,) = parse_events(event_bridge("a.nc", sequencer="0B", **{"version-id": "v8"}))
    assert (event.version, event.sequencer) == ("v8", "0B")
    record = s3_record("a.nc")
    del record["s3"]["object"]["sequencer"]
    assert parse_events(record)[0].sequencer is None


def test_keys_are_decoded_once_where_they_are_encoded() -> None:
    assert seen(s3_record("a%2Fb.nc")) == [("put", "s3://lab-data/a%2Fb.nc")]
    assert seen(event_bridge("a%2Fb+c.nc")) == [("put", "s3://lab-data/a%2Fb+c.nc")]
    assert seen(["s3://lab-data/a%2Fb+c.nc"]) == [("put", "s3://lab-data/a%2Fb+c.nc")]


def test_lines_and_json_lines() -> None:
    lines = "s3://lab/a.nc\n\n 2022/b.nc \r\n/data/c d.nc\nhttps://host/e.nc\ngs://other/f.nc\n"
    assert [event.url for event in parse_events(lines)] == [
        "s3://lab/a.nc",
        "2022/b.nc",
        "/data/c d.nc",
        "https://host/e.nc",
        "gs://other/f.nc",
    ]
    mixed = "\n".join([text(s3(s3_record("a.nc"))), text(event_bridge("b.nc", "Object Deleted")), "c.nc"])
    assert seen(mixed) == [("put", "s3://lab-data/a.nc"), ("remove", "s3://lab-data/b.nc"), ("put", "c.nc")]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (sqs_lambda("not a notification"), "`Records[0].body`: expected an S3 notification, * found the text `not a"),
        (sqs_lambda("{not JSON"), "`Records[0].body`: expected * found text that is no JSON: Expecting property name"),
        (sqs_lambda({"orderId": 7}), "`Records[0].body`: expected * found a mapping with `orderId`"),
        (sqs_lambda(7), "`Records[0].body`: expected * found the text `7`"),
        (sqs_lambda("[null]"), "`Records[0].body[0]`: expected * found nothing"),
        (sqs_lambda({}), "found a value of type `dict`"),
        ({"Records": ["a"]}, "`Records[0]`: expected * found a value of type `str`"),
        (s3({"s3": {"object": {"key": "a"}}}), "`Records[0].s3.bucket.name`: expected text, found nothing"),
        (s3_record(""), "`s3.object.key`: expected text, found empty text"),
        (s3_record("a", "Mystery:Put"), "`eventName`: expected an event of an object, found `Mystery:Put`"),
        ({**s3_record("a"), "eventVersion": "3.0"}, "`eventVersion`: expected `2.x`, found `3.0`"),
        (s3_record("a", sequencer="xyz"), "`s3.object.sequencer`: expected hexadecimal digits, found `xyz`"),
        (s3_record("a", sequencer=5), "`s3.object.sequencer`: expected text, found a value of type `int`"),
        (
            {**s3_record("a"), "s3": {"bucket": {"name": "b"}, "object": {"key": "%FF"}}},
            "`s3.object.key`: expected URL-encoded UTF-8, found `%FF`",
        ),
        ({**event_bridge("a"), "source": "aws.ec2"}, "`source`: expected `aws.s3`, found `aws.ec2`"),
        (event_bridge("a", "AWS API Call via CloudTrail"), "`detail-type`: expected `Object Created` or"),
        (event_bridge(""), "`detail.object.key`: expected text, found empty text"),
        ({**sns("a"), "Type": "SubscriptionConfirmation"}, "`Type`: expected `Notification`, found `Subscription"),
        ({"key": "a", "operation": "replace"}, "`operation`: expected `put` or `remove`, found `replace`"),
        ({"key": "a", "etag": "b"}, "found a mapping with `key`, `etag`"),
        (["s3://lab/"], "`[0]`: expected a key or the URL of an object, found `s3://lab/`"),
        ([""], "`[0]`: expected a key or the URL of an object, found ``"),
        (b"\xff\xfe", "expected UTF-8 text"),
        (7, "expected an S3 notification, * found a value of type `int`"),
        (None, "found nothing"),
        ("[" * 100_000, "found brackets without end"),
        ('{"Records":[' * 400 + "]}" * 400, "expected at most 16 layers inside each other"),
    ],
)
def test_what_cannot_be_read_is_named(payload: Any, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_events(payload)
    rest = caught.value.message
    for part in message.split("*"):
        assert part.strip() in rest, caught.value.message
        rest = rest.partition(part.strip())[2]


def test_one_bad_record_stops_no_other() -> None:
    payload = sqs_lambda(
        event_bridge("a.nc"), "tea", s3(s3_record("b.nc"), {"s3": {}}, s3_record("c.nc")), TEST_EVENT, "s3://x/d.nc"
    )
    reading = read_events(payload)
    assert [event.key for event in reading.events] == ["a.nc", "b.nc", "c.nc", "d.nc"]
    assert reading.ignored == 1
    assert [error.message.split(":")[0] for error in reading.refused] == [
        "`Records[1].body`",
        "`Records[2].body.Records[1].s3.bucket.name`",
    ]
    with pytest.raises(InvalidError, match="2 records cannot be read; the first: `Records.1..body`"):
        parse_events(payload)
    lines = read_events('a.nc\n{"bad"\ns3://x/\nb.nc')
    assert [event.key for event in lines.events] == ["a.nc", "b.nc"]
    assert [error.message.split(":")[0] for error in lines.refused] == ["`line 2`", "`line 3`"]


def test_sequencers_are_padded_on_the_right() -> None:
    assert is_later("0A1", than="0A")
    assert not is_later("0A", than="0A1")
    assert not is_later("0A", than="0A00")
    assert is_later("0b", than="0A")
    assert not is_later(None, than="0A")
    assert not is_later("0A", than=None)


def test_the_last_of_each_key_is_kept() -> None:
    events = [
        Event("a.nc", "x", "put", "02"),
        Event("b.nc", "x", "put", "01"),
        Event("a.nc", "x", "remove", "03"),
        Event("a.nc", "x", "put", "01"),
        Event("a.nc", "y", "put", "09"),
        Event("b.nc", "x", "remove"),
    ]
    assert fold_events(events) == [events[2], events[5], events[4]]


KEYS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=30).filter(str.strip)
SHAPES = st.sampled_from([name for name in ONE_OBJECT if "URL" not in name and "list in" not in name])


@given(KEYS, SHAPES)
def test_any_key_survives_any_envelope(key: str, shape: str) -> None:
    assert seen(json.dumps(ONE_OBJECT[shape](key))) == [("put", f"s3://lab-data/{key}")]


ENVELOPES: list[Callable[[Any], Any]] = [sns, sns_lambda, sqs_lambda, sqs_received, lambda inner: [inner], text]


@given(st.lists(st.sampled_from(ENVELOPES), max_size=5), st.lists(KEYS, min_size=1, max_size=4))
def test_envelopes_may_be_inside_each_other(envelopes: list[Callable[[Any], Any]], keys: list[str]) -> None:
    payload: Any = s3(*map(s3_record, keys))
    for envelope in envelopes:
        payload = envelope(payload)
    assert [event.key for event in parse_events(payload)] == keys


EVENTS = st.builds(
    Event,
    st.sampled_from(["a.nc", "b.nc"]),
    st.sampled_from([None, "x"]),
    st.sampled_from(["put", "remove"]),
    st.integers(0, 5000).map(lambda number: f"{number:05X}"),
)


@given(st.lists(EVENTS, max_size=6), st.randoms())
def test_the_order_of_arrival_does_not_matter(events: list[Event], chance: Any) -> None:
    distinct = {(event.key, event.bucket, event.sequencer): event for event in events}
    shuffled = list(distinct.values()) * 2
    chance.shuffle(shuffled)
    assert set(fold_events(shuffled)) == set(fold_events(distinct.values()))


@given(st.lists(st.text("0123456789ABCDEF", min_size=1, max_size=6), min_size=1, max_size=6))
def test_later_is_an_order(sequencers: list[str]) -> None:
    for one, other in itertools.product(sequencers, repeat=2):
        assert not (is_later(one, other) and is_later(other, one))
    for one, two, three in itertools.product(sequencers, repeat=3):
        assert not (is_later(one, two) and is_later(two, three)) or is_later(one, three)


NAMES = [
    *("Records", "Messages", "s3", "bucket", "name", "object", "key", "eventName", "body", "Body", "Message", "Type"),
    *("TopicArn", "Sns", "Event", "source", "detail-type", "detail", "sequencer", "versionId", "eventVersion"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nothing_but_invalid_errors_comes_of_anything(payload: Any) -> None:
    for given_ in (payload, json.dumps(payload), [payload], {"Records": [payload]}, {"body": json.dumps(payload)}):
        reading = read_events(given_)
        assert all(isinstance(error, InvalidError) for error in reading.refused)
        assert all(event.key for event in reading.events)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused(payload: bytes | str) -> None:
    read_events(payload)
    read_events({"Body": payload})


def test_quoting_is_the_one_of_s3() -> None:
    assert quote_plus("a b+c", safe="/") == "a+b%2Bc"


@pytest.mark.s3
def test_what_services_really_send(ministack_server: Any) -> None:
    """A bucket that tells a queue, EventBridge and a topic with two subscriptions; the same four events by each way."""
    import boto3

    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "secret123", "region_name": "us-east-1"}
    make = lambda service: boto3.client(service, endpoint_url=ministack_server.endpoint, **keys)  # noqa: E731
    s3_client, sqs, sns_client, bridge = make("s3"), make("sqs"), make("sns"), make("events")
    bucket = ministack_server.new_bucket()
    s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    urls, names = {}, {}
    for way in ("direct", "raw", "wrapped", "bridge"):
        urls[way] = sqs.create_queue(QueueName=f"ways-{way}")["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=urls[way], AttributeNames=["QueueArn"])["Attributes"]
        names[way] = attributes["QueueArn"]
    topic = sns_client.create_topic(Name="ways")["TopicArn"]
    raw = {"RawMessageDelivery": "true"}
    sns_client.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=names["raw"], Attributes=raw)
    sns_client.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=names["wrapped"])
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
    bridge.put_rule(Name="ways", EventPattern=json.dumps(pattern))
    bridge.put_targets(Rule="ways", Targets=[{"Id": "queue", "Arn": names["bridge"]}])
    wanted = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    s3_client.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": names["direct"], "Events": wanted}],
            "TopicConfigurations": [{"TopicArn": topic, "Events": wanted}],
            "EventBridgeConfiguration": {},
        },
    )
    s3_client.put_object(Bucket=bucket, Key=ODD, Body=b"1")
    version = s3_client.put_object(Bucket=bucket, Key=ODD, Body=b"2")["VersionId"]
    s3_client.delete_object(Bucket=bucket, Key=ODD)
    s3_client.delete_object(Bucket=bucket, Key=ODD, VersionId=version)

    found: dict[str, list[Event]] = {}
    for way, url in urls.items():
        messages: list[Any] = []
        # The test event came to every way but EventBridge.
        expected = 4 if way == "bridge" else 5
        for _ in range(20):
            messages += sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
            if len(messages) >= expected:
                break
        reading = read_events({"Messages": messages})
        assert (reading.refused, reading.ignored, len(messages)) == ([], expected - 4, expected)
        found[way] = sorted(reading.events, key=lambda event: event.sequencer or "")
    for events in found.values():
        assert [event.operation for event in events] == ["put", "put", "remove", "remove"]
        assert {event.url for event in events} == {f"s3://{bucket}/{ODD}"}
        assert [event.sequencer for event in events] == [event.sequencer for event in found["direct"]]
        assert fold_events(reversed(events)) == [events[3]]
    assert found["direct"][1].version == found["direct"][3].version == version
