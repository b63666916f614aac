"""Messages as a broker stores them and hands them out in the bodies of pull and pop responses. No I/O.

The layout is that of ``MessageDecoder.decode``, sizes in bytes: ``total size(4) magic(4) crc(4) queue id(4) flag(4)
queue offset(8) physical offset(8) system flag(4) born time(8) born host(8 or 20) store time(8) store host(8 or 20)
attempts(4) prepared offset(8) body size(4) body topic size(1 or 2) topic properties size(2) properties``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from spanbridge.rocketmq.remoting.errors import FrameError

_MAGIC_V1: Final = -626843481
_MAGIC_V2: Final = -626843477
_MAGICS: Final = frozenset((_MAGIC_V1, _MAGIC_V2))
_BORN_HOST_V6, _STORE_HOST_V6 = 0x10, 0x20  # MessageSysFlag
_V6: Final = _BORN_HOST_V6 | _STORE_HOST_V6
_HEAD = struct.Struct(">iiii4xqqiq8xq8xi8xi")
"""All before the body, where both hosts have addresses of IPv4."""
_BEFORE_HOSTS: Final = 48
_LONG = struct.Struct(">q")
_AFTER_HOSTS = struct.Struct(">iqi")
_SHORT = struct.Struct(">H")


class StoredMessage(NamedTuple):
    """A message as the broker stored it. Times are Unix time in milliseconds.

    ``system_flag`` is ``MessageSysFlag`` (bit 0: the body is compressed). ``attempts`` is how often the message was
    consumed again. ``body_crc`` is of the stored body (``UtilAll.crc32``), 0 where it is not known.
    """

    topic: str
    queue_id: int
    queue_offset: int
    physical_offset: int
    system_flag: int
    born_ms: int
    store_ms: int
    attempts: int
    body: bytes
    raw_properties: bytes = b""
    body_crc: int = 0

    @property
    def properties(self) -> dict[str, str]:
        """User and system properties (``MessageDecoder.string2messageProperties``)."""
        found = {}
        for item in self.raw_properties.decode(errors="replace").split("\x02"):
            name, separator, value = item.partition("\x01")
            if separator:
                found[name] = value
        return found


def read_messages(data: bytes) -> Iterator[StoredMessage]:
    """The messages of a response's body, in its order.

    :raises FrameError: the bytes are not such messages.
    """
    at = 0
    while at < len(data):
        message, size = _read(data, at)
        yield message
        at += size


def _read(data: bytes, at: int) -> tuple[StoredMessage, int]:
    try:
        size, magic, crc, queue_id, offset, physical, system_flag, born_ms, store_ms, attempts, body_size = (
            _HEAD.unpack_from(data, at)
        )
        if magic not in _MAGICS:
            raise FrameError(f"a stored message in a layout that is not known: {magic}")
        cursor = at + _HEAD.size
        if system_flag & _V6:
            cursor, store_ms, attempts, body_size = _behind_hosts(data, at, system_flag)
        body_end = cursor + body_size
        topic_size, topic_start = _topic_size(data, body_end, magic)
        topic_end = topic_start + topic_size
        start = topic_end + _SHORT.size
        end = start + _SHORT.unpack_from(data, topic_end)[0]
    except (struct.error, IndexError):
        raise FrameError("a stored message ends too early") from None
    if body_size < 0 or end > len(data):
        raise FrameError("a stored message ends too early")
    if end != at + size:
        raise FrameError(f"a stored message of {end - at} bytes that gives its size as {size}")
    topic, body, properties = (
        data[topic_start:topic_end].decode(errors="replace"),
        data[cursor:body_end],
        data[start:end],
    )
    return (
        StoredMessage(
            topic, queue_id, offset, physical, system_flag, born_ms, store_ms, attempts, body, properties, crc
        ),
        size,
    )


def _behind_hosts(data: bytes, at: int, system_flag: int) -> tuple[int, int, int, int]:
    """Where the body begins, store time, attempts and the body's size, where a host has an address of IPv6."""
    cursor = at + _BEFORE_HOSTS + (20 if system_flag & _BORN_HOST_V6 else 8)
    (store_ms,) = _LONG.unpack_from(data, cursor)
    cursor += _LONG.size + (20 if system_flag & _STORE_HOST_V6 else 8)
    attempts, _prepared, body_size = _AFTER_HOSTS.unpack_from(data, cursor)
    return cursor + _AFTER_HOSTS.size, store_ms, attempts, body_size


def _topic_size(data: bytes, at: int, magic: int) -> tuple[int, int]:
    """The size of the topic, and where it begins."""
    if magic == _MAGIC_V1:
        return data[at], at + 1
    return _SHORT.unpack_from(data, at)[0], at + _SHORT.size
