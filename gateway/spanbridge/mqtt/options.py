"""What an MQTT source is told. Plain values: reading configuration files is the config package's work."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from spanbridge.core.tls import TlsOptions

Version = Literal["5", "3.1.1"]

MAX_PACKET_SIZE = 268_435_460
"""Largest MQTT packet there can be, in bytes: a remaining length of 268 435 455 and a five-byte fixed header
(MQTT 5.0 section 2.1.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WillMessage:
    """The message that the broker publishes when this client vanishes (MQTT 5.0 section 3.1.2.5).

    ``delay`` is the Will Delay Interval in seconds; v3.1.1 has none and publishes at once.
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    delay: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One topic filter. v3.1.1 knows ``filter``, ``qos`` and, on brokers that extend it, ``share``.

    ``no_local`` keeps messages away that this connection itself published; it is left out for shared subscriptions,
    where it is a protocol error (MQTT-3.8.3-4). ``retain_handling`` is 0 (retained messages when the session is new),
    1 (when the subscription is new) or 2 (never): MQTT 5.0 section 3.8.3.1. ``share`` is the group's name of a shared
    subscription (``$share/<share>/<filter>``, section 4.8.2).
    """

    filter: str
    qos: int = 1
    no_local: bool = True
    retain_as_published: bool = True
    retain_handling: int = 0
    share: str | None = None

    @property
    def wire_filter(self) -> str:
        """The filter as it is sent to the broker."""
        return self.filter if self.share is None else f"$share/{self.share}/{self.filter}"

    @property
    def has_wildcard(self) -> bool:
        """Whether the filter needs the broker's Wildcard Subscription Available."""
        return "+" in self.filter or "#" in self.filter


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """One MQTT connection.

    ``keep_alive``, ``session_expiry``, ``connect_timeout`` and the ``backoff_`` pair are seconds; ``keep_alive`` 0
    turns it off. ``maximum_packet_size`` is in bytes and bounds memory per packet for both versions.
    ``receive_maximum`` (unacknowledged messages), ``session_expiry`` and ``topic_alias_maximum`` are told to v5
    brokers; v3.1.1 has no such fields.

    ``clean_start`` discards the broker's session once, with the first connection; later reconnects resume, since
    what was in flight would be lost otherwise. In v3.1.1 a clean session cannot be resumed at all: there, messages in
    flight when a connection breaks are lost.

    ``topic_alias_maximum`` is 0, no aliases, by default: they save bytes, and brokers exist that resolve them wrongly
    (rumqttd gives all topics of a wildcard subscription one alias), which would file messages under a wrong topic.

    An empty ``client_id`` lets a v5 broker choose; the chosen one is kept for reconnects.

    ``foreign`` are filters, as they are sent to the broker, that another client takes: a session that has them from
    earlier is to lose them.
    """

    name: str
    host: str
    port: int = 1883
    version: Version = "5"
    client_id: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    keep_alive: int = 30
    clean_start: bool = False
    session_expiry: int = 86_400
    receive_maximum: int = 1024
    topic_alias_maximum: int = 0
    maximum_packet_size: int = 16 * 1024 * 1024
    subscriptions: tuple[Subscription, ...] = ()
    foreign: tuple[str, ...] = ()
    will: WillMessage | None = None
    connect_timeout: float = 10.0
    backoff_initial: float = 0.25
    backoff_maximum: float = 30.0

    @property
    def broker(self) -> str:
        """Host and port of the broker, as texts name it."""
        return f"{self.host}:{self.port}"

    @property
    def persistent(self) -> bool:
        """Whether the broker is asked to keep a session beyond the connection."""
        return self.session_expiry > 0 if self.version == "5" else not self.clean_start

    def as_connected(self) -> MqttOptions:
        """The options without those that a living connection does not depend on: two that are equal may share it."""
        return replace(
            self, subscriptions=(), foreign=(), connect_timeout=1.0, backoff_initial=1.0, backoff_maximum=1.0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherOptions(MqttOptions):
    """The connection of a publisher: no subscriptions and no will.

    ``answer_timeout`` is in seconds: a broker that answers pings, and no PUBLISH for so long, is connected to anew.
    ``topic_aliases`` is how many topic aliases are given at most, where the broker takes any; 0 gives none.
    ``clean_start`` matters in 3.1.1 only, where it gives up resumed sessions: a publisher's first connection always
    begins a session, and the later ones resume it.
    """

    answer_timeout: float = 30.0
    topic_aliases: int = 1024

    @classmethod
    def beside(cls, options: MqttOptions) -> PublisherOptions:
        """Those of a publisher that connects where a source does: name and client id end in ``-down``."""
        if isinstance(options, PublisherOptions):
            return options
        own = {entry.name: getattr(options, entry.name) for entry in fields(MqttOptions)}
        client_id = f"{options.client_id}-down" if options.client_id else ""
        own |= {
            "name": f"{options.name}-down",
            "client_id": client_id,
            "subscriptions": (),
            "foreign": (),
            "will": None,
        }
        return cls(**own)
