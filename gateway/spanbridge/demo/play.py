"""The piece itself: devices send and are asked, and what the receiver and the others got is judged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spanbridge.demo.cast import Cast, Flow
from spanbridge.demo.stage import Stage
from spanbridge.demo.traces import Trace, Traces
from spanbridge.demo.view import DeviceResult

_SETTLE_SECONDS = 20.0


@dataclass(slots=True)
class DemoResult:
    """What came of it. ``latencies_ms``, by what is at the ends, are from the start of the first step to the last's."""

    tallies: list[DeviceResult]
    traces: Traces
    shown: list[tuple[str, Trace]] = field(default_factory=list)
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    duplicates: int = 0

    @property
    def ok(self) -> bool:
        """Whether no message and no span is missing."""
        return not self.problems


def play(stage: Stage, cast: Cast, settle_seconds: float = _SETTLE_SECONDS) -> DemoResult:
    """Let devices send and be asked, wait until everything has arrived (or ``settle_seconds`` have passed), and judge.

    :raises ServiceError: a device failed, or who asks.
    """
    stage.play(cast)
    deadline = time.monotonic() + settle_seconds
    while True:
        outcome = judge(cast, stage.printed(), _collect(stage))
        if outcome.ok or time.monotonic() > deadline:
            break
        if failure := stage.failure():
            outcome.problems.append(failure)
            break
        time.sleep(0.1)
    return outcome


def _collect(stage: Stage) -> Traces:
    traces = Traces()
    traces.add(stage.receiver.spans)
    return traces


Printed = Mapping[str, Sequence[tuple[str, int]]]


def judge(cast: Cast, printed: Printed, traces: Traces) -> DemoResult:
    """Compare what was sent with what arrived, and look for every span of every message.

    ``printed``: by service, device and number of each message that it got.
    """
    counts = {service: Counter(lines) for service, lines in printed.items()}
    outcome = DemoResult([], traces, duplicates=sum(sum(one.values()) - len(one) for one in counts.values()))
    for flow in cast.flows:
        _judge_flow(flow, counts.get(flow.steps[-1].service, Counter()), outcome)
    return outcome


def _judge_flow(flow: Flow, printed: Counter[tuple[str, int]], outcome: DemoResult) -> None:
    expected = flow.expected
    received = len(expected & printed.keys())
    traces = outcome.traces
    trace_ids = [each for each in traces.of_service(flow.service) if traces.holds(each, flow.steps[0])]
    faults = {trace_id: traces.missing(trace_id, flow.steps) for trace_id in trace_ids}
    complete = [trace_id for trace_id in trace_ids if faults[trace_id] is None]
    outcome.tallies.append(
        DeviceResult(
            ends=flow.ends,
            device=flow.about,
            carrier=flow.carrier,
            sent=len(expected),
            received=received,
            complete=len(complete),
            lost=len(expected) - received,
        )
    )
    if received < len(expected):
        outcome.problems.append(f"{flow.about}: {len(expected) - received} of {len(expected)} messages did not arrive")
    if len(complete) < len(expected):
        why = next((fault for fault in faults.values() if fault), f"spans of {flow.service} did not arrive")
        outcome.problems.append(f"{flow.about}: {len(expected) - len(complete)} traces are not whole: {why}")
    found = [traces.trace(trace_id) for trace_id in complete or trace_ids]
    latencies = [latency for trace in found if (latency := _latency_ms(trace, flow)) is not None]
    outcome.latencies_ms.setdefault(flow.ends, []).extend(latencies)
    outcome.shown += _pick(flow, found)


def _latency_ms(trace: Trace, flow: Flow) -> float | None:
    first, last = flow.steps[0], flow.steps[-1]
    begin = [node.span.start_ns for node in trace.nodes if first.matches(node.span)]
    end = [node.span.start_ns for node in trace.nodes if last.matches(node.span)]
    return (min(end) - min(begin)) / 1e6 if begin and end else None


def _pick(flow: Flow, traces: list[Trace]) -> list[tuple[str, Trace]]:
    """One trace of each kind: a message sent alone (the one that took the median time), and one that shared a batch."""
    if not traces:
        return []
    single, burst = traces[: flow.messages], traces[flow.messages :]
    shown = []
    if single:
        typical = sorted(single, key=lambda trace: trace.end_ns - trace.start_ns)[len(single) // 2]
        shown.append((f"{flow.about} · {flow.title or f'context in {flow.carrier}'}", typical))
    if burst:
        most = max(burst, key=_batch_size)
        shown.append((f"{flow.about} · one of a burst of {flow.burst}, sent on in batches", most))
    return shown


def _batch_size(trace: Trace) -> int:
    return max((len(linked.links) for node in trace.nodes for linked in node.linked), default=0)
