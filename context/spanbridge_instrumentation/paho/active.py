"""Which clients are instrumented, and by what: everything that the replaced methods ask before they do anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.util.types import AttributeValue
from paho.mqtt.client import MQTTv5

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.clients import Clients
from spanbridge_instrumentation._shared.telemetry import Telemetry

from .options import PahoOptions

SYSTEM: Final = "mqtt"
_KEY: Final = "_spanbridge_instrumentation"
_MAX_LABELS: Final = 512

Labels = dict[str, AttributeValue]


@dataclass(slots=True)
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

    __slots__ = ("__weakref__", "client_id", "disabled", "own", "watched")

    def __init__(self) -> None:
        self.own: PahoInstrumentation | None = None
        self.disabled = False
        self.client_id: str | None = None
        self.watched = False


def instrumentation_of(client: Any) -> PahoInstrumentation | None:
    """What instruments the client; None when nothing does or instrumentation is suppressed in this context."""
    state = client.__dict__.get(_KEY)
    found = _active.everywhere
    if state is not None and (state.disabled or state.own is not None):
        found = None if state.disabled else state.own
    return found if found is not None and is_instrumentation_enabled() else None


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
