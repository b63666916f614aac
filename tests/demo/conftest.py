"""Spans as a receiver would have decoded them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from spanbridge.demo.cast import Cast, Device, Flow, question_steps, steps
from spanbridge.demo.otlp_model import Span, SpanLink

_ids = itertools.count(1)

MakeSpan = Callable[..., Span]


@pytest.fixture
def make_span() -> MakeSpan:
    """``make_span(service, name, kind, trace_id, parent=None, begin=0, end=1, system="", links=())``, times in ms."""

    def make(
        service: str,
        name: str,
        kind: str,
        trace_id: str,
        parent: Span | None = None,
        *,
        begin: float = 0,
        end: float = 1,
        system: str = "",
        links: tuple[Span, ...] = (),
        **more: Any,
    ) -> Span:
        attributes: dict[str, Any] = {"messaging.system": system} if system else {}
        fields: dict[str, Any] = {
            "attributes": attributes | more.pop("attributes", {}),
            "events": (),
            "status": "UNSET",
            "status_message": "",
            "scope": "test",
            "trace_state": "",
            "flags": 1,
        }
        return Span(
            name=name,
            kind=kind,
            trace_id=trace_id,
            span_id=f"{next(_ids):016x}",
            parent_id=parent.span_id if parent else "",
            start_ns=int(begin * 1e6),
            end_ns=int(end * 1e6),
            links=tuple(SpanLink(span.trace_id, span.span_id, "", 1, {}) for span in links),
            resource={"service.name": service},
            **(fields | more),
        )

    return make


@pytest.fixture
def message_spans(make_span: MakeSpan) -> Callable[..., list[Span]]:
    """The spans of messages that went all the way, one trace each, and of the batch that took them on."""

    def make(*trace_ids: str, service: str = "device-v5") -> list[Span]:
        spans: list[Span] = []
        sends: list[Span] = []
        for number, trace_id in enumerate(trace_ids):
            at = number * 10
            read = make_span(service, "read sensor", "INTERNAL", trace_id, begin=at, end=at + 2)
            publish = make_span(
                service, "send devices", "PRODUCER", trace_id, read, begin=at + 0.5, end=at + 2, system="mqtt"
            )
            take = make_span(
                "spanbridge", "process", "CONSUMER", trace_id, publish, begin=at + 1, end=at + 3, system="mqtt"
            )
            send = make_span(
                "spanbridge", "send t", "PRODUCER", trace_id, take, begin=at + 1.2, end=at + 3, system="rocketmq"
            )
            handle = make_span(
                "consumer", "process t", "CONSUMER", trace_id, send, begin=at + 4.5, end=at + 6, system="rocketmq"
            )
            spans += [read, publish, take, send, handle]
            sends.append(send)
        batch = make_span(
            "spanbridge", "send t", "CLIENT", "b" * 32, begin=1.3, end=2.9, system="rocketmq", links=tuple(sends),
            attributes={"messaging.batch.message_count": len(sends)},
        )  # fmt: skip
        return [*spans, batch]

    return make


@pytest.fixture
def question_spans(make_span: MakeSpan) -> Callable[..., list[Span]]:
    """The spans of a question to a device and of its answer, and of the calls to RocketMQ for them."""

    def make(trace_id: str, topic: str = "commands") -> list[Span]:
        hops = (
            ("backend", "ask", "INTERNAL", "", ""),
            ("backend", f"send {topic}", "PRODUCER", "rocketmq", topic),
            ("spanbridge", f"process {topic}", "CONSUMER", "rocketmq", topic),
            ("spanbridge", "send devices/{key}/commands", "PRODUCER", "mqtt", "devices/sensor-1/commands"),
            ("device-v5", "process devices/{device}/commands", "CONSUMER", "mqtt", "devices/sensor-1/commands"),
            ("device-v5", "send devices/{device}/answers", "PRODUCER", "mqtt", "devices/sensor-1/answers"),
            ("spanbridge", "process devices/{device}/answers", "CONSUMER", "mqtt", "devices/sensor-1/answers"),
            ("spanbridge", "send answers", "PRODUCER", "rocketmq", "answers"),
            ("backend", "process answers", "CONSUMER", "rocketmq", "answers"),
        )
        spans: list[Span] = []
        for at, (service, name, kind, system, destination) in enumerate(hops):
            spans.append(
                make_span(
                    service,
                    name,
                    kind,
                    trace_id,
                    spans[-1] if spans else None,
                    begin=at,
                    end=at + 1,
                    system=system,
                    attributes={"messaging.destination.name": destination},
                )
            )
        for call, sent in (("receive commands", spans[1]), ("send answers", spans[7])):
            count = {"messaging.batch.message_count": 1}
            spans.append(
                make_span("spanbridge", call, "CLIENT", "e" * 32, system="rocketmq", links=(sent,), attributes=count)
            )
        return spans

    return make


@pytest.fixture
def cast() -> Cast:
    """A device that sends one message alone and a burst of two, and is asked once."""
    device = Device(
        service="device-v5", name="sensor-1", about="MQTT v5 device", carrier="user property tp", messages=1, burst=2,
        command=["true"], topic="telemetry", steps=steps("device-v5"), ends="device → consumer",
    )  # fmt: skip
    question = Flow(
        service="backend", name="sensor-1", about="MQTT v5 device, asked", carrier="user property tp", messages=1,
        ends="question → answer", steps=question_steps("device-v5", "commands"), title="command and answer",
    )  # fmt: skip
    return Cast(devices=(device,), consumer=["true"], questions=(question,), backend=["true"])
