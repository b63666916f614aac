"""``python -m bench.profiling``: what the profiler costs. CPU time of the process for the same work, with and without.

Segments of the same work take turns (with, without, without, with), so that what else runs on the machine falls on
both; the median of the ratios of neighbours counts, and comes with the interval in which it lies for 95 % of resampled
sets of them (bootstrap). A busy machine spreads them over more than what is measured, so the same is done at ten times
the rate, a tenth of which is what the rate costs. ``own`` is measured directly: the CPU time of the signal handler, and
of the sampling thread. ``main`` is asyncio tasks on the main thread, ``worker`` the same in another thread, whose
samples the sampling thread takes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from opentelemetry.sdk.trace import TracerProvider

from spanbridge_profiling import DEFAULT_RATE, Sampler
from spanbridge_profiling.clocks import SIGNAL, clock_of, cpu_ns

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("bench")
_DOCUMENT = json.dumps({f"key{number}": [number, str(number)] * 4 for number in range(20)})
_DEPTH = 20
"""Calls between a task and its work: about what the gateway has."""


def deep(left: int) -> int:
    """Work at the end of a stack of some depth."""
    return deep(left - 1) if left else len(json.dumps(json.loads(_DOCUMENT)))


async def turn(count: int) -> None:
    """One task's work, in turns with the others."""
    with TRACER.start_as_current_span("work"):
        for _ in range(count):
            deep(_DEPTH)
            await asyncio.sleep(0)


async def work(count: int) -> None:
    """Eight tasks."""
    await asyncio.gather(*(turn(count) for _ in range(8)))


def on_main(count: int) -> None:
    """On the calling thread."""
    asyncio.run(work(count))


def on_worker(count: int) -> None:
    """In a thread of its own."""
    thread = threading.Thread(target=on_main, args=(count,))
    thread.start()
    thread.join()


def cost(run: Callable[[int], None], count: int) -> float:
    """CPU time of the process for the work, in seconds."""
    before = time.process_time()
    run(count)
    return time.process_time() - before


def interval(ratios: Sequence[float], share: float = 0.95, samples: int = 2000) -> tuple[float, float]:
    """Between which values the median of so many ratios lies, for this share of sets drawn from them again."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(samples))
    outside = round(samples * (1 - share) / 2)
    return medians[outside], medians[-1 - outside]


def pairs(sampler: Sampler, run: Callable[[int], None], count: int, number: int) -> tuple[list[float], int, float]:
    """The ratio of each pair of segments, the samples taken, and the CPU time of all segments with the profiler."""
    ratios, samples, used = [], 0, 0.0
    gc.collect()
    gc.disable()  # it would fall on some segments and not on others
    try:
        for at in range(number):
            plain = profiled = 0.0
            for on in (True, False) if at % 2 else (False, True):
                if not on:
                    plain = cost(run, count)
                    continue
                collection = sampler.open()
                profiled = cost(run, count)
                samples += collection.take().counts.total
                sampler.close(collection)
            gc.collect(0)
            used += profiled
            ratios.append(profiled / plain)
    finally:
        gc.enable()
    return ratios, samples, used


def own(sampler: Sampler, run: Callable[[int], None], count: int) -> tuple[float, int, float]:
    """CPU time of the profiler itself and its samples, in a run, and the CPU time of the process."""
    spent = 0

    def timed(number: int, frame: FrameType | None) -> None:
        nonlocal spent
        began = time.thread_time_ns()
        sampler._on_tick(number, frame)
        spent += time.thread_time_ns() - began

    former = signal.signal(SIGNAL, timed)
    collection = sampler.open()
    try:
        [thread] = [thread for thread in threading.enumerate() if thread.name == "spanbridge-profiling"]
        clock = clock_of(thread.native_id or 0)
        began = cpu_ns(clock)
        used = cost(run, count)
        spent += cpu_ns(clock) - began
    finally:
        sampler.close(collection)
        signal.signal(SIGNAL, former)
    return spent / 1e9, collection.take().counts.total, used


def main() -> None:
    """Measure, and print a line for each kind."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiling")
    parser.add_argument("kind", nargs="*", metavar="KIND", help="main, worker; both by default")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--count", type=int, default=220, help="units of work of each of eight tasks in a segment")
    parser.add_argument("--rate", type=int, default=DEFAULT_RATE)
    options = parser.parse_args()
    for name, run in (("main", on_main), ("worker", on_worker)):
        if options.kind and name not in options.kind:
            continue
        run(options.count)
        for times in (1, 10):
            ratios, samples, used = pairs(Sampler(times * options.rate), run, options.count, options.pairs)
            added = [100 * (value - 1) / times for value in (statistics.median(ratios), *interval(ratios))]
            print(
                f"{name}: {added[0]:+.2f} % CPU (95 %: {added[1]:+.2f} to {added[2]:+.2f}) at {options.rate} samples a "
                f"second, measured at {times * options.rate}: {samples} samples of {used:.1f} s CPU, {options.pairs} "
                f"pairs of segments of {1e3 * used / options.pairs:.0f} ms",
                flush=True,
            )
        spent, samples, used = own(Sampler(options.rate), run, 10 * options.count)
        print(
            f"{name}: own {100 * spent / used:.2f} % ({1e6 * spent / max(samples, 1):.0f} us a sample, "
            f"{samples} samples of {used:.1f} s CPU)",
            flush=True,
        )


if __name__ == "__main__":
    main()
