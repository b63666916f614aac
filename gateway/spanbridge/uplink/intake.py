"""Intake: from one read's deliveries to encoded messages in their partitions. The hot path; nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spanbridge.core import mapping
from spanbridge.core.cache import Generations
from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkRejected, bare
from spanbridge.core.message import Publish
from spanbridge.core.partition import Partition
from spanbridge.core.policy import Carrier
from spanbridge.core.spooled import Spooled
from spanbridge.core.text import quoted
from spanbridge.ports import Clock, Reporter, Source
from spanbridge.telemetry import MessageMetrics, MessageTrace
from spanbridge.telemetry.quiet import report_fault
from spanbridge.uplink import events
from spanbridge.uplink.dead_letters import Kept
from spanbridge.uplink.recipe import UNROUTABLE, Ends, Outgoing, Recipe, Recipes, Refused
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.tally import Tallies, Tally
from spanbridge_context import TraceContext, split_json, split_topic, split_user_properties

SUFFIX = "/~tp/"
_FORGIVEN_AFTER = 600 * 1_000_000_000
"""Nanoseconds after which a fault with a message of the same topic and payload is another one."""
_TRIES = 3
"""How often a message may meet a fault of ours: after that it is refused, so that those behind it go on."""


class Intake:
    """One source's way in. ``submit`` is called once per read for each partition that gained messages.

    ``encoded_bytes`` is what the messages on their way take in the sink's form.
    """

    def __init__(
        self,
        source: Source[Publish],
        ends: Ends,
        *,
        rejects: Rejects,
        metrics: MessageMetrics,
        reporter: Reporter,
        clock: Clock,
        submit: Callable[[Partition[Outgoing]], None],
    ) -> None:
        self.source = source
        self.ends = ends
        self.tallies = Tallies(self)
        self.paused = False
        self.received = 0
        self.encoded_bytes = 0
        self._rejects = rejects
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._submit = submit
        self.replayed = 0
        """Deliveries out of the spool that are on their way."""
        self._outcomes: dict[str, int] = {}
        self._faults: Generations[tuple[str, int], tuple[int, int]] = Generations(256)
        self._recipes: Recipes

    def use(self, ends: Ends, recipes: Recipes) -> None:
        """Make messages by these from now on."""
        self.ends = ends
        self._recipes = recipes

    def deliver(self, deliveries: list[Delivery[Publish]]) -> None:
        """Take all deliveries of one read, in receive order. Never raises."""
        touched: dict[Partition[Outgoing], None] = {}
        tallies: dict[Tally, None] = {}
        dropped: list[Delivery[Publish]] = []
        failed: list[Delivery[Publish]] = []
        size = 0
        begun_ns = self._clock.now_ns()
        for delivery in deliveries:
            try:
                outgoing = self._process(delivery, begun_ns)
            except Exception as error:  # noqa: BLE001 - one message must not stop those behind it
                refused = self._refused(delivery, error)
                if refused is None:
                    failed.append(delivery)
                    continue
                tallies[self._tally(refused)] = None
                diverted = self._refuse(delivery, refused)
                if diverted is None:
                    dropped.append(delivery)
                    continue
                if isinstance(diverted, Kept):
                    continue
                outgoing = diverted
            recipe = outgoing.recipe
            recipe.partition.add(outgoing)
            size += len(outgoing.encoded)
            touched[recipe.partition] = None
            tallies[recipe.tally] = None
        self.received += len(deliveries)
        self.encoded_bytes += size
        try:
            self._count(tallies, deliveries[-1].message.received_ns)
        except Exception as fault:  # noqa: BLE001 - telemetry never stops a message
            report_fault(self._reporter, bare(fault), "telemetry")
        if dropped:
            self.source.ack(dropped)
        if failed:
            self.source.nack(failed, "a fault of ours while it was processed")
        for partition in touched:
            self._submit(partition)

    def acked(self, deliveries: list[Delivery[Publish]], size: int) -> None:
        """These are where they belong; in the sink's form they took ``size`` bytes."""
        self.encoded_bytes -= size
        if self.replayed:
            deliveries = self._answered(deliveries)
        self.source.ack(deliveries)

    def _answered(self, deliveries: list[Delivery[Publish]]) -> list[Delivery[Publish]]:
        """Those that the source brought; the others, out of the spool, are acked."""
        sources = {one.source for one in deliveries}
        if sources == {self.source}:
            return deliveries
        own: list[Delivery[Publish]] = []
        for source in sources:
            mine = deliveries if len(sources) == 1 else [one for one in deliveries if one.source is source]
            if source is self.source:
                own = mine
            else:
                source.ack(mine)
        return own

    def replay(self, delivery: Delivery[Publish], spooled: Spooled, begun_ns: int) -> Outgoing | Kept | None:
        """A message out of the spool on its way; None: it was dropped. It was counted when it was received.

        ``begun_ns`` is when it was read (Unix time). A fault of ours that comes back refuses it, as it would at the
        source.
        """
        refused: Refused | None = None
        while refused is None:
            try:
                outgoing = self._process(delivery, begun_ns, spooled)
            except Exception as error:  # noqa: BLE001 - as in deliver
                refused = self._refused(delivery, error)
            else:
                outgoing.recipe.tally.received -= 1
                self.encoded_bytes += len(outgoing.encoded)
                return outgoing
        self._tally(refused).received -= 1
        diverted = self._refuse(delivery, refused)
        if isinstance(diverted, Outgoing):
            self.encoded_bytes += len(diverted.encoded)
        return diverted

    def filter_of(self, topic: str) -> str:
        """The filter of the route that takes a topic, as tallies are called. It may be called from another thread."""
        plain = split_topic(topic)[0] if self._recipes.suffixes and SUFFIX in topic else topic
        route = self._recipes.route(plain)
        return UNROUTABLE if route is None else route.filter.text

    def _process(  # noqa: C901 - a message's way from top to bottom: each step of its own would be a call a message
        self, delivery: Delivery[Publish], begun_ns: int, spooled: Spooled | None = None
    ) -> Outgoing:
        """What becomes of one message: context, recipe, properties, encoding. It changes nothing of the message.

        ``begun_ns`` is when the intake got the message's read (Unix time).

        :raises Refused: it cannot go where its route says.
        """
        publish = delivery.message
        if publish.fault is not None:
            raise Refused("malformed", f"topic {quoted(publish.topic)}: {publish.fault}")
        topic, payload, user = publish.topic, publish.payload, publish.user_properties
        context: TraceContext | None = None
        problem: str | None = None
        if user:
            context, problem, user = split_user_properties(user)
        recipe = None
        if self._recipes.suffixes and SUFFIX in topic:
            recipe, context, problem = self._without_suffix(publish, user, context, problem)
        if recipe is None:
            recipe = self._recipes.find(publish, topic, user)
        recipe.tally.received += 1
        if recipe.json_payload:
            payload, context, problem = _without_json(payload, context, problem)
        if spooled is None:
            outcome = problem or ("absent" if context is None else "valid")
            self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        if recipe.special:
            self._look_closer(publish, payload, recipe)
        trace: MessageTrace | None = None
        try:
            traceparent, tracestate, trace = (
                recipe.spans.begin(context, publish.received_ns, len(payload), begun_ns)
                if spooled is None
                else recipe.spans.resume(context, spooled.trace, spooled.spooled_ns, len(payload), begun_ns)
            )
        except Exception as fault:  # noqa: BLE001 - telemetry never stops a message
            report_fault(self._reporter, fault, "telemetry")
            traceparent = context.traceparent if context is not None and recipe.route.trust else ""
            tracestate = ""
        properties: Sequence[tuple[str, str]] = ()
        baggage = context.baggage if context is not None and recipe.route.trust else ""
        if (
            tracestate
            or baggage
            or not payload
            or publish.expiry is not None
            or publish.content_type is not None
            or publish.correlation_data is not None
            or publish.response_topic is not None
            or publish.payload_format is not None
        ):
            properties = self._properties(publish, payload, user, tracestate, baggage, recipe)
        elif user:
            properties = mapping.usual(user, recipe.room) or self._properties(publish, payload, user, "", "", recipe)
        try:
            encoded = recipe.head.encode(payload or mapping.EMPTY_BODY, traceparent, properties, publish.received_ns)
        except SinkRejected as error:
            cause = f"MQTT topic {quoted(topic)}: {error}"
            raise Refused(error.reason, cause, recipe.tally, trace) from None
        return Outgoing(delivery, recipe, encoded, trace)

    def _without_suffix(
        self, publish: Publish, user: Sequence[tuple[str, str]], context: TraceContext | None, problem: str | None
    ) -> tuple[Recipe | None, TraceContext | None, str | None]:
        """The recipe of a topic that carries a context at its end, where the route of the plain topic wants that."""
        plain, found, trouble = split_topic(publish.topic)
        route = self._recipes.route(plain) if found is not None or trouble else None
        if route is None or Carrier.TOPIC_SUFFIX not in route.carriers:
            return None, context, problem
        return self._recipes.find(publish, plain, user), found or context, trouble

    def _properties(  # noqa: PLR0917
        self,
        publish: Publish,
        payload: bytes,
        user: Sequence[tuple[str, str]],
        tracestate: str,
        baggage: str,
        recipe: Recipe,
    ) -> Sequence[tuple[str, str]]:
        carried = [("tracestate", tracestate)] if tracestate else []
        if baggage:
            carried.append(("baggage", baggage))
        items, dropped = mapping.properties(publish, payload, user, carried, recipe.room)
        if dropped:
            self._reporter.report(events.PropertiesDropped(route=recipe.route.name, count=dropped))
        return items

    def _look_closer(self, publish: Publish, payload: bytes, recipe: Recipe) -> None:
        """What few recipes have: a limit, properties that RocketMQ cannot carry, no route.

        :raises Refused: the payload is too large for the route.
        """
        limit = recipe.route.max_payload
        if limit is not None and len(payload) > limit:
            raise Refused("too_large", f"{len(payload)} bytes on route {recipe.route.name!r}", recipe.tally)
        if recipe.cut:
            self._reporter.report(events.PropertiesDropped(route=recipe.route.name, count=recipe.cut))
        if recipe.route.name == UNROUTABLE:
            cause = f"no route takes topic {quoted(publish.topic)}"
            topic = recipe.partition.topic
            self._reporter.report(events.MessagesDiverted(reason="unroutable", cause=cause, topic=topic))

    def _tally(self, refused: Refused) -> Tally:
        if refused.tally is None:  # it was refused before it had a route
            refused.tally = self.tallies.get(UNROUTABLE)
            refused.tally.received += 1
        return refused.tally

    def _refuse(self, delivery: Delivery[Publish], refused: Refused) -> Outgoing | Kept | None:
        return self._rejects.refuse(delivery, self._tally(refused), refused.reason, str(refused), trace=refused.trace)

    def _refused(self, delivery: Delivery[Publish], error: Exception) -> Refused | None:
        """Why a message is refused. None: a fault of ours, and the source is to bring the message again.

        A message that meets faults again and again will never work: it is refused as well.
        """
        if isinstance(error, Refused):
            return error
        cause = report_fault(self._reporter, error, "uplink.intake")
        publish = delivery.message
        key = (publish.topic[:64], hash(publish.payload))
        now = self._clock.monotonic_ns()
        met, last = self._faults.get(key) or (0, now)
        met = met + 1 if now - last < _FORGIVEN_AFTER else 1
        self._faults.put(key, (met, now))
        return Refused("internal", cause) if met >= _TRIES else None

    def _count(self, tallies: dict[Tally, None], now: int) -> None:
        """Tell the metrics of what came in."""
        for tally in tallies:
            tally.last_ns = now
            count, tally.told = tally.received - tally.told, tally.received
            if count:
                self._metrics.consumed(tally.filter, count)
        for outcome, count in self._outcomes.items():
            self._metrics.context(outcome, count)
        self._outcomes.clear()


def _without_json(
    payload: bytes, context: TraceContext | None, problem: str | None
) -> tuple[bytes, TraceContext | None, str | None]:
    """The payload without a context in it, which counts before the one of the user properties."""
    payload, found, trouble = split_json(payload)
    return (payload, context, problem) if found is None and not trouble else (payload, found or context, trouble)
