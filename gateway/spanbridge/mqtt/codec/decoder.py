"""From bytes to packets, without I/O. Reading PUBLISH packets is the hot path of the gateway."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from spanbridge.core.delivery import Acknowledger
from spanbridge.core.message import Publish
from spanbridge.mqtt.codec.answers import KINDS, Answers, read_answers
from spanbridge.mqtt.codec.common import decode_control
from spanbridge.mqtt.codec.fields import ALIAS_INVALID, NO_FIELDS, Fields, check_length
from spanbridge.mqtt.codec.layouts import Layouts
from spanbridge.mqtt.codec.packets import Packet
from spanbridge.mqtt.codec.properties import PUBLISH, decode_properties
from spanbridge.mqtt.codec.topics import Topics
from spanbridge.mqtt.codec.wire import Cursor, Remainder, packet_size
from spanbridge.mqtt.delivery import MqttDelivery
from spanbridge.mqtt.errors import PacketError, malformed, packet_too_large, protocol_error

_unpack_head = struct.Struct(">BBBH").unpack_from
_unpack_id = struct.Struct(">HB").unpack_from
_TP_LENGTH = 42
_TP = b"\x26\x00\x02tp\x00\x23"
"""Before the 35 characters of a compact trace context: the only property of most traced messages."""

OBJECT_BYTES = 288
"""What a message takes in memory beside its bytes on the wire: the message, its delivery, their places in the order."""
PAIR_BYTES = 130
"""What a user property takes beside its characters: a pair and two strings."""


class Publishes:
    """PUBLISH packets that came in a row. ``size`` is the sum of their sizes in memory, in bytes.

    ``plain`` says that all of them are QoS 1 without DUP.
    """

    __slots__ = ("deliveries", "plain", "size")

    def __init__(self) -> None:
        self.deliveries: list[MqttDelivery] = []
        self.plain = True
        self.size = 0


class Decoder:
    """Turns what a peer sends into packets. One per connection.

    ``limit`` is the largest packet that is taken, in bytes; ``alias_maximum`` the largest Topic Alias. ``source``
    takes the acknowledgements of the deliveries. With ``answers`` those that need nothing but numbers come as
    :class:`Answers`, many at once. After a :class:`PacketError` nothing more may be fed.
    """

    def __init__(
        self, source: Acknowledger[Publish], *, v5: bool, limit: int, alias_maximum: int = 0, answers: bool = False
    ) -> None:
        self._source = source
        self._v5 = v5
        self._limit = limit
        self._alias_maximum = alias_maximum
        self._answers = answers
        self._aliases: dict[int, str] = {}
        self._rest = Remainder(limit)
        self._topics = Topics()
        self._layouts = Layouts()

    @property
    def partial(self) -> bool:
        """Whether the beginning of a packet waits for its end."""
        return len(self._rest) > 0

    def feed(self, data: bytes, received_ns: int = 0, arrived_ns: int = 0) -> Iterator[Packet | Publishes | Answers]:
        """All packets that ``data`` completes, in order. It came at ``received_ns`` (Unix), ``arrived_ns`` (monotonic).

        :raises PacketError: what follows the packets given so far is malformed, too large or against the protocol.
        """
        if self._rest:
            data = self._rest.add(data) or b""
        position, end = 0, len(data)
        while position < end:
            run, fault = Publishes(), None
            try:
                position = self._publishes(data, position, run, received_ns, arrived_ns)
            except PacketError as error:
                fault = error
            if run.deliveries:
                yield run
            if fault is not None:
                raise fault
            if self._answers and position < end and data[position] in KINDS:
                answers = Answers([])
                position = read_answers(data, position, answers.words, v5=self._v5)
                if answers.words:
                    yield answers
                    continue
            stop = self._stop(data, position) if position < end else 0
            if not stop:
                break
            yield decode_control(data, position, self._body(data, position), stop, v5=self._v5)
            position = stop
        if position < end:
            self._rest.keep(memoryview(data)[position:])

    def _stop(self, data: bytes, position: int) -> int:
        """Where the packet at ``position`` ends; 0 when it is not whole.

        :raises PacketError: it is larger than the limit, or its length is malformed.
        """
        size = packet_size(data, position)
        if size > self._limit:
            raise packet_too_large(size, self._limit)
        return position + size if 0 < size <= len(data) - position else 0

    @staticmethod
    def _body(data: bytes, position: int) -> int:
        position += 1
        while data[position] & 0x80:
            position += 1
        return position + 1

    def _publishes(  # noqa: C901, PLR0912, PLR0915 - one loop on purpose: a call a message costs more than it explains
        self, data: bytes, position: int, run: Publishes, received_ns: int, arrived_ns: int
    ) -> int:
        """Decode PUBLISH packets until another packet comes, or no whole one; return where that is.

        The inner loop takes what is sound and of the usual size. Everything else is left to :meth:`_careful`.

        :raises PacketError: as :meth:`feed`.
        """
        v5, source, topics, decode = self._v5, self._source, self._topics, self._layouts.decode
        unpack_head, unpack_id, new, append = _unpack_head, _unpack_id, object.__new__, run.deliveries.append
        end, limit = len(data), self._limit
        limited = end - position > limit
        odd, total = 0, 0  # odd: the bits in which first bytes differ from QoS 1 without DUP
        while True:
            try:
                while position < end:
                    head, first, second, size = unpack_head(data, position)
                    if head >> 4 != PUBLISH:
                        break
                    if first > 0x7F:
                        if second > 0x7F:
                            break
                        stop = position + 3 + (first & 0x7F | second << 7)
                        start = position + 5
                    else:
                        stop = position + 2 + first
                        start = position + 4
                        size = second << 8 | size >> 8
                    if stop > end or (limited and stop - position > limit):
                        break
                    middle = start + size
                    topic = topics[data[start:middle]]
                    qos = head >> 1 & 3
                    if qos:
                        packet_id, length = unpack_id(data, middle)
                        start = middle + 3
                        if not packet_id or qos == 3:
                            break
                    else:
                        packet_id, length = 0, data[middle]
                        start = middle + 1
                    user: tuple[tuple[str, str], ...] = ()
                    content_type = response_topic = correlation_data = expiry = payload_format = expires_ns = None
                    pairs_size = 0
                    if not v5:
                        start -= 1
                        if not topic:
                            break
                    elif length:
                        if length == _TP_LENGTH and data[start : start + 7] == _TP:
                            if not topic:
                                break
                            user = (("tp", data[start + 7 : start + 42].decode()),)
                            start += 42
                            pairs_size = PAIR_BYTES
                        else:
                            if length > 0x7F:
                                length = length & 0x7F | data[start] << 7
                                start += 1
                                if length > 0x3FFF:
                                    break
                            user, content_type, response_topic, correlation_data, expiry, payload_format, alias = (
                                decode(data, start, length)
                            )
                            start += length
                            pairs_size = PAIR_BYTES * len(user)
                            if alias is not None or not topic:
                                topic = self._topic(topic, alias)
                            if expiry is not None:
                                expires_ns = arrived_ns + expiry * 1_000_000_000
                    elif not topic:
                        break
                    if start > stop:
                        break
                    message = new(Publish)
                    message.topic = topic
                    message.payload = data[start:stop]
                    message.qos = qos
                    message.retain = head & 1 == 1
                    message.user_properties = user
                    message.content_type = content_type
                    message.response_topic = response_topic
                    message.correlation_data = correlation_data
                    message.expiry = expiry
                    message.payload_format = payload_format
                    message.received_ns = received_ns
                    message.fault = None
                    delivery = new(MqttDelivery)
                    delivery.message = message
                    delivery.source = source
                    delivery.size = size = OBJECT_BYTES + pairs_size + stop - position
                    delivery.arrived_ns = arrived_ns
                    delivery.expires_ns = expires_ns
                    delivery.packet_id = packet_id
                    delivery.state = head & 8
                    append(delivery)
                    odd |= head ^ 2
                    total += size
                    position = stop
            except (struct.error, IndexError, UnicodeDecodeError, PacketError):
                pass
            run.plain = not odd & 0x0E
            run.size = total
            if position >= end or data[position] >> 4 != PUBLISH:
                return position
            stop = self._stop(data, position)
            if not stop:
                return position
            delivery = self._careful(data, position, stop, received_ns, arrived_ns)
            append(delivery)
            odd |= data[position] ^ 2
            total += delivery.size
            position = stop

    def _topic(self, topic: str, alias: int | None) -> str:
        """The topic that is meant, given what the packet says (section 3.3.2.3.4). An alias with a topic is learnt.

        :raises PacketError: the alias is 0, over the maximum we told, or stands for nothing yet.
        """
        if alias is None:
            if not topic:
                raise malformed("PUBLISH: topic is empty")
            return topic
        if not 0 < alias <= self._alias_maximum:
            what = f"topic alias {alias} where {self._alias_maximum} is the maximum"
            raise protocol_error(what, code=ALIAS_INVALID)
        if topic:
            self._aliases[alias] = topic
            return topic
        known = self._aliases.get(alias)
        if known is None:
            raise protocol_error(f"topic alias {alias} was never given a topic", code=ALIAS_INVALID)
        return known

    def _careful(self, data: bytes, start: int, stop: int, received_ns: int, arrived_ns: int) -> MqttDelivery:
        """One whole PUBLISH of any kind. When its frame is sound and the rest is not, the message has a ``fault``.

        Brokers exist that pass on what a device sent without looking at it. Ending the connection, as section 4.13 has
        it for malformed packets, would bring the same packet again, for ever, and nothing behind it would arrive. So
        the message is handed over to be refused by name (ADR 35).

        :raises PacketError: the frame is broken, so that nothing behind it can be trusted; or the topic alias is.
        """
        head = data[start]
        qos = head >> 1 & 3
        cursor = Cursor(data, self._body(data, start), stop, "PUBLISH")
        if qos == 3:
            raise malformed("PUBLISH: QoS 3")
        raw = cursor.binary("topic")
        packet_id = cursor.packet_id() if qos else 0
        body, fault, topic, fields = cursor.position, None, "", NO_FIELDS
        try:
            topic = self._decode_topic(raw)
            if self._v5:
                fields = self._fields(cursor)
            topic = self._topic(topic, fields[6])
        except PacketError as error:
            if error.code == ALIAS_INVALID:
                raise
            fault, fields = str(malformed(error.what)), NO_FIELDS
            topic = _readable(raw)
            self._aliases.clear()  # it may have given an alias another topic, unread: better none than a wrong one
            cursor.position = self._behind_properties(data, body, stop)
        user, content_type, response_topic, correlation_data, expiry, payload_format, _ = fields
        message = Publish(
            topic,
            data[cursor.position : stop],
            qos,
            head & 1 == 1,
            user,
            content_type,
            response_topic,
            correlation_data,
            expiry,
            payload_format,
            received_ns,
            fault,
        )
        size = OBJECT_BYTES + PAIR_BYTES * len(user) + stop - start
        expires_ns = None if expiry is None else arrived_ns + expiry * 1_000_000_000
        return MqttDelivery(message, self._source, size, arrived_ns, expires_ns, packet_id=packet_id, state=head & 8)

    def _decode_topic(self, raw: bytes) -> str:
        try:
            return self._topics[raw]
        except UnicodeDecodeError:
            raise malformed("PUBLISH: topic is not UTF-8") from None

    def _fields(self, cursor: Cursor) -> Fields:
        """The properties at the cursor, which is left behind them.

        :raises PacketError: they do not decode; the text names the one that does not.
        """
        body = cursor.position
        length = cursor.variable("properties' length")
        check_length(length)
        start = cursor.position
        cursor.take(length, "properties")
        try:
            return self._layouts.decode(cursor.data, start, length)
        except (PacketError, IndexError, UnicodeDecodeError) as error:
            if isinstance(error, PacketError) and error.code == ALIAS_INVALID:
                raise
            decode_properties(Cursor(cursor.data, body, cursor.end, "PUBLISH"), PUBLISH)  # names the property
            raise malformed("PUBLISH: properties do not decode") from None

    def _behind_properties(self, data: bytes, body: int, stop: int) -> int:
        """Where the payload of a packet with a fault begins: behind its properties where their length can be told."""
        if not self._v5:
            return body
        cursor = Cursor(data, body, stop, "PUBLISH")
        try:
            cursor.take(cursor.variable("properties' length"), "properties")
        except PacketError:
            return body
        return cursor.position


def _readable(raw: bytes) -> str:
    """A topic that is none, for people: what cannot be printed is escaped."""
    text = raw.decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
