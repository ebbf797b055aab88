"""Notifications as services send them: the shapes that ministack gave and that AWS and MinIO document."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

ACCOUNT = "000000000000"


def s3_record(key: str, name: str = "ObjectCreated:Put", *, bucket: str = "lab-data", **fields: Any) -> dict[str, Any]:
    """One record of an S3 notification; `fields` are those of the object."""
    return {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-11-22T00:54:18.700Z",
        "eventName": name,
        "userIdentity": {"principalId": "EXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "4cf1dcef-be04-4006-ba83-bb8f40c8740b", "x-amz-id-2": "EXAMPLE"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "NGRjMmU1ZmQtMDJm",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "EXAMPLE"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": 1,
                "eTag": "c4ca4238a0b923820dcc509a6f75849b",
                "sequencer": "00000660D2EABF0DAB",
                **fields,
            },
        },
    }


def s3(*records: dict[str, Any]) -> dict[str, Any]:
    """An S3 notification."""
    return {"Records": list(records)}


TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-11-22T00:54:18.000Z",
    "Bucket": "lab-data",
    "RequestId": "56bbcb23-a638-48e4-bf48-20f79c978d48",
    "HostId": "28bd9dcd-c322-46d2-b3e2-e2e4df7548a5",
}


def event_bridge(
    key: str, kind: str = "Object Created", *, bucket: str = "lab-data", reason: str = "PutObject", **fields: Any
) -> dict[str, Any]:
    """An EventBridge event of S3; `fields` are those of the object."""
    return {
        "version": "0",
        "id": "4cf1dcef-be04-4006-ba83-bb8f40c8740b",
        "source": "aws.s3",
        "account": ACCOUNT,
        "time": "2026-11-22T00:54:18.700Z",
        "region": "us-east-1",
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail-type": kind,
        "detail": {
            "version": "0",
            "event-version": "1.0",
            "bucket": {"name": bucket},
            "object": {"key": key, "size": 1, "etag": "c4ca42", "sequencer": "00000660D2EABF0DAB", **fields},
            "request-id": "4cf1dcef-be04-4006-ba83-bb8f40c8740b",
            "requester": ACCOUNT,
            "source-ip-address": "127.0.0.1",
            "reason": reason,
            **({"deletion-type": "Delete Marker Created"} if kind == "Object Deleted" else {}),
        },
    }


def minio(key: str, name: str = "s3:ObjectCreated:Put", *, bucket: str = "lab-data") -> dict[str, Any]:
    """What MinIO posts to a webhook or a queue: the name with its prefix, slashes encoded."""
    return {
        "EventName": name,
        "Key": f"{bucket}/{key}",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "",
                "eventTime": "2026-11-22T00:54:18.700Z",
                "eventName": name,
                "userIdentity": {"principalId": "minioadmin"},
                "requestParameters": {"principalId": "minioadmin", "region": "", "sourceIPAddress": "127.0.0.1"},
                "responseElements": {"x-amz-request-id": "17A1", "x-minio-origin-endpoint": "http://127.0.0.1:9000"},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {"name": bucket, "ownerIdentity": {"principalId": "minioadmin"}, "arn": f"arn:{bucket}"},
                    "object": {
                        "key": quote_plus(key),
                        "size": 1,
                        "eTag": "c4ca42",
                        "contentType": "application/x-netcdf",
                        "userMetadata": {"content-type": "application/x-netcdf"},
                        "sequencer": "17A1B2C3D4E5F607",
                    },
                },
                "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO (linux; amd64)"},
            }
        ],
    }


def sns(message: Any) -> dict[str, Any]:
    """What SNS delivers to a queue without raw delivery."""
    return {
        "Type": "Notification",
        "MessageId": "a5fe492b-2a93-4a97-b853-fd8974129125",
        "TopicArn": f"arn:aws:sns:us-east-1:{ACCOUNT}:files",
        "Subject": "Amazon S3 Notification",
        "Message": text(message),
        "Timestamp": "2026-11-22T00:54:18.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
        "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService.pem",
        "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
    }


def sns_lambda(message: Any) -> dict[str, Any]:
    """What Lambda gets from SNS without a queue between them."""
    return {"Records": [{"EventVersion": "1.0", "EventSource": "aws:sns", "Sns": sns(message)}]}


def sqs_lambda(*bodies: Any, queue: str = "files.fifo", group: str | None = None) -> dict[str, Any]:
    """What Lambda gets from a queue; messages are called `m0`, `m1`, …"""
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "receiptHandle": f"r{number}",
                "body": text(body),
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1795308858701",
                    "SenderId": ACCOUNT,
                    "ApproximateFirstReceiveTimestamp": "1795308860786",
                    **({"MessageGroupId": group, "SequenceNumber": f"{number:020}"} if group else {}),
                },
                "messageAttributes": {},
                "md5OfBody": "3881330ae87c835c90c7f5db18dfa424",
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}",
                "awsRegion": "us-east-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


def sqs_received(*bodies: Any) -> dict[str, Any]:
    """What `receive_message` of a client answers."""
    return {
        "Messages": [
            {"MessageId": f"m{number}", "ReceiptHandle": f"r{number}", "MD5OfBody": "38", "Body": text(body)}
            for number, body in enumerate(bodies)
        ]
    }


def text(payload: Any) -> str:
    """A message's text."""
    return payload if isinstance(payload, str) else json.dumps(payload)
