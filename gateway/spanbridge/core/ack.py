"""Acknowledgements: each message is settled once, and leaves in the order it came (MQTT-4.6.0-2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import Any

from spanbridge.core.message import Publish
from spanbridge.core.rocketmq_rules import MAX_USER_PROPERTIES

_PROPERTY_BYTES = 160
"""What a short user property takes in memory: a pair and two strings."""


class InFlight:
    """A message between its arrival and its acknowledgement, with what the pipeline keeps beside it.

    ``owner`` is the intake that must acknowledge it, ``trace`` the telemetry's record and ``encoded`` the sink's form;
    the core looks into none of them. ``size`` (bytes) is what it counts for in the bound on what is in flight: the
    size of the sink's form, or of the packet where that is larger. What is refused waits for its turn as well.
    ``since_ns`` is when it came, ``expires_ns`` when its sender no longer wants it delivered; both by the monotonic
    clock, since Unix time may be set meanwhile.
    """

    __slots__ = ("encoded", "expires_ns", "filter", "owner", "publish", "settled", "since_ns", "size", "trace")

    def __init__(self, publish: Publish, owner: Any, filter_: str, trace: Any, encoded: bytes) -> None:
        self.publish = publish
        self.owner = owner
        self.filter = filter_
        self.trace = trace
        self.encoded = encoded
        self.size = len(encoded)
        if not encoded or len(publish.user_properties) > MAX_USER_PROPERTIES:  # further ones show in the packet only
            self.size = max(self.size, weight(publish))
        self.settled = False
        self.since_ns = 0
        self.expires_ns: int | None = None


class AckLedger:
    """What one source is owed: holds back acknowledgements until every earlier message of the connection is settled.

    A reconnect (:meth:`lost`, then :meth:`turn`) starts a new order. In a resumed session the broker sends again what
    it holds unacknowledged, with the DUP flag and the packet identifier it had (MQTT-4.4.0-1, MQTT-3.3.1-1), while the
    first copies may still be on their way, or through. :meth:`adopt` recognises those, so that a reconnect of the MQTT
    side makes no duplicates in RocketMQ. Taking another message for one of those would lose it, so only messages are
    remembered that the broker must still hold under their identifier:

    - whose acknowledgement was never written: after that the identifier may stand for another message;
    - of this session of the broker's: the next one numbers its messages anew;
    - of the last connection, and of those before it only as long as nothing new came: redeliveries come first.

    ``unsettled`` counts messages received and not settled. ``held`` and ``held_bytes`` count those in our hands: the
    unsettled ones, and those whose acknowledgement waits for an earlier message.
    """

    __slots__ = ("_loose", "_news", "_previous", "_queue", "_session", "epoch", "held", "held_bytes", "unsettled")

    def __init__(self) -> None:
        self.epoch = 0
        self._session = 0
        self._news = False
        self._queue: deque[InFlight] = deque()
        self._loose: dict[InFlight, None] = {}
        self._previous: dict[int, InFlight] = {}
        self.unsettled = 0
        self.held = 0
        self.held_bytes = 0

    def add(self, entry: InFlight) -> None:
        """Take note of a message that was received. QoS 0 is owed nothing, so it waits for no other."""
        self.unsettled += 1
        self._hold(entry)
        if not entry.publish.qos:
            self._loose[entry] = None
            return
        self._queue.append(entry)
        if not entry.publish.dup:
            self._news = True
            if self._previous:
                self._forget(self._previous.pop(entry.publish.packet_id, None))  # it names a new message now

    def adopt(self, publish: Publish) -> InFlight | None:
        """The message that ``publish`` (DUP set) is a redelivery of, or None: it is new to us.

        The entry takes the new packet's place in the order, and keeps its age and its expiry; when it is settled
        already it can be released at once (:meth:`release`).
        """
        entry = self._previous.get(publish.packet_id)
        if entry is None or not _same(entry.publish, publish):
            return None
        del self._previous[publish.packet_id]
        publish.received_ns = entry.publish.received_ns
        entry.publish = publish
        self._queue.append(entry)
        if entry.settled:
            self._hold(entry)
        return entry

    def settle(self, entries: Iterable[InFlight]) -> list[Publish]:
        """Mark messages as done; return those whose acknowledgement may leave now, in receive order.

        Settling a message twice changes nothing.
        """
        for entry in entries:
            if entry.settled:
                continue
            entry.settled = True
            entry.encoded = b""
            self.unsettled -= 1
            if entry.publish.epoch != self.epoch or not entry.publish.qos:
                self._loose.pop(entry, None)
                self._let_go(entry)
        return self.release()

    def release(self) -> list[Publish]:
        """The acknowledgements that may leave now, in receive order."""
        queue = self._queue
        released: list[Publish] = []
        while queue and queue[0].settled:
            entry = queue.popleft()
            self._let_go(entry)
            released.append(entry.publish)
        return released

    def oldest_ns(self) -> int | None:
        """When the oldest unsettled message came (monotonic clock, ns); None: nothing waits.

        Looks at every message, since one that was adopted is older than those before it.
        """
        owed = chain(self._previous.values(), self._queue, self._loose)
        return min((entry.since_ns for entry in owed if not entry.settled), default=None)

    def unrepeatable(self) -> list[InFlight]:
        """Unsettled messages that no broker will send again: QoS 0, and those of a session that it has lost."""
        return list(self._loose)

    def lost(self) -> None:
        """The connection is gone: its messages are owed no acknowledgement there, but may come again. Idempotent."""
        if self._news:
            self._forget(*self._previous.values())
            self._previous = {}
            self._news = False
        for entry in self._queue:
            self._forget(self._previous.get(entry.publish.packet_id))
            self._previous[entry.publish.packet_id] = entry
            if entry.settled:
                self._let_go(entry)
        self._queue = deque()
        self.epoch = 0

    def turn(self, epoch: int, *, session: int) -> None:
        """Begin a new connection.

        ``session`` numbers the broker's session. In another one than before nothing comes again (CONNACK's Session
        Present was 0, on this connection or on one that brought nothing), and packet identifiers start anew.
        """
        self.lost()
        if session != self._session:
            self._forget(*self._previous.values())
            self._previous = {}
            self._session = session
        self.epoch = epoch

    def _forget(self, *entries: InFlight | None) -> None:
        """These will not come again. Until they are settled they still tell the age."""
        self._loose.update((entry, None) for entry in entries if entry is not None and not entry.settled)

    def _hold(self, entry: InFlight) -> None:
        self.held += 1
        self.held_bytes += entry.size

    def _let_go(self, entry: InFlight) -> None:
        self.held -= 1
        self.held_bytes -= entry.size


def weight(publish: Publish) -> int:
    """Bytes that a message takes as it was received."""
    return len(publish.payload) + len(publish.topic) + _PROPERTY_BYTES * len(publish.user_properties)


def _same(one: Publish, other: Publish) -> bool:
    """Whether two packets carry one message. Brokers count the expiry down, and may set RETAIN anew."""
    return (
        one.topic == other.topic
        and one.payload == other.payload
        and one.qos == other.qos
        and one.user_properties == other.user_properties
        and one.correlation_data == other.correlation_data
    )
