"""OpenTelemetry instrumentation of rocketmq-python-client 5, Apache's client for RocketMQ 5.

Without a change to the program::

    opentelemetry-instrument python consumer.py

By hand, for all clients or for one::

    RocketMQInstrumentor().instrument()
    RocketMQInstrumentor().instrument_client(producer)

A ``send`` span lasts until the broker's answer. Listeners of push consumers run in a ``process`` span, a child of the
sender's; ``receive`` makes one span with a link to each message, and a ``for`` statement over what it
brought a ``process`` span a message. Options, attributes and errors: docs/instrumentation-rocketmq.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

import rocketmq

from spanbridge_instrumentation._shared.handlers import register
from spanbridge_instrumentation._shared.instrumentor import ClientInstrumentor, own_version
from spanbridge_instrumentation._shared.loops import LoopSpans
from spanbridge_instrumentation._shared.patching import Patches
from spanbridge_instrumentation._shared.safety import LOG
from spanbridge_instrumentation._shared.telemetry import Telemetry

from . import consuming, listening, polling, producing
from .active import RocketMQInstrumentation, any_instrumentation, clear, forget_single, set_everywhere, set_single
from .operations import Original
from .options import RocketMQOptions
from .package import _instruments_any

__all__ = ["RocketMQInstrumentor"]

_SCOPE: Final = "spanbridge_instrumentation.rocketmq"
_CLIENTS: Final = (rocketmq.Producer, rocketmq.SimpleConsumer, rocketmq.PushConsumer)


class RocketMQInstrumentor(ClientInstrumentor):
    """Instruments every RocketMQ client of the process (:meth:`instrument`), or one (:meth:`instrument_client`).

    Keywords of both: ``tracer_provider``, ``meter_provider``, ``send_hook``, ``receipt_hook``, ``receive_hook``,
    ``consume_hook``, ``loop_spans``.
    """

    library = "rocketmq-python-client"

    def instrumentation_dependencies(self) -> Collection[str]:
        return _instruments_any

    def _anything(self) -> bool:
        return any_instrumentation() is not None

    def instrument_client(self, client: Any, **kwargs: Any) -> None:
        """Instrument one producer or consumer, made before or after; once more only changes its options.

        :raises TypeError: it is no such client, or a keyword is none of the options.
        """
        if self._supported():
            instrumentation = _instrumentation(kwargs)
            if not isinstance(client, _CLIENTS):
                raise TypeError(f"neither a producer nor a consumer of rocketmq-python-client: {type(client).__name__}")
            _patch()
            set_single(client, instrumentation)
            if isinstance(client, rocketmq.PushConsumer):
                listening.instrument_existing(client)

    def uninstrument_client(self, client: Any) -> None:
        """Leave this client alone, also while all others are instrumented, until ``instrument_client`` is called."""
        set_single(client, None)
        _unpatch()

    def reset_client(self, client: Any) -> None:
        """Treat this client as all others again."""
        forget_single(client)
        _unpatch()

    def _instrument(self, **kwargs: Any) -> None:
        if self._supported():
            instrumentation = _instrumentation(kwargs)
            _patch()
            set_everywhere(instrumentation)

    def _uninstrument(self, **kwargs: Any) -> None:
        clear()
        _unpatch()


# Public methods only: the client is different inside from release to release.
_REPLACEMENTS: Final[tuple[tuple[type, str, Callable[[Original], Original]], ...]] = (
    (rocketmq.Producer, "__init__", producing.replace_producer_init),
    (rocketmq.Producer, "send", producing.replace_send),
    (rocketmq.Producer, "send_async", producing.replace_send_async),
    (rocketmq.Producer, "shutdown", producing.replace_shutdown),
    (rocketmq.Producer, "recall_message", producing.replace_recall),
    (rocketmq.Producer, "recall_message_async", producing.replace_recall_async),
    (rocketmq.Transaction, "commit", producing.replace_commit),
    (rocketmq.Transaction, "rollback", producing.replace_rollback),
    (rocketmq.Message, "fromProtobuf", consuming.replace_from_protobuf),
    (rocketmq.SimpleConsumer, "receive", polling.replace_receive),
    (rocketmq.SimpleConsumer, "receive_async", polling.replace_receive_async),
    *(
        (rocketmq.SimpleConsumer, method, partial(consuming.replace_settlement, operation))
        for method, operation in (
            ("ack", "ack"),
            ("ack_async", "ack"),
            ("change_invisible_duration", "change_invisible_duration"),
            ("change_invisible_duration_async", "change_invisible_duration"),
        )
    ),
    (rocketmq.PushConsumer, "__init__", listening.replace_push_consumer_init),
)
_OPTIONAL: Final = frozenset({"recall_message", "recall_message_async"})

_patches = Patches()

register(rocketmq.Message, consuming.describe)


def _patch() -> None:
    for owner, name, make in _REPLACEMENTS:
        if not _patches.replace(owner, name, make) and name not in _OPTIONAL:
            LOG.warning("rocketmq-python-client has no %s.%s: spans will be incomplete", owner.__name__, name)


def _unpatch() -> None:
    if any_instrumentation() is None:
        _patches.undo()


def _instrumentation(kwargs: dict[str, Any]) -> RocketMQInstrumentation:
    providers = {name: kwargs.get(name) for name in ("tracer_provider", "meter_provider")}
    given = {name: value for name, value in kwargs.items() if name not in (*providers, "skip_dep_check")}
    options = RocketMQOptions(**{**given, "loop_spans": LoopSpans(given.get("loop_spans"))})
    return RocketMQInstrumentation(Telemetry(_SCOPE, own_version(), **providers), options)
