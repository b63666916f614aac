"""Intake: from a socket read's worth of MQTT messages to entries in their lanes. The hot path; nothing here waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from spanbridge.core import translate
from spanbridge.core.ack import AckLedger, InFlight
from spanbridge.core.batch import Lane
from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Address, Publish
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.text import quoted
from spanbridge.ports import Clock, Reporter, Sink, Source
from spanbridge.telemetry import MessageTrace, Tracer, UplinkMetrics
from spanbridge.uplink import events
from spanbridge.uplink.plan import UNROUTABLE, Plan, Planner
from spanbridge_context import TraceContext, extract_json, split_topic, split_user_properties

SUFFIX = "/~tp/"
REASON = "spanbridge.rejected"
"""Property of a message in the rejected topic that names why it is there."""


class Refused(Exception):  # noqa: N818 - an outcome rather than a fault
    """A message that cannot go where its route says."""

    def __init__(self, reason: str, cause: str, trace: MessageTrace | None = None) -> None:
        super().__init__(cause)
        self.reason = reason
        self.trace = trace


@dataclass(slots=True)
class Tally:
    """What became of one route's messages, for /status. ``last_ns`` is Unix time of the last one, 0 for never."""

    received: int = 0
    sent: int = 0
    dropped: int = 0
    last_ns: int = 0


class Intake:
    """One source's way in. ``submit`` is called once per read for each lane that gained messages."""

    def __init__(
        self,
        source: Source,
        planner: Planner,
        sink: Sink,
        *,
        tracer: Tracer,
        metrics: UplinkMetrics,
        reporter: Reporter,
        clock: Clock,
        submit: Callable[[Lane], None],
        rejected_topic: str | None = None,
    ) -> None:
        self.source = source
        self.ledger = AckLedger()
        self.received = 0
        self.paused = False
        self.tallies: dict[str, Tally] = {}
        self._planner = planner
        self._sink = sink
        self._tracer = tracer
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._submit = submit
        self._rejected_topic = rejected_topic

    def deliver(self, publishes: list[Publish]) -> None:
        """Take all messages of one socket read, in receive order. Never raises."""
        ledger = self.ledger
        if publishes[0].epoch != ledger.epoch:
            ledger.turn(publishes[0].epoch, session=self.source.session)
        touched: dict[Lane, None] = {}
        consumed: Counter[str] = Counter()
        contexts: Counter[str] = Counter()
        refused: list[InFlight] = []
        now = self._clock.monotonic_ns()
        for publish in publishes:
            taken = self._take(publish)
            if taken is None:
                continue
            entry, lane, outcome = taken
            ledger.add(entry)
            entry.since_ns = now
            if publish.expiry is not None:
                entry.expires_ns = now + publish.expiry * 1_000_000_000
            consumed[entry.filter] += 1
            contexts[outcome] += 1
            if lane is None:
                refused.append(entry)
            else:
                lane.add(entry)
                touched[lane] = None
        self._count(consumed, contexts, publishes[-1].received_ns)
        self.settle(refused)
        for lane in touched:
            self._submit(lane)

    def connected(self) -> None:
        """A connection begins: what only waited to be acknowledged on the last one is not in our hands any more."""
        self.ledger.turn(self.source.epoch, session=self.source.session)

    def settle(self, entries: Iterable[InFlight]) -> None:
        """Mark messages as done and acknowledge all that may leave now."""
        if self.ledger.epoch != self.source.epoch:
            self.ledger.lost()
        released = self.ledger.settle(entries)
        if released:
            self.source.settle(released)

    def divert(self, entry: InFlight, reason: str, cause: str) -> Lane | None:
        """Point a message that RocketMQ refused at the rejected topic; return its new lane, or None: it is dropped.

        Never raises: the rest of the message's batch waits for it.
        """
        self._tracer.dropped(entry.trace, self._clock.now_ns(), reason)
        cause = f"MQTT topic {quoted(entry.publish.topic)}: {cause}"
        try:
            diverted, lane = self._refuse(entry.publish, entry.filter, Refused(reason, cause))
        except Exception as error:  # noqa: BLE001 - as in :meth:`_take`
            self.dropped(entry.publish, entry.filter, "internal", self._fault(error))
            return None
        entry.trace, entry.encoded = diverted.trace, diverted.encoded
        return lane

    def abandon(self) -> None:
        """Count what is unsent and that nobody will send again, at the end."""
        gone = self.ledger.unrepeatable()
        for entry in gone:
            self._tracer.dropped(entry.trace, self._clock.now_ns(), "stopping")
            self._count_dropped(entry.publish, entry.filter, "stopping")
        if gone:
            cause = "the gateway stops, and the MQTT broker has no copy (QoS 0, or its session was lost)"
            self._reporter.report(events.MessagesDropped(reason="stopping", cause=cause, count=len(gone)))
        self.settle(gone)

    def sent(self, filter_: str, count: int) -> None:
        """Take note that RocketMQ stored ``count`` messages of a route."""
        self._tally(filter_).sent += count

    def dropped(self, publish: Publish, filter_: str, reason: str, cause: str) -> None:
        """Count and log a message of a route that will not reach RocketMQ, on purpose."""
        self._count_dropped(publish, filter_, reason)
        self._reporter.report(events.MessagesDropped(reason=reason, cause=cause))

    def _count_dropped(self, publish: Publish, filter_: str, reason: str) -> None:
        self._tally(filter_).dropped += 1
        self._metrics.dropped(filter_, reason)
        seconds = max(0.0, (self._clock.now_ns() - publish.received_ns) / 1e9)
        self._metrics.process_duration(filter_, seconds, error=reason)

    def _tally(self, filter_: str) -> Tally:
        tally = self.tallies.get(filter_)
        if tally is None:
            tally = self.tallies[filter_] = Tally()
        return tally

    def _count(self, consumed: Counter[str], contexts: Counter[str], now: int) -> None:
        for filter_, count in consumed.items():
            self.received += count
            self._metrics.consumed(filter_, count)
            tally = self._tally(filter_)
            tally.received += count
            tally.last_ns = now
        for outcome, count in contexts.items():
            self._metrics.context(outcome, count)

    def _take(self, publish: Publish) -> tuple[InFlight, Lane | None, str] | None:
        """The entry of a message, its lane (None: it is not sent), and its context's outcome. None: a redelivery."""
        try:
            found = self._carriers(publish) if publish.fault is None else None
            if publish.dup and self.ledger.adopt(publish) is not None:
                self._reporter.report(events.MessagesRedelivered())
                return None
            if found is None:
                return *self._refuse(publish, UNROUTABLE, Refused("malformed", _malformed(publish))), "absent"
            return self._accept(publish, *found)
        except Exception as error:  # noqa: BLE001 - a fault of ours in the handling of another
            self.dropped(publish, UNROUTABLE, "internal", self._fault(error))
            return InFlight(publish, self, UNROUTABLE, None, b""), None, "absent"

    def _fault(self, error: Exception) -> str:
        """Report a fault of ours; return it in one line."""
        cause = f"{type(error).__name__}: {error}"
        self._reporter.report(events.InternalError(where="uplink.intake", cause=cause))
        return cause

    def _carriers(self, publish: Publish) -> tuple[Plan | None, TraceContext | None, str]:
        """Find the plan, and restore topic and payload where a v3.1.1 device hid its context there."""
        topic = publish.topic
        context: TraceContext | None = None
        outcome = "absent"
        if SUFFIX in topic:
            plain, found, problem = split_topic(topic)
            plan = self._planner.find(plain) if found is not None or problem else None
            if plan is not None and plan.topic_suffix:
                publish.topic = plain
                return plan, found, problem or "valid"
        plan = self._planner.find(topic)
        if plan is not None and plan.json_payload:
            publish.payload, context, problem = extract_json(publish.payload)
            outcome = problem or ("valid" if context is not None else outcome)
        return plan, context, outcome

    def _accept(
        self, publish: Publish, plan: Plan | None, context: TraceContext | None, outcome: str
    ) -> tuple[InFlight, Lane | None, str]:
        user: Sequence[tuple[str, str]] = ()
        if publish.user_properties:
            found, problem, user = split_user_properties(publish.user_properties)
            context = context or found
            outcome = problem or ("valid" if context is not None else outcome)
        filter_ = plan.filter if plan is not None else UNROUTABLE
        if plan is None:
            refused = Refused("unroutable", f"no route takes topic {quoted(publish.topic)}")
            return *self._refuse(publish, filter_, refused), outcome
        try:
            entry, lane = self._forward(publish, plan, context, user)
        except Refused as refused:
            return *self._refuse(publish, filter_, refused), outcome
        except Exception as error:  # noqa: BLE001 - one message must not stop those behind it
            return *self._refuse(publish, filter_, Refused("internal", self._fault(error))), outcome
        return entry, lane, outcome

    def _forward(
        self, publish: Publish, plan: Plan, context: TraceContext | None, user: Sequence[tuple[str, str]]
    ) -> tuple[InFlight, Lane]:
        if plan.route.name == UNROUTABLE:
            cause = f"no route takes topic {quoted(publish.topic)}"
            self._reporter.report(
                events.MessagesDiverted(reason="unroutable", cause=cause, topic=plan.route.topic.text)
            )
        if plan.route.max_payload is not None and len(publish.payload) > plan.route.max_payload:
            raise Refused("too_large", f"{len(publish.payload)} bytes on route {plan.route.name!r}")
        trace: MessageTrace | None = None
        try:
            ready = self._planner.ready(plan, publish, user)
            trace = ready.tracer.begin(publish, context, ready.address)
            carried = context_properties(trace, context if plan.route.trust else None)
            properties = translate.properties(publish, user, carried, ready.room)
            encoded = self._sink.encode(
                ready.prepared, publish.payload or translate.EMPTY_BODY, properties.items, publish.received_ns
            )
        except (translate.Unroutable, SinkRejected) as error:
            raise Refused(error.reason, f"MQTT topic {quoted(publish.topic)}: {error}", trace) from error
        if properties.dropped:
            self._reporter.report(events.PropertiesDropped(route=plan.route.name, count=properties.dropped))
        return InFlight(publish, self, plan.filter, trace, encoded), ready.lane

    def _refuse(self, publish: Publish, filter_: str, refused: Refused) -> tuple[InFlight, Lane | None]:
        """Send a message to the rejected topic when there is one and it can; otherwise drop it, on purpose."""
        if refused.trace is not None:
            self._tracer.dropped(refused.trace, self._clock.now_ns(), refused.reason)
        if self._rejected_topic is not None:
            try:
                return self._reject(publish, filter_, refused, self._rejected_topic)
            except SinkRejected as error:
                refused = Refused(error.reason, f"{refused}; nor does the rejected topic take it: {error}")
        self.dropped(publish, filter_, refused.reason, str(refused))
        return InFlight(publish, self, filter_, None, b""), None

    def _reject(self, publish: Publish, filter_: str, refused: Refused, topic: str) -> tuple[InFlight, Lane]:
        context, _, user = split_user_properties(publish.user_properties)
        fixed = [("mqtt.topic", publish.topic), ("mqtt.qos", str(publish.qos)), (REASON, refused.reason)]
        if (passed := translate.passed_before(user)) is not None:
            fixed.append((translate.PATH, passed))
        address = Address(topic=topic, properties=tuple(item for item in fixed if translate.is_legal(item)))
        prepared = self._sink.prepare(address)
        plan = self._planner.find(publish.topic)
        trust = plan is None or plan.route.trust
        tracer = self._tracer.route(filter=filter_, topic=topic, policy=ContextPolicy.CONTINUE, trust=trust)
        trace = tracer.begin(publish, context)
        carried = context_properties(trace, context if trust else None)
        properties = translate.properties(publish, user, carried, translate.room(address))
        encoded = self._sink.encode(
            prepared, publish.payload or translate.EMPTY_BODY, properties.items, publish.received_ns
        )
        self._reporter.report(events.MessagesDiverted(reason=refused.reason, cause=str(refused), topic=topic))
        lane = self._planner.lanes.get(topic, self._sink.lane(prepared))
        return InFlight(publish, self, filter_, trace, encoded), lane


def _malformed(publish: Publish) -> str:
    return f"topic {quoted(publish.topic)}: {publish.fault}"


def context_properties(trace: MessageTrace, context: TraceContext | None) -> list[tuple[str, str]]:
    """What carries a trace on in RocketMQ: the user properties that OpenTelemetry's own instrumentations read."""
    items = [("traceparent", trace.traceparent)] if trace.traceparent else []
    if trace.tracestate:
        items.append(("tracestate", trace.tracestate))
    if context is not None and context.baggage:
        items.append(("baggage", context.baggage))
    return items
