"""Recipes: everything about a message that its MQTT topic and its route fix, worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from spanbridge.core import mapping
from spanbridge.core.cache import Generations
from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkRejected
from spanbridge.core.mapping import Unroutable
from spanbridge.core.message import Destination, Publish
from spanbridge.core.partition import BatchLimits, Partition
from spanbridge.core.policy import Carrier
from spanbridge.core.routes import Route, RouteTable, TopicFilter
from spanbridge.core.template import Scope, Template
from spanbridge.core.text import quoted
from spanbridge.ports import Head, Sink
from spanbridge.telemetry import Hop, MessageTrace, Peer, RecipeSpans, Tracer

if TYPE_CHECKING:
    from spanbridge.uplink.tally import Tallies, Tally

UNROUTABLE = "(unroutable)"
"""Stands for a route where there is none, and names the catch-all."""

CACHED = 12_288
"""Recipes that are in use and stay; twice as many at most. About 1 KiB each."""

LONGEST_CACHED = 256
"""Characters of a topic whose recipe is kept. Devices choose them, up to 65 535 of them."""

_USUAL = 1
"""Flags of a message with QoS 1 and without RETAIN: its topic alone is the key of its recipe."""


class Refused(Exception):  # noqa: N818 - an outcome rather than a fault
    """A message that cannot go where its route says. ``reason`` is a stable word for counters."""

    def __init__(self, reason: str, cause: str, tally: Tally | None = None, trace: MessageTrace | None = None) -> None:
        super().__init__(cause)
        self.reason = reason
        self.tally = tally
        self.trace = trace


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How messages of one MQTT topic, QoS and RETAIN flag (and of the user properties that templates read) travel.

    ``head`` encodes them, ``partition`` batches them, ``spans`` traces them, ``tally`` counts them. ``room`` is in
    bytes: what a message's own properties may take. ``cut`` counts fixed properties that RocketMQ cannot carry.
    ``reads`` says that templates read user properties, ``by_device`` that devices have a say in the RocketMQ topic's
    name, ``special`` that each message needs a closer look (a payload limit, no route, something cut). ``rejected`` is
    why messages go to the rejected topic, with ``shortened`` as how far they were shortened for it.
    """

    route: Route
    head: Head
    partition: Partition[Outgoing]
    spans: RecipeSpans
    tally: Tally
    room: int
    cut: int = 0
    json_payload: bool = False
    topic_suffix: bool = False
    by_device: bool = False
    special: bool = False
    reads: bool = False
    rejected: str | None = None
    shortened: int = 0


class Outgoing:
    """A delivery on its way: its recipe, the sink's form of it, and its trace. ``encoded`` is empty once it is done."""

    __slots__ = ("delivery", "encoded", "recipe", "trace")

    def __init__(self, delivery: Delivery[Publish], recipe: Recipe, encoded: bytes, trace: MessageTrace | None) -> None:
        self.delivery = delivery
        self.recipe = recipe
        self.encoded = encoded
        self.trace = trace


class Partitions:
    """One partition for each RocketMQ topic and the sink's key, shared by all sources. Forgotten when not in use."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._known: WeakValueDictionary[tuple[str, int], Partition[Outgoing]] = WeakValueDictionary()

    def get(self, topic: str, key: int) -> Partition[Outgoing]:
        """The partition of ``topic`` with the sink's ``key``."""
        partition = self._known.get((topic, key))
        if partition is None:
            partition = self._known[topic, key] = Partition(topic, key, self._limits)
        return partition

    def use(self, limits: BatchLimits) -> None:
        """Make batches by these limits from now on."""
        self._limits = limits
        for partition in self.all():
            partition.use(limits)

    def all(self) -> list[Partition[Outgoing]]:
        """Those in use now."""
        return list(self._known.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Who is at both ends: the MQTT ``broker``, the RocketMQ ``cluster``, this ``gateway``.

    ``source`` names the MQTT connection in templates; ``told`` says that messages carry that name, since there are
    several.
    """

    gateway: str
    source: str
    broker: Peer
    cluster: Peer
    told: bool = False


class Recipes:
    """Makes and keeps the recipes of one source."""

    def __init__(
        self,
        routes: Iterable[Route],
        sink: Sink[Destination],
        tracer: Tracer,
        *,
        partitions: Partitions,
        tallies: Tallies,
        ends: Ends,
    ) -> None:
        """Prepare for these routes.

        :raises RouteError: two of them match the same topics.
        """
        routes = list(routes)
        self._table = RouteTable(routes)
        self.suffixes = any(Carrier.TOPIC_SUFFIX in route.carriers for route in routes)
        self._sink = sink
        self._tracer = tracer
        self._partitions = partitions
        self._tallies = tallies
        self._ends = ends
        self._recipes: Generations[str | tuple[object, ...], Recipe] = Generations(CACHED)
        self._reading: Generations[str, tuple[str, ...]] = Generations(CACHED)

    def find(self, publish: Publish, topic: str, user: Sequence[tuple[str, str]]) -> Recipe:
        """The recipe of a message. ``topic`` and ``user`` are without what carried the trace context.

        :raises Refused: no route takes the topic, its templates give no destination, or it was here before.
        """
        flags = publish.qos | publish.retain << 2
        recipe = self._recipes.young.get(topic if flags == _USUAL else (topic, flags))
        if recipe is not None and (not user or (not recipe.reads and not self._passed(user))):
            return recipe
        # What one property fixes is found without a closer look at it: most messages that have any have one.
        known = self._recipes.young.get((topic, flags, user[0])) if len(user) == 1 else None
        return known or self._find(publish, topic, user, flags)

    def route(self, topic: str) -> Route | None:
        """The route of a topic, or None."""
        return self._table.find(topic.split("/"))

    def _taking(self, topic: str, levels: Sequence[str]) -> Route:
        """The route that takes a topic.

        :raises Refused: none does.
        """
        route = self._table.find(levels)
        if route is None:
            raise Refused("unroutable", f"no route takes topic {quoted(topic)}")
        return route

    @staticmethod
    def _passed(user: Sequence[tuple[str, str]]) -> bool:
        for name, _ in user:  # noqa: SIM110 - a generator costs more
            if name == mapping.PATH:
                return True
        return False

    def _find(self, publish: Publish, topic: str, user: Sequence[tuple[str, str]], flags: int) -> Recipe:
        """The recipe of a message whose user properties matter, or of a topic that is new."""
        key: str | tuple[object, ...] = topic if flags == _USUAL else (topic, flags)
        if user:
            given = dict(reversed(user))  # the first of a name counts
            reads = self._reading.young.get(topic) or self._reading.get(topic)
            if reads is None:
                reads = self._taking(topic, topic.split("/")).reads
                if reads and len(topic) <= LONGEST_CACHED:
                    self._reading.put(topic, reads)
            fixing = [(name, given[name]) for name in reads if name in given]
            passed = mapping.passed_before(user) if mapping.PATH in given else None
            if passed is not None:
                fixing.append((mapping.PATH, passed))
            if fixing:
                key = (topic, flags, *fixing)
        recipe = self._recipes.young.get(key) or self._recipes.get(key)
        if recipe is None:
            recipe = self._make(publish, topic, user)
            if _is_short(key):
                self._recipes.put(key, recipe)
        return recipe

    def _make(self, publish: Publish, topic: str, user: Sequence[tuple[str, str]]) -> Recipe:
        levels = topic.split("/")
        route = self._taking(topic, levels)
        ends, tally = self._ends, self._tallies.of_route(route)
        try:
            path = mapping.passed_gateways(user, ends.gateway)
            named = {name: levels[index] for index, name in route.filter.names}
            scope = Scope(levels, named, user, ends.broker.client_id, ends.source)
            source = ends.source if ends.told else None
            fixed, cut = mapping.fixed_properties(topic, publish.qos, path, source, retain=publish.retain)
            destination = mapping.destination(route, scope, fixed)
            head = self._sink.head(destination)
        except (Unroutable, SinkRejected) as error:
            tally.received += 1  # whoever asks gets no recipe to count it by
            raise Refused(error.reason, f"MQTT topic {quoted(topic)}: {error}", tally) from None
        return Recipe(
            route=route,
            head=head,
            partition=self._partitions.get(destination.topic, head.partition),
            spans=self._spans(route, topic, destination),
            tally=tally,
            room=mapping.room(destination),
            cut=cut,
            json_payload=Carrier.JSON_PAYLOAD in route.carriers,
            topic_suffix=Carrier.TOPIC_SUFFIX in route.carriers,
            by_device=route.topic.from_device,
            reads=bool(route.reads),
            special=bool(cut or route.max_payload is not None or route.name == UNROUTABLE),
        )

    def _spans(self, route: Route, topic: str, destination: Destination) -> RecipeSpans:
        process = Hop(
            operation="process",
            system="mqtt",
            destination=topic,
            template=route.filter.text,
            peer=self._ends.broker,
        )
        send = send_hop(destination.topic, self._ends.cluster, destination)
        return self._tracer.spans(process, send, policy=route.context, trust=route.trust)


def send_hop(topic: str, cluster: Peer, destination: Destination | None = None) -> Hop:
    """Sending to a RocketMQ topic, with what semantic conventions say of a message's destination when it is given."""
    extra: dict[str, object] = {}
    if destination is not None:
        named = {
            "tag": destination.tag,
            "keys": tuple(destination.keys) or None,
            "group": destination.group,
            "delivery_timestamp": destination.delivery_timestamp_ms,
        }
        extra = {f"messaging.rocketmq.message.{name}": value for name, value in named.items() if value is not None}
    return Hop(operation="send", system="rocketmq", destination=topic, peer=cluster, extra=extra)


def with_catch_all(routes: Sequence[Route], topic: str | None) -> list[Route]:
    """The routes, and one for whatever no other takes when there is a RocketMQ ``topic`` for it."""
    if topic is None or any(route.filter.mqtt == "#" for route in routes):
        return list(routes)
    catch_all = Route(name=UNROUTABLE, filter=TopicFilter.parse("#"), topic=Template.parse(topic))
    return [*routes, catch_all]


def _is_short(key: str | tuple[object, ...]) -> bool:
    if isinstance(key, str):
        return len(key) <= LONGEST_CACHED
    return sum(_length(part) for part in key) <= LONGEST_CACHED


def _length(part: object) -> int:
    if isinstance(part, tuple):
        return sum(map(_length, part))
    return len(part) if isinstance(part, str) else 0
