"""Extract and inject of the codec against OpenTelemetry's propagator, in the same run: ``python bench/codec.py``.

The last line is one JSON object: nanoseconds of CPU per call (the median of the rounds; what is compared takes turns,
so that a busy machine slows both) and, for each case, ``ratio``: ours over OpenTelemetry's. ``--quick``: fewer rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge_context import (
    TraceContext,
    extract_rocketmq,
    extract_topic,
    extract_user_properties,
    inject_json,
    inject_rocketmq,
    inject_topic,
    inject_user_properties,
    split_json,
    split_user_properties,
)
from spanbridge_context.otel import (
    SpanbridgePropagator,
    to_span_context,
    user_property_getter,
    user_property_setter,
)

Call = Callable[[], object]
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
ORDINARY = [("unit", "C"), ("site", "a12")]


def cases(state: str) -> dict[str, Call]:
    """What is measured with one tracestate. Names that start with ``opentelemetry`` are compared to."""
    context = TraceContext.new().replace(tracestate=state)
    compact = [*ORDINARY, *inject_user_properties([], context, "compact")]
    text = [*ORDINARY, *inject_user_properties([], context, "w3c")]
    message = inject_rocketmq(dict(ORDINARY), context)
    stock, ours = TraceContextTextMapPropagator(), SpanbridgePropagator()
    current = trace.set_span_in_context(NonRecordingSpan(to_span_context(context)), Context())
    plain = trace.set_span_in_context(
        NonRecordingSpan(trace.get_current_span(stock.extract(message)).get_span_context())
    )
    return {
        "opentelemetry_extract": lambda: stock.extract(message),
        "opentelemetry_extract_user_properties": lambda: stock.extract(text, None, user_property_getter),
        "opentelemetry_inject": lambda: stock.inject({}, plain),
        "opentelemetry_inject_user_properties": lambda: stock.inject([*ORDINARY], plain, user_property_setter),
        "extract_rocketmq": lambda: extract_rocketmq(message),
        "extract_user_properties_w3c": lambda: extract_user_properties(text),
        "extract_user_properties_compact": lambda: extract_user_properties(compact),
        "split_user_properties_compact": lambda: split_user_properties(compact),
        "inject_rocketmq": lambda: inject_rocketmq({}, context),
        "inject_user_properties_w3c": lambda: inject_user_properties(ORDINARY, context, "w3c"),
        "inject_user_properties_compact": lambda: inject_user_properties(ORDINARY, context),
        "propagator_extract": lambda: ours.extract(message),
        "propagator_inject": lambda: ours.inject({}, current),
    }


AGAINST = {
    "extract_rocketmq": "opentelemetry_extract",
    "extract_user_properties_w3c": "opentelemetry_extract_user_properties",
    "extract_user_properties_compact": "opentelemetry_extract_user_properties",
    "split_user_properties_compact": "opentelemetry_extract_user_properties",
    "inject_rocketmq": "opentelemetry_inject",
    "inject_user_properties_w3c": "opentelemetry_inject_user_properties",
    "inject_user_properties_compact": "opentelemetry_inject_user_properties",
    "propagator_extract": "opentelemetry_extract",
    "propagator_inject": "opentelemetry_inject",
}


def others() -> dict[str, Call]:
    """What has nothing to be compared to."""
    context = TraceContext.new()
    topic = inject_topic("site/a12/dev/7/temperature", context)
    payload = json.dumps(
        {"value": 21.5, "unit": "C", "meta": {"fw": "1.2.3", "tags": ["a", "b"]}, "n": "x" * 48}
    ).encode()
    carried = inject_json(payload, context)
    span_id = context.span_id_bytes
    return {
        "split_user_properties_without_context": lambda: split_user_properties(ORDINARY),
        "new": TraceContext.new,
        "child": lambda: context.child(span_id),
        "extract_topic": lambda: extract_topic(topic),
        "inject_topic": lambda: inject_topic("site/a12/dev/7/temperature", context),
        "split_json": lambda: split_json(carried),
        "inject_json": lambda: inject_json(payload, context),
    }


def measure(calls: dict[str, Call], rounds: int, number: int) -> dict[str, float]:
    """Median nanoseconds of CPU per call."""
    taken: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time_ns()
            for _ in range(number):
                call()
            taken[name].append(time.process_time_ns() - started)
    return {name: round(statistics.median(times) / number) for name, times in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 5 if parser.parse_args().quick else 15
    result: dict[str, object] = {"python": sys.version.split()[0], "opentelemetry": version("opentelemetry-api")}
    for label, state in (("without_tracestate", ""), ("with_tracestate", STATE)):
        nanoseconds = measure(cases(state), rounds, 2000)
        ratios = {name: round(nanoseconds[name] / nanoseconds[other], 2) for name, other in AGAINST.items()}
        result[label] = {"ns": nanoseconds, "ratio": ratios}
        print(f"{label}\n{'':36}{'ns':>8}{'ratio':>8}")
        for name, value in nanoseconds.items():
            print(f"{name:36}{value:8.0f}{ratios.get(name, ''):>8}")
    result["others"] = {"ns": measure(others(), rounds, 1000)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
