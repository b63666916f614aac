"""The data types of the wire, the same in both versions (MQTT 5.0 section 1.5, 3.1.1 section 1.5)."""

from __future__ import annotations

from spanbridge.mqtt.errors import PacketError, malformed, packet_too_large, protocol_error

MAX_REMAINING = 0x0FFF_FFFF
"""The largest Remaining Length there is (MQTT 5.0 section 2.1.4)."""


def variable(value: int) -> bytes:
    """A Variable Byte Integer (section 1.5.5).

    :raises ValueError: negative, or too large for four bytes.
    """
    if not 0 <= value <= MAX_REMAINING:
        raise ValueError(f"{value} does not fit into a variable byte integer")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def binary(data: bytes) -> bytes:
    """Binary data with its length in front (section 1.5.6).

    :raises ValueError: more than 65535 bytes.
    """
    if len(data) > 0xFFFF:
        raise ValueError(f"{len(data)} bytes, allowed are 65535")
    return len(data).to_bytes(2, "big") + data


def text(value: str) -> bytes:
    """A UTF-8 string with its length in front (section 1.5.4).

    :raises ValueError: more than 65535 bytes, a surrogate, or a NUL.
    """
    if "\0" in value:
        raise ValueError("a string contains a NUL (MQTT-1.5.4-2)")
    return binary(value.encode())


def packet(head: int, body: bytes | bytearray) -> bytes:
    """A packet: its first byte, its Remaining Length and the rest (section 2.1).

    :raises ValueError: larger than a packet can be.
    """
    return bytes((head,)) + variable(len(body)) + body


def packet_size(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """Size in bytes of the packet that begins at ``start``, fixed header included; 0 when too little is there to tell.

    :raises PacketError: the remaining length takes more than four bytes.
    """
    remaining = 0
    for index in range(4):
        position = start + 1 + index
        if position >= len(data):
            return 0
        byte = data[position]
        remaining |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return remaining + index + 2
    raise malformed("remaining length of more than four bytes")


class Remainder:
    """The beginning of a packet whose end has not arrived. Grows in place: large packets are not copied per read."""

    __slots__ = ("_buffer", "_limit", "_need")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._need = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def keep(self, data: bytes | memoryview) -> None:
        """Hold on to what is left of a read.

        :raises PacketError: the packet is going to be larger than the limit, or its length is malformed.
        """
        self._buffer += data
        self._need = packet_size(self._buffer)
        if self._need > self._limit:
            raise packet_too_large(self._need, self._limit)

    def add(self, data: bytes) -> bytes | None:
        """What was held and ``data`` together, once that makes a whole packet.

        :raises PacketError: as :meth:`keep`.
        """
        if not self._need:
            self.keep(data)
        else:
            self._buffer += data
        if not self._need or len(self._buffer) < self._need:
            return None
        whole = bytes(self._buffer)
        self._buffer.clear()
        self._need = 0
        return whole


class Cursor:
    """Reads the fields of one packet, from ``position`` to ``end``. ``place`` names the packet in errors."""

    __slots__ = ("data", "end", "place", "position")

    def __init__(self, data: bytes, position: int, end: int, place: str) -> None:
        self.data = data
        self.position = position
        self.end = end
        self.place = place

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.end - self.position

    def error(self, field: str, what: str) -> PacketError:
        """A Malformed Packet, with the place of the fault."""
        return malformed(f"{self.place}: {field} {what}")

    def take(self, size: int, field: str) -> bytes:
        """The next ``size`` bytes.

        :raises PacketError: there are fewer.
        """
        start = self.position
        if size > self.end - start:
            raise self.error(field, "does not fit into the packet")
        self.position = start + size
        return self.data[start : start + size]

    def integer(self, size: int, field: str) -> int:
        """A big-endian integer of ``size`` bytes.

        :raises PacketError: it is cut off.
        """
        return int.from_bytes(self.take(size, field), "big")

    def variable(self, field: str) -> int:
        """A Variable Byte Integer.

        :raises PacketError: it is cut off, or longer than four bytes.
        """
        value = 0
        for index in range(4):
            byte = self.integer(1, field)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value
        raise self.error(field, "has more than four bytes")

    def binary(self, field: str) -> bytes:
        """Binary data behind its length.

        :raises PacketError: it is cut off.
        """
        return self.take(self.integer(2, field), field)

    def text(self, field: str) -> str:
        """A UTF-8 string behind its length.

        :raises PacketError: it is cut off, not UTF-8, or contains a NUL.
        """
        raw = self.binary(field)
        try:
            value = raw.decode()
        except UnicodeDecodeError:
            raise self.error(field, "is not UTF-8") from None
        if "\0" in value:
            raise self.error(field, "contains a NUL")
        return value

    def packet_id(self) -> int:
        """A packet identifier.

        :raises PacketError: it is cut off, or 0 (MQTT-2.2.1-3).
        """
        value = self.integer(2, "packet identifier")
        if not value:
            raise protocol_error(f"{self.place}: packet identifier 0")
        return value

    def finish(self) -> None:
        """See that nothing is left.

        :raises PacketError: something is.
        """
        if self.position != self.end:
            raise self.error("end", f"has {self.left} bytes too many")
