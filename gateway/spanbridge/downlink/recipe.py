"""Recipes: what about a message is fixed by its downlink and by what the templates read, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanbridge.core import mapping_down
from spanbridge.core.cache import Generations
from spanbridge.core.downlinks import ContextForm, Downlink
from spanbridge.core.message import Message
from spanbridge.core.template import Field
from spanbridge.downlink.carriers import IN_PROPERTIES, form_of
from spanbridge.telemetry import Hop, Peer, RecipeSpans, Tracer

CACHED_TOPICS = 12_288
"""Recipes that are in use and stay; twice as many at most."""
LONGEST_KEY = 256
"""Characters of what templates read whose recipe is kept."""

Read = Callable[[Message], str | None]
"""What a field of a template reads of a message."""
_Said = str | tuple[str | None, ...] | None
_Key = tuple[str | None, str | None, _Said]
"""What messages with the same recipe say: of QoS, of RETAIN, and what templates read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkEnds:
    """Who is at both ends: the RocketMQ ``cluster`` and the MQTT ``broker`` in spans, this ``gateway`` on the path.

    ``v5`` says that the connection to the broker speaks MQTT 5.0, else it is 3.1.1.
    """

    gateway: str
    cluster: Peer
    broker: Peer
    v5: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class DownlinkRecipe:
    """How messages of one MQTT topic, QoS and RETAIN flag travel: ``spans`` trace them, ``form`` is their context's.

    ``in_properties`` says that the context is a user property, ``elsewhere`` that it is in the topic or the payload.
    """

    topic: str
    qos: int
    retain: bool
    form: ContextForm
    in_properties: bool
    elsewhere: bool
    spans: RecipeSpans


class DownlinkRecipes:
    """Makes and keeps the recipes of one downlink."""

    def __init__(self, downlink: Downlink, ends: DownlinkEnds, tracer: Tracer) -> None:
        self._downlink = downlink
        self._ends = ends
        self._tracer = tracer
        self._form = form_of(downlink.form, v5=ends.v5)
        self._read = _read_all([_read(field) for field in dict.fromkeys(downlink.publish.fields)])
        self._recipes: Generations[_Key, DownlinkRecipe] = Generations(CACHED_TOPICS)

    def find(self, message: Message) -> DownlinkRecipe:
        """The recipe of a message. Hot path.

        :raises Unroutable: its template gives no MQTT topic.
        """
        said = message.properties.get
        key = (said("mqtt.qos"), said("mqtt.retain"), self._read(message))
        return self._recipes.young.get(key) or self._find(message, key)

    def _find(self, message: Message, key: _Key) -> DownlinkRecipe:
        recipe = self._recipes.get(key)
        if recipe is None:
            recipe = self._make(message)
            qos, retain, said = key
            parts = (qos, retain, *(said if isinstance(said, tuple) else (said,)))
            if sum(len(part) for part in parts if part is not None) <= LONGEST_KEY:
                self._recipes.put(key, recipe)
        return recipe

    def _make(self, message: Message) -> DownlinkRecipe:
        downlink, ends = self._downlink, self._ends
        topic = mapping_down.topic(downlink, message)
        qos, retain = mapping_down.flags(downlink, message)
        process = queue_hop("process", downlink, ends.cluster)
        send = Hop(
            operation="send",
            system="mqtt",
            destination=topic,
            template=downlink.publish.text,
            peer=ends.broker,
        )
        spans = self._tracer.spans(process, send, policy=downlink.context, trust=downlink.trust)
        inside = self._form in IN_PROPERTIES
        elsewhere = not inside and self._form is not ContextForm.NONE
        return DownlinkRecipe(topic, qos, retain, self._form, inside, elsewhere, spans)


def queue_hop(operation: str, downlink: Downlink, cluster: Peer) -> Hop:
    """What is done with messages of a downlink's RocketMQ topic."""
    return Hop(
        operation=operation,
        system="rocketmq",
        destination=downlink.topic,
        peer=cluster,
        extra={"messaging.consumer.group.name": downlink.group},
    )


def _read_all(reads: Sequence[Read]) -> Callable[[Message], _Said]:
    """What all fields read: most templates have one."""
    if len(reads) == 1:
        return reads[0]
    return lambda message: tuple([read(message) for read in reads])


def _read(field: Field) -> Read:
    """What of a message decides about a field's text."""
    name = field.name
    match field.kind:
        case "property":
            return lambda message: message.properties.get(name)
        case "tag":
            return lambda message: message.tag
        case "key":
            return lambda message: message.keys[0] if message.keys else None
        case "keys":
            return lambda message: " ".join(message.keys)
        case "message_group":
            return lambda message: message.group
        case _:
            return lambda message: message.topic
