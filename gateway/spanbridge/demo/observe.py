"""``spanbridge demo --observe``: is anything late, where, and why - by what the processes themselves export."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spanbridge.demo.cast import CONSUMER
from spanbridge.demo.observe_stage import GROUP, TOPIC, ObserveStage
from spanbridge.demo.otlp import Point, Span
from spanbridge.demo.traces import Trace, Traces
from spanbridge_profiling import Counts, Profile
from spanbridge_profiling.reading import UnreadableProfile, read_pprof

DELAY = "spanbridge.delivery.delay"
IN_FLIGHT, IN_FLIGHT_AGE = "spanbridge.consumer.in_flight", "spanbridge.consumer.in_flight.age"
_SELECTED = f'messaging_consumer_group_name="{GROUP}"'
QUERIES = {
    "lag": f"sum(spanbridge_rocketmq_consumer_lag{{{_SELECTED}}})",
    "age of the oldest": f"max(spanbridge_rocketmq_consumer_lag_age_seconds{{{_SELECTED}}})",
    "delay, 95th percentile": "histogram_quantile(0.95, sum by (le) "
    f"(spanbridge_delivery_delay_seconds_bucket{{{_SELECTED}}}))",
}
"""What Prometheus is asked."""
_SECONDS = 60.0
_POLL = 0.2
_ENOUGH = 40
"""Samples with a span that make a flame graph worth looking at."""


@dataclass(slots=True)
class Observed:
    """What was seen of the slow consumer. None is what nobody exported."""

    lag: dict[str, Any] | None = None
    delay: Point | None = None
    in_flight: float | None = None
    in_flight_age: float | None = None
    asked: dict[str, float | None] | None = None
    profile: Profile | None = None
    hottest: Span | None = None
    trace: Trace | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.problems


def observe(stage: ObserveStage, messages: int, seconds: float = _SECONDS) -> Observed:
    """Have the device send, and look until everything is there to be seen, or ``seconds`` have passed.

    :raises ServiceError: a process failed.
    """
    stage.start_device(messages)
    seen, deadline = Observed(), time.monotonic() + seconds
    while True:
        _look(stage, seen)
        missing = [name for name, there in _wanted(stage, seen).items() if not there]
        failure = stage.failure()
        if not missing or failure or time.monotonic() > deadline:
            break
        time.sleep(_POLL)
    seen.problems = [f"there is no {name}" for name in missing] + ([failure] if failure else [])
    return seen


def _wanted(stage: ObserveStage, seen: Observed) -> dict[str, bool]:
    asked = seen.asked or {}
    return {
        "lag": seen.lag is not None,
        "delay": seen.delay is not None,
        "number of messages in the consumer's hands": seen.in_flight is not None,
        "answer of Prometheus": stage.prometheus is None or all(value is not None for value in asked.values()),
        "profile with spans": seen.profile is not None and seen.profile.counts.linked >= _ENOUGH,
        "trace of what the profile shows": seen.trace is not None,
    }


def _look(stage: ObserveStage, seen: Observed) -> None:
    """Look at everything once. What was seen while the consumer was behind is kept."""
    lag = _lag(stage)
    if lag is not None and lag["lag"]:
        seen.lag = lag
    seen.delay = _consumers(stage, DELAY) or seen.delay
    in_flight, age = _consumers(stage, IN_FLIGHT), _consumers(stage, IN_FLIGHT_AGE)
    if in_flight is not None and in_flight.value and age is not None:
        seen.in_flight, seen.in_flight_age = in_flight.value, age.value
    if stage.prometheus is not None:
        answers = {name: stage.prometheus.value(query) for name, query in QUERIES.items()}
        if answers["lag"] or seen.asked is None:
            seen.asked = answers
    seen.profile = read_profiles(stage.profiles)
    _follow(stage, seen)


def _lag(stage: ObserveStage) -> dict[str, Any] | None:
    groups: list[dict[str, Any]] = (stage.status().get("lag") or {}).get("groups", [])
    return next((row for row in groups if row["topic"] == TOPIC and not row["retry"]), None)


def _consumers(stage: ObserveStage, name: str) -> Point | None:
    metric = stage.receiver.metric(name)
    return metric.points[0] if metric is not None and metric.points else None


def read_profiles(directory: Path) -> Profile | None:
    """All profile files of a folder as one; None without any."""
    found = []
    for path in sorted(directory.glob("*.pb.gz")):
        try:
            found.append(read_pprof(path.read_bytes()))
        except UnreadableProfile:
            continue
    return joined(found) if found else None


def joined(profiles: list[Profile]) -> Profile:
    """Profiles that follow each other, as one from the start of the first to the end of the last."""
    counts = Counts()
    for profile in profiles:
        counts.add(profile.counts)
    started = min(profile.started_ns for profile in profiles)
    ended = max(profile.started_ns + profile.duration_ns for profile in profiles)
    samples = tuple(sample for profile in profiles for sample in profile.samples)
    return Profile(started, ended - started, profiles[0].period_ns, samples, counts)


def _follow(stage: ObserveStage, seen: Observed) -> None:
    """The span that used most CPU time by the profile, and its trace, once the receiver has it."""
    if seen.profile is None:
        return
    spans = {span.span_id: span for span in stage.receiver.spans if span.service == CONSUMER}
    found = hottest_span(seen.profile, spans.__contains__)
    if found is None:
        return
    seen.hottest = spans[found]
    traces = Traces()
    traces.add(stage.receiver.spans)
    trace = traces.trace(seen.hottest.trace_id)
    services = {node.span.service for node in trace.nodes}
    seen.trace = trace if len(services) == 3 else None  # the device's, the gateway's and the consumer's


def hottest_span(profile: Profile, known: Callable[[str], bool]) -> str | None:
    """The identifier of the span with the most CPU time, of those that are known."""
    times: Counter[str] = Counter()
    for sample in profile.samples:
        if sample.span_id and known(name := f"{sample.span_id:016x}"):
            times[name] += sample.cpu_ns
    return times.most_common(1)[0][0] if times else None
