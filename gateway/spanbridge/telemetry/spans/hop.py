"""One end of a message's way, as span names and attributes say it. The same for both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spanbridge.telemetry.direction import DESTINATION, TEMPLATE
from spanbridge.telemetry.peer import Peer

_TYPES = {"ack": "settle"}
"""Operation types where they are called otherwise than the operation."""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """What is done where: ``operation`` (receive, process, send, ack) at a ``destination`` of a messaging ``system``.

    ``template`` stands for destinations of high cardinality (raw MQTT topics): then the span is named by it.
    ``extra`` holds further attributes.
    """

    operation: str
    system: str
    destination: str
    template: str | None = None
    peer: Peer = field(default_factory=Peer)
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The span's name."""
        return f"{self.operation} {self.destination if self.template is None else self.template}"

    def attributes(self) -> dict[str, object]:
        """The attributes that all messages of this hop share."""
        found: dict[str, object] = {
            "messaging.system": self.system,
            "messaging.operation.name": self.operation,
            "messaging.operation.type": _TYPES.get(self.operation, self.operation),
        }
        if self.template is not None:
            found[TEMPLATE] = self.template
        found[DESTINATION] = self.destination
        return found | self.peer.attributes() | dict(self.extra)


def cut(attributes: dict[str, object], limit: int | None) -> dict[str, object]:
    """Attributes whose strings have ``limit`` characters at most (OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT)."""
    if limit is None:
        return attributes
    return {name: _cut(value, limit) for name, value in attributes.items()}


def _cut(value: object, limit: int) -> object:
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, (tuple, list)):
        return tuple(_cut(item, limit) for item in value)
    if isinstance(value, Mapping):
        return {name: _cut(item, limit) for name, item in value.items()}
    return value
