"""MQTT 5.0: encoding, and what its reason codes mean (section 2.4)."""

from __future__ import annotations

from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import common
from spanbridge.mqtt.codec.packets import Packet

REASONS = {
    0x00: "success", 0x01: "granted_qos_1", 0x02: "granted_qos_2", 0x04: "disconnect_with_will_message",
    0x10: "no_matching_subscribers", 0x11: "no_subscription_existed", 0x18: "continue_authentication",
    0x19: "re_authenticate", 0x80: "unspecified_error", 0x81: "malformed_packet", 0x82: "protocol_error",
    0x83: "implementation_specific_error", 0x84: "unsupported_protocol_version", 0x85: "client_id_not_valid",
    0x86: "bad_user_name_or_password", 0x87: "not_authorized", 0x88: "server_unavailable", 0x89: "server_busy",
    0x8A: "banned", 0x8B: "server_shutting_down", 0x8C: "bad_authentication_method", 0x8D: "keep_alive_timeout",
    0x8E: "session_taken_over", 0x8F: "topic_filter_invalid", 0x90: "topic_name_invalid", 0x91: "packet_id_in_use",
    0x92: "packet_id_not_found", 0x93: "receive_max_exceeded", 0x94: "topic_alias_invalid", 0x95: "packet_too_large",
    0x96: "message_rate_too_high", 0x97: "quota_exceeded", 0x98: "administrative_action",
    0x99: "payload_format_invalid", 0x9A: "retain_not_supported", 0x9B: "qos_not_supported",
    0x9C: "use_another_server", 0x9D: "server_moved", 0x9E: "shared_subscriptions_not_supported",
    0x9F: "connection_rate_exceeded", 0xA0: "max_connect_time", 0xA1: "subscription_ids_not_supported",
    0xA2: "wildcard_subscriptions_not_supported",
}  # fmt: skip
"""Words for metrics and logs. Some codes have two names in the specification, by packet; the usual one is here."""


def encode(packet: Packet) -> bytes:
    """The bytes of any packet but PUBLISH.

    :raises ValueError: a field does not fit.
    """
    return common.encode_control(packet, v5=True)


def encode_publish(message: Publish, packet_id: int = 0, *, dup: bool = False, topic_alias: int | None = None) -> bytes:
    """PUBLISH with its properties. ``packet_id`` is 0 for QoS 0.

    :raises ValueError: a field does not fit.
    """
    return common.encode_publish(message, packet_id, v5=True, dup=dup, topic_alias=topic_alias)
