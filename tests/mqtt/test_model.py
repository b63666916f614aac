"""Whatever happens, in whatever order: nothing is acknowledged that was not acked, and all comes through in the end.

A model broker, the real codec and the real session, and a gateway that acks and nacks as it likes. Hypothesis writes
the story: connections cut with packets on the wire, sessions lost, redeliveries, and gateways that are killed.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanbridge.core.message import Publish
from spanbridge.mqtt.delivery import MqttDelivery
from tests.drawing import examples

from .broker import Body, ModelBroker

READ = 6
PAYLOADS = (b"on", b"off", b"")


class World:
    """Everything, and what must hold of it.

    ``stored`` are the messages that the gateway acked, in this life or an earlier one; ``forgotten`` those that the
    broker lost with its session.
    """

    def __init__(self, *, marks_dup: bool) -> None:
        self.published: list[Publish] = []
        self.stored: set[int] = set()
        self.acknowledged: set[int] = set()
        self.forgotten: set[int] = set()
        self.first_seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
        self.seen: set[int] = set()
        self.open: list[MqttDelivery] = []
        self.answered: list[MqttDelivery] = []
        self.broker = ModelBroker(self.judge, self.deliver, marks_dup=marks_dup)

    def judge(self, publish: Publish) -> None:
        """An acknowledgement is being written: the very message was acked."""
        ident = self.ident(publish)
        self.acknowledged.add(ident)
        assert ident in self.stored, f"message {ident} is acknowledged, and nowhere"

    def deliver(self, batch: list[MqttDelivery]) -> None:
        for delivery in batch:
            ident = self.ident(delivery.message)
            self.open.append(delivery)
            if ident not in self.seen:
                self.seen.add(ident)
                self.first_seen[delivery.message.qos].append(ident)

    @staticmethod
    def ident(publish: Publish) -> int:
        assert isinstance(publish.payload, Body)
        return publish.payload.ident

    def publish(self, number: int) -> None:
        topic = ("a", "b", "c")[number % 3]
        payload = Body.of(len(self.published), PAYLOADS[number // 3 % 3])
        message = Publish(topic, payload, (1, 1, 2, 0)[number // 9 % 4])
        self.published.append(message)
        self.broker.waiting.append(message)

    def ack(self, chosen: list[MqttDelivery]) -> None:
        self.stored |= {self.ident(delivery.message) for delivery in chosen}
        self.answer(chosen)
        self.broker.ack(chosen)

    def nack(self, chosen: list[MqttDelivery]) -> None:
        self.answer(chosen)
        self.broker.nack(chosen)

    def answer(self, chosen: list[MqttDelivery]) -> None:
        self.open = [delivery for delivery in self.open if delivery not in chosen]
        self.answered += chosen

    def chosen(self, number: int) -> list[MqttDelivery]:
        """Some of the open deliveries, in some order."""
        choices = (self.open, self.open[:1], self.open[-1:], self.open[::2], self.open[::-1], self.open[1:3])
        return list(choices[number % len(choices)])

    def check(self) -> None:
        session = self.broker.session
        assert session.unacked == len(self.open)
        assert session.held >= session.unacked
        assert session.held_bytes >= sum(delivery.size for delivery in self.open)
        assert set(session.unrepeatable()) <= set(self.open)
        loose = {delivery for delivery in self.open if delivery.message.qos == 0}
        assert loose <= set(session.unrepeatable())
        oldest = min((delivery.arrived_ns for delivery in self.open), default=None)
        assert session.oldest_ns() == oldest

    def play(self, steps: Sequence[tuple[str, int]]) -> None:
        self.broker.connect(keep=False)
        for what, number in steps:
            self.step(what, number)
            self.check()
        self.end()

    def step(self, what: str, number: int) -> None:  # noqa: C901 - one line a step
        broker = self.broker
        match what:
            case "publish":
                for offset in range(1 + number % 3):
                    self.publish(number + offset * 7)
            case "read":
                broker.send(1 + number % READ)
                broker.read(READ)
            case "send":
                broker.send(1 + number % READ)
            case "ack":
                self.ack(self.chosen(number))
            case "nack":
                self.nack(self.chosen(number))
            case "twice":
                (broker.ack if number % 2 else broker.nack)(self.answered[-(number % 4) :])
            case "hear":
                broker.hear()
            case "repeat":
                broker.repeat()
            case "cut":
                broker.cut()
            case "connect":
                self.connect(keep=number % 5 > 0)
            case "kill":
                broker.begin()
                self.open, self.answered = [], []

    def connect(self, *, keep: bool) -> None:
        self.broker.cut()
        if not keep:
            lost = [*self.broker.waiting, *self.broker.unacknowledged.values()]
            self.forgotten |= {self.ident(publish) for publish in lost}
        self.broker.connect(keep=keep)

    def end(self) -> None:
        """Let everything heal, and see that all comes to rest."""
        broker = self.broker
        self.connect(keep=True)
        for _ in range(200):
            broker.send(READ)
            broker.read(READ)
            self.ack(self.open)
            broker.hear()
            if not broker.waiting and not broker.unacknowledged:
                break
        assert (list(broker.waiting), broker.unacknowledged) == ([], {})
        session = broker.session
        assert (session.in_flight, session.unacked, session.held, session.held_bytes) == (0, 0, 0, 0)
        for number, publish in enumerate(self.published):
            if publish.qos and number not in self.forgotten:
                assert number in self.acknowledged
        for idents in self.first_seen.values():
            assert idents == sorted(idents), "first copies come in the order in which they were published"


STEPS = {
    "publish": 5, "read": 5, "send": 1, "ack": 5, "nack": 1, "twice": 1, "hear": 2, "repeat": 1, "cut": 1,
    "connect": 2, "kill": 1,
}  # fmt: skip
STORY = st.lists(
    st.tuples(st.sampled_from([name for name, weight in STEPS.items() for _ in range(weight)]), st.integers(0, 599)),
    max_size=60,
)

LOST_SESSION = [("publish", 0), ("read", 0), ("connect", 0), ("publish", 0), ("send", 0), ("connect", 1), ("read", 0)]
"""A session that is lost, and of the next one nothing arrives before that connection ends too."""

REUSED = [
    ("publish", 18), ("read", 0), ("cut", 0), ("ack", 0), ("connect", 1), ("read", 0), ("hear", 0), ("read", 0),
    ("hear", 0), *[("publish", 18), ("send", 5)] * 12, ("connect", 1), ("read", 5), ("read", 5),
]  # fmt: skip
"""An identifier of a message that was acked late, taken for an equal message that is lost on the wire."""


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(LOST_SESSION, True)
@example(REUSED, True)
@given(STORY, st.booleans())
def test_nothing_is_acknowledged_that_was_not_acked_and_all_comes_through(
    story: list[tuple[str, int]], marks_dup: bool
) -> None:
    World(marks_dup=marks_dup).play(story)


def test_a_plain_reconnect_makes_no_duplicate() -> None:
    world = World(marks_dup=True)
    world.broker.connect(keep=False)
    for number in range(6):
        world.publish(number)
    world.step("read", 5)
    world.ack(world.open[3:5])
    world.step("connect", 1)
    world.step("read", 5)
    assert world.broker.adopted == 6
    assert len(world.open) == 4
    world.check()
    world.end()
