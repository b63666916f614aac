"""OpenTelemetry instrumentation of paho-mqtt 2, and of aiomqtt, which sits on it.

Without a change to the program::

    opentelemetry-instrument python device.py

By hand, for all clients or for one::

    PahoInstrumentor().instrument()
    PahoInstrumentor().instrument_client(client)

A ``send`` span lasts from ``publish`` to what the QoS promises: the socket (0), PUBACK (1) or PUBCOMP (2). A
``process`` span is around ``on_message`` and filtered callbacks, as child of the sender's span. Loops over aiomqtt's
messages have a ``process`` span a message. Options and environment variables: docs/instrumentation-paho.md.
"""

from __future__ import annotations

import atexit
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import paho.mqtt.client as mqtt

from spanbridge_instrumentation._shared.instrumentor import ClientInstrumentor, own_version
from spanbridge_instrumentation._shared.patching import Patches
from spanbridge_instrumentation._shared.safety import LOG
from spanbridge_instrumentation._shared.telemetry import Telemetry

from . import consuming, looping, publishing
from .active import PahoInstrumentation, anything_instrumented, clear, forget_single, set_everywhere, set_single
from .options import read_options
from .package import _instruments_any
from .pending import PENDING

__all__ = ["PahoInstrumentor"]

_SCOPE: Final = "spanbridge_instrumentation.paho"


class PahoInstrumentor(ClientInstrumentor):
    """Instruments every paho-mqtt client of the process (:meth:`instrument`), or one (:meth:`instrument_client`).

    Keywords of both: ``tracer_provider``, ``meter_provider``, ``publish_hook``, ``ack_hook``, ``consume_hook``,
    ``topic_template`` (a function), ``topic_templates`` (filters), ``context_format``, ``v311_carrier``,
    ``ack_timeout``, ``loop_spans``.
    """

    library = "paho-mqtt"

    def instrumentation_dependencies(self) -> Collection[str]:
        return _instruments_any

    def _anything(self) -> bool:
        return anything_instrumented()

    def instrument_client(self, client: Any, **kwargs: Any) -> None:
        """Instrument one paho or aiomqtt client, made before or after; once more only changes its options.

        :raises ValueError: an option has a value that is not allowed.
        :raises TypeError: it is no such client.
        """
        if self._supported():
            found, instrumentation = _paho_client(client), _instrumentation(kwargs)
            _patch()
            set_single(found, instrumentation)

    def uninstrument_client(self, client: Any) -> None:
        """Leave this client alone, also while all others are instrumented, until ``instrument_client`` is called."""
        set_single(_paho_client(client), None)
        _unpatch()

    def reset_client(self, client: Any) -> None:
        """Treat this client as all others again."""
        forget_single(_paho_client(client))
        _unpatch()

    def _instrument(self, **kwargs: Any) -> None:
        if self._supported():
            instrumentation = _instrumentation(kwargs)
            _patch()
            set_everywhere(instrumentation)

    def _uninstrument(self, **kwargs: Any) -> None:
        clear()
        _unpatch()


_CALLS: Final = (
    (mqtt.Client, "publish", publishing.replace_publish),
    (mqtt.Client, "_handle_on_message", consuming.replace_handle_on_message),
    (mqtt.Client, "subscribe", consuming.replace_subscribe),
    (mqtt.Client, "message_callback_add", consuming.replace_message_callback_add),
)
_ENDINGS: Final = (
    (mqtt.Client, "_do_on_publish", publishing.replace_do_on_publish),
    (mqtt.Client, "_do_on_disconnect", publishing.replace_do_on_disconnect),
    (mqtt.Client, "drop_out_messages", publishing.replace_drop_out_messages),
    (mqtt.MQTTMessageInfo, "_set_as_published", publishing.replace_set_as_published),
)
_OPTIONAL: Final = frozenset({"drop_out_messages"})  # new in paho-mqtt 2.2

_calls = Patches()
_endings = Patches()


def _patch() -> None:
    consuming.register_handlers()
    for patches, replacements in ((_endings, _ENDINGS), (_calls, (*_CALLS, *_loops()))):
        for owner, name, make in replacements:
            if not patches.replace(owner, name, make) and name not in _OPTIONAL:
                LOG.warning("paho-mqtt %s has no %s.%s: spans will be incomplete", mqtt_version(), owner.__name__, name)
    # The SDK registered its own when it was configured, which was before: so this runs first and what ends is exported.
    atexit.unregister(PENDING.give_up_all)
    atexit.register(PENDING.give_up_all)


def _loops() -> tuple[tuple[type, str, Any], ...]:
    """aiomqtt need not be installed; before 2.1 its messages come from a generator, which is left alone."""
    try:
        from aiomqtt.client import MessagesIterator  # noqa: PLC0415
    except ImportError:
        return ()
    return ((MessagesIterator, "__aiter__", looping.replace_aiter),)


def _unpatch() -> None:
    if anything_instrumented():
        return
    _calls.undo()
    PENDING.give_up_gone()
    # Publishes under way still end with their acknowledgement; what hears of it costs nothing worth mentioning.
    if not PENDING:
        _endings.undo()


def mqtt_version() -> str:
    """The installed version of paho-mqtt, or ``unknown``."""
    try:
        return version("paho-mqtt")
    except PackageNotFoundError:
        return "unknown"


def _instrumentation(kwargs: dict[str, Any]) -> PahoInstrumentation:
    providers = {name: kwargs.get(name) for name in ("tracer_provider", "meter_provider")}
    options = {name: value for name, value in kwargs.items() if name not in providers}
    return PahoInstrumentation(Telemetry(_SCOPE, own_version(), **providers), read_options(**options))


def _paho_client(client: Any) -> Any:
    """aiomqtt keeps its paho client in ``_client``."""
    found = client if isinstance(client, mqtt.Client) else getattr(client, "_client", None)
    if not isinstance(found, mqtt.Client):
        raise TypeError(f"neither a paho-mqtt nor an aiomqtt client: {type(client).__name__}")
    return found
