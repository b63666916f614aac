"""MQTT 3.1.1: encoding. It has no properties and, but for CONNACK and SUBACK, no codes."""

from __future__ import annotations

from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import common
from spanbridge.mqtt.codec.packets import AuthPacket, Packet


def encode(packet: Packet) -> bytes:
    """The bytes of any packet but PUBLISH.

    :raises ValueError: a field does not fit, or the packet is one of MQTT 5.0 only.
    """
    if isinstance(packet, AuthPacket):
        raise ValueError("MQTT 3.1.1 has no AUTH")  # noqa: TRY004 - as every other value that cannot be encoded
    return common.encode_control(packet, v5=False)


def encode_publish(message: Publish, packet_id: int = 0, *, dup: bool = False) -> bytes:
    """PUBLISH: topic, QoS, RETAIN and payload. ``packet_id`` is 0 for QoS 0.

    :raises ValueError: a field does not fit.
    """
    return common.encode_publish(message, packet_id, v5=False, dup=dup)
