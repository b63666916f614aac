"""Errors inside the MQTT adapter. None leaves :meth:`run`: each ends as an event and as ``last_error``."""

from __future__ import annotations

from spanbridge.core.errors import SourceError


class ConnectError(SourceError):
    """No connection came about."""

    reason = "connect"


class RefusedError(SourceError):
    """The broker answered CONNECT with a refusal. ``reason`` is its reason code as a word."""

    reason = "refused"


class LostError(SourceError):
    """An established connection ended."""

    reason = "connection_lost"


class NackError(SourceError):
    """We ended the connection, so that the broker sends again what could not be handled."""

    reason = "nack"


class RenewedError(SourceError):
    """We ended the connection, since its options changed."""

    reason = "renewed"


class StaleSessionError(RenewedError):
    """We ended the connection to be rid of a session that knows of messages which we do not."""

    reason = "stale_session"


class PacketError(SourceError):
    """The broker sent something it must not. ``code`` goes into our DISCONNECT (MQTT 5.0 section 3.14.2.1).

    ``what`` is the fault alone: the packet, the field, and what is wrong with it.
    """

    reason = "malformed_packet"

    def __init__(self, message: str, *, code: int = 0x81, reason: str | None = None, what: str = "") -> None:
        super().__init__(message, reason=reason)
        self.code = code
        self.what = what or message


def malformed(what: str) -> PacketError:
    """A packet that cannot be decoded."""
    return PacketError(f"the broker sent a malformed packet ({what})", code=0x81, reason="malformed_packet", what=what)


def protocol_error(what: str, *, code: int = 0x82) -> PacketError:
    """A packet that is well formed and not allowed here."""
    return PacketError(f"the broker broke the protocol ({what})", code=code, reason="protocol_error", what=what)


def packet_too_large(size: int, limit: int) -> PacketError:
    """A packet over our Maximum Packet Size (MQTT-3.1.2-24)."""
    return PacketError(
        f"the broker sent a packet of {size} bytes where maximum_packet_size is {limit}",
        code=0x95,
        reason="packet_too_large",
    )
