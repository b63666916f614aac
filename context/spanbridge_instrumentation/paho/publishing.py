"""``Client.publish``: the ``send`` span, and the context in the message."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, SpanContext, SpanKind, get_current_span, set_span_in_context
from opentelemetry.util.types import AttributeValue
from paho.mqtt.properties import Properties

from spanbridge_context import extract_user_properties
from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.context import given_context, outgoing
from spanbridge_instrumentation._shared.safety import call_hook, internal_error

from .active import PahoClientState, PahoInstrumentation, client_id_of, instrumentation_of, speaks_v5, state_of
from .carriers import user_properties, written, written_v311
from .options import PahoOptions
from .pending import DISCONNECTED, DROPPED, PENDING, Publish

QOS: Final = "messaging.mqtt.qos"
RETAIN: Final = "messaging.mqtt.retain"

Original = Callable[..., Any]


def replace_publish(original: Original) -> Original:
    """``Client.publish``, also as subclasses, aiomqtt and ``paho.mqtt.publish`` call it."""

    def publish(  # noqa: PLR0917  paho's own signature
        client: Any,
        topic: Any,
        payload: Any = None,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        instrumentation = instrumentation_of(client)
        if instrumentation is None:
            return original(client, topic, payload, qos, retain, properties, *args, **kwargs)
        sending, message = _begin(instrumentation, client, (topic, payload, qos, retain, properties))
        try:
            info = original(client, message[0], message[1], qos, retain, message[2], *args, **kwargs)
        except BaseException as error:
            if sending is not None:
                sending.raised(error)
            raise
        if sending is not None:
            try:
                PENDING.wait(sending, info)
            except Exception:  # noqa: BLE001  the message is on its way
                internal_error("waiting for an acknowledgement")
        return info

    return publish


def replace_do_on_publish(original: Original) -> Original:
    """Where paho hears of a PUBACK or PUBCOMP, whether or not there is an ``on_publish`` to tell of it."""

    def do_on_publish(client: Any, mid: int, reason_code: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            message = client._out_messages.get(mid)
            if message is not None:
                PENDING.acknowledged(message.info, reason_code)
        except Exception:  # noqa: BLE001
            internal_error("an acknowledgement")
        return original(client, mid, reason_code, *args, **kwargs)

    return do_on_publish


def replace_set_as_published(original: Original) -> Original:
    """Where paho marks a QoS 0 message as written to the socket, or as lost at a reconnect."""

    def set_as_published(info: Any) -> Any:
        result = original(info)
        try:
            PENDING.published(info)
        except Exception:  # noqa: BLE001
            internal_error("the end of a publish")
        return result

    return set_as_published


def replace_do_on_disconnect(original: Original) -> Original:
    """When the application disconnects, what is unacknowledged stays so. After a loss paho sends it again."""

    def do_on_disconnect(client: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            from_broker = kwargs.get("packet_from_broker", args[0] if args else False)
            code = kwargs.get("v1_rc", args[1] if len(args) > 1 else None)
            if len(PENDING) and not from_broker and code == 0:
                PENDING.give_up_client(state_of(client), DISCONNECTED)
        except Exception:  # noqa: BLE001
            internal_error("a disconnect")
        return original(client, *args, **kwargs)

    return do_on_disconnect


def replace_drop_out_messages(original: Original) -> Original:
    """``Client.drop_out_messages`` (paho 2.2): the application gave these messages up."""

    def drop_out_messages(client: Any, *args: Any, **kwargs: Any) -> Any:
        dropped = original(client, *args, **kwargs)
        try:
            PENDING.give_up([message.info for message in dropped], DROPPED)
        except Exception:  # noqa: BLE001
            internal_error("dropped messages")
        return dropped

    return drop_out_messages


Message = tuple[Any, Any, int, bool, Properties | None]
Changed = tuple[Any, Any, Properties | None]


def _begin(instrumentation: PahoInstrumentation, client: Any, message: Message) -> tuple[Publish | None, Changed]:
    """The publish that begins, and topic, payload and properties to hand to paho. Never raises."""
    topic, payload, _, _, properties = message
    sending = None
    try:
        parent = get_current()
        custom = _custom_context(client, properties, parent)
        if custom is not None and not get_current_span(parent).get_span_context().is_valid:
            parent = custom[1]
        sending = _start(instrumentation, client, message, parent, None if custom is None else custom[0])
        if custom is not None:
            return sending, (topic, payload, properties)
        return sending, _inject(instrumentation, client, message, sending, parent)
    except Exception:  # noqa: BLE001  the message goes as it is
        internal_error("start of a send span")
        return sending, (topic, payload, properties)


def _custom_context(client: Any, properties: Properties | None, parent: Context) -> tuple[SpanContext, Context] | None:
    if not speaks_v5(client):
        return None
    pairs = user_properties(properties)
    return given_context(extract_user_properties(pairs).context, parent) if pairs else None


def _start(
    instrumentation: PahoInstrumentation, client: Any, message: Message, parent: Context, link: SpanContext | None
) -> Publish:
    topic, payload, _, _, properties = message
    options = instrumentation.options
    state = _prepared_state(client, options)
    named = isinstance(topic, str) and topic != ""
    destination = state.destination(instrumentation, "send", topic if named else None)
    # PRODUCER only where it is the creation context (messaging spans convention, "Span kind").
    creates = link is None and (options.v311_carrier != "none" or speaks_v5(client))
    span = instrumentation.telemetry.tracer.start_span(
        destination.name,
        parent,
        SpanKind.PRODUCER if creates else SpanKind.CLIENT,
        destination.attributes,
        links=() if link is None else (Link(link),),
    )
    if span.is_recording():
        span.set_attributes(_details(message))
        if options.publish_hook is not None:
            call_hook("a publish hook", options.publish_hook, span, topic, payload, properties)
    return Publish(instrumentation, state, span, destination.labels)


def _inject(
    instrumentation: PahoInstrumentation, client: Any, message: Message, sending: Publish, parent: Context
) -> Changed:
    topic, payload, _, retain, properties = message
    span = sending.span.get_span_context()
    if not span.is_valid:
        return topic, payload, properties
    options = instrumentation.options
    if speaks_v5(client):
        if properties is not None and not isinstance(properties, Properties):
            return topic, payload, properties
        context = outgoing(span, parent)
        form = options.context_format
        return topic, payload, written(properties, context, set_span_in_context(sending.span, parent), form)
    if options.v311_carrier != "none" and isinstance(topic, str):
        topic, payload = written_v311(topic, payload, retain, outgoing(span, parent), options.v311_carrier)
    return topic, payload, properties


def _prepared_state(client: Any, options: PahoOptions) -> PahoClientState:
    state = state_of(client)
    if not state.watched:
        state.watched = True
        # Nobody is left to hear of an acknowledgement once the client is gone.
        weakref.finalize(client, PENDING.client_gone, state).atexit = False
        client_id = client_id_of(client)
        if client_id is not None:
            options.templates.know(client_id)
    state.identify(client)
    return state


def _details(message: Message) -> dict[str, AttributeValue]:
    _, payload, qos, retain, properties = message
    details: dict[str, AttributeValue] = {QOS: qos, RETAIN: bool(retain)}
    size = _size(payload)
    if size is not None:
        details[semconv.BODY_SIZE] = size
    conversation = correlation(properties)
    if conversation is not None:
        details[semconv.CONVERSATION_ID] = conversation
    return details


def correlation(properties: Any) -> str | None:
    """MQTT's correlation data as a conversation id, when it is text."""
    data = getattr(properties, "CorrelationData", None)
    if not isinstance(data, bytes):
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.hex()


def _size(payload: Any) -> int | None:
    if payload is None:
        return 0
    if isinstance(payload, str):
        return len(payload.encode())
    return len(payload) if isinstance(payload, bytes | bytearray) else len(str(payload))
