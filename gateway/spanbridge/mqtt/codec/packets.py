"""The packets of both versions as values. PUBLISH is a :class:`spanbridge.mqtt.delivery.MqttDelivery`.

``properties`` are those of MQTT 5.0 by their names in section 2.2.2.2, in lower case with underscores;
``user_property`` is a tuple of pairs, ``subscription_identifier`` a tuple of numbers. In 3.1.1 there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Properties = Mapping[str, Any]
NO_PROPERTIES: Properties = MappingProxyType({})


def _none() -> Properties:
    return NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class WillPacket:
    """The will inside CONNECT (section 3.1.3)."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class ConnectPacket:
    """CONNECT (section 3.1). ``clean_start`` is Clean Session in 3.1.1. ``keep_alive`` is seconds."""

    client_id: str
    clean_start: bool = False
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: WillPacket | None = None
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class ConnackPacket:
    """CONNACK (section 3.2). ``code`` is the reason code, the return code in 3.1.1."""

    session_present: bool = False
    code: int = 0
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class _Answer:
    packet_id: int
    code: int = 0
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class PubackPacket(_Answer):
    """PUBACK (section 3.4)."""


@dataclass(frozen=True, slots=True)
class PubrecPacket(_Answer):
    """PUBREC (section 3.5)."""


@dataclass(frozen=True, slots=True)
class PubrelPacket(_Answer):
    """PUBREL (section 3.6)."""


@dataclass(frozen=True, slots=True)
class PubcompPacket(_Answer):
    """PUBCOMP (section 3.7)."""


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """One filter of a SUBSCRIBE, with its options (section 3.8.3.1); 3.1.1 knows ``qos`` only."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class SubscribePacket:
    """SUBSCRIBE (section 3.8)."""

    packet_id: int
    filters: tuple[FilterOptions, ...]
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class SubackPacket:
    """SUBACK (section 3.9): a code for each filter, in their order."""

    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class UnsubscribePacket:
    """UNSUBSCRIBE (section 3.10)."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class UnsubackPacket:
    """UNSUBACK (section 3.11). 3.1.1 has no codes."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class PingreqPacket:
    """PINGREQ (section 3.12)."""


@dataclass(frozen=True, slots=True)
class PingrespPacket:
    """PINGRESP (section 3.13)."""


@dataclass(frozen=True, slots=True)
class DisconnectPacket:
    """DISCONNECT (section 3.14). 3.1.1 has neither code nor properties."""

    code: int = 0
    properties: Properties = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class AuthPacket:
    """AUTH (section 3.15), MQTT 5.0 only."""

    code: int = 0
    properties: Properties = field(default_factory=_none)


Packet = (
    ConnectPacket
    | ConnackPacket
    | PubackPacket
    | PubrecPacket
    | PubrelPacket
    | PubcompPacket
    | SubscribePacket
    | SubackPacket
    | UnsubscribePacket
    | UnsubackPacket
    | PingreqPacket
    | PingrespPacket
    | DisconnectPacket
    | AuthPacket
)
