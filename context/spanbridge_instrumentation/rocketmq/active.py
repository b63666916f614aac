"""Which clients are instrumented, and by what: everything that the replaced methods ask before they do anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.util.types import AttributeValue

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.clients import Clients
from spanbridge_instrumentation._shared.current import enabled
from spanbridge_instrumentation._shared.delivery import Attributes, Destination
from spanbridge_instrumentation._shared.inflight import InFlight
from spanbridge_instrumentation._shared.registry import MessageRegistry
from spanbridge_instrumentation._shared.safety import internal_error
from spanbridge_instrumentation._shared.telemetry import Telemetry

from .options import RocketMQOptions

if TYPE_CHECKING:
    from .carriers import Brought
    from .operations import Operation

SYSTEM: Final = "rocketmq"
NAMESPACE: Final = "messaging.rocketmq.namespace"
CONSUMPTION_MODEL: Final = "messaging.rocketmq.consumption_model"
_KEY: Final = "_spanbridge_instrumentation"
_MAX_LABELS: Final = 512

Labels = dict[str, AttributeValue]


@dataclass(slots=True)
class RocketMQInstrumentation:
    """One ``instrument()`` call: where its spans and metrics go, and its options."""

    telemetry: Telemetry
    options: RocketMQOptions


class RocketMQClientState:
    """What we keep of one client, on the client: it lives as long as that. Never refers to the client."""

    __slots__ = (
        "__weakref__",
        "_destinations",
        "_group",
        "_server",
        "details",
        "disabled",
        "own",
        "recorded",
        "unanswered",
    )

    def __init__(self) -> None:
        self.own: RocketMQInstrumentation | None = None
        self.disabled = False
        self.details: Labels = {}
        self.unanswered: set[Operation] = set()
        self.recorded = True  # whether the last span of a message sent was
        self._server: Labels = {}
        self._group: str | None = None
        self._destinations: dict[tuple[str, str | None], Destination] = {}

    def identify(self, client: Any) -> None:
        """Read what spans say of the client, by its public properties. Never raises."""
        try:
            configuration = client.client_configuration
            address = next(iter(configuration.rpc_endpoints.endpoints.addresses), None)
            if address is not None:
                self._server = {semconv.SERVER_ADDRESS: address.host, semconv.SERVER_PORT: address.port}
            self._group = getattr(client, "consumer_group", None)
            details: Labels = {semconv.CLIENT_ID: client.client_id}
            if configuration.namespace:
                details[NAMESPACE] = configuration.namespace
            self.details = details
        except Exception:  # noqa: BLE001  spans say less, then
            internal_error("reading a client's configuration")
        self._destinations = {}

    def destination(self, operation: str, kind: str | None, topic: str | None) -> Destination:
        """What is said of a topic, as far as the operation and the client fix it.

        Topics are made by an administrator and few, which is why they may be labels.
        """
        found = self._destinations.get((operation, topic))
        if found is None:
            if len(self._destinations) >= _MAX_LABELS:
                self._destinations = {}
            found = self._destinations[operation, topic] = self._make(operation, kind, topic)
        return found

    def _make(self, operation: str, kind: str | None, topic: str | None) -> Destination:
        labels: Labels = {semconv.SYSTEM: SYSTEM, semconv.OPERATION_NAME: operation}
        if kind is not None:
            labels[semconv.OPERATION_TYPE] = kind
        if topic:
            labels[semconv.DESTINATION_NAME] = topic
        if self._group:
            labels[semconv.CONSUMER_GROUP] = self._group
        labels.update(self._server)
        attributes = {**labels, **self.details}
        if operation == "process":
            attributes[CONSUMPTION_MODEL] = "clustering"  # what RocketMQ 5's clients have, and no other
        return Destination(f"{operation} {topic}" if topic else operation, labels, attributes, since="born")


class Received:
    """Where a message came from: the consumer that received it.

    Of a poll also: its ``receive`` span, if that was sampled; what the message brought; what a link to it says.
    """

    __slots__ = ("_in_flight", "_token", "brought", "link", "span", "state")

    def __init__(
        self,
        state: RocketMQClientState,
        span: SpanContext | None = None,
        brought: Brought | None = None,
        link: Labels | None = None,
    ) -> None:
        self.state = state
        self.span = span
        self.brought = brought
        self.link = link
        self._in_flight: InFlight | None = None

    def hold(self, in_flight: InFlight, labels: Attributes) -> None:
        """The message is in flight, until :meth:`settle` or until the application has let go of the object."""
        self._token = in_flight.add(labels)
        self._in_flight = in_flight

    def settle(self) -> None:
        """The message was acknowledged, or is gone. Does nothing the second time."""
        if self._in_flight is not None:
            self._in_flight.remove(self._token)


RECEIVED: Final[MessageRegistry[Received]] = MessageRegistry(gone=Received.settle)
"""Where messages came from."""

NOBODY: Final = RocketMQClientState()
"""Stands for the client of messages that were received while nothing was instrumented."""


def instrumentation_of(client: Any, current: Context) -> RocketMQInstrumentation | None:
    """What instruments the client; None when nothing does or instrumentation is suppressed in the current context."""
    state = client.__dict__.get(_KEY)
    return instrumentation_of_state(NOBODY if state is None else state, current)


def instrumentation_of_state(state: RocketMQClientState, current: Context) -> RocketMQInstrumentation | None:
    """The same by the client's state."""
    found = _active.everywhere
    if state.disabled:
        return None
    if state.own is not None:
        found = state.own
    return found if found is not None and (not current or enabled(current)) else None


def state_of(client: Any) -> RocketMQClientState:
    """The client's state, made when there is none yet."""
    state = client.__dict__.get(_KEY)
    if state is None:
        state = RocketMQClientState()
        state.identify(client)
        state = client.__dict__.setdefault(_KEY, state)
    found: RocketMQClientState = state
    return found


def new_state(client: Any) -> RocketMQClientState:
    """A state for a client that is being made, to be identified when it is complete."""
    state = RocketMQClientState()
    found: RocketMQClientState = client.__dict__.setdefault(_KEY, state)
    return found


_active: Final[Clients[RocketMQInstrumentation]] = Clients(state_of)

set_everywhere = _active.set_everywhere
clear = _active.clear
set_single = _active.set_single
forget_single = _active.forget_single
any_instrumentation = _active.any
