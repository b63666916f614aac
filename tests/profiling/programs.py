"""Code that uses the CPU under spans of its own, for tests of who is charged. Sized by CPU time, not by time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop
from opentelemetry.sdk.trace import TracerProvider

from spanbridge_profiling import Profile, Sample

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("test")
LOOPS: dict[str, Callable[..., object]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


def burn(seconds: float) -> None:
    """Use that much CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(200))


@dataclass
class Spans:
    """Span identifiers by name."""

    ids: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, span: object) -> None:
        self.ids[name] = span.get_span_context().span_id  # type: ignore[attr-defined]

    def names(self) -> dict[int, str]:
        return {value: name for name, value in self.ids.items()}


def two_tasks(spans: Spans, loop: str, where: str, seconds: float) -> None:
    """One task that burns and one that does not, each under its own span, taking turns on one loop."""

    async def hot() -> None:
        with TRACER.start_as_current_span("hot") as span:
            spans.note(f"{where} hot", span)
            for _ in range(int(seconds / 0.02)):
                burn(0.02)
                await asyncio.sleep(0)

    async def cold() -> None:
        with TRACER.start_as_current_span("cold") as span:
            spans.note(f"{where} cold", span)
            for _ in range(int(seconds / 0.02)):
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(hot(), cold())

    LOOPS[loop](both())


def two_threads(spans: Spans, seconds: float, work: Callable[[], None]) -> None:
    """One thread that burns and one that waits, each under its own span, while this one does its work."""
    done = threading.Event()

    def hot() -> None:
        with TRACER.start_as_current_span("hot") as span:
            spans.note("thread hot", span)
            burn(seconds)

    def cold() -> None:
        with TRACER.start_as_current_span("cold") as span:
            spans.note("thread cold", span)
            done.wait()

    threads = [threading.Thread(target=one, name=f"worker-{one.__name__}") for one in (hot, cold)]
    for thread in threads:
        thread.start()
    work()
    threads[0].join()
    done.set()
    threads[1].join()


def burnt(profile: Profile, thread: str) -> list[Sample]:
    """The samples of that thread's burning."""
    return [
        sample
        for sample in profile.samples
        if sample.thread == thread and any(frame.function == "burn" for frame in sample.frames)
    ]


def shares(samples: list[Sample], spans: Spans) -> tuple[int, dict[str, float]]:
    """How many samples there are, and which share carries which span ("" for none)."""
    names = {0: "", **spans.names()}
    total = sum(sample.count for sample in samples)
    found: dict[str, float] = {}
    for sample in samples:
        name = names[sample.span_id]
        found[name] = found.get(name, 0.0) + sample.count / total
    return total, found
