"""Messages that arrive: the ``process`` span around the application's callbacks, or what ``process(message)`` needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.util.types import AttributeValue
from paho.mqtt.client import MQTTMessage

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.delivery import Delivery, Details
from spanbridge_instrumentation._shared.handlers import register, register_name
from spanbridge_instrumentation._shared.processing import Processing
from spanbridge_instrumentation._shared.safety import internal_error

from .active import (
    NOWHERE,
    PahoClientState,
    PahoInstrumentation,
    client_id_of,
    instrumentation_of,
    instrumentation_of_message,
    speaks_v5,
    state_of,
)
from .carriers import read, restore_v311
from .publishing import QOS, RETAIN, Original, correlation
from .templates import filters_of

DUP: Final = "messaging.mqtt.dup"
PROBLEM: Final = "spanbridge.context.problem"
_HELPERS: Final = "paho.mqtt.subscribe"
_KINDS: Final[dict[type, bool]] = {}
_MOST_KINDS: Final = 64


def replace_handle_on_message(original: Original) -> Original:
    """Where paho hands one message to its callbacks: one span, however many filtered callbacks match.

    The one place that sees every way of giving a callback: the property, the decorators, ``message_callback_add``, and
    subclasses that override ``on_message``; also those given before the instrumentation came.
    """

    def handle_on_message(client: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        ambient = get_current()
        instrumentation = instrumentation_of(client, ambient)
        processing = None if instrumentation is None else _begin(instrumentation, client, message, ambient)
        if processing is None:
            return original(client, message, *args, **kwargs)
        processing.start()
        restore = _watch_suppressed(client, processing) if client.suppress_exceptions else None
        try:
            return original(client, message, *args, **kwargs)
        except BaseException as error:
            processing.fail(error)
            raise
        finally:
            if restore is not None:
                restore()
            processing.end()

    return handle_on_message


def replace_subscribe(original: Original) -> Original:
    """``Client.subscribe``: its filters are the templates of what arrives."""

    def subscribe(client: Any, topic: Any, *args: Any, **kwargs: Any) -> Any:
        _learn(client, topic)
        return original(client, topic, *args, **kwargs)

    return subscribe


def replace_message_callback_add(original: Original) -> Original:
    """``Client.message_callback_add``: as with subscriptions."""

    def message_callback_add(client: Any, sub: Any, *args: Any, **kwargs: Any) -> Any:
        _learn(client, sub)
        return original(client, sub, *args, **kwargs)

    return message_callback_add


def describe_paho(message: Any, ambient: Context) -> Delivery | None:
    """What ``process(message)`` needs of a paho message that was handed on from its callback."""
    instrumentation = instrumentation_of_message()
    if instrumentation is None:
        return None
    return delivery(instrumentation, NOWHERE, message, _topic(message), ambient)


def describe_aiomqtt(message: Any, ambient: Context) -> Delivery | None:
    """The same of an aiomqtt message, whose topic is an object around the text."""
    instrumentation = instrumentation_of_message()
    if instrumentation is None:
        return None
    return delivery(instrumentation, NOWHERE, message, message.topic.value, ambient)


def register_handlers() -> None:
    """Tell ``process`` of the message classes; aiomqtt need not be installed."""
    register(MQTTMessage, describe_paho)
    register_name("aiomqtt.message.Message", describe_aiomqtt)


def _begin(instrumentation: PahoInstrumentation, client: Any, message: Any, ambient: Context) -> Processing | None:
    """The processing of one message by callbacks; None when there are none, or they only put it by."""
    try:
        options = instrumentation.options
        if options.v311_carrier != "none" and not speaks_v5(client):
            restore_v311(message, options.v311_carrier)
        topic = _topic(message)
        callback = client.on_message
        if callback is None and not _has_filtered_callback(client, topic):
            return None
        state = state_of(client)
        state.identify(client)
        if callback is not None and _puts_by(client, callback):
            # The application pulls: its loop makes the span, or it says process(message). The delivery is counted here.
            instrumentation.telemetry.consumed(1, state.destination(instrumentation, "receive", topic).labels)
            return None
        found = delivery(instrumentation, state, message, topic, ambient)
        instrumentation.telemetry.consumed(1, found.destination.labels)
        return Processing((message,), (found,))
    except Exception:  # noqa: BLE001  the message is delivered
        internal_error("a received message")
        return None


def delivery(
    instrumentation: PahoInstrumentation, state: PahoClientState, message: Any, topic: str | None, ambient: Context
) -> Delivery:
    """What is said of a message that is about to be processed, in the current context, which is given."""
    options = instrumentation.options
    found = read(topic or "", message.properties, ambient, options.context_format)
    hook = options.consume_hook
    return Delivery(
        instrumentation.telemetry,
        state.destination(instrumentation, "process", topic),
        found.context,
        partial(_details, message, topic, found.problem),
        ambient=ambient,
        creation=found.span,
        hook=None if hook is None else lambda span: hook(span, message),
        delay=_waited(message),
    )


def _details(message: Any, topic: str | None, problem: str | None) -> Details:
    attributes: dict[str, AttributeValue] = {
        QOS: message.qos,
        RETAIN: bool(message.retain),
        DUP: bool(getattr(message, "dup", False)),
        semconv.BODY_SIZE: len(message.payload),
    }
    conversation = correlation(message.properties)
    if conversation is not None:
        attributes[semconv.CONVERSATION_ID] = conversation
    if problem is not None:
        attributes[PROBLEM] = problem
    return Details(attributes, {} if topic is None else {semconv.DESTINATION_NAME: str(topic)})


def _waited(message: Any) -> float | None:
    """Seconds since paho read the message: what it waited in the application's own queues. MQTT has no time of sending.

    aiomqtt's messages do not say.
    """
    arrived = getattr(message, "timestamp", None)
    return monotonic() - arrived if isinstance(arrived, float) and arrived else None


def _topic(message: Any) -> str | None:
    """The topic, None when it is not UTF-8: paho hands such messages to ``on_message`` all the same."""
    try:
        topic: str = message.topic
    except UnicodeDecodeError:
        return None
    return topic


def _has_filtered_callback(client: Any, topic: str | None) -> bool:
    filtered = getattr(client, "_on_message_filtered", None)
    return topic is not None and filtered is not None and next(iter(filtered.iter_match(topic)), None) is not None


def _puts_by(client: Any, callback: Any) -> bool:
    """Whether the callback is a library's that keeps the message for the application: aiomqtt's, which puts it into a
    queue, or that of ``paho.mqtt.subscribe.simple``, which returns it.
    """
    owner = getattr(callback, "__self__", None)
    if owner is not None:
        return _is_aiomqtt(type(owner))
    if getattr(callback, "__module__", None) != _HELPERS:
        return False
    return getattr(client.user_data_get()["callback"], "__module__", None) == _HELPERS


def _is_aiomqtt(kind: type) -> bool:
    found = _KINDS.get(kind)
    if found is None:
        if len(_KINDS) >= _MOST_KINDS:
            _KINDS.clear()
        found = _KINDS[kind] = any(base.__module__.startswith("aiomqtt.") for base in kind.__mro__)
    return found


def _watch_suppressed(client: Any, processing: Processing) -> Callable[[], None]:
    """With ``suppress_exceptions`` paho logs what a callback raises and goes on: read it from that log call."""
    log = client._easy_log

    def easy_log(level: Any, fmt: str, *args: Any) -> None:
        for each in args:
            if isinstance(each, Exception):
                processing.fail(each)
        log(level, fmt, *args)

    client.__dict__["_easy_log"] = easy_log
    return lambda: client.__dict__.pop("_easy_log", None)


def _learn(client: Any, subscription: object) -> None:
    try:
        instrumentation = instrumentation_of(client, get_current())
        if instrumentation is not None:
            client_id = client_id_of(client)
            if client_id is not None:
                instrumentation.options.templates.know(client_id)
            for each in filters_of(subscription):
                instrumentation.options.templates.learn(each)
    except Exception:  # noqa: BLE001  the subscription is made
        internal_error("a subscription")
