"""Whatever happens, in whatever order: nothing acknowledged is lost, and order holds.

Two model brokers, a model of RocketMQ, the real uplink and the real receiver's sessions between them. Hypothesis writes
the story: connections cut with packets on the wire, sessions lost, redeliveries, requests that fail, hang, are stored
with their answer lost, or refused, and gateways that are killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from spanbridge.core.batch import BatchLimits
from spanbridge.core.errors import SinkMisconfigured, SinkRejected, SinkUnavailable
from spanbridge.core.message import Publish
from spanbridge.core.template import Template
from spanbridge.telemetry import Peer, Tracer
from spanbridge.uplink import Uplink, UplinkSettings

from .broker import Body, ModelBroker
from .fakes import FakeClock, FakeMetrics, FakeReporter, FakeSink, Stored, route

BOUND = 12
"""Messages in flight; a read brings up to ``READ`` more."""
READ = 6

PAYLOADS = (b"on", b"off", b"refused")


class ModelSink(FakeSink):
    """RocketMQ by whole requests: each has an outcome drawn by the test, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[str] = []
        self.idents: list[tuple[str, int]] = []

    def lane(self, prepared: Any) -> int:
        return -1 if prepared.group is None else 0

    def encode(self, prepared: Any, body: bytes, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        key = super().encode(prepared, body, properties, born_ns)
        stored = self._encoded[key]
        self._encoded[key] = stored._replace(body=body)  # the very object: it knows its message
        return key

    async def send(self, topic: str, lane: int, batch: Sequence[bytes]) -> None:
        del lane
        await self.gate.wait()
        await asyncio.sleep(0)
        outcome = self.outcomes.pop(0) if self.outcomes else "stored"
        messages = [self._encoded[key] for key in batch]
        if topic != "rejected" and any(message.body == b"refused" for message in messages):
            raise SinkRejected("refused", reason="refused")
        if outcome == "away":
            raise SinkUnavailable("away")
        if outcome == "missing":
            raise SinkMisconfigured("no such topic")
        self._store(topic, messages)
        if outcome == "unanswered":
            raise SinkUnavailable("stored, but nobody heard")

    def _store(self, topic: str, messages: Sequence[Stored]) -> None:
        for message in messages:
            assert isinstance(message.body, Body)
            self.idents.append((topic, message.body.ident))


class World:
    """Everything, and what must hold of it.

    ``origins`` tells of each message which broker it came by; ``forgotten`` are those a broker lost with its session.
    """

    def __init__(self, rejected_topic: str | None, *, marks_dup: bool) -> None:
        self.sink, self.clock = ModelSink(), FakeClock()
        self.reporter, self.metrics = FakeReporter(), FakeMetrics()
        self.brokers = [ModelBroker(name, self.judge, marks_dup=marks_dup) for name in ("left", "right")]
        self.published: list[Publish] = []
        self.origins: list[ModelBroker] = []
        self.acknowledged: set[int] = set()
        self.forgotten: set[int] = set()
        self.wrong: list[str] = []
        self._rejected_topic = rejected_topic
        self.running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.uplink = Uplink(
            self.sink,
            tracer=Tracer(self, sampler=ALWAYS_OFF),
            metrics=self.metrics,  # type: ignore[arg-type]
            reporter=self.reporter,
            clock=self.clock,
            settings=UplinkSettings(
                gateway="gw",
                max_in_flight=BOUND,
                limits=BatchLimits(max_messages=4, concurrency=2),
                rejected_topic=self._rejected_topic,
            ),
        )
        routes = [
            route("ordered/{device}", "ordered", message_group=Template.parse("{device}")),
            route("plain/#", "plain"),
        ]
        for broker in self.brokers:
            broker.begin()
            self.uplink.attach(broker, routes, Peer(broker.name, 1883, "gw"))
        self.running = asyncio.create_task(self.uplink.run())

    def add(self, spans: Any) -> None:
        """Spans are not this test's business."""

    async def kill(self) -> None:
        assert self.running is not None
        self.running.cancel()
        await self.uplink.sender.stop()
        await asyncio.gather(self.running, return_exceptions=True)

    def publish(self, broker: ModelBroker, number: int) -> None:
        ident = len(self.published)
        topic = ("ordered/a", "ordered/b", "plain/x", "plain/y", "nowhere")[number % 5]
        payload = PAYLOADS[number // 5 % 3]
        qos = (1, 1, 2, 0)[number // 15 % 4]
        expiry = 2 if number // 60 % 5 == 0 else None
        publish = Publish(topic, Body.of(ident, payload), qos, expiry=expiry)
        self.published.append(publish)
        self.origins.append(broker)
        broker.waiting.append(publish)

    def judge(self, publish: Publish) -> None:
        """An acknowledgement is being written: the message is stored, or was dropped on purpose and counted."""
        ident = self.ident(publish)
        self.acknowledged.add(ident)
        stored = {number for _, number in self.sink.idents}
        if ident not in stored and not self.may_be_dropped(publish):
            self.wrong.append(f"message {ident} is acknowledged, and nowhere")
        elif len(self.acknowledged - stored) > self.dropped:
            self.wrong.append(f"message {ident} was dropped and not counted")

    @property
    def dropped(self) -> int:
        return sum(count for (what, *_), count in self.metrics.counts.items() if what == "dropped")

    def may_be_dropped(self, publish: Publish) -> bool:
        refused = publish.topic == "nowhere" or publish.payload == b"refused"
        return publish.expiry is not None or (refused and self._rejected_topic is None)

    @staticmethod
    def ident(publish: Publish) -> int:
        assert isinstance(publish.payload, Body)
        return publish.payload.ident

    def check_bounds(self) -> None:
        assert self.uplink.held >= self.uplink.in_flight >= 0
        assert self.uplink.held <= BOUND + BOUND // 2 + READ * 2, "the bound, a share, and a read of each"

    def check_order(self) -> None:
        """What was stored for one device and QoS, first copies only, is in the order in which it was published."""
        streams: dict[Any, dict[int, None]] = {}
        for topic, ident in self.sink.idents:
            publish = self.published[ident]
            if topic == "ordered" and publish.expiry is None:
                stream = (self.origins[ident].name, publish.topic, publish.qos)
                streams.setdefault(stream, {})[ident] = None
        for stream, idents in streams.items():
            assert list(idents) == sorted(idents), f"{stream} out of order"

    async def play(self, steps: Sequence[tuple[str, int]]) -> None:
        self.start()
        await self.turns(2)
        for broker in self.brokers:
            broker.connect(keep=False)
        for what, number in steps:
            await self.step(what, number)
            self.check_bounds()
            assert not self.wrong, self.wrong
        await self.end()
        assert not self.wrong, self.wrong
        self.check_order()
        for number, publish in enumerate(self.published):
            if publish.qos and number not in self.forgotten:
                assert number in self.acknowledged
        assert not [event for event in self.reporter.events if event.name == "internal.errors"]

    async def step(self, what: str, number: int) -> None:
        match what:
            case "turns":
                await self.turns(number % 8)
            case "gate":
                (self.sink.gate.clear if number % 2 else self.sink.gate.set)()
            case "sink":
                self.sink.outcomes += [("away", "unanswered", "missing", "stored")[number % 4]] * (1 + number // 4 % 3)
            case "later":
                self.clock.now += number * 100_000_000
            case "kill":
                await self.kill()
                self.start()
                await self.turns(2)
            case _:
                self.step_of(self.brokers[number % 2], what, number // 2)

    def step_of(self, broker: ModelBroker, what: str, number: int) -> None:
        match what:
            case "publish":
                for offset in range(1 + number % 3):
                    self.publish(broker, number + offset * 7)
            case "read":
                broker.send(1 + number % READ)
                broker.read(self.clock.now, READ)
            case "send":
                broker.send(1 + number % READ)
            case "hear":
                broker.hear()
            case "repeat":
                broker.repeat()
            case "cut":
                broker.cut()
            case "connect":
                self.connect(broker, keep=number % 5 > 0)

    def connect(self, broker: ModelBroker, *, keep: bool) -> None:
        broker.cut()
        if not keep:
            lost = [*broker.waiting, *broker.unacknowledged.values()]
            self.forgotten |= {self.ident(publish) for publish in lost}
        broker.connect(keep=keep)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Let everything heal, and see that all comes to rest."""
        self.sink.outcomes.clear()
        self.sink.gate.set()
        for broker in self.brokers:
            self.connect(broker, keep=True)
        for _ in range(400):
            for broker in self.brokers:
                broker.send(READ)
                broker.read(self.clock.now, READ)
                await self.turns(8)
                broker.hear()
            if not any(broker.waiting or broker.unacknowledged for broker in self.brokers) and not self.uplink.held:
                break
        for broker in self.brokers:
            assert (list(broker.waiting), broker.unacknowledged) == ([], {})
            assert broker.reading
            assert broker.receiver.in_flight == 0
        assert (self.uplink.in_flight, self.uplink.held, self.uplink.held_bytes) == (0, 0, 0)
        assert await self.uplink.drain(5) == 0
        assert self.running is not None
        await self.running


STEPS = {
    "publish": 5, "read": 5, "send": 1, "hear": 2, "repeat": 1, "cut": 1, "connect": 2, "turns": 4, "gate": 1,
    "sink": 2, "later": 1, "kill": 1,
}  # fmt: skip
STORY = st.lists(
    st.tuples(st.sampled_from([name for name, weight in STEPS.items() for _ in range(weight)]), st.integers(0, 599)),
    max_size=60,
)


LOST_SESSION = [
    ("publish", 312), ("publish", 156), ("read", 224), ("connect", 540), ("publish", 502), ("turns", 335),
    ("send", 422), ("connect", 194), ("read", 2), ("turns", 394), ("connect", 332),
]  # fmt: skip
"""A session that is lost, and of the next one nothing arrives before that connection ends too."""


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(LOST_SESSION, None, True)
@given(STORY, st.sampled_from([None, "rejected"]), st.booleans())
def test_nothing_acknowledged_is_lost_and_order_holds(
    story: list[tuple[str, int]], rejected_topic: str | None, marks_dup: bool
) -> None:
    async def play() -> None:
        await World(rejected_topic, marks_dup=marks_dup).play(story)

    asyncio.run(play())
