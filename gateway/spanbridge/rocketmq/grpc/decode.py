"""Messages as the proxy sends them, in the gateway's own form."""

from __future__ import annotations

from dataclasses import replace
from hashlib import md5, sha1
from typing import Any
from zlib import crc32

from google.protobuf.message import DecodeError

from spanbridge.core.message import Message
from spanbridge.rocketmq.grpc.stubs import definition
from spanbridge.rocketmq.packed import unpack

_IDENTITY = frozenset({definition.Encoding.ENCODING_UNSPECIFIED, definition.Encoding.IDENTITY})
_CRC32: int = definition.DigestType.CRC32
_HASHES = {definition.DigestType.MD5: md5, definition.DigestType.SHA1: sha1}
_BODY = 0x22
"""Tag of a ``Message``'s body. What comes before it has fields of the same kind, in the order of their numbers."""


def read_message(raw: Any, broker: str, received_ns: int, limit: int) -> Message:
    """The message that a ``Message`` of definition.proto is. ``limit`` bounds what a packed body may unpack to.

    A body that is damaged or cannot be unpacked is left as it is, and ``fault`` says so. Hot path: arguments by place,
    and each field of protobuf's read once.
    """
    system = raw.system_properties
    body = raw.body
    born, stored = system.born_timestamp, system.store_timestamp
    properties = raw.user_properties
    digest = system.body_digest
    fault = digest_fault(body, digest.type, digest.checksum)
    if system.body_encoding not in _IDENTITY and fault is None:
        body, fault = unpack(body, limit)
    return Message(
        raw.topic.name,
        body,
        system.message_id,
        system.tag or None,
        system.keys[:],
        system.message_group or None,
        _milliseconds(system) if system.HasField("delivery_timestamp") else None,
        {name: properties[name] for name in properties},
        system.trace_context or None,
        born.seconds * 1_000_000_000 + born.nanos,
        stored.seconds * 1_000_000_000 + stored.nanos,
        received_ns,
        system.delivery_attempt or 1,
        f"{broker}/{system.queue_id}",
        fault,
    )


def read_without_body(raw: Any, broker: str, received_ns: int, fault: str) -> Message:
    """The same for a message whose body was not taken; ``fault`` says why."""
    system = raw.system_properties
    system.ClearField("body_digest")
    system.ClearField("body_encoding")
    return replace(read_message(raw, broker, received_ns, 0), fault=fault)


def beginning(data: bytes) -> Any:
    """The ``Message`` that a ``ReceiveMessageResponse`` begins with, without its body; None if it is not there whole.

    For an answer that is too large to be taken: its receipt handle, with which it can be rejected, is before the body.
    """
    if not data.startswith(b"\x12"):
        return None
    try:
        _, start = _varint(data, 1)
        position = start
        while data[position] != _BODY:
            size, position = _varint(data, position + 1)
            position += size
        return definition.Message.FromString(data[start:position])
    except (IndexError, DecodeError):
        return None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number and what is behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _milliseconds(system: Any) -> int:
    due: int = system.delivery_timestamp.ToMilliseconds()
    return due


def digest_fault(body: bytes, kind: int, checksum: str) -> str | None:
    """Why a body is not what was stored, by the digest that came with it; None when it is, or nobody can tell."""
    if kind == _CRC32:
        try:
            same = int(checksum, 16) == crc32(body)
        except ValueError:
            same = False
    elif kind in _HASHES:
        same = checksum.lower() == _HASHES[kind](body, usedforsecurity=False).hexdigest()
    else:
        return None
    return None if same else f"its body does not have the digest {checksum[:40]!r} that it came with"
