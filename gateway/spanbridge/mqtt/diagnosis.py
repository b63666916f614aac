"""What is wrong, in words, when a peer does not answer as a broker of this version would."""

from __future__ import annotations

import ssl

from spanbridge.mqtt.errors import ConnectError, LostError
from spanbridge.mqtt.options import MqttOptions, Subscription
from spanbridge.mqtt.tls import tls_cause
from spanbridge.mqtt.version import Accepted, Granted


def check_plain(peer: str, data: bytes) -> None:
    """See that what comes first is MQTT at all.

    A TLS alert (RFC 8446 section 5.1) is what a TLS port says to plain MQTT; text is what other servers say.

    :raises ConnectError: it is not.
    """
    if data[:2] == b"\x15\x03":
        raise ConnectError(f"{peer} expects TLS: set tls for this connection", reason="tls_expected")
    line = data.split(b"\n")[0][:40].rstrip()
    if len(line) >= 8 and line.isascii() and line.decode().isprintable():
        raise ConnectError(f"{peer} is no MQTT broker: it answers CONNECT with {line.decode()!r}", reason="not_mqtt")


def lost(options: MqttOptions, exc: Exception | None, *, accepted: bool) -> LostError:
    """Why a connection ended that we did not end. ``exc`` is what the transport says, None when the peer closed it."""
    peer = options.broker
    if isinstance(exc, ssl.SSLError):
        said = tls_cause(exc)
        # In TLS 1.3 the client is through with its handshake before the broker has seen its certificate.
        hint = "; see tls.cert_file, tls.key_file" if "certificate" in said else ""
        return LostError(f"{peer} ended TLS: {said}{hint}", reason="tls")
    how = "reset" if isinstance(exc, ConnectionResetError) else "closed"
    text = f"{peer} {how} the connection"
    if isinstance(exc, OSError) and not isinstance(exc, ConnectionResetError):
        text += f" ({exc.strerror or exc})"
    if not accepted:
        secure = "" if options.tls else "expects TLS, "
        text += (
            f" without answering CONNECT: it may be that it {secure}refuses our credentials, "
            f"or does not speak MQTT {options.version}"
        )
    return LostError(text)


def impossible(can: Accepted, subscription: Subscription) -> Granted | None:
    """What the broker said in CONNACK it cannot do: asking all the same would end the connection."""
    if subscription.has_wildcard and not can.wildcards:
        return Granted(None, "wildcards_unavailable", "this broker has no wildcard subscriptions")
    if subscription.share is not None and not can.shared:
        return Granted(None, "shared_unavailable", "this broker has no shared subscriptions")
    # fixed header up to 5 bytes, packet identifier 2, properties 1, filter length 2, options 1 (section 3.8)
    size = len(subscription.wire_filter.encode()) + 11
    if can.maximum_packet_size is not None and size > can.maximum_packet_size:
        return Granted(None, "packet_too_large", f"this broker takes packets of {can.maximum_packet_size} bytes")
    return None
