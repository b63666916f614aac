"""Whatever happens, in whatever order: each message has one outcome, and the broker has each that is told to be there.

A model broker and the real session of the publisher, with the real codec in between. Hypothesis writes the story:
connections cut with packets on the wire, sessions lost, refusals, answers late and in pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanbridge.core.errors import NoSubscribers, SinkError, SinkUnavailable
from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Answers, Decoder, Publishes
from spanbridge.mqtt.codec.packets import PubrelPacket
from spanbridge.mqtt.outbound import OutboundSession
from spanbridge.mqtt.version import Accepted, Version5, Version311
from tests.drawing import examples

from .publishing import Command

PUBACK, PUBREC, PUBCOMP = 0x40, 0x50, 0x70
TOPICS = ("a/long/topic", "b/long/topic", "c")


class ModelReceiver:
    """A broker as the receiver of what a publisher sends (MQTT 5.0 section 4.3), and the wire between them.

    It checks what a broker could check: Receive Maximum, identifiers, DUP, and that PUBREL follows PUBREC.
    """

    def __init__(self, *, v5: bool) -> None:
        self.v5 = v5
        self.taken: list[tuple[int, int]] = []
        """Messages that it took, by number and QoS, in this order; QoS 2 when it released them."""
        self.refused: set[int] = set()
        self.connected = False
        self.answers = bytearray()
        self._wire: deque[Any] = deque()
        self._received: dict[int, int] = {}
        self._open: dict[int, int] = {}
        self._sent: dict[int, tuple[int, int]] = {}
        self._quota = 0

    def connect(self, *, keep: bool, receive_maximum: int) -> None:
        self.connected = True
        self._decoder: Any = Decoder(None, v5=self.v5, limit=10_000, alias_maximum=2)  # type: ignore[arg-type]
        self._quota = receive_maximum
        self._open = {}
        if not keep:
            self._received.clear()
            self._sent.clear()

    def cut(self) -> None:
        """End the connection; what is on the wire is lost in both directions."""
        self.connected = False
        self._wire.clear()
        self.answers.clear()

    def write(self, data: bytes) -> None:
        """The publisher writes."""
        for packet in self._decoder.feed(data):
            if isinstance(packet, Publishes):
                for delivery in packet.deliveries:
                    self._check(delivery)
                    self._wire.append(delivery)
            else:
                assert isinstance(packet, PubrelPacket)
                self._wire.append(packet)

    def _check(self, delivery: Any) -> None:
        message, packet_id = delivery.message, delivery.packet_id
        if not message.qos:
            return
        number = int(message.payload)
        assert packet_id not in self._open, "an identifier in use is given to no other message"
        self._open[packet_id] = number
        assert len(self._open) <= self._quota, "Receive Maximum"
        if delivery.state & 8:
            assert self._sent.get(packet_id) == (number, message.qos), "DUP is of what was sent before"
        else:
            assert packet_id not in self._received, "a new message under an identifier that waits for its PUBREL"
        self._sent[packet_id] = (number, message.qos)

    def read(self, most: int, refusing: int) -> None:
        """Read packets, and put answers on the wire; every message whose number ``refusing`` divides is refused."""
        for _ in range(min(most, len(self._wire))):
            packet = self._wire.popleft()
            if isinstance(packet, PubrelPacket):
                number = self._received.pop(packet.packet_id, None)
                if number is not None:
                    self.taken.append((number, 2))
                self._answer(PUBCOMP, packet.packet_id, 0 if number is not None else 0x92)
                continue
            number, qos = int(packet.message.payload), packet.message.qos
            refuse = bool(self.v5 and qos and refusing and number % refusing == 0)
            if qos == 2 and packet.packet_id not in self._received:
                if not refuse:
                    self._received[packet.packet_id] = number
            elif qos < 2 and not refuse:
                self.taken.append((number, qos))
            if refuse and packet.packet_id not in self._received:
                self.refused.add(number)
                self._answer(PUBACK if qos == 1 else PUBREC, packet.packet_id, 0x97)
            elif qos:
                code = 0x10 if self.v5 and number % 5 == 0 else 0
                self._answer(PUBACK if qos == 1 else PUBREC, packet.packet_id, code)

    def _answer(self, kind: int, packet_id: int, code: int) -> None:
        if kind != PUBREC or code >= 0x80:
            self._open.pop(packet_id, None)
        tail = bytes((code,)) if code and self.v5 else b""
        self.answers += bytes((kind, 2 + len(tail))) + packet_id.to_bytes(2, "big") + tail


class Story:
    """A publisher's session, a broker, and what must hold of them."""

    def __init__(self, *, v5: bool) -> None:
        self.version = Version5() if v5 else Version311()
        self.outbound: OutboundSession[Command] = OutboundSession(self.version)
        self.broker = ModelReceiver(v5=v5)
        self.commands: list[Command] = []
        self.numbers: dict[Command, int] = {}

    def published(self, commands: Sequence[Command], error: SinkError | None) -> None:
        for one in commands:
            assert not one.outcomes, "one outcome for each message"
            one.outcomes.append(error)
            number = self.numbers[one]
            if error is None or isinstance(error, NoSubscribers):
                if one.publish.qos:
                    assert number in {taken for taken, _ in self.broker.taken}, f"{number} is nowhere"
            else:
                assert number in self.broker.refused

    def play(self, steps: Sequence[tuple[str, int]]) -> None:
        for what, number in steps:
            self.step(what, number)
            self.outbound.outcomes.tell()
            assert self.outbound.in_flight == sum(not one.done for one in self.commands)
        self.end()

    def step(self, what: str, number: int) -> None:
        match what:
            case "publish":
                self.publish(number)
            case "pump":
                self.pump()
            case "read":
                self.broker.read(1 + number % 5, refusing=(0, 0, 3)[number % 3])
            case "hear":
                self.hear(number)
            case "cut":
                self.cut()
            case "connect":
                self.cut()
                self.connect(keep=number % 4 > 0, receive_maximum=1 + number % 6)

    def publish(self, number: int) -> None:
        fresh = []
        for offset in range(1 + number % 3):
            payload = str(len(self.commands)).encode()
            topic = TOPICS[(number + offset) % 3]
            one = Command(Publish(topic, payload, (1, 2, 1, 0)[number // 3 % 4]))
            self.numbers[one] = len(self.commands)
            self.commands.append(one)
            fresh.append(one)
        self.outbound.put(fresh, self.published, 0)

    def pump(self) -> None:
        while self.broker.connected and (data := self.outbound.take(0)):
            self.broker.write(data)

    def hear(self, number: int) -> None:
        """The publisher reads some of the answers."""
        data = bytes(self.broker.answers)
        if not self.broker.connected or not data:
            return
        stop = len(data) if number % 2 else number % len(data)
        del self.broker.answers[:stop]
        for packet in self.decoder.feed(data[:stop]):
            assert isinstance(packet, Answers)
            pubrels = self.outbound.answers(packet.words)
            if pubrels:
                self.broker.write(pubrels)

    def cut(self) -> None:
        if self.broker.connected:
            self.outbound.disconnected(by_peer=False)
        self.broker.cut()

    def connect(self, *, keep: bool, receive_maximum: int) -> None:
        keep = keep and self.outbound.connections > 0
        self.decoder: Any = Decoder(None, v5=self.broker.v5, limit=100, answers=True)  # type: ignore[arg-type]
        maximum = receive_maximum if self.broker.v5 else 0xFFFF
        self.broker.connect(keep=keep, receive_maximum=maximum)
        accepted = Accepted(keep, "", 0, receive_maximum=maximum, topic_alias_maximum=2)
        self.outbound.connected(accepted, resumed=keep, aliases=2)

    def end(self) -> None:
        """Let everything heal, and see that all comes to rest."""
        self.cut()
        self.connect(keep=True, receive_maximum=4)
        for _ in range(20 + 4 * len(self.commands)):
            self.pump()
            self.broker.read(10, refusing=0)
            self.hear(1)
            self.outbound.outcomes.tell()
        assert (self.outbound.in_flight, [one for one in self.commands if not one.done]) == (0, [])
        for qos in (0, 1, 2):
            for topic in TOPICS:
                mine = {n for one, n in self.numbers.items() if one.publish.topic == topic and one.publish.qos == qos}
                mine -= self.broker.refused  # one whose refusal was on the wire when it was cut comes again, and late
                first = list(dict.fromkeys(number for number, _ in self.broker.taken if number in mine))
                assert first == sorted(first), "each topic in its order"


STEPS = {"publish": 5, "pump": 4, "read": 4, "hear": 4, "cut": 1, "connect": 2}
STORY = st.lists(
    st.tuples(st.sampled_from([name for name, weight in STEPS.items() for _ in range(weight)]), st.integers(0, 599)),
    max_size=60,
)
HALF = [("connect", 5), ("publish", 3), ("pump", 0), ("read", 0), ("hear", 3), ("connect", 5), ("pump", 0)]
"""A PUBREC of which a part was read."""


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(HALF, True)
@example([("publish", 0), ("publish", 0), ("connect", 1), ("pump", 0), ("read", 74)], True)
@given(STORY, st.booleans())
def test_each_message_has_one_outcome_and_it_is_true(story: list[tuple[str, int]], v5: bool) -> None:
    Story(v5=v5).play(story)


def test_qos_2_arrives_once_while_sessions_live() -> None:
    story = Story(v5=True)
    story.connect(keep=False, receive_maximum=3)
    for number in range(40):
        story.publish(3)
        story.pump()
        story.broker.read(2, refusing=0)
        story.hear(number)
        if number % 3 == 0:
            story.cut()
            story.connect(keep=True, receive_maximum=3)
    story.end()
    twice = [number for number, qos in story.broker.taken if qos == 2]
    assert len(twice) == len(set(twice)) == len(story.commands)


def test_the_end_tells_everything() -> None:
    story = Story(v5=True)
    story.connect(keep=False, receive_maximum=2)
    for number in (0, 3, 9, 0):
        story.publish(number)
        story.pump()
    error = SinkUnavailable("closed", reason="closed")
    left = [one for one in story.commands if not one.done and one.publish.qos]
    story.broker.refused = set(story.numbers.values())
    story.outbound.end(error)
    story.outbound.outcomes.tell()
    assert all(one.outcomes == [error] for one in left)
    assert story.outbound.in_flight == 0
