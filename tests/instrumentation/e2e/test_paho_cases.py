"""One plain paho program, case by case, judged by what its process exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge.demo.otlp import OtlpReceiver, Span
from spanbridge_context import TraceContext

from .conftest import TWICE, Run, counted, of

pytestmark = pytest.mark.brokers

CASES = Path(__file__).parents[1] / "programs" / "paho_cases.py"
LABELS = {
    *("messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.template"),
    *("server.address", "server.port", "error.type", "spanbridge.delivery.delay.since"),
}
GOOD = TraceContext.new()
LONG = ",".join(f"k{n}={'v' * 100}" for n in range(8))
BAD: dict[str, Sequence[tuple[str, str]]] = {
    "malformed": [("traceparent", "00-nonsense")],
    "duplicate": [("traceparent", GOOD.traceparent), ("traceparent", TraceContext.new().traceparent)],
    "zero_id": [("traceparent", f"00-{'0' * 32}-{'0' * 16}-01")],
    # More than the 8192 bytes and 180 members that are kept, more than W3C Trace Context's 32 members.
    "baggage bytes": [("traceparent", GOOD.traceparent), ("baggage", f"big={'v' * 8190}")],
    "baggage members": [("traceparent", GOOD.traceparent), ("baggage", ",".join(f"k{n}=v" for n in range(190)))],
    "tracestate": [("traceparent", GOOD.traceparent), ("tracestate", ",".join(f"k{n}=v" for n in range(40)))],
    # Longer than the 512 characters that W3C asks everybody to carry, and well-formed.
    "": [("traceparent", GOOD.traceparent), ("tracestate", LONG)],
}


def publish_bad_contexts(broker: Any, topic: str) -> None:
    """What a device may send: a topic for each context, ``<topic>/0`` first."""
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    device.connect(broker.host, broker.port)
    device.loop_start()
    for number, pairs in enumerate(BAD.values()):
        properties = Properties(PacketTypes.PUBLISH)
        for pair in pairs:
            properties.UserProperty = pair
        device.publish(f"{topic}/{number}", b"x", qos=1, properties=properties).wait_for_publish(10)
    device.disconnect()
    device.loop_stop()


def by_case(spans: list[Span], prefix: str) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in spans:
        topic = str(span.attributes["messaging.destination.name"])
        assert topic.startswith(prefix)
        found.setdefault(topic.removeprefix(f"{prefix}/").split("/")[0], []).append(span)
    return found


def assert_whole(sends: list[Span], processes: list[Span], count: int) -> None:
    """Each send is a trace of its own, with one process span below."""
    assert len(sends) == len({span.trace_id for span in sends}) == count
    assert sorted(span.parent_id for span in processes) == sorted(span.span_id for span in sends)
    assert {span.trace_id for span in processes} == {span.trace_id for span in sends}


def assert_bad_contexts(processes: list[Span]) -> None:
    """Every message has its one span, which says what was wrong, and the trace where that was not."""
    spans = {str(span.attributes["messaging.destination.name"]).rpartition("/")[2]: span for span in processes}
    assert len(processes) == len(spans) == len(BAD)
    for number, name in enumerate(BAD):
        span = spans[str(number)]
        assert span.attributes.get("spanbridge.context.problem", "") == name.partition(" ")[0]
        assert span.trace_state == ("" if name else LONG)
        kept = ("traceparent", GOOD.traceparent) in BAD[name] and name != "duplicate"
        assert span.parent_id == (GOOD.span_id if kept else "")
        assert [link.span_id for link in span.links] == ([GOOD.span_id] if kept else [])


def test_case_by_case(run: Run, receiver: OtlpReceiver, mqtt_devstack: Any) -> None:
    broker, prefix = mqtt_devstack.mqtt_v5, mqtt_devstack.unique("cases")
    program = run(CASES, broker.host, str(broker.port), prefix, service="cases")
    program.wait_lines("ready")
    publish_bad_contexts(broker, f"{prefix}/bad")
    program.say(f"{len(BAD)}\n")
    program.wait_lines("reused [('mine', '1')]", "done")
    program.finish(TWICE)

    sends = by_case(of(receiver, "cases", "send"), prefix)
    processes = by_case(of(receiver, "cases", "process"), prefix)
    whole = {"two": 10, "twice": 6, "reused": 10, "many": 200, "raises": 1, "before": 1}
    for case, count in whole.items():
        assert_whole(sends[case], processes[case], count)
    alone = {"suppressed", "left-alone"}  # nobody's children: nothing was written into them
    for case in alone:
        assert [(span.parent_id, span.links) for span in processes[case]] == [("", ())] * 3
    assert_bad_contexts(processes["bad"])
    assert sends.keys() == {*whole, "fails"}
    assert processes.keys() == {*whole, *alone, "bad"}
    assert len({span.attributes["messaging.client.id"] for span in sends["two"]}) == 2
    assert [span.attributes.get("error.type") for span in processes["raises"]] == ["ValueError"]
    assert [span.attributes.get("error.type") for span in sends["fails"]] == ["MQTT_ERR_NO_CONN"]
    spans = [span for span in receiver.spans if span.service == "cases"]
    assert {span.name for span in spans} == {
        "process +/#",
        *(f"send +/{case}" for case in sends.keys() - {"two", "many"}),
        "send +/two/first",
        "send +/two/second",
        "send +/many/+/state",
    }
    assert len(spans) == 229 + 228 + 6 + len(BAD)

    sent, consumed = 229, 228 + 6 + len(BAD)
    assert counted(receiver, "cases", "messaging.client.sent.messages") == sent
    assert counted(receiver, "cases", "messaging.client.operation.duration") == sent
    assert counted(receiver, "cases", "messaging.client.consumed.messages") == consumed
    assert counted(receiver, "cases", "messaging.process.duration") == consumed
    for metric, error in (("client.sent.messages", "MQTT_ERR_NO_CONN"), ("process.duration", "ValueError")):
        assert counted(receiver, "cases", f"messaging.{metric}", error_type=error) == 1
    points = [point for metric in receiver.metrics for point in metric.points]
    assert {key for point in points for key in point.attributes} <= LABELS
    assert len({str(sorted(point.attributes.items())) for point in points}) < 30
