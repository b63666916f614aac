"""What can be saved of an MQTT 5.0 PUBLISH that the codec does not decode (ADR 0035).

Brokers exist that pass on what a device sent without looking at it. The packet's frame is sound then, and the fault is
the device's: ending the connection, as section 4.13 has it for malformed packets, would bring the same packet again,
for ever, and nothing behind it would arrive. So its parts are cut out by hand, and the uplink refuses it by name.
"""

from __future__ import annotations

from typing import NamedTuple

from spanbridge.mqtt.errors import malformed
from spanbridge.mqtt.framing import packet_size

MAX_PROPERTIES = 256 * 1024
"""Bytes of properties in one packet that the codec is given. RocketMQ takes 16 KiB; the strings that are forwarded, or
read for a context, have room. The largest packet may hold three million properties: 240 MiB once decoded, and seconds
of work, from one message of one device, which the broker would send again to the process that starts after it."""

_PUBLISH = 3
_STRING, _BINARY, _PAIR, _VARIABLE = -1, -2, -3, -4
_PROPERTIES = {  # section 3.3.2.3: bytes, or one of the forms above
    0x01: 1,
    0x02: 4,
    0x03: _STRING,
    0x08: _STRING,
    0x09: _BINARY,
    0x0B: _VARIABLE,
    0x23: 2,
    0x26: _PAIR,
}


class Parts(NamedTuple):
    """A PUBLISH by its frame alone. ``properties`` may be nonsense, ``payload`` is what follows them."""

    topic: bytes
    packet_id: int
    properties: bytes
    payload: bytes


def split(packet: bytes) -> Parts | None:
    """The parts of a whole packet; None when even its frame is broken: the topic does not fit, or QoS is 3."""
    qos = packet[0] >> 1 & 3
    position = 1
    while packet[position] & 0x80:
        position += 1
    body = memoryview(packet)[position + 1 :]  # it may be large
    size = int.from_bytes(body[:2], "big")
    end = 2 + size + (2 if qos else 0)
    if qos == 3 or len(body) < end:
        return None
    topic, packet_id = bytes(body[2 : 2 + size]), int.from_bytes(body[2 + size : end], "big")
    length, start = _variable(body, end)
    if length is None or start + length > len(body):
        return Parts(topic, packet_id, b"", bytes(body[end:]))
    return Parts(topic, packet_id, bytes(body[start : start + length]), bytes(body[start + length :]))


def check_size(data: bytes, start: int) -> None:
    """See that decoding the packet that begins at ``start`` costs no more than its size lets expect.

    :raises PacketError: its properties take more than :data:`MAX_PROPERTIES`; or, in a packet that has no payload, all.
    """
    size = packet_size(data, start)
    if size <= MAX_PROPERTIES:
        return
    if data[start] >> 4 == _PUBLISH:
        size = _properties_size(data, start)
    if size > MAX_PROPERTIES:
        raise malformed(f"{size} bytes of properties, where {MAX_PROPERTIES} are the most that is taken")


def _properties_size(data: bytes, start: int) -> int:
    """Bytes of a PUBLISH's properties; 0 when too little is there to tell."""
    position = start + 1
    while data[position] & 0x80:
        position += 1
    topic = position + 3
    topic += int.from_bytes(data[position + 1 : topic], "big")
    return _variable(data, topic + (2 if data[start] >> 1 & 3 else 0))[0] or 0


def check_strings(packet: bytes) -> None:
    """See that topic and properties of a PUBLISH are UTF-8 where they have to be (section 1.5.4).

    :raises UnicodeDecodeError: one is not.
    """
    parts = split(packet)
    if parts is None:
        return
    parts.topic.decode()
    if not parts.properties.isascii():
        _check_properties(parts.properties)


def _check_properties(data: bytes) -> None:
    position = 0
    while position < len(data):
        form = _PROPERTIES.get(data[position])
        position += 1
        if form is None:
            return  # the codec refuses it by itself
        if form == _VARIABLE:
            _, position = _variable(data, position)
        elif form > 0:
            position += form
        else:
            for _ in range(2 if form == _PAIR else 1):
                start = position + 2
                position = start + int.from_bytes(data[position:start], "big")
                if form != _BINARY:
                    data[start:position].decode()


def _variable(data: bytes | memoryview, position: int) -> tuple[int | None, int]:
    """A Variable Byte Integer (section 1.5.5) and where it ends; None when it is none."""
    value = 0
    for index, byte in enumerate(data[position : position + 4]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    return None, len(data)
