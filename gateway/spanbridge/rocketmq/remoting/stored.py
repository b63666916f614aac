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
_BORN_HOST_V6, _STORE_HOST_V6 = 0x10, 0x20  # MessageSysFlag
_HEAD = struct.Struct(">iiiiiqqiq")
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
        items = self.raw_properties.decode(errors="replace").split("\x02")
        return dict([item.split("\x01", 1) for item in items if "\x01" in item])


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
        size, magic, crc, queue_id, _flag, offset, physical, system_flag, born_ms = _HEAD.unpack_from(data, at)
        if magic not in (_MAGIC_V1, _MAGIC_V2):
            raise FrameError(f"a stored message in a layout that is not known: {magic}")
        cursor = at + _HEAD.size + (20 if system_flag & _BORN_HOST_V6 else 8)
        (store_ms,) = _LONG.unpack_from(data, cursor)
        cursor += _LONG.size + (20 if system_flag & _STORE_HOST_V6 else 8)
        attempts, _prepared, body_size = _AFTER_HOSTS.unpack_from(data, cursor)
        body, cursor = _taken(data, cursor + _AFTER_HOSTS.size, body_size)
        topic_size, cursor = _topic_size(data, cursor, magic)
        topic, cursor = _taken(data, cursor, topic_size)
        (properties_size,) = _SHORT.unpack_from(data, cursor)
        properties, cursor = _taken(data, cursor + _SHORT.size, properties_size)
    except (struct.error, IndexError):
        raise FrameError("a stored message ends too early") from None
    if cursor != at + size:
        raise FrameError(f"a stored message of {cursor - at} bytes that gives its size as {size}")
    name = topic.decode(errors="replace")
    return (
        StoredMessage(
            name, queue_id, offset, physical, system_flag, born_ms, store_ms, attempts, body, properties, crc
        ),
        size,
    )


def _topic_size(data: bytes, at: int, magic: int) -> tuple[int, int]:
    if magic == _MAGIC_V1:
        return data[at], at + 1
    return _SHORT.unpack_from(data, at)[0], at + _SHORT.size


def _taken(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size < 0 or size > len(data) - at:
        raise FrameError("a stored message ends too early")
    return data[at : at + size], at + size
