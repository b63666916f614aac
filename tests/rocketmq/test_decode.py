"""Bodies as they come: packed, damaged, too large."""

from __future__ import annotations

import gzip
import hashlib
import zlib

import pytest

from spanbridge.rocketmq.grpc.decode import read_message
from spanbridge.rocketmq.grpc.stubs import definition

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


def test_packed_bodies() -> None:
    for packed in (gzip.compress(BODY), zlib.compress(BODY)):
        assert read(packed, encoding="GZIP") == (BODY, None)
        checksum = hashlib.md5(packed).hexdigest()
        assert read(packed, encoding="GZIP", digest="MD5", checksum=checksum) == (BODY, None)
    for body, cause in (
        (gzip.compress(bytes(1001)), "1000 bytes"),
        (gzip.compress(BODY)[:-9], "cut short"),
        (BODY, "other"),
    ):
        left, fault = read(body, encoding="GZIP")
        assert left == body
        assert cause in (fault or "")
