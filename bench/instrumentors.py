"""What the instrumentors cost beyond the SDK calls that they make: ``python -m bench.instrumentors [NAME…]``, JSON.

``--against REV`` compares with the instrumentors of another commit instead: :mod:`bench.instrumentors_pairs`.

Four variants of one call take turns in short slices: the plain client; with the same spans through the SDK alone
(start with the same attributes and links, the context written or read, end); with the same durations in the SDK's
histograms as well; and instrumented. ``ours_us`` is what is left of the last one when the one before is taken away.
CPU time of the calling thread; exporting is not in it. Each figure is the median of three runs, and a run's is its
fastest slice: other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from bench import instrumentors_paho, instrumentors_rocketmq
from bench.instrumentors_floor import Case, Floor

_RUNS = 3
_TURNS = 3
_SLICES = 12
_SLICE_US = 400
_CALLS = 64
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


def measure(names: Sequence[str] = ()) -> dict[str, Any]:
    """``{case: {"unsampled": {...}, "sampled": {...}}}``: microseconds of CPU per message."""
    found: dict[str, Any] = {}
    for make in _CASES:
        if names and make.__name__ not in names:
            continue
        for sampled in (False, True):
            with _providers(sampled) as providers:
                case = make(sampled)
                runs = [_run(case, providers) for _ in range(_RUNS)]
                figures = {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}
                figures["ours_calls"] = _calls_of_ours(case, providers)
            found.setdefault(case.name, {})["sampled" if sampled else "unsampled"] = figures
    return found


def _run(case: Case, providers: dict[str, Any]) -> dict[str, float]:
    floor = Floor(**providers)
    variants: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("plain", case.plain),
        ("spans", lambda: case.sdk(floor, False)),
        ("sdk", lambda: case.sdk(floor, True)),
        ("instrumented", case.instrumented),
    )
    best = {name: float("inf") for name, _ in variants}
    count = _count(case.plain)

    def slices(*those: tuple[str, Callable[[], Any]]) -> None:
        for _ in range(_SLICES):
            for name, call in those:
                best[name] = min(best[name], _slice(call, count) / case.messages)

    for _ in range(_TURNS):
        slices(*variants[:-1])
        with _instrumented(case, providers):
            slices(variants[-1])
    return {
        **{f"{name}_us": value for name, value in best.items()},
        "ours_us": best["instrumented"] - best["sdk"],
        "ours_with_metrics_us": best["instrumented"] - best["spans"],
    }


@contextmanager
def _instrumented(case: Case, providers: dict[str, Any]) -> Iterator[None]:
    case.instrumentor.instrument(**providers)
    try:
        case.instrumented()
        yield
    finally:
        case.instrumentor.uninstrument()


def _calls_of_ours(case: Case, providers: dict[str, Any]) -> int:
    """Function calls a message beyond the SDK's part: the same on every machine, however busy."""
    floor = Floor(**providers)
    sdk = _calls(lambda: case.sdk(floor, True))
    with _instrumented(case, providers):
        return round((_calls(case.instrumented) - sdk) / case.messages)


def _calls(call: Callable[[], Any]) -> float:
    number = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    call()
    sys.setprofile(profile)
    for _ in range(_CALLS):
        call()
    sys.setprofile(None)
    return number / _CALLS


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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.instrumentors")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*(make.__name__ for make in _CASES), []])
    parser.add_argument("--against", metavar="REV", help="a commit, whose instrumentors take turns with these")
    arguments = parser.parse_args()
    if arguments.against is None:
        found = measure(arguments.names)
    else:
        from bench.instrumentors_pairs import compare  # noqa: PLC0415  it loads this module again

        found = compare(arguments.against, arguments.names)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
