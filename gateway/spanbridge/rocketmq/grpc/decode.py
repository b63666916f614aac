"""Messages as the proxy sends them, in the gateway's own form."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

from spanbridge.core.message import Message
from spanbridge.rocketmq.grpc.stubs import definition

_IDENTITY = frozenset({definition.Encoding.ENCODING_UNSPECIFIED, definition.Encoding.IDENTITY})
_CRC32 = definition.DigestType.CRC32
_HASHES = {definition.DigestType.MD5: "md5", definition.DigestType.SHA1: "sha1"}
_ZLIB_OR_GZIP = 47
"""Window bits with which zlib takes either header: the field says GZIP whatever the producer used."""


def read_message(raw: Any, broker: str, received_ns: int, limit: int) -> Message:
    """The message that a ``Message`` of definition.proto is. ``limit`` bounds what a packed body may unpack to.

    A body that is damaged or cannot be unpacked is left as it is, and ``fault`` says so.
    """
    system = raw.system_properties
    body = raw.body
    born, stored = system.born_timestamp, system.store_timestamp
    fault = digest_fault(body, system.body_digest)
    if system.body_encoding not in _IDENTITY and fault is None:
        body, fault = unpack(body, limit)
    return Message(
        topic=raw.topic.name,
        body=body,
        message_id=system.message_id,
        tag=system.tag or None,
        keys=tuple(system.keys),
        group=system.message_group or None,
        delivery_timestamp_ms=_milliseconds(system) if system.HasField("delivery_timestamp") else None,
        properties=dict(raw.user_properties),
        trace_context=system.trace_context or None,
        born_ns=born.seconds * 1_000_000_000 + born.nanos,
        stored_ns=stored.seconds * 1_000_000_000 + stored.nanos,
        received_ns=received_ns,
        attempt=system.delivery_attempt or 1,
        queue=f"{broker}/{system.queue_id}",
        fault=fault,
    )


def _milliseconds(system: Any) -> int:
    due: int = system.delivery_timestamp.ToMilliseconds()
    return due


def digest_fault(body: bytes, digest: Any) -> str | None:
    """Why a body is not what was stored, by the digest that came with it; None when it is, or nobody can tell."""
    kind = digest.type
    if kind == _CRC32:
        same = _hex(digest.checksum) == f"{zlib.crc32(body):x}"
    elif kind in _HASHES:
        checksum = hashlib.new(_HASHES[kind], body, usedforsecurity=False).hexdigest()
        same = digest.checksum.lower() == checksum
    else:
        return None
    return None if same else f"its body does not have the digest {digest.checksum[:40]!r} that it came with"


def _hex(checksum: str) -> str:
    return checksum.lower().lstrip("0") or "0"


def unpack(body: bytes, limit: int) -> tuple[bytes, str | None]:
    """A packed body unpacked, or as it is with the reason why it cannot be."""
    unpacker = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        plain = unpacker.decompress(body, limit)
    except zlib.error:
        return body, "its body is packed in a form other than zlib and gzip, or damaged"
    if not unpacker.eof:
        whole = "is cut short" if not unpacker.unconsumed_tail else f"unpacks to more than {limit} bytes"
        return body, f"its packed body {whole}"
    return plain, None
