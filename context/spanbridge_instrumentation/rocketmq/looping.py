"""A plain ``for message in consumer.receive(…)``: a ``process`` span a message."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from opentelemetry.context import get_current

from spanbridge_instrumentation._shared.delivery import Delivery
from spanbridge_instrumentation._shared.loops import Loop, inside, is_for_statement
from spanbridge_instrumentation._shared.safety import internal_error

from .active import RECEIVED, RocketMQInstrumentation, instrumentation_of_state
from .consuming import delivery


def for_loops(instrumentation: RocketMQInstrumentation, messages: Any) -> Any:
    """What the application gets of a poll."""
    if not messages or type(messages) is not list or not instrumentation.options.loop_spans:
        return messages
    return ReceivedMessages(messages)


class ReceivedMessages(list[Any]):
    """What a poll brought: a list in all but its first ``for`` statement, which makes a ``process`` span a message."""

    __slots__ = ("_taken",)

    def __init__(self, messages: list[Any]) -> None:
        super().__init__(messages)
        self._taken = False

    def __iter__(self) -> Iterator[Any]:
        plain = super().__iter__()
        if self._taken:
            return plain
        try:
            if not is_for_statement(sys._getframe(1)):
                return plain
        except Exception:  # noqa: BLE001
            internal_error("the start of a loop")
            return plain
        self._taken = True
        return _LoopMessages(plain)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)


class _LoopMessages:
    """The iterator of one loop."""

    __slots__ = ("_loop", "_messages")

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self._loop = Loop()

    def __iter__(self) -> _LoopMessages:
        return self

    def __next__(self) -> Any:
        self._loop.over()
        message = next(self._messages)
        try:
            self._loop.begin(message, _delivery(message))
        except Exception:  # noqa: BLE001
            internal_error("a step of a loop")
        return message

    def __del__(self) -> None:
        self._loop.left()


def _delivery(message: Any) -> Delivery | None:
    """None where the loop makes no span: suppressed, given back, or the program says what it works on."""
    received = RECEIVED.get(message)
    if received is None:
        return None
    ambient = get_current()
    instrumentation = instrumentation_of_state(received.state, ambient)
    if instrumentation is None or inside(message):
        return None
    return delivery(instrumentation, received, message, ambient, polled=True)
