"""What a publisher owes its callers: messages that wait, and messages that the broker has not answered.

Pure: no sockets, clocks or awaits. One object per publisher; it outlives connections, as the broker's session does.

**QoS.** A message of QoS 1 is through with its PUBACK, one of QoS 2 with its PUBCOMP; between PUBREC and that it is the
PUBREL that is sent again, never the PUBLISH (MQTT 5.0 section 4.3.3). A packet identifier stands for one message from
its PUBLISH to that answer. They are given out round and round, so that a late answer meets no other message soon.

**Sessions.** In a resumed session all that is unanswered is sent again as it was: in the order of the first time, with
the identifiers it had, PUBLISH with DUP (MQTT-4.4.0-1, MQTT-4.6.0-1). Without one it is sent as new.

**Order.** Messages leave in the order given. Only QoS 0, which Receive Maximum does not hold back, passes by what
waits, and only where nothing of its own topic does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, bare
from spanbridge.mqtt.codec.publish import PublishEncoder
from spanbridge.mqtt.errors import protocol_error
from spanbridge.mqtt.outcomes import Outcomes
from spanbridge.mqtt.pending import Pending, Suspects
from spanbridge.mqtt.version import Accepted, Version
from spanbridge.ports import P, Published

CHUNK = 65_536
"""Bytes that are made at a time: as much as a transport takes before it says that it is full."""
_PUBACK, _PUBREC = 0x40, 0x50
_PUBREL = b"\x62\x02"
"""Before the packet identifier; a remaining length of 2 is reason code 0x00 (MQTT 5.0 section 3.6.2.1)."""
_TAKEN = _PUBACK << 24 | 1 << 16
_REFUSED = _PUBACK << 24 | 0x80 << 16
"""Answers below these are PUBACKs with reason code 0, and those with which the broker took the message."""


class OutboundSession(Generic[P]):
    """See the module's text. What became of messages is collected in ``outcomes``, for the caller to tell."""

    def __init__(self, version: Version) -> None:
        self.outcomes: Outcomes[P] = Outcomes()
        self.connections = 0
        """How many there were, the current one included."""
        self.published = 0
        """Messages that the broker took: QoS 0 written, QoS 1 and 2 answered without an error."""
        self.stray = 0
        """Answers to no message of ours."""
        self.lowered = 0
        """Messages sent with less than their QoS, since the broker has no more."""
        self._version = version
        self._waiting: deque[Pending[P]] = deque()
        self._loose: deque[Pending[P]] = deque()
        self._topics: set[str] | None = None
        self._unanswered: dict[int, Pending[P]] = {}
        self._again: deque[Pending[P]] = deque()
        self._suspects: Suspects[P] = Suspects()
        self._packet_id = 0
        self._encoder = PublishEncoder(v5=version.v5)
        self._accepted = Accepted(False, "", 0)
        self._window = self._quota = 0

    @property
    def in_flight(self) -> int:
        """Publications whose outcome is not known."""
        return len(self._unanswered) + len(self._waiting) + len(self._loose)

    @property
    def unanswered(self) -> int:
        """Those of them that were written."""
        return len(self._unanswered)

    # -- connections ------------------------------------------------------------------------------------------------

    def connected(self, accepted: Accepted, *, resumed: bool, aliases: int) -> int:
        """Begin a connection; ``resumed``: the broker has our session. At most ``aliases`` topic aliases are given.

        Returns how many unanswered messages are sent as new, since the session that knew them is gone.
        """
        self.connections += 1
        self._accepted = accepted
        self._encoder = PublishEncoder(
            v5=self._version.v5,
            limit=accepted.maximum_packet_size,
            alias_maximum=min(accepted.topic_alias_maximum, aliases),
        )
        self._suspects.connected()
        self._window = self._quota = 1 if self._suspects.careful else accepted.receive_maximum
        if resumed:
            self._again = deque(self._unanswered.values())
            # Section 4.9 lets these not count; a broker that counts what it holds would see too many all the same.
            self._quota -= sum(pending.received for pending in self._again)
            return 0
        lost = len(self._unanswered)
        for pending in reversed(self._unanswered.values()):
            pending.packet_id = pending.code = 0
            pending.received = False
            self._waiting.appendleft(pending)
        self._topics = None
        self._unanswered.clear()
        self._again.clear()
        return lost

    def disconnected(self, *, by_peer: bool) -> None:
        """End a connection; ``by_peer``: the broker closed it, and may have done so over what it was sent."""
        self._again.clear()
        self._window = self._quota = 0
        culprit = self._suspects.disconnected(self._is_open, by_peer=by_peer)
        if culprit is not None:
            text = "the broker closes the connection whenever it is sent this message"
            self._unanswered.pop(culprit.packet_id)
            self._failed(culprit, SinkRejected(text, reason="connection_closed"))

    def end(self, error: SinkError) -> None:
        """Everything ends with this outcome."""
        for pending in (*self._unanswered.values(), *self._loose, *self._waiting):
            self._failed(pending, error)
        self._unanswered.clear()
        for queue in (self._again, self._waiting, self._loose):
            queue.clear()

    def _is_open(self, pending: Pending[P]) -> bool:
        return self._unanswered.get(pending.packet_id) is pending

    # -- messages that go -------------------------------------------------------------------------------------------

    def put(self, publications: Sequence[P], published: Published[P], now_ns: int) -> None:
        """Take publications. ``now_ns`` is monotonic time."""
        waiting = self._waiting
        for publication in publications:
            pending = Pending(publication, publication.publish, published, now_ns)
            if pending.qos or not waiting:
                waiting.append(pending)
                if self._topics is not None:
                    self._topics.add(pending.message.topic)
            else:
                self._put_loose(pending)

    def _put_loose(self, pending: Pending[P]) -> None:
        """QoS 0 passes by what waits for answers to others, but not by its own topic."""
        if self._topics is None:
            self._topics = {other.message.topic for other in self._waiting}
        (self._waiting if pending.message.topic in self._topics else self._loose).append(pending)

    def take(self, now_ns: int) -> bytes:
        """The packets to be written next, about :data:`CHUNK` bytes of them; empty when none may leave now."""
        chunks: list[bytes] = []
        size = self._resend(chunks, now_ns) if self._again else 0
        if not self._again:
            size = self._send(self._loose, chunks, size, now_ns)
            self._send(self._waiting, chunks, size, now_ns)
            if not self._waiting:
                self._topics = None
        return b"".join(chunks)

    def _send(self, queue: deque[Pending[P]], chunks: list[bytes], size: int, now_ns: int) -> int:
        """Encode what is in the queue, as long as it may leave; return the size of all chunks. The hot path."""
        encode, unanswered, suspects = self._encoder.encode, self._unanswered, self._suspects
        highest, retain = self._accepted.maximum_qos, self._accepted.retain
        append, quota, packet_id = chunks.append, self._quota, self._packet_id
        while queue and size < CHUNK:
            pending = queue[0]
            message = pending.message
            qos = message.qos if message.qos <= highest else highest
            expiry = None
            if qos:
                if quota <= 0 or len(unanswered) == 0xFFFF:
                    break
                packet_id = packet_id % 0xFFFF + 1
                while packet_id in unanswered:
                    packet_id = packet_id % 0xFFFF + 1
            queue.popleft()
            try:
                if pending.expires_ns is not None or (message.retain and not retain):
                    expiry = self._expiry(pending, now_ns)
                data = encode(message, packet_id, qos, expiry=expiry)
            except SinkError as error:
                self._failed(pending, bare(error))
                continue
            if qos:
                pending.qos, pending.packet_id = qos, packet_id
                unanswered[packet_id] = pending
                quota -= 1
                if suspects.watching:
                    suspects.sent(pending)
            else:
                self.published += 1
                self.outcomes.of(pending.published, None).append(pending.publication)
            if qos != message.qos:
                self.lowered += 1
            append(data)
            size += len(data)
        self._quota, self._packet_id = quota, packet_id
        return size

    def _resend(self, chunks: list[bytes], now_ns: int) -> int:
        """What the last connection left unanswered, as far as it may leave; return its size."""
        size = 0
        while self._again and size < CHUNK:
            pending = self._again[0]
            if not self._is_open(pending):  # answered meanwhile
                self._again.popleft()
                continue
            if not pending.received and self._quota <= 0:
                break
            self._again.popleft()
            try:
                data = self._once_more(pending, now_ns)
            except SinkError as error:
                del self._unanswered[pending.packet_id]
                self._failed(pending, bare(error))
                continue
            chunks.append(data)
            size += len(data)
        return size

    def _once_more(self, pending: Pending[P], now_ns: int) -> bytes:
        """PUBREL, or PUBLISH with DUP. It is sent when it has expired too: the broker may be half through with it.

        :raises SinkError: this broker does not take it any more.
        """
        if pending.received:
            return _PUBREL + pending.packet_id.to_bytes(2, "big")
        if pending.message.retain and not self._accepted.retain:
            raise _no_retain()
        pending.qos = min(pending.qos, self._accepted.maximum_qos) or 1
        left = pending.left(now_ns)
        expiry = None if left is None else max(left, 1)
        data = self._encoder.encode(pending.message, pending.packet_id, pending.qos, dup=True, expiry=expiry)
        self._quota -= 1
        self._suspects.sent(pending)
        return data

    def _expiry(self, pending: Pending[P], now_ns: int) -> int | None:
        """What is left of its expiry, in seconds.

        :raises SinkError: nothing is; or it is to be retained, and the broker retains nothing.
        """
        if pending.message.retain and not self._accepted.retain:
            raise _no_retain()
        left = pending.left(now_ns)
        if left == 0:  # 0 is no expiry at all to some brokers (mosquitto 2.0)
            raise SinkRejected("expired before it could be sent", reason="expired")
        return left

    # -- answers that come ------------------------------------------------------------------------------------------

    def answers(self, words: Sequence[int]) -> bytes:
        """Account for answers (:class:`spanbridge.mqtt.codec.Answers`); return the PUBRELs to be written.

        :raises PacketError: one does not fit the state of its message.
        """
        unanswered, suspects = self._unanswered, self._suspects
        pubrels = bytearray()
        last: Published[P] | None = None
        group: list[P] = []
        through = last_code = code = 0
        for word in words:
            if word < _TAKEN:
                code = 0
            elif word < _REFUSED:
                code = word >> 16 & 0xFF
            else:
                pubrels += self.answer(word >> 24, word & 0xFFFF, word >> 16 & 0xFF)
                continue
            pending = unanswered.get(word & 0xFFFF)
            if pending is None or pending.qos != 1:
                self._misfit(pending, _PUBACK)
                continue
            del unanswered[word & 0xFFFF]
            through += 1
            if pending.published is not last or code != last_code:
                last, last_code = pending.published, code
                group = self.outcomes.answered(last, code)
            group.append(pending.publication)
            if suspects.watching:
                self._cleared(pending)
        self.published += through
        self._quota = min(self._quota + through, self._window)
        return bytes(pubrels)

    def answer(self, kind: int, packet_id: int, code: int, said: str = "") -> bytes:
        """One answer of any kind; ``kind`` is its first byte, ``said`` its Reason String. Returns a PUBREL, or nothing.

        :raises PacketError: it does not fit the state of its message.
        """
        pending = self._unanswered.get(packet_id)
        if pending is None or (pending.qos == 1) is not (kind == _PUBACK):
            self._misfit(pending, kind)
            return self._version.unknown_pubrel(packet_id) if kind == _PUBREC else b""
        if kind == _PUBREC and code < 0x80:
            if not pending.received:
                pending.received, pending.code = True, code
                self._suspects.answered(pending)
            return _PUBREL + packet_id.to_bytes(2, "big")
        if kind != _PUBACK and (kind == _PUBREC) is pending.received:
            raise protocol_error(f"{_NAMES[kind]} for a message {'after' if pending.received else 'before'} its PUBREC")
        if pending.received:  # a PUBCOMP with 0x92 says that it was through already
            code, said = pending.code, ""
        del self._unanswered[packet_id]
        self.published += code < 0x80
        self.outcomes.answered(pending.published, code, said).append(pending.publication)
        self._cleared(pending)
        self._quota = min(self._quota + 1, self._window)
        return b""

    def _cleared(self, pending: Pending[P]) -> None:
        """One answer clears its message of ending connections, and with the last of them all may leave again."""
        self._suspects.answered(pending)
        if self._window == 1 and not self._suspects.careful:
            self._quota += self._accepted.receive_maximum - self._window
            self._window = self._accepted.receive_maximum

    def _misfit(self, pending: Pending[P] | None, kind: int) -> None:
        """An answer to no message of ours: late, or given twice.

        :raises PacketError: it answers one of another QoS.
        """
        if pending is not None:
            raise protocol_error(f"{_NAMES[kind]} for a message of QoS {pending.qos}")
        self.stray += 1

    def _failed(self, pending: Pending[P], error: SinkError) -> None:
        self.outcomes.of(pending.published, error).append(pending.publication)


_NAMES = {_PUBACK: "PUBACK", _PUBREC: "PUBREC", 0x70: "PUBCOMP"}


def _no_retain() -> SinkError:
    """Without RETAIN a device that is away would miss the message, and nobody would know."""
    return SinkMisconfigured("the broker does not retain messages (Retain Available 0)", reason="retain_not_supported")
