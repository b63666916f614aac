"""The piece itself: devices send, and what the receiver and the consumer got is judged."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from spanbridge.demo.cast import Cast, Device
from spanbridge.demo.stage import Stage
from spanbridge.demo.traces import Trace, Traces
from spanbridge.demo.view import DeviceResult

_SETTLE_SECONDS = 20.0


@dataclass(slots=True)
class DemoResult:
    """What came of it. ``latencies_ms`` are from the start of a device's send span to the start of the consumer's."""

    tallies: list[DeviceResult]
    traces: Traces
    shown: list[tuple[str, Trace]] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    duplicates: int = 0

    @property
    def ok(self) -> bool:
        """Whether no message and no span is missing."""
        return not self.problems


def play(stage: Stage, cast: Cast, settle_seconds: float = _SETTLE_SECONDS) -> DemoResult:
    """Let the devices send, wait until everything has arrived (or ``settle_seconds`` have passed), and judge.

    :raises ServiceError: a device failed.
    """
    stage.play(cast.devices)
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


def judge(cast: Cast, printed: list[tuple[str, int]], traces: Traces) -> DemoResult:
    """Compare what was sent with what arrived, and look for every span of every message."""
    counts = Counter(printed)
    outcome = DemoResult([], traces, duplicates=sum(counts.values()) - len(counts))
    for device in cast.devices:
        _judge_device(device, counts, outcome)
    return outcome


def _judge_device(device: Device, printed: Counter[tuple[str, int]], outcome: DemoResult) -> None:
    expected = device.readings
    received = len(expected & printed.keys())
    trace_ids = outcome.traces.of_service(device.service)
    faults = {trace_id: outcome.traces.missing(trace_id, device.steps) for trace_id in trace_ids}
    complete = [trace_id for trace_id in trace_ids if faults[trace_id] is None]
    outcome.tallies.append(
        DeviceResult(
            device=device.about,
            carrier=device.carrier,
            sent=len(expected),
            received=received,
            complete=len(complete),
            lost=len(expected) - received,
        )
    )
    if received < len(expected):
        outcome.problems.append(
            f"{device.about}: {len(expected) - received} of {len(expected)} messages did not arrive"
        )
    if len(complete) < len(expected):
        why = next((fault for fault in faults.values() if fault), "the device's own spans did not arrive")
        outcome.problems.append(f"{device.about}: {len(expected) - len(complete)} traces are not whole: {why}")
    traces = [outcome.traces.trace(trace_id) for trace_id in complete or trace_ids]
    outcome.latencies_ms += [latency for trace in traces if (latency := _latency_ms(trace, device)) is not None]
    outcome.shown += _pick(device, traces)


def _latency_ms(trace: Trace, device: Device) -> float | None:
    first, last = device.steps[0], device.steps[-1]
    begin = [node.span.start_ns for node in trace.nodes if first.matches(node.span)]
    end = [node.span.start_ns for node in trace.nodes if last.matches(node.span)]
    return (min(end) - min(begin)) / 1e6 if begin and end else None


def _pick(device: Device, traces: list[Trace]) -> list[tuple[str, Trace]]:
    """One trace of each kind: a message sent alone (the one that took the median time), and one that shared a batch."""
    if not traces:
        return []
    single, burst = traces[: device.messages], traces[device.messages :]
    shown = []
    if single:
        typical = sorted(single, key=lambda trace: trace.end_ns - trace.start_ns)[len(single) // 2]
        shown.append((f"{device.about} · context in {device.carrier}", typical))
    if burst:
        most = max(burst, key=_batch_size)
        shown.append((f"{device.about} · one of a burst of {device.burst}, sent on in batches", most))
    return shown


def _batch_size(trace: Trace) -> int:
    return max((len(linked.links) for node in trace.nodes for linked in node.linked), default=0)
