"""Loops over messages, without any client library: where a step begins and ends, and who takes it over."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current, set_value
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanbridge_instrumentation import process
from spanbridge_instrumentation._shared import handlers, loops
from spanbridge_instrumentation._shared.delivery import Delivery, Destination
from spanbridge_instrumentation._shared.loops import Loop, LoopSpans, is_for_statement
from spanbridge_instrumentation._shared.telemetry import Telemetry

Begin = Callable[["Letter"], Delivery]


class Letter:
    """A message of some client library."""


class Walk:
    """An iterator as instrumentors make them."""

    def __init__(self, letters: list[Letter], begin: Begin) -> None:
        self._letters, self._begin, self._loop = iter(letters), begin, Loop()

    def __iter__(self) -> Walk:
        return self

    def __next__(self) -> Letter:
        self._loop.over()
        letter = next(self._letters)
        self._loop.begin(letter, self._begin(letter))
        return letter

    def __del__(self) -> None:
        self._loop.left()


class Recorded:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry("test", "1", tracer_provider=self.provider)

    def begin(self, _letter: Letter, _ambient: Context | None = None) -> Delivery:
        return Delivery(self.telemetry, Destination("process post", {"messaging.system": "post"}))

    def walk(self, count: int) -> Walk:
        return Walk([Letter() for _ in range(count)], self.begin)

    @property
    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    handlers.register(Letter, recorded.begin)
    before = get_current()
    yield recorded
    assert get_current() is before
    handlers._handlers.pop(Letter)
    recorded.provider.shutdown()


def span_here() -> Any:
    return trace.get_current_span()


def is_nothing_current() -> bool:
    return not span_here().get_span_context().is_valid


def test_a_step_lasts_to_the_next_request(recorded: Recorded) -> None:
    for number, _ in enumerate(iter(recorded.walk(3))):
        assert span_here().is_recording()
        assert len(recorded.spans) == number
    assert is_nothing_current()
    assert len(recorded.spans) == 3


def leave_by_break(recorded: Recorded) -> None:
    for _ in recorded.walk(3):
        break


def leave_by_return(recorded: Recorded) -> Any:
    for letter in recorded.walk(3):
        return letter
    return None


def leave_by_error(recorded: Recorded) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        for _ in recorded.walk(3):
            raise ZeroDivisionError


def leave_a_generator(recorded: Recorded) -> None:
    def generate() -> Iterator[Letter]:
        yield from recorded.walk(3)

    generator = generate()
    next(generator)
    generator.close()


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_return, leave_by_error, leave_a_generator])
def test_leaving_the_loop_ends_the_step_at_once(recorded: Recorded, leave: Callable[[Recorded], Any]) -> None:
    leave(recorded)
    assert is_nothing_current()
    assert len(recorded.spans) == 1


async def cancelled(recorded: Recorded) -> None:
    for _ in recorded.walk(2):
        await asyncio.sleep(60)


def test_tasks_that_interleave_have_their_own(recorded: Recorded) -> None:
    async def work(turns: int) -> None:
        for _ in recorded.walk(turns):
            mine = span_here()
            for _ in range(3):
                await asyncio.sleep(0)
                assert span_here() is mine
            inner = asyncio.create_task(spawned(mine))
            await inner

    async def spawned(expected: Any) -> None:
        assert span_here() is expected

    async def main() -> None:
        waiting = asyncio.create_task(cancelled(recorded))
        await asyncio.gather(work(3), work(2))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert is_nothing_current()

    asyncio.run(main())
    assert len(recorded.spans) == 6
    assert len({span.context.trace_id for span in recorded.spans}) == 6


def test_threads_have_their_own(recorded: Recorded) -> None:
    seen: list[Any] = []

    def work() -> None:
        seen.append(is_nothing_current())
        for _ in recorded.walk(1):
            seen.append(span_here())  # noqa: PERF401
        seen.append(is_nothing_current())

    for _ in recorded.walk(1):
        here = span_here()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert span_here() is here
    assert (seen[0], seen[2]) == (True, True)
    assert seen[1] is not here


def test_a_block_in_the_body_takes_the_step_over(recorded: Recorded) -> None:
    for letter in recorded.walk(1):
        step = span_here()
        with pytest.raises(KeyError), process(letter) as span:  # noqa: PT012
            assert span is step
            with process(letter) as again:
                assert again is step
            raise KeyError
        assert len(recorded.spans) == 1
        assert is_nothing_current()
    (span,) = recorded.spans
    assert span.attributes["error.type"] == "KeyError"


def test_a_task_that_takes_it_over_ends_it_after_the_loop_went_on(recorded: Recorded) -> None:
    async def handle(letter: Letter, entered: asyncio.Event, go_on: asyncio.Event) -> None:
        with process(letter):
            entered.set()
            await go_on.wait()

    async def main() -> None:
        entered, go_on = asyncio.Event(), asyncio.Event()
        for letter in recorded.walk(1):
            task = asyncio.create_task(handle(letter, entered, go_on))
            await entered.wait()
        assert is_nothing_current()
        assert recorded.spans == []
        go_on.set()
        await task

    asyncio.run(main())
    assert len(recorded.spans) == 1


def test_what_the_body_attached_is_left_alone(recorded: Recorded) -> None:
    def loop() -> None:
        for _ in recorded.walk(1):
            attach(set_value("mine", 1))
        assert get_current()["mine"] == 1

    contextvars.copy_context().run(loop)
    assert len(recorded.spans) == 1


def test_garbage_collected_inside_the_sdk_is_ended_by_the_next_loop(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "_runs_sdk", lambda: True)
    walk: Any = recorded.walk(1)
    next(walk)
    walk.itself = walk
    del walk
    gc.collect()
    assert recorded.spans == []
    for _ in recorded.walk(1):
        pass
    assert len(recorded.spans) == 2


class Asked:
    """Notes whether what asks for an iterator is a ``for`` statement."""

    def __init__(self) -> None:
        self.answers: list[bool] = []

    def __iter__(self) -> Iterator[int]:
        self.answers.append(is_for_statement(sys._getframe(1)))
        return iter((1, 2))


def test_only_a_for_statement_walks() -> None:
    asked = Asked()
    for _ in asked:
        pass
    assert asked.answers == [True]
    list(asked)
    sorted(asked)
    [].extend(asked)
    [each for each in asked]  # noqa: C416
    {each: each for each in asked}
    sum(each for each in asked)
    _first, _second = asked
    [*asked]  # noqa: B018
    for _ in enumerate(asked):
        pass
    assert asked.answers[1:] == [False] * 9


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(loops.ENV_LOOPS, raising=False)
    monkeypatch.setattr(loops, "_by_hand", [])
    assert LoopSpans()
    loops.say_by_hand()
    assert not LoopSpans()
    assert LoopSpans(True)
    monkeypatch.setenv(loops.ENV_LOOPS, "on")
    assert LoopSpans()
    assert not LoopSpans(False)
    monkeypatch.setenv(loops.ENV_LOOPS, "off")
    assert not LoopSpans()
