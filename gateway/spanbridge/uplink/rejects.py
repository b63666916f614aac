"""Messages that can never go where their route says: to the rejected topic, shortened if need be, to the spool, or
dropped."""

from __future__ import annotations

from collections.abc import Sequence

from spanbridge.core import mapping
from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError, SinkRejected
from spanbridge.core.message import Destination, Publish
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.routes import Route, TopicFilter
from spanbridge.core.spooled import HERE
from spanbridge.core.template import Template
from spanbridge.core.text import quoted
from spanbridge.ports import Clock, Reporter, Sink
from spanbridge.telemetry import Hop, MessageMetrics, MessageTrace, Peer, Tracer
from spanbridge.telemetry.quiet import quietly, report_fault
from spanbridge.uplink import events
from spanbridge.uplink.dead_letters import DeadLetters, Kept
from spanbridge.uplink.recipe import Ends, Outgoing, Partitions, Recipe, send_hop
from spanbridge.uplink.tally import Tally
from spanbridge_context import split_user_properties

REASON = "spanbridge.rejected"
"""Property of a message in the rejected topic that names why it is there."""
ERROR = "spanbridge.error"
"""Property with the cause in words."""
CUT = "spanbridge.cut"
"""Property that says what was left out so that the rejected topic takes the rest."""

_LONGEST_ERROR = 512
# What is kept of a message, step by step: its properties, bytes of its payload, characters of its topic.
_STEPS: tuple[tuple[bool, int | None, int], ...] = (
    (True, None, 8192),
    (False, None, 1024),
    (False, 64 * 1024, 1024),
    (False, 4096, 256),
    (False, 256, 64),
)


class Rejects:
    """Makes the copies for the rejected topic, and counts what is dropped. ``topic`` None: there is none."""

    def __init__(
        self,
        topic: str | None,
        sink: Sink[Destination],
        partitions: Partitions,
        *,
        tracer: Tracer,
        metrics: MessageMetrics,
        reporter: Reporter,
        clock: Clock,
        cluster: Peer,
    ) -> None:
        self.topic = topic
        self.keeps_here = False
        """Whether dead letters go to :attr:`here` instead."""
        self.here: DeadLetters | None = None
        self.cluster = cluster
        self._sink = sink
        self._partitions = partitions
        self._tracer = tracer
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._route = Route(name="(rejected)", filter=TopicFilter.parse("#"), topic=Template.parse("x"))

    def refuse(  # noqa: PLR0917
        self,
        delivery: Delivery[Publish],
        tally: Tally,
        reason: str,
        cause: str,
        trace: MessageTrace | None = None,
        shortened: int = 0,
    ) -> Outgoing | Kept | None:
        """The message as it goes to the rejected topic, or None: it is dropped, and its delivery is to be acked.

        Kept: the spool takes it, and its delivery is acked later. ``shortened`` is the first step of shortening to try.
        Never raises.
        """
        quietly(self._reporter, self._tracer.dropped, trace, self._clock.now_ns(), reason)
        if self.here is not None and self.keeps_here:
            self._reporter.report(events.MessagesDiverted(reason=reason, cause=cause, topic=HERE))
            return self.here.keep(delivery, tally, reason, cause, trace)
        if self.topic is not None:
            for step in range(shortened, len(_STEPS)):
                try:
                    outgoing = self._copy(delivery, tally, reason, cause, step)
                except SinkRejected as error:
                    cause = f"{cause}; nor does the rejected topic take it: {error}" if step == shortened else cause
                    continue
                except Exception as fault:  # noqa: BLE001 - a message that is refused must not stop others
                    report_fault(self._reporter, fault, "uplink.rejects")
                    break
                if not shortened:
                    self._reporter.report(events.MessagesDiverted(reason=reason, cause=cause, topic=self.topic))
                return outgoing
        self.dropped(delivery.message, tally, reason, cause)
        return None

    def divert(self, outgoing: Outgoing, error: SinkError) -> Outgoing | Kept | None:
        """What becomes of a message that RocketMQ refused for good: as :meth:`refuse`."""
        recipe = outgoing.recipe
        cause = f"MQTT topic {quoted(outgoing.delivery.message.topic)}: {error}"
        if recipe.rejected is None:
            return self.refuse(outgoing.delivery, recipe.tally, error.reason, cause, outgoing.trace)
        step = recipe.shortened + 1  # the rejected topic itself refused it
        return self.refuse(outgoing.delivery, recipe.tally, recipe.rejected, cause, outgoing.trace, step)

    def dropped(self, publish: Publish, tally: Tally, reason: str, cause: str) -> None:
        """Count and log a message of a route that will not reach RocketMQ, on purpose."""
        self.count_dropped(publish, tally, reason)
        self._reporter.report(events.MessagesDropped(reason=reason, cause=cause))

    def count_gone(self, tally: Tally, reason: str, count: int) -> None:
        """Count messages of a route of which nothing else is known any more."""
        tally.dropped[reason] += count
        quietly(self._reporter, self._metrics.dropped, tally.filter, reason, count)

    def count_dropped(self, publish: Publish, tally: Tally, reason: str) -> None:
        """Count it."""
        tally.dropped[reason] += 1
        seconds = max(0.0, (self._clock.now_ns() - publish.received_ns) / 1e9)
        quietly(self._reporter, self._metrics.dropped, tally.filter, reason)
        quietly(self._reporter, self._metrics.process_duration, tally.filter, seconds, error=reason)

    def _copy(self, delivery: Delivery[Publish], tally: Tally, reason: str, cause: str, step: int) -> Outgoing:
        """The copy of a message, shortened by that many steps.

        :raises SinkRejected: RocketMQ does not take it like this.
        """
        assert self.topic is not None
        publish, ends = delivery.message, tally.intake.ends
        whole, payload_limit, topic_limit = _STEPS[step]
        context, _, user = split_user_properties(publish.user_properties)
        payload = publish.payload[:payload_limit]
        destination = Destination(self.topic, properties=self._fixed(publish, user, ends, topic_limit, reason, cause))
        head = self._sink.head(destination)
        spans = self._tracer.spans(
            Hop(
                operation="process",
                system="mqtt",
                destination=publish.topic[:topic_limit],
                template=tally.filter,
                peer=ends.broker,
            ),
            send_hop(self.topic, self.cluster),
            policy=ContextPolicy.CONTINUE,
            trust=tally.trust,
        )
        traceparent, tracestate, trace = spans.begin(context, publish.received_ns, len(publish.payload))
        items: list[tuple[str, str]] = []
        cut = []
        if whole:
            carried = [("tracestate", tracestate)] if tracestate else []
            if context is not None and context.baggage and tally.trust:
                carried.append(("baggage", context.baggage))
            fixed = len(destination.properties) + 1  # one for what is cut
            found, _ = mapping.properties(publish, payload, user, carried, mapping.room(destination), fixed)
            items += found
        else:
            cut.append(f"{len(user)} user properties")
            items += [("mqtt.empty", "true")] if not payload else []
        if len(payload) < len(publish.payload):
            cut.append(f"{len(publish.payload) - len(payload)} of {len(publish.payload)} bytes of payload")
        if len(publish.topic) > topic_limit:
            cut.append(f"{len(publish.topic) - topic_limit} of {len(publish.topic)} characters of mqtt.topic")
        if cut:
            items.append((CUT, ", ".join(cut)))
        encoded = head.encode(payload or mapping.EMPTY_BODY, traceparent, items, publish.received_ns)
        recipe = Recipe(
            route=self._route,
            head=head,
            partition=self._partitions.get(self.topic, head.partition),
            spans=spans,
            tally=tally,
            room=0,
            rejected=reason,
            shortened=step,
        )
        return Outgoing(delivery, recipe, encoded, trace)

    def _fixed(  # noqa: PLR0917
        self,
        publish: Publish,
        user: Sequence[tuple[str, str]],
        ends: Ends,
        topic_limit: int,
        reason: str,
        cause: str,
    ) -> tuple[tuple[str, str], ...]:
        fixed = [
            ("mqtt.topic", mapping.printable(publish.topic[:topic_limit])),
            ("mqtt.qos", str(publish.qos)),
            (REASON, reason),
            (ERROR, mapping.printable(cause[:_LONGEST_ERROR])),
        ]
        passed = mapping.passed_before(user)
        if passed is not None:
            fixed.append((mapping.PATH, passed))
        if publish.retain:
            fixed.append(("mqtt.retain", "true"))
        if ends.told:
            fixed.append((mapping.SOURCE, ends.source))
        return tuple(item for item in fixed if item[1])
