"""One plain RocketMQ program, case by case, judged by what its process exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spanbridge.demo.otlp import OtlpReceiver, Span

from .conftest import TWICE, Run, counted, of

pytestmark = pytest.mark.brokers

CASES = Path(__file__).parents[1] / "programs" / "rocketmq_cases.py"
FAILURE = "rocketmq.v5.exception.client_exception.IllegalArgumentException"
CONSUMED, PROCESSED = "messaging.client.consumed.messages", "messaging.process.duration"
PARENT = "b7ad6b7169203331"
LABELS = {
    *("messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name"),
    *(
        "messaging.consumer.group.name",
        "server.address",
        "server.port",
        "error.type",
        "spanbridge.delivery.delay.since",
    ),
}
BAD = {
    "malformed": "",
    "zero_id": "",
    "baggage": PARENT,
    "baggage-members": PARENT,
    "tracestate": PARENT,
    "long": PARENT,
}
"""The contexts that the program writes by hand, and the parent that is left of each."""


def by_case(spans: list[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.attributes["messaging.rocketmq.message.tag"], []).append(span)
    return found


def assert_bad_contexts(processes: dict[str, list[Span]]) -> None:
    for case, parent in BAD.items():
        (span,) = processes[case]
        problem = None if case == "long" else case.partition("-")[0]
        assert span.attributes.get("spanbridge.context.problem") == problem
        assert len(span.trace_state) == (831 if case == "long" else 0)
        assert span.parent_id == parent


def test_case_by_case(run: Run, receiver: OtlpReceiver, devstack: Any) -> None:
    topic, push, poll = devstack.topic("NORMAL", queues=1), devstack.group(), devstack.group()
    program = run(CASES, devstack.rocketmq.endpoints, topic, push, poll, service="cases")
    program.wait_lines("again {'mine': '1'}", "IllegalArgumentException", "done")
    program.finish(TWICE)

    sends = by_case(of(receiver, "cases", "send"))
    whole = {"two": 6, "twice": 2, "again": 3}
    assert {case: len(spans) for case, spans in sends.items()} == {**whole, "fails": 1, "under-way": 1}
    assert len({span.attributes["messaging.client.id"] for span in sends["two"]}) == 2
    assert [span.attributes.get("error.type") for span in sends["fails"]] == [FAILURE]
    assert sends["under-way"][0].status == "UNSET"
    receives = {span.span_id for span in of(receiver, "cases", "receive") if span.status != "ERROR"}
    every_process = of(receiver, "cases", "process")
    for group in (push, poll):
        ours = [span for span in every_process if span.attributes["messaging.consumer.group.name"] == group]
        processes = by_case(ours)
        # What was sent before the instrumentation went may have been pushed before it went, too.
        early = len(processes.pop("under-way", ())) if group == push else 0
        assert len(ours) == 20 + early
        assert counted(receiver, "cases", CONSUMED, messaging_consumer_group_name=group) == 20 + early
        assert counted(receiver, "cases", PROCESSED, messaging_consumer_group_name=group) == 20 + early
        for case in whole:
            assert sorted(span.parent_id for span in processes[case]) == sorted(span.span_id for span in sends[case])
        for span in [*processes["suppressed"], *processes["left-alone"]]:  # nothing was written into them
            assert span.parent_id == ""
            assert {link.span_id for link in span.links} <= receives
        assert_bad_contexts(processes)
        assert processes.keys() == {*whole, *BAD, "suppressed", "left-alone"}
    assert len(of(receiver, "cases", "ack")) == 20
    assert_counts(receiver)


def assert_counts(receiver: OtlpReceiver) -> None:
    def count(metric: str, **labels: str) -> float:
        return counted(receiver, "cases", f"messaging.{metric}", **labels)

    assert count("client.sent.messages") == 13
    assert count("client.operation.duration", messaging_operation_name="send") == 13
    assert count("client.operation.duration", messaging_operation_name="ack") == 20
    for metric in ("client.sent.messages", "client.operation.duration"):
        assert count(metric, messaging_operation_name="send", error_type=FAILURE) == 1
    points = [point for metric in receiver.metrics for point in metric.points]
    assert {key for point in points for key in point.attributes} <= LABELS
