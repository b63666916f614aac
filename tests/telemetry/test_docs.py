"""docs/telemetry.md names everything that the gateway emits."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import spanbridge
from spanbridge.core.events import Event
from spanbridge.core.message import Address, Publish
from spanbridge.core.policy import ContextPolicy
from spanbridge.telemetry import UplinkMetrics

from .otlp import tracer

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()


def events() -> Iterator[type[Event]]:
    for package in ("admin", "app", "mqtt", "rocketmq", "telemetry", "uplink"):
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


def test_every_span_attribute_is_documented() -> None:
    ours, sink = tracer()
    address = Address("t", tag="x", keys=("k",), group="g", delivery_timestamp_ms=1)
    route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
    message = route.begin(Publish("f", b"", received_ns=time.time_ns()), None, address)
    ours.sent([message], 1, 2, "t", "x")
    ours.dropped(message, 3, "x")
    names = {attribute.key for span in sink.spans() for attribute in span.attributes}
    assert len(names) == 16
    assert [name for name in sorted(names) if f"| `{name}` |" not in PAGE] == []


@pytest.mark.parametrize("metric", [*UplinkMetrics().counters, *UplinkMetrics().histograms], ids=lambda m: m.name)
def test_every_metric_is_documented(metric: object) -> None:
    name, unit = vars(metric)["name"], vars(metric)["unit"]
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert f"| {unit} |" in line
