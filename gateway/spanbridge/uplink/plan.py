"""Plans: everything about a message that its MQTT topic fixes, worked out once and cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from spanbridge.core import translate
from spanbridge.core.batch import BatchLimits, Lane
from spanbridge.core.message import Address, Publish
from spanbridge.core.policy import Carrier
from spanbridge.core.routes import Match, RouteTable
from spanbridge.ports import Sink
from spanbridge.telemetry import Peer, RouteTracer, Tracer

UNROUTABLE = "(unroutable)"
"""Stands for a route where there is none, and names the catch-all."""

CACHED_TOPICS = 16384
"""Plans kept per source. About 1 KiB each; a fleet with more topics pays for planning again, not with memory."""

LONGEST_CACHED = 256
"""Characters of a topic whose plan is kept. Devices choose them: with 65 535 of them, half of them slashes, a plan
takes a megabyte."""


class Ready(NamedTuple):
    """Where messages of one topic, QoS and RETAIN flag go: the sink's prepared form and the lane they share."""

    prepared: Any
    lane: Lane
    tracer: RouteTracer
    room: int
    """Bytes that are left for the properties that messages do not share."""
    address: Address
    """For the trace's attributes."""


class Plan:
    """The route that an MQTT topic took, and what follows from it."""

    __slots__ = ("by_flags", "filter", "json_payload", "match", "per_message", "route", "topic_suffix")

    def __init__(self, match: Match) -> None:
        self.match = match
        self.route = match.route
        self.filter = match.route.filter.text
        self.per_message = match.route.per_message
        self.topic_suffix = Carrier.TOPIC_SUFFIX in match.route.carriers
        self.json_payload = Carrier.JSON_PAYLOAD in match.route.carriers
        self.by_flags: dict[int, Ready] = {}


class Lanes:
    """One lane for each RocketMQ topic and queue, shared by all sources. Forgotten when nobody uses it."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._lanes: WeakValueDictionary[tuple[str, int], Lane] = WeakValueDictionary()

    def get(self, topic: str, key: int) -> Lane:
        """The lane of ``topic`` with the sink's ``key``."""
        lane = self._lanes.get((topic, key))
        if lane is None:
            lane = self._lanes[topic, key] = Lane(topic, key, self._limits)
        return lane


class Planner:
    """Makes and caches the plans of one source."""

    def __init__(
        self, table: RouteTable, sink: Sink, tracer: Tracer, lanes: Lanes, *, gateway: str, peer: Peer
    ) -> None:
        self.lanes = lanes
        self._table = table
        self._sink = sink
        self._tracer = tracer
        self._gateway = gateway
        self._peer = peer
        self._plans: dict[str, Plan] = {}

    def find(self, topic: str) -> Plan | None:
        """The plan of a topic, or None when no route takes it."""
        return self._plans.get(topic) or self._make(topic)

    def _make(self, topic: str) -> Plan | None:
        match = self._table.match(topic)
        if match is None:
            return None
        plan = Plan(match)
        if len(topic) <= LONGEST_CACHED:
            if len(self._plans) >= CACHED_TOPICS:
                del self._plans[next(iter(self._plans))]
            self._plans[topic] = plan
        return plan

    def ready(self, plan: Plan, publish: Publish, user: Sequence[tuple[str, str]]) -> Ready:
        """Where a message of ``plan`` goes. ``user`` are its user properties without the context's.

        :raises Unroutable: its templates give no place, or it was here before.
        :raises SinkRejected: RocketMQ does not allow the topic, a key, the tag or the group.
        """
        path = translate.passed_gateways(user, self._gateway) if user else None
        if path is not None or plan.per_message:
            return self._prepare(plan.match, publish, path or self._gateway)
        flags = publish.qos | publish.retain << 2
        ready = plan.by_flags.get(flags)
        if ready is None:
            ready = plan.by_flags[flags] = self._prepare(plan.match, publish, self._gateway)
        return ready

    def _prepare(self, match: Match, publish: Publish, path: str) -> Ready:
        address = translate.address(match, publish, path=path, client_id=self._peer.client_id)
        prepared = self._sink.prepare(address)
        route = match.route
        tracer = self._tracer.route(
            filter=route.filter.text,
            topic=address.topic,
            policy=route.context,
            trust=route.trust,
            source=self._peer,
            per_message=route.per_message,
        )
        lane = self.lanes.get(address.topic, self._sink.lane(prepared))
        return Ready(prepared, lane, tracer, translate.room(address), address)
