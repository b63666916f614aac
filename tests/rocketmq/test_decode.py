"""Bodies as they come: packed, damaged, too large."""

from __future__ import annotations

import gzip
import hashlib
import zlib

import pytest

from spanbridge.rocketmq.grpc.decode import beginning, read_message, read_without_body
from spanbridge.rocketmq.grpc.stubs import definition, service

BODY = b"body" * 100


def read(body: bytes, *, encoding: str = "IDENTITY", digest: str = "", checksum: str = "") -> tuple[bytes, str | None]:
    raw = definition.Message(body=body)
    raw.system_properties.body_encoding = definition.Encoding.Value(encoding)
    if digest:
        raw.system_properties.body_digest.type = definition.DigestType.Value(digest)
        raw.system_properties.body_digest.checksum = checksum
    message = read_message(raw, "b", 1, 1000)
    assert message.attempt == 1
    assert message.queue == "b/0"
    return message.body, message.fault


@pytest.mark.parametrize(
    ("digest", "checksum"),
    [
        ("CRC32", f"{zlib.crc32(BODY):08X}"),
        ("MD5", hashlib.md5(BODY).hexdigest().upper()),
        ("SHA1", hashlib.sha1(BODY).hexdigest()),
    ],
)
def test_digests(digest: str, checksum: str) -> None:
    assert read(BODY, digest=digest, checksum=checksum) == (BODY, None)
    body, fault = read(BODY + b"!", digest=digest, checksum=checksum)
    assert body == BODY + b"!"
    assert fault is not None


def test_what_is_too_large_is_read_as_far_as_its_body() -> None:
    response = service.ReceiveMessageResponse()
    raw = response.message
    raw.topic.name, raw.body = "t", b"x" * 300_000
    raw.user_properties.update({f"name-{n}": "v" * 500 for n in range(60)})
    raw.system_properties.receipt_handle, raw.system_properties.message_id = "handle", "id"
    raw.system_properties.body_digest.type = definition.DigestType.CRC32
    raw.system_properties.body_encoding = definition.Encoding.GZIP
    data = response.SerializeToString(deterministic=True)
    found = beginning(data[:65_536])
    assert found.system_properties.receipt_handle == "handle"
    message = read_without_body(found, "b", 1, "it is too large")
    assert (message.message_id, message.body, message.fault) == ("id", b"", "it is too large")
    assert len(message.properties) == 60
    for damaged in (b"", data[:1000], b"\x12", b"\x0a" + data[1:], b"\x12\x05\xff\x01\x22"):
        assert beginning(damaged) is None


def test_packed_bodies() -> None:
    for packed in (gzip.compress(BODY), zlib.compress(BODY)):
        assert read(packed, encoding="GZIP") == (BODY, None)
        checksum = hashlib.md5(packed).hexdigest()
        assert read(packed, encoding="GZIP", digest="MD5", checksum=checksum) == (BODY, None)
    for body, cause in (
        (gzip.compress(bytes(1001)), "1000 bytes"),
        (gzip.compress(BODY)[:-9], "cut short"),
        (BODY, "none of"),
    ):
        left, fault = read(body, encoding="GZIP")
        assert left == body
        assert cause in (fault or "")
