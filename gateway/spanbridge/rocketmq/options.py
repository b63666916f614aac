"""What a sink is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.tls import TlsOptions

Spoken = Literal["grpc", "remoting"]
"""A protocol: gRPC with a proxy, or RocketMQ's own with name servers and brokers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RocketmqOptions:
    """A RocketMQ 5 cluster as a producer sees it. Durations in seconds.

    ``endpoints`` are the proxies' gRPC addresses, ``host:port`` separated by ``;``. ``topics`` are those known in
    advance; others join when first sent to. ``kinds`` pairs such topics with the message type they will be sent
    (``NORMAL``, ``FIFO`` or ``DELAY``), so that a probe finds a topic of another type before a message does.
    ``request_timeout`` bounds one request, ``attempts`` how often a send is tried inside before it is raised to the
    caller, with pauses from ``backoff_initial`` up to ``backoff_maximum`` (the server's own settings replace these
    two when they arrive).

    ``ordered_partitions`` is how many batches of grouped messages of one topic may be under way at once.
    ``single_requests`` bounds how many one-message requests run side by side where batching is impossible, for each
    set of proxies.
    ``follow_routes`` sends to the addresses the route names (as the official clients do); off, only the configured
    endpoints are used, for clusters that announce addresses unreachable from here.

    With ``protocol`` "remoting", ``endpoints`` are name servers, and ``stored_unsafely`` says what to do about messages
    that a broker stored, but not as safely as it is configured to: take them for stored, or send them again.
    ``receive_by`` is how a consumer then receives; "auto" pulls where brokers have no POP.
    ``delay_levels`` rounds delivery timestamps up to these for brokers before 5.0, which know no others. Bodies of more
    bytes than ``compress_above`` are compressed, none for 0. With "auto", the endpoints are asked which they are.
    """

    endpoints: str
    namespace: str = ""
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    security_token: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    name: str = "rocketmq"
    topics: tuple[str, ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()
    request_timeout: float = 3.0
    connect_timeout: float = 3.0
    attempts: int = 3
    backoff_initial: float = 0.01
    backoff_maximum: float = 1.0
    heartbeat_interval: float = 10.0
    route_refresh_interval: float = 30.0
    ordered_partitions: int = 4
    single_requests: int = 64
    follow_routes: bool = True
    protocol: Literal["auto", "grpc", "remoting"] = "grpc"
    stored_unsafely: Literal["accept", "retry"] = "accept"
    receive_by: Literal["auto", "pop", "pull"] = "auto"
    delay_levels: bool = False
    compress_above: int = 0

    def expecting(self, topics: Sequence[str], kinds: Sequence[tuple[str, str]]) -> RocketmqOptions:
        """The same connection with other topics known in advance."""
        return replace(self, topics=tuple(topics), kinds=tuple(kinds))

    def speaking(self, protocol: Spoken) -> RocketmqOptions:
        """The same connection by this protocol."""
        return replace(self, protocol=protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """What a consumer group receives from one topic of a cluster. Durations in seconds.

    ``filter`` is a tag expression, or SQL92 when ``sql`` is true. ``long_poll`` is how long the proxy may hold a call
    open while there is nothing, 5 to 20, and so how late a message may be for which the broker woke no call; ``batch``
    how many messages a call brings, at most 32 (the proxy cuts both to that). ``invisible`` is how long nobody else
    gets a message that was handed over: it is renewed while that is unacked. ``max_unacked`` is the number of unacked
    messages from which on nothing more is asked for. ``calls`` is how many calls to one broker may be under way at once
    while they come back full.
    ``give_back_timeout`` bounds :meth:`~spanbridge.ports.QueueSource.give_back`. ``max_body_bytes`` bounds what a
    compressed body may unpack to.
    """

    cluster: RocketmqOptions
    group: str
    topic: str
    filter: str = "*"
    sql: bool = False
    long_poll: float = 5.0
    batch: int = 32
    invisible: float = 60.0
    max_unacked: int = 4096
    calls: int = 8
    backoff_initial: float = 0.2
    backoff_maximum: float = 10.0
    give_back_timeout: float = 5.0
    max_body_bytes: int = 16 * 1024 * 1024


def parse_endpoints(text: str) -> tuple[str, ...]:
    """``host:port`` items separated by ``;``. An IPv6 address is in brackets.

    :raises SinkMisconfigured: an item is something else.
    """
    items = tuple(item.strip() for item in text.split(";") if item.strip())
    for item in items:
        host, _, port = item.rpartition(":")
        bare_v6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
        if not host or bare_v6 or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
            raise SinkMisconfigured(f"rocketmq endpoints: {item!r} is not host:port", reason="illegal_access_point")
    if not items:
        raise SinkMisconfigured("rocketmq endpoints: none given", reason="illegal_access_point")
    return tuple(dict.fromkeys(items))
