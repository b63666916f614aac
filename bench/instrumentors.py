"""What the instrumentors cost beyond the SDK calls that they make: ``python -m bench.instrumentors``, JSON.

Four variants of one call take turns in short slices: the plain client; with the same spans through the SDK alone
(start with the same attributes and links, the context written or read, end); with the same metrics through the SDK's
instruments as well; and instrumented. ``ours_us`` is what is left of the last one when the first and the SDK's part
are taken away. CPU time of the calling thread; exporting is not in it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from bench import instrumentors_paho, instrumentors_rocketmq
from bench.instrumentors_floor import Case, Floor

_ROUNDS = 25
_SLICE_US = 4000
_CASES: tuple[Callable[[bool], Case], ...] = (
    instrumentors_paho.publish,
    instrumentors_paho.callback,
    instrumentors_rocketmq.send,
    instrumentors_rocketmq.listener,
    instrumentors_rocketmq.poll,
)


class _Discard(SpanExporter):
    def export(self, _spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@contextmanager
def _providers(sampled: bool) -> Iterator[dict[str, Any]]:
    tracer_provider = TracerProvider(sampler=ParentBased(ALWAYS_ON if sampled else ALWAYS_OFF), shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(_Discard()))
    meter_provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    try:
        yield {"tracer_provider": tracer_provider, "meter_provider": meter_provider}
    finally:
        tracer_provider.shutdown()
        meter_provider.shutdown()


def measure() -> dict[str, Any]:
    """``{case: {"unsampled": {...}, "sampled": {...}}}``: microseconds of CPU per message, medians of paired rounds."""
    found: dict[str, Any] = {}
    for make in _CASES:
        for sampled in (False, True):
            with _providers(sampled) as providers:
                case = make(sampled)
                found.setdefault(case.name, {})["sampled" if sampled else "unsampled"] = _measure(case, providers)
    return found


def _measure(case: Case, providers: dict[str, Any]) -> dict[str, float]:
    floor = Floor(**providers)
    variants: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("plain", case.plain),
        ("spans", lambda: case.sdk(floor, False)),
        ("sdk", lambda: case.sdk(floor, True)),
        ("instrumented", case.instrumented),
    )
    times: dict[str, list[float]] = {name: [] for name, _ in variants}
    count = _count(case.plain)
    for _ in range(_ROUNDS):
        for name, call in variants:
            with _instrumented(case, providers) if name == "instrumented" else nullcontext():
                times[name].append(_slice(call, count) / case.messages)
    pairs = list(zip(*times.values(), strict=True))
    return {
        **{f"{name}_us": round(statistics.median(values), 1) for name, values in times.items()},
        "ours_us": round(statistics.median(last - sdk for _, _, sdk, last in pairs), 1),
        "ours_with_metrics_us": round(statistics.median(last - spans for _, spans, _, last in pairs), 1),
    }


@contextmanager
def _instrumented(case: Case, providers: dict[str, Any]) -> Iterator[None]:
    case.instrumentor.instrument(**providers)
    try:
        case.instrumented()
        yield
    finally:
        case.instrumentor.uninstrument()


def _count(call: Callable[[], Any]) -> int:
    """So many that the plain client takes a few milliseconds, the others a slice of ten times that."""
    count = 4
    while _slice(call, count) * count < _SLICE_US:
        count *= 2
    return count


def _slice(call: Callable[[], Any], count: int) -> float:
    started = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - started) / count * 1e6


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
