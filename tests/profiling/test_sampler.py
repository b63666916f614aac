"""The sampler: CPU time is charged to the code and the span that used it, and to nobody else."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from spanbridge_profiling import ProfilingUnavailable, Sampler
from spanbridge_profiling.contexts import ThreadContexts
from spanbridge_profiling.spans import NO_SPAN, running_span
from tests.profiling.programs import TRACER, Spans, burn, burnt, shares, two_tasks, two_threads

RATE = 250
"""A sample every 4 ms: as often as kernels look at CPU timers."""


@pytest.fixture
def sampler() -> Iterator[Sampler]:
    sampler = Sampler(RATE)
    yield sampler
    assert not sampler.runs


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tasks_and_threads_are_charged_for_their_own_cpu(sampler: Sampler, loop: str) -> None:
    spans = Spans()
    collection = sampler.open()
    two_threads(spans, 0.4, lambda: two_tasks(spans, loop, "main", 0.4))
    profile = collection.take()
    sampler.close(collection)
    for thread, name in (("MainThread", "main hot"), ("worker-hot", "thread hot")):
        total, by_span = shares(burnt(profile, thread), spans)
        assert total > 40
        assert by_span[name] >= 0.95
        assert sum(share for other, share in by_span.items() if other not in (name, "")) < 0.01
    assert profile.counts.unknown == 0
    assert not [sample for sample in profile.samples if sample.thread == "worker-cold"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tasks_on_a_loop_of_another_thread(sampler: Sampler, loop: str) -> None:
    spans = Spans()
    collection = sampler.open()
    thread = threading.Thread(target=two_tasks, args=(spans, loop, "other", 0.4), name="other")
    thread.start()
    thread.join()
    profile = collection.take()
    sampler.close(collection)
    total, by_span = shares(burnt(profile, "other"), spans)
    assert total > 30
    assert by_span["other hot"] >= 0.95
    assert by_span.get("other cold", 0.0) < 0.01


def test_a_context_that_a_thread_was_handed_counts(sampler: Sampler) -> None:
    """``asyncio.to_thread`` runs the function in a copy of the task's context; nothing is attached in the thread."""
    spans = Spans()

    async def main() -> None:
        with TRACER.start_as_current_span("request") as span:
            spans.note("request", span)
            await asyncio.to_thread(burn, 0.4)

    collection = sampler.open()
    asyncio.run(main())
    profile = collection.take()
    sampler.close(collection)
    total, by_span = shares(burnt(profile, "asyncio_0"), spans)
    assert total > 20
    assert by_span["request"] >= 0.95


def test_cpu_adds_up(sampler: Sampler) -> None:
    collection = sampler.open()
    before = time.thread_time_ns()
    burn(0.5)
    used = time.thread_time_ns() - before
    profile = collection.take()
    sampler.close(collection)
    found = sum(sample.cpu_ns for sample in burnt(profile, "MainThread"))
    assert 0.45 * used < found < 1.05 * used
    assert profile.counts.without_span == profile.counts.total
    assert profile.counts.total == sum(sample.count for sample in profile.samples)


def test_nothing_wakes_an_idle_process(sampler: Sampler) -> None:
    """Voluntary and involuntary switches of the sampling thread, counted by the kernel."""
    collection = sampler.open()
    names = {thread.name: thread.native_id for thread in threading.enumerate()}
    ident = names["spanbridge-profiling"]
    before = switches(ident)
    time.sleep(0.5)
    assert switches(ident) - before <= 1  # it may have been on its way to its first wait
    assert collection.take().counts.total <= 1
    sampler.close(collection)
    assert "spanbridge-profiling" not in [thread.name for thread in threading.enumerate()]


def switches(thread: int | None) -> int:
    with open(f"/proc/self/task/{thread}/status") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)


def test_two_observers_see_the_same(sampler: Sampler) -> None:
    first = sampler.open()
    second = sampler.open()
    burn(0.2)
    sampler.close(first)
    # Of that work alone: what is around it may be looked at while only one of them observes.
    seen = [sum(sample.count for sample in burnt(each.take(), "MainThread")) for each in (first, second)]
    assert seen[0] == seen[1] > 10
    burn(0.1)
    assert second.take().counts.total > 5
    assert first.take().counts.total == 0
    sampler.close(second)
    sampler.close(second)


def test_threads_that_run_already_are_sampled(sampler: Sampler) -> None:
    go = threading.Event()

    def work() -> None:
        go.wait()
        burn(0.2)

    thread = threading.Thread(target=work, name="early")
    thread.start()
    collection = sampler.open()
    go.set()
    thread.join()
    assert burnt(collection.take(), "early")
    sampler.close(collection)


def test_many_short_threads_leave_no_timers(sampler: Sampler) -> None:
    collection = sampler.open()
    for _ in range(300):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    assert sampler.watched < 150
    sampler.find_threads()
    assert sampler.watched < 20
    sampler.close(collection)


def test_a_child_of_a_fork_is_sampled_too() -> None:
    """In a process of its own: the tests' has threads, and forking those is not the point."""
    program = """
import os, sys
from spanbridge_profiling import Sampler
from tests.profiling.programs import burn, burnt
sampler = Sampler(200)
collection = sampler.open()
burn(0.1)
child = os.fork()
if not child:
    burn(0.2)
    found = burnt(collection.take(), "MainThread")
    os._exit(0 if 0.1e9 < sum(sample.cpu_ns for sample in found) < 0.29e9 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], check=False, timeout=60)
    assert done.returncode == 0


def test_peeks_tell_what_the_code_works_on() -> None:
    def work(kind: str) -> None:
        burn(0.15)

    def read(frame: FrameType) -> str:
        return str(frame.f_locals["kind"])

    sampler = Sampler(RATE, peeks={work.__code__: read})
    collection = sampler.open()
    work("a")
    work("b")
    burn(0.15)
    profile = collection.take()
    sampler.close(collection)
    assert {sample.note for sample in burnt(profile, "MainThread")} == {"a", "b", ""}


def test_a_peek_that_fails_costs_the_sample_only() -> None:
    def work() -> None:
        burn(0.1)

    def read(frame: FrameType) -> str:
        raise KeyError("kind")

    sampler = Sampler(RATE, peeks={work.__code__: read})
    collection = sampler.open()
    work()
    profile = collection.take()
    sampler.close(collection)
    assert profile.counts.lost > 5
    assert not burnt(profile, "MainThread")


def test_frames_name_function_file_and_line(sampler: Sampler) -> None:
    collection = sampler.open()
    burn(0.2)
    sample = burnt(collection.take(), "MainThread")[0]
    sampler.close(collection)
    frame = next(frame for frame in sample.frames if frame.function == "burn")
    assert frame.file.endswith("tests/profiling/programs.py")
    assert frame.first_line == burn.__code__.co_firstlineno
    assert frame.first_line <= frame.line < frame.first_line + 6
    assert "test_frames_name_function_file_and_line" in [frame.function for frame in sample.frames]


def test_only_one_profiler_at_a_time(sampler: Sampler) -> None:
    collection = sampler.open()
    with pytest.raises(ProfilingUnavailable, match="already"):
        Sampler()
    sampler.close(collection)
    Sampler()


def test_somebody_elses_signal_handler_is_left_alone() -> None:
    former = signal.signal(signal.SIGPROF, lambda *_: None)
    try:
        with pytest.raises(ProfilingUnavailable, match="SIGPROF"):
            Sampler()
    finally:
        signal.signal(signal.SIGPROF, former)


def test_it_is_set_up_on_the_main_thread_only() -> None:
    caught: list[str] = []

    def work() -> None:
        try:
            Sampler()
        except ProfilingUnavailable as error:
            caught.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in caught[0]


def test_spans_that_nobody_will_see_are_no_spans() -> None:
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    ended = TRACER.start_span("ended")
    ended.end()
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("x").start_span("unsampled")
    for span in (remote, ended, unsampled, trace.INVALID_SPAN):
        assert contextvars.copy_context().run(_under, span) == NO_SPAN
    span = TRACER.start_span("running")
    assert contextvars.copy_context().run(_under, span)[1] == span.get_span_context().span_id
    span.end()


def _under(span: trace.Span) -> tuple[int, int]:
    with use_span(span, end_on_exit=False):
        return running_span()


def test_the_context_of_another_thread() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    contexts = ThreadContexts()
    entered, leave = threading.Event(), threading.Event()

    def inner() -> None:
        variable.set("inner")
        entered.set()
        leave.wait()

    thread = threading.Thread(target=contextvars.Context().run, args=(inner,))
    thread.start()
    entered.wait()
    context = contexts.of(thread.ident or 0)
    assert context is not None
    assert context.get(variable) == "inner"
    leave.set()
    thread.join()
    assert contexts.of(thread.ident or 0) is None


def test_references_are_given_back() -> None:
    contexts = ThreadContexts()
    context = contextvars.Context()
    before = sys.getrefcount(context)
    for _ in range(100):
        assert context.run(contexts.of, threading.get_ident()) is context
    assert sys.getrefcount(context) == before


def test_no_descriptors_are_left(sampler: Sampler) -> None:
    sampler.close(sampler.open())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        sampler.close(sampler.open())
    assert len(os.listdir("/proc/self/fd")) == before


def test_sampling_ends_while_threads_tick() -> None:
    """A tick that is pending when its timer goes must not keep the sampling thread waiting."""
    sampler = Sampler(1000)
    stopping = False

    def work() -> None:
        while not stopping:
            burn(0.005)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        collection = sampler.open()
        burn(0.005)
        sampler.close(collection)
    stopping = True
    for thread in threads:
        thread.join()
    assert not sampler.runs
