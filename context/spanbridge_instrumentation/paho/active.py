"""Which clients are instrumented, and by what: everything that the replaced methods ask before they do anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.util.types import AttributeValue
from paho.mqtt.client import MQTTv5

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.clients import Clients
from spanbridge_instrumentation._shared.current import enabled
from spanbridge_instrumentation._shared.delivery import Destination
from spanbridge_instrumentation._shared.telemetry import Telemetry

from .options import PahoOptions

SYSTEM: Final = "mqtt"
_KEY: Final = "_spanbridge_instrumentation"
_MAX_LABELS: Final = 512
_MAX_DESTINATIONS: Final = 1024

Labels = dict[str, AttributeValue]


@dataclass(slots=True, eq=False)
class PahoInstrumentation:
    """One ``instrument()`` call: where its spans and metrics go, and its options."""

    telemetry: Telemetry
    options: PahoOptions
    _labels: dict[tuple[str, str, int, str | None], Labels] = field(default_factory=dict)

    def labels(self, operation: str, kind: str, host: str, port: int, template: str | None) -> Labels:
        """The metric labels, and first attributes of the span. Cached: not to be changed."""
        key = (operation, host, port, template)
        found = self._labels.get(key)
        if found is None:
            if len(self._labels) >= _MAX_LABELS:
                self._labels.clear()
            found = {
                semconv.SYSTEM: SYSTEM,
                semconv.OPERATION_NAME: operation,
                semconv.OPERATION_TYPE: kind,
            }
            if host:
                found[semconv.SERVER_ADDRESS] = host
                if port:
                    found[semconv.SERVER_PORT] = port
            if template is not None:
                found[semconv.DESTINATION_TEMPLATE] = template
            self._labels[key] = found
        return found


class PahoClientState:
    """What we keep of one client, on the client: it lives as long as that. Never refers to the client."""

    __slots__ = ("__weakref__", "_destinations", "_identity", "_port", "disabled", "own", "watched")

    def __init__(self) -> None:
        self.own: PahoInstrumentation | None = None
        self.disabled = False
        self.watched = False
        self._identity: tuple[str, int, str, bytes | None] = ("", 0, "", None)
        self._port = 0
        self._destinations: tuple[object, int, dict[tuple[str, str | None], Destination]] = (None, 0, {})

    def identify(self, client: Any) -> None:
        """Read where the client is connected, and as whom: it may be another broker since the last time."""
        # Not by its properties, which cost a call each.
        identity = (client._host, client._port, client._transport, client._client_id)
        if identity != self._identity:
            self._identity = identity
            self._port = port_of(client)
            self._destinations = (None, 0, {})

    def destination(self, instrumentation: PahoInstrumentation, operation: str, topic: str | None) -> Destination:
        """What is said of a topic (None: it has no name), as far as the operation and the client fix it."""
        templates = instrumentation.options.templates
        owner, generation, known = self._destinations
        if owner is not instrumentation or generation != templates.generation:
            known = {}
            self._destinations = (instrumentation, templates.generation, known)
        found = known.get((operation, topic))
        if found is None:
            if len(known) >= _MAX_DESTINATIONS:
                known.clear()
            found = known[operation, topic] = self._make(instrumentation, operation, topic)
        return found

    def _make(self, instrumentation: PahoInstrumentation, operation: str, topic: str | None) -> Destination:
        host, _, _, client_id = self._identity
        templates = instrumentation.options.templates
        if topic is None:
            template = None
        else:
            template = templates.of_sent(topic) if operation == "send" else templates.of_received(topic)
        labels = instrumentation.labels(operation, operation, host, self._port, template)
        attributes = dict(labels)
        if topic is not None:
            # str(): the topic may carry its context, which exporters need not know.
            attributes[semconv.DESTINATION_NAME] = str(topic)
        if client_id:
            attributes[semconv.CLIENT_ID] = client_id.decode(errors="replace")
        name = operation if template is None else f"{operation} {template}"
        return Destination(name, labels, attributes, since="received")


NOWHERE: Final = PahoClientState()
"""Stands for the client of messages that do not know theirs."""


def instrumentation_of(client: Any, current: Context) -> PahoInstrumentation | None:
    """What instruments the client; None when nothing does or instrumentation is suppressed in the current context."""
    state = client.__dict__.get(_KEY)
    found = _active.everywhere
    if state is not None and (state.disabled or state.own is not None):
        found = None if state.disabled else state.own
    return found if found is not None and (not current or enabled(current)) else None


def anything_instrumented() -> bool:
    """Whether any client is."""
    return instrumentation_of_message() is not None


def speaks_v5(client: Any) -> bool:
    """Whether the client's messages have properties. Not by ``Client.protocol``: in paho 2.0.0 it calls itself."""
    return bool(client._protocol == MQTTv5)


def port_of(client: Any) -> int:
    """The broker's port, 0 where there is none (Unix sockets)."""
    return 0 if client.transport == "unix" else int(client.port)


def client_id_of(client: Any) -> str | None:
    """The client's identifier, None while the broker has not given it one."""
    name = getattr(client, "_client_id", None)
    return name.decode(errors="replace") if isinstance(name, bytes) and name else None


def state_of(client: Any) -> PahoClientState:
    """The client's state, made when there is none yet."""
    state: PahoClientState | None = client.__dict__.get(_KEY)
    if state is None:
        state = client.__dict__.setdefault(_KEY, PahoClientState())
    return state


_active: Final[Clients[PahoInstrumentation]] = Clients(state_of)

set_everywhere = _active.set_everywhere
clear = _active.clear
set_single = _active.set_single
forget_single = _active.forget_single
instrumentation_of_message = _active.any
