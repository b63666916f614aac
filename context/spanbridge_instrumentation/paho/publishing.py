"""``Client.publish``: the ``send`` span, and the context in the message."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, get_current_span, set_span_in_context
from paho.mqtt.properties import Properties

from spanbridge_context import extract_user_properties, inject_user_properties
from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.context import given_context, outgoing
from spanbridge_instrumentation._shared.safety import call_hook, internal_error

from .active import PahoClientState, PahoInstrumentation, client_id_of, instrumentation_of, speaks_v5, state_of
from .carriers import user_properties, with_user_properties, written_by_propagator, written_v311
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
        current = get_current()
        instrumentation = instrumentation_of(client, current)
        if instrumentation is None:
            return original(client, topic, payload, qos, retain, properties, *args, **kwargs)
        message = topic, payload, qos, retain, properties
        sending, (topic, payload, properties) = _begin(instrumentation, client, message, current)
        try:
            info = original(client, topic, payload, qos, retain, properties, *args, **kwargs)
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
            if id(info) in PENDING.open:  # of QoS 0 it is not yet, as a rule
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


def _begin(
    instrumentation: PahoInstrumentation, client: Any, message: Message, parent: Context
) -> tuple[Publish | None, Changed]:
    """The publish that begins, and topic, payload and properties to hand to paho. Never raises."""
    topic, payload, _, _, properties = message
    sending = None
    try:
        v5 = speaks_v5(client)
        custom = _custom_context(properties, parent) if v5 and properties is not None else None
        if custom is not None and not get_current_span(parent).get_span_context().is_valid:
            parent = custom[1]
        link = None if custom is None else custom[0]
        # PRODUCER only where it is the creation context (messaging spans convention, "Span kind").
        creates = link is None and (v5 or instrumentation.options.v311_carrier != "none")
        kind = SpanKind.PRODUCER if creates else SpanKind.CLIENT
        sending = _start(instrumentation, client, message, parent, link, kind)
        if creates:
            return sending, _inject(instrumentation.options, message, sending.span, parent, v5)
    except Exception:  # noqa: BLE001  the message goes as it is
        internal_error("start of a send span")
    return sending, (topic, payload, properties)


def _custom_context(properties: Properties, parent: Context) -> tuple[SpanContext, Context] | None:
    pairs = user_properties(properties)
    return given_context(extract_user_properties(pairs).context, parent) if pairs else None


def _start(  # noqa: PLR0917  what a publish is
    instrumentation: PahoInstrumentation,
    client: Any,
    message: Message,
    parent: Context,
    link: SpanContext | None,
    kind: SpanKind,
) -> Publish:
    """Everything is said at the span's start, which costs least where it is recorded."""
    topic, payload, qos, retain, properties = message
    options = instrumentation.options
    state = _prepared_state(client, options)
    destination = state.destination(instrumentation, "send", topic if isinstance(topic, str) and topic else None)
    attributes = {**destination.attributes, QOS: qos, RETAIN: bool(retain)}
    size = len(payload) if type(payload) is bytes else _size(payload)
    if size is not None:
        attributes[semconv.BODY_SIZE] = size
    if properties is not None:
        conversation = correlation(properties)
        if conversation is not None:
            attributes[semconv.CONVERSATION_ID] = conversation
    links = () if link is None else (Link(link),)
    span = instrumentation.telemetry.tracer.start_span(destination.name, parent, kind, attributes, links)
    recorded = span.is_recording()
    if recorded and options.publish_hook is not None:
        call_hook("a publish hook", options.publish_hook, span, topic, payload, properties)
    return Publish(instrumentation, state, span, destination.labels, recorded)


def _inject(options: PahoOptions, message: Message, sending: Span, parent: Context, v5: bool) -> Changed:
    topic, payload, _, retain, properties = message
    span = sending.get_span_context()
    if not span.is_valid:
        return topic, payload, properties
    context = outgoing(span, parent)
    if not v5:
        if isinstance(topic, str):
            topic, payload = written_v311(topic, payload, retain, context, options.v311_carrier)
    elif properties is None or isinstance(properties, Properties):
        form = options.context_format
        if form == "propagator":
            properties = written_by_propagator(properties, context, set_span_in_context(sending, parent))
        else:
            pairs = user_properties(properties) if properties is not None else []
            properties = with_user_properties(properties, inject_user_properties(pairs, context, form))
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
        return len(payload) if payload.isascii() else len(payload.encode())
    return len(payload) if isinstance(payload, bytes | bytearray) else len(str(payload))
