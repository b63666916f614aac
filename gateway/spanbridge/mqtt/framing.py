"""Where MQTT packets begin and end in a byte stream (MQTT 5.0 section 2.1, the same in 3.1.1)."""

from __future__ import annotations

from spanbridge.mqtt.errors import malformed, packet_too_large


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
