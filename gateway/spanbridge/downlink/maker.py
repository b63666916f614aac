"""From one delivery to one publication: context, recipe, properties, PUBLISH. The hot path; nothing here waits."""

from __future__ import annotations

from collections.abc import Sequence

from spanbridge.core import mapping, mapping_down
from spanbridge.core.delivery import Delivery
from spanbridge.core.downlinks import ContextForm, Downlink
from spanbridge.core.mapping import Unroutable
from spanbridge.core.message import Message, Publish
from spanbridge.core.text import quoted
from spanbridge.downlink import events
from spanbridge.downlink.carriers import add_context, carried_on, context_of, form_of, with_context, without_forged
from spanbridge.downlink.outbound import Outbound
from spanbridge.downlink.recipe import DownlinkEnds, DownlinkRecipe, DownlinkRecipes
from spanbridge.ports import Clock, Reporter
from spanbridge.telemetry import MessageTrace, Tracer
from spanbridge.telemetry.quiet import report_fault
from spanbridge_context import TraceContext


class Maker:
    """Makes the publications of one downlink. ``outcomes`` counts the contexts that messages brought."""

    def __init__(
        self, downlink: Downlink, ends: DownlinkEnds, *, tracer: Tracer, reporter: Reporter, clock: Clock
    ) -> None:
        self.outcomes: dict[str, int] = {}
        self._downlink = downlink
        self._ends = ends
        self._recipes = DownlinkRecipes(downlink, ends, tracer)
        self._tracer = tracer
        self._reporter = reporter
        self._clock = clock
        self._now = clock.monotonic_ns if ends.v5 else None
        self._lasts = downlink.expiry is not None
        self._path = (mapping.PATH, ends.gateway)
        # Then a context goes on as it came, from bytes to bytes.
        self._carries = (
            not tracer.enabled and downlink.trust and form_of(downlink.form, v5=ends.v5) is ContextForm.COMPACT
        )
        self._plain_told = False

    def make(self, delivery: Delivery[Message]) -> Outbound:
        """The publication of a message. It changes nothing of the message.

        :raises Unroutable: it can never be published, or it is no longer wanted (``expired``).
        """
        message = delivery.message
        if message.fault is not None:
            raise Unroutable(f"message {quoted(message.message_id)}: {message.fault}", "malformed")
        found = message.properties
        wanted = self._lasts or "mqtt.expiry" in found
        expires_ns = self._expires(message) if wanted else None
        recipe = self._recipes.find(message)
        if self._carries:
            carried = carried_on(found, message.trace_context)
            if carried:
                self.outcomes["valid"] = self.outcomes.get("valid", 0) + 1
                made = self._with_properties(recipe, message, mapping_down.payload(message), carried)
                return Outbound(delivery, recipe, made, None, expires_ns, self._now)
        context, problem = context_of(message)
        outcome = problem or ("absent" if context is None else "valid")
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        traceparent, tracestate, trace = self._begin(recipe, message, context)
        baggage = context.baggage if context is not None and self._downlink.trust else ""
        payload = mapping_down.payload(message)
        if self._ends.v5:
            injected: list[tuple[str, str]] = []
            if traceparent and recipe.in_properties:
                add_context(injected, recipe.form, traceparent, tracestate, baggage)
            made = self._with_properties(recipe, message, payload, injected)
        else:
            made = Publish(recipe.topic, payload, recipe.qos, recipe.retain)
            if not self._plain_told:
                self._tell_plain(message)
        if traceparent and recipe.elsewhere:
            made.topic, made.payload = with_context(
                recipe.form, recipe.topic, payload, traceparent, tracestate, recipe.retain
            )
        return Outbound(delivery, recipe, made, trace, expires_ns, self._now)

    def _expires(self, message: Message) -> int | None:
        """When the message is no longer wanted, in monotonic time (ns).

        :raises Unroutable: that was before now.
        """
        expires_ns = mapping_down.expires_ns(self._downlink, message)
        if expires_ns is None:
            return None
        left = expires_ns - self._clock.now_ns()
        if left <= 0:
            raise Unroutable(f"message {quoted(message.message_id)} expired {-left / 1e9:.0f} s ago", "expired")
        return self._clock.monotonic_ns() + left

    def _begin(
        self, recipe: DownlinkRecipe, message: Message, context: TraceContext | None
    ) -> tuple[str, str, MessageTrace | None]:
        try:
            begun = recipe.spans.begin(context, message.received_ns, len(message.body))
            if begun[2] is not None:
                self._tracer.describe(begun[2], message)
        except Exception as fault:  # noqa: BLE001 - telemetry never stops a message
            report_fault(self._reporter, fault, "telemetry")
            return (context.traceparent if context is not None and self._downlink.trust else ""), "", None
        return begun

    def _with_properties(
        self, recipe: DownlinkRecipe, message: Message, payload: bytes, context: Sequence[tuple[str, str]]
    ) -> Publish:
        """The PUBLISH with its MQTT 5 properties, the ``context`` as the last of them."""
        found = message.properties
        if len(found) == 1 and "traceparent" in found:  # as most messages have it
            return Publish(recipe.topic, payload, recipe.qos, recipe.retain, (self._path, *context))
        user, fields, dropped, carriers = mapping_down.properties(found)
        if carriers:
            user = without_forged(user, injected=bool(context))
        if dropped:
            self._reporter.report(events.DownlinkPropertiesDropped(downlink=self._downlink.name, count=dropped))
        made = mapping_down.publish(recipe.topic, payload, recipe.qos, recipe.retain, user, fields)
        if mapping.PATH in found:
            user.append((mapping.PATH, mapping_down.passed(found, self._ends.gateway)))
        else:
            user.append(self._path)
        user += context
        return made

    def _tell_plain(self, message: Message) -> None:
        """Say once that MQTT 3.1.1 has no place for properties."""
        user, fields, _, _ = mapping_down.properties(message.properties)
        if user or fields:
            self._plain_told = True
            self._reporter.report(events.DownlinkIsPlain(downlink=self._downlink.name))
