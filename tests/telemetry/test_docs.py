"""docs/telemetry.md names everything that the gateway emits."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

import spanbridge
from spanbridge.core.downlinks import Downlink
from spanbridge.core.events import Event
from spanbridge.core.message import Message
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.template import DOWN, Template
from spanbridge.downlink.recipe import queue_hop
from spanbridge.telemetry import DownlinkMetrics, Hop, MessageMetrics, Peer, Tracer
from spanbridge.telemetry.metrics.convention import Convention

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()


def events() -> Iterator[type[Event]]:
    for package in (
        "admin",
        "app",
        "downlink",
        "lag",
        "mqtt",
        "rocketmq",
        "spool",
        "supervisor",
        "telemetry",
        "uplink",
    ):
        root = importlib.import_module(f"spanbridge.{package}")
        for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                concrete = issubclass(kind, Event) and "name" in vars(kind) and not kind.__name__.startswith("_")
                if concrete and kind.__module__ == module.name:
                    yield kind


def test_every_event_is_documented() -> None:
    assert spanbridge.__version__
    found = {kind.name: kind for kind in events()}
    assert found
    missing = [row(kind) for name, kind in sorted(found.items()) if f"| `{name}` |" not in PAGE]
    assert not missing, "add to docs/telemetry.md:\n" + "\n".join(missing)


def row(kind: type[Event]) -> str:
    required = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    labels = kind(**dict.fromkeys(required, "x")).labels()
    shown = ", ".join(f"`{name}`" for name in labels) or "-"
    purpose = (kind.__doc__ or "").splitlines()[0]
    counted = "yes" if kind.counted else "no"
    return f"| `{kind.name}` | {kind.severity.name.lower()} | {counted} | {shown} | {purpose} |"


PEER = Peer(address="h", port=1, client_id="c", namespace="n")


class Kept:
    def __init__(self) -> None:
        self.framed: list[bytes] = []

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        self.framed += (b"".join(pieces[at : at + each]) for at in range(0, len(pieces), each))


def test_every_span_attribute_is_documented() -> None:
    sink = Kept()
    ours = Tracer(sink)
    process = Hop(operation="process", system="mqtt", destination="f", template="f", peer=PEER)
    extra = {f"messaging.rocketmq.message.{name}": "x" for name in ("tag", "keys", "group", "delivery_timestamp")}
    send = Hop(operation="send", system="rocketmq", destination="t", peer=PEER, extra=extra)
    _, _, message = ours.spans(process, send, policy=ContextPolicy.CONTINUE, trust=True).begin(None, 1, 0)
    ours.requested(send, [message], 1, 2, "x")
    ours.dropped(message, 3, "x")
    made = Downlink(name="d", topic="t", group="g", broker="b", publish=Template.parse("f", DOWN))
    process = queue_hop("process", made, PEER)
    _, _, message = ours.spans(process, process, policy=ContextPolicy.CONTINUE, trust=True).begin(None, 1, 0)
    ours.describe(message, Message("t", b"", message_id="m", tag="x", keys=("x",), group="x"))
    ours.stored([message], 3)
    calls = ours.calls(queue_hop("receive", made, PEER))
    assert calls is not None
    calls.record(1, 1, 2, error="x")
    names = {
        attribute.key
        for framed in sink.framed
        for span in ScopeSpans.FromString(framed).spans
        for attribute in span.attributes
    }
    assert len(names) == 18
    assert [name for name in sorted(names) if f"| `{name}` |" not in PAGE] == []


METRICS = [*MessageMetrics().counters, *MessageMetrics().histograms, *DownlinkMetrics(Convention()).counters]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_documented(metric: object) -> None:
    name, unit = vars(metric)["name"], vars(metric)["unit"]
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert f"| {unit} |" in line
