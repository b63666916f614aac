"""aiomqtt's ``async for message in client.messages``: a ``process`` span a message."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from opentelemetry.context import get_current

from spanbridge_instrumentation._shared.delivery import Delivery
from spanbridge_instrumentation._shared.loops import Loop, inside
from spanbridge_instrumentation._shared.safety import internal_error

from .active import instrumentation_of, state_of
from .consuming import delivery


def replace_aiter(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``MessagesIterator.__aiter__``: each loop gets an iterator of its own, whose end is the loop's.

    ``anext(client.messages)`` comes without one: nobody would say when its message is done with.
    """

    def __aiter__(messages: Any) -> Any:  # noqa: N807
        plain = original(messages)
        try:
            instrumentation = instrumentation_of(messages._client._client, get_current())
            return plain if instrumentation is None else LoopMessages(plain)
        except Exception:  # noqa: BLE001
            internal_error("the start of a loop")
            return plain

    return __aiter__


class LoopMessages:
    """aiomqtt's iterator for one loop."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages
        self._loop = Loop()
        # Who asks for a message in a task of its own (``wait_for`` before Python 3.12) handles it in another context.
        task = asyncio.current_task()
        self._task = None if task is None else weakref.ref(task)

    def __aiter__(self) -> LoopMessages:
        return LoopMessages(self._messages)

    async def __anext__(self) -> Any:
        self._loop.over()
        message = await self._messages.__anext__()
        try:
            if self._task is not None and self._task() is asyncio.current_task():
                self._loop.begin(message, self._delivery(message))
        except Exception:  # noqa: BLE001
            internal_error("a step of a loop")
        return message

    def __len__(self) -> int:
        return len(self._messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._messages, name)

    def __del__(self) -> None:
        self._loop.left()

    def _delivery(self, message: Any) -> Delivery | None:
        """None where the loop makes no span: suppressed, given back, or the program says what it works on."""
        client = self._messages._client._client
        ambient = get_current()
        instrumentation = instrumentation_of(client, ambient)
        if instrumentation is None or not instrumentation.options.loop_spans or inside(message):
            return None
        return delivery(instrumentation, state_of(client), message, message.topic.value, ambient)
