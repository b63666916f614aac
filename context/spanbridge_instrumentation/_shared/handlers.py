"""Which instrumentor knows what to say of a message that user code wants to process."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from opentelemetry.context import Context

from .delivery import Delivery
from .safety import internal_error, warn_once

Handler = Callable[[Any, Context], Delivery | None]
"""Describes one message in the current context, which is given; None while its instrumentor is not active."""

_handlers: dict[type, Handler] = {}
_named: dict[str, Handler] = {}

# A message's class names the library it comes from; the instrumentor registers its handlers when it is imported.
_KNOWN: Final = {
    "paho": "spanbridge_instrumentation.paho",
    "aiomqtt": "spanbridge_instrumentation.paho",
    "rocketmq": "spanbridge_instrumentation.rocketmq",
}


def register(message_type: type, handler: Handler) -> None:
    """Let ``handler`` describe messages of ``message_type`` and its subclasses."""
    _handlers[message_type] = handler


def register_name(qualified: str, handler: Handler) -> None:
    """As :func:`register`, by the class's ``module.qualname``, for a library that is not to be imported for it."""
    _named[qualified] = handler


def describe(message: object, ambient: Context) -> Delivery | None:
    """What the message's instrumentor says of it; None when there is none, it is not active, or it failed."""
    handler = _handlers.get(type(message)) or _handler_of(type(message))
    if handler is None:
        kind = type(message)
        warn_once(
            f"process:{kind.__module__}.{kind.__qualname__}",
            "process() knows no message of type %s.%s; it makes no span for it",
            kind.__module__,
            kind.__qualname__,
        )
        return None
    try:
        return handler(message, ambient)
    except Exception:  # noqa: BLE001
        internal_error("reading a message's context")
        return None


def _handler_of(kind: type) -> Handler | None:
    found = _registered(kind)
    if found is not None:
        return found
    for base in kind.__mro__:
        module = _KNOWN.get(base.__module__.partition(".")[0])
        if module is not None:
            try:
                import_module(module)
            except ImportError:
                internal_error(f"importing {module}")
    return _registered(kind)


def _registered(kind: type) -> Handler | None:
    for base in kind.__mro__:
        handler = _handlers.get(base) or _named.get(f"{base.__module__}.{base.__qualname__}")
        if handler is not None:
            return handler
    return None
