"""Messages that are pushed: the ``process`` span around a listener's ``consume``."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import get_current
from rocketmq import ConsumeResult, MessageListener

from spanbridge_instrumentation._shared.processing import Processing
from spanbridge_instrumentation._shared.safety import internal_error, warn_once

from .active import RECEIVED, Received, RocketMQClientState, instrumentation_of_state, new_state, state_of
from .consuming import delivery
from .operations import Original


class Listener(MessageListener):  # type: ignore[misc]
    """Stands before the user's listener (an instance, or a class with a static ``consume``) in one consumer.

    It stays there when the instrumentation goes, and hands messages on.
    """

    def __init__(self, listener: Any, state: RocketMQClientState) -> None:
        self.listener = listener
        self._state = state

    def consume(self, message: Any) -> Any:
        processing = self._begin(message)
        if processing is None:
            return self.listener.consume(message)
        processing.start()
        try:
            result = self.listener.consume(message)
        except BaseException as error:
            processing.fail(error)
            raise
        else:
            if result is not ConsumeResult.SUCCESS:
                # The client takes whatever is not SUCCESS for a failure, a forgotten return value too.
                processing.set_error("FAILURE", f"the listener returned {getattr(result, 'name', result)}")
            return result
        finally:
            processing.end()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.listener, name)

    def _begin(self, message: Any) -> Processing | None:
        try:
            ambient = get_current()
            instrumentation = instrumentation_of_state(self._state, ambient)
            if instrumentation is None:
                return None
            received = Received(self._state)
            RECEIVED.put(message, received)
            found = delivery(instrumentation, received, message, ambient)
            instrumentation.telemetry.consumed(1, found.destination.labels)
            return Processing((message,), (found,))
        except Exception:  # noqa: BLE001  the message is processed
            internal_error("a pushed message")
            return None


def replace_push_consumer_init(original: Original) -> Original:
    """``PushConsumer.__init__``, through which every listener comes, the lite consumer's too."""

    def __init__(  # noqa: N807
        consumer: Any, client_configuration: Any, consumer_group: Any, message_listener: Any = None,
        *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        state = new_state(consumer)
        if message_listener:
            message_listener = Listener(message_listener, state)
        original(consumer, client_configuration, consumer_group, message_listener, *args, **kwargs)
        state.identify(consumer)

    return __init__


def instrument_existing(consumer: Any) -> None:
    """Put a :class:`Listener` into a consumer that was made before the instrumentation.

    Its listener has no public name, so it is looked for by its type: in the consumer and in what dispatches for it.
    """
    holders = [consumer, *(value for value in vars(consumer).values() if _dispatches(value))]
    found = False
    for holder in holders:
        for name, value in list(vars(holder).items()):
            if isinstance(value, MessageListener):
                found = True
                if not isinstance(value, Listener):
                    setattr(holder, name, Listener(value, state_of(consumer)))
    if not found:
        warn_once("listener", "no listener found in a %s: its messages make no spans", type(consumer).__qualname__)


def _dispatches(value: object) -> bool:
    return type(value).__module__.startswith("rocketmq.v5.consumer.push")
