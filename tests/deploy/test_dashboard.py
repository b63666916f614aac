"""The dashboard and the alerts ask for metrics that the gateway really serves, by the labels that it gives them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

import spanbridge
from spanbridge.app.clock import SystemClock
from spanbridge.app.downlinks import DownlinkPeers
from spanbridge.app.spool import SpoolView
from spanbridge.core.events import Event
from spanbridge.lag import LagReading, LagState, Meaning, QueueLag, TopicLag
from spanbridge.lag.gauges import register
from spanbridge.ports import Link, TopicQueue
from spanbridge.rocketmq.protocols import ClusterProtocol
from spanbridge.telemetry import Peer, Telemetry
from spanbridge_instrumentation._shared.telemetry import Telemetry as ConsumerTelemetry

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "spanbridge.json").read_text())
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
GROUPS = {
    group["name"]: group["rules"]
    for file in (ALERTS, DEPLOY / "prometheus" / "lag.yml")
    for group in yaml.safe_load(file.read_text())["groups"]
}
RULES = [rule for rules in GROUPS.values() for rule in rules if "alert" in rule]
RECORDED = {rule["record"] for rules in GROUPS.values() for rule in rules if "record" in rule}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [
    *(
        pytest.param(target["expr"], id=panel["title"])
        for panel in PANELS
        for target in panel["targets"]
        if "rocketmq_consumer_" not in target["expr"] or "spanbridge_" in target["expr"]
    ),
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES if rule not in GROUPS["rocketmq-exporter"]),
]
ADDED_BY_PROMETHEUS = {"instance", "job", "__name__"}

Samples = dict[str, set[str]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def served(anyio_backend: str) -> Samples:
    """Names of all samples on /metrics after everything that is counted has happened, each with its labels."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "none"}
    telemetry = Telemetry(source=Peer("mqtt", 1883), target=Peer("rmq", 8081), environ=environ)
    up: Any = SimpleNamespace(name="m", status=SimpleNamespace(link=Link.UP))
    load: Any = SimpleNamespace(in_flight=1, paused=False, oldest_age=lambda: 1.0)
    down: Any = SimpleNamespace(readings=lambda: [("commands", 1, 1.0, False)])
    await telemetry.start(load, [up], up, down)
    peers = DownlinkPeers(down, telemetry, ClusterProtocol())
    peers.consumers["commands"] = peers.publishers["m"] = up
    peers.show()
    telemetry.downlink_metrics.consumed("t", "g", 1)
    telemetry.downlink_metrics.published("d/{key}", 0.1)
    telemetry.downlink_metrics.published("d/{key}", 0.1, error="throttled")
    telemetry.downlink_metrics.process_duration("t", "g", 0.1)
    register_spool(telemetry)
    telemetry.metrics.consumed("a/+", 1)
    telemetry.metrics.requested("t", 1, 0.1)
    telemetry.metrics.requested("t", 1, 0.1, "throttled")
    telemetry.metrics.process_duration("a/+", 0.1)
    telemetry.metrics.batch("t", 1, 0.1)
    telemetry.metrics.dropped("a/+", "expired")
    telemetry.metrics.rejected("a/+", "too_large", "dead")
    telemetry.metrics.context("valid")
    for event in every_event():
        telemetry.reporter.report(event)
    register(telemetry.gauge, lambda: READING)
    page = telemetry.prometheus()[0].decode()
    await telemetry.shutdown(1)
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found | of_consumers()


def of_consumers() -> Samples:
    """What an instrumented consumer exports, as the collector's Prometheus exporter calls it."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    telemetry = ConsumerTelemetry("test", "1", meter_provider=meters)
    labels = {"messaging.consumer.group.name": "g", "messaging.destination.name": "t", "messaging.system": "rocketmq"}
    telemetry.delayed(1.0, labels)
    telemetry.in_flight.add(labels)
    data: Any = reader.get_metrics_data()
    metrics = [one for scope in data.resource_metrics[0].scope_metrics for one in scope.metrics]
    found: Samples = {}
    for metric in metrics:
        name = metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")
        kept = {key.replace(".", "_") for point in metric.data.data_points for key in point.attributes}
        found[f"{name}_bucket" if hasattr(metric.data.data_points[0], "bucket_counts") else name] = kept | {"le"}
    return found


READING = LagReading(
    at_ns=1,
    took=0.1,
    requests=1,
    rows=(
        TopicLag(
            group="g",
            topic="t",
            state=LagState.CONSUMED,
            means=Meaning.NOT_DELIVERED,
            members=1,
            queues=(QueueLag(TopicQueue("t", "broker-a", 0), 5, 2, 0, 60.0),),
        ),
    ),
    dead_letters={"g": 1},
)


def register_spool(telemetry: Telemetry) -> None:
    spool: Any = SimpleNamespace(first=0, end=1, size=1, limit=2, room=1)
    spill: Any = SimpleNamespace(oldest_ns=None)
    view = SpoolView(spool, spill, spool, spill, SystemClock())
    view.register(telemetry)
    view.readings.append((0, 0))  # it has grown since


def every_event() -> Iterator[Event]:
    modules = pkgutil.walk_packages(spanbridge.__path__, "spanbridge.")
    wanted = ("app", "downlink", "lag", "mqtt", "rocketmq", "spool", "telemetry", "uplink")
    parts = [found.name for found in modules if found.name.split(".")[1] in wanted]
    for kind in sorted({kind for name in parts for kind in events_of(importlib.import_module(name))}, key=repr):
        values: dict[str, Any] = {"int": 1, "float": 1.0, "bool": True}
        required = [field for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
        yield kind(**{field.name: values.get(str(field.type), "x") for field in required})


def events_of(module: Any) -> Iterator[type[Event]]:
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, Event) and "name" in vars(kind) and kind.__name__[0] != "_":
            yield kind


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric that a PromQL expression names, with the labels it is selected by."""
    plain = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", expression)
    for name, braces in re.findall(
        r"\b((?:spanbridge|messaging|process)_\w+|up)\b(?:\{([^}]*)\})?", without_labels(plain)
    ):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))


def without_labels(expression: str) -> str:
    """Text in quotes may look like anything."""
    return re.sub(r'"[^"]*"', '""', expression)


def grouped(expression: str) -> set[str]:
    lists = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return {label.strip() for names in lists for label in names.split(",")}


@pytest.mark.anyio
@pytest.mark.parametrize("expression", EXPRESSIONS)
async def test_asks_for_what_is_served(expression: str, served: Samples) -> None:
    found = list(selectors(expression))
    assert found
    available = set(ADDED_BY_PROMETHEUS)
    for name, labels in found:
        if name != "up":
            assert name in served
            available |= served[name]
        assert labels <= available, f"{name} has no labels {labels - available}"
    assert grouped(expression) <= available


@pytest.mark.anyio
async def test_an_unknown_name_would_be_found(served: Samples) -> None:
    assert [name for name, _ in selectors('sum by (le) (rate(spanbridge_nonsense_total{a="b"}[5m]))')] == [
        "spanbridge_nonsense_total"
    ]
    assert "spanbridge_nonsense_total" not in served


def test_panels_of_rocketmqs_exporter_show_clamped_series() -> None:
    asked = {name for panel in PANELS for one in panel["targets"] for name in re.findall(r"\w+:\w+:\w+", one["expr"])}
    assert asked
    assert asked <= RECORDED
    for rule in GROUPS["rocketmq-exporter"]:
        assert "clamp_min(" in rule["expr"] or "alert" in rule


@pytest.mark.parametrize(("panel", "target"), [(panel, one) for panel in PANELS for one in panel["targets"]])
def test_legends_use_labels_that_the_query_keeps(panel: dict[str, Any], target: dict[str, Any]) -> None:
    wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    aggregated = re.match(r"\s*(sum|min|max|histogram_quantile)\b", target["expr"])
    kept = grouped(target["expr"]) if aggregated else {"instance", "source", "downlink", "broker"}
    assert wanted <= kept, panel["title"]


def test_shows_what_an_operator_asks_first() -> None:
    asked = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    for name in (
        "messaging_client_consumed_messages_total",
        'messaging_client_sent_messages_total{messaging_system="rocketmq", instance=~"$instance", error_type!=""}',
        'messaging_client_sent_messages_total{messaging_system="mqtt", instance=~"$instance", error_type=""}',
        "messaging_process_duration_seconds_bucket",
        "spanbridge_in_flight",
        "spanbridge_oldest_unacknowledged_age_seconds",
        "spanbridge_batch_size_bucket",
        "spanbridge_dropped_total",
        "spanbridge_rejected_total",
        "process_resident_memory_bytes",
        "spanbridge_source_up",
        "spanbridge_sink_up",
        "spanbridge_downlink_in_flight",
        "spanbridge_downlink_rejected_total",
        "spanbridge_consumer_up",
        "spanbridge_publisher_up",
    ):
        assert name in asked


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_first_events_are_counted(expression: str) -> None:
    """A counter that begins with its first event has no increase: its value is asked for beside it."""
    for name in re.findall(r"increase\((\w+)", expression):
        assert re.search(rf"\b{name}\b[^()]* unless {name}\b[^()]* offset ", expression)


def test_panels_have_their_own_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_exemplars_lead_to_traces_and_traces_to_profiles() -> None:
    file = DEPLOY / "grafana" / "provisioning" / "datasources" / "spanbridge.yaml"
    sources = {source["uid"]: source for source in yaml.safe_load(file.read_text())["datasources"]}
    (exemplars,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (exemplars["name"], sources[exemplars["datasourceUid"]]["type"]) == ("trace_id", "jaeger")
    profiles = sources["jaeger"]["jsonData"]["tracesToProfiles"]
    assert sources[profiles["datasourceUid"]]["type"] == "grafana-pyroscope-datasource"
    assert {"key": "service.name", "value": "service_name"} in profiles["tags"], "the series' label in what is pushed"
    assert profiles["profileTypeId"].startswith("process_cpu:cpu:nanoseconds:"), (
        "the name and the type of what is pushed"
    )
    collector = yaml.safe_load((DEPLOY / "otelcol" / "config.yaml").read_text())
    assert collector["exporters"]["prometheus"]["enable_open_metrics"] is True
    assert "--enable-feature=exemplar-storage" in (DEPLOY.parent / "docker-compose.yml").read_text()
    asked = [target["expr"] for panel in PANELS for target in panel["targets"] if target.get("exemplar")]
    assert asked
    assert all("spanbridge_delivery_delay_seconds_bucket" in one for one in asked), "the gateway's own have none"


def test_provisioning_fits_the_dashboard() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "spanbridge.yaml").read_text())["datasources"]
    default = next(variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "datasource")
    assert default["current"]["value"] in {source["uid"] for source in sources if source["type"] == "prometheus"}
    (provider,) = yaml.safe_load((folder / "dashboards" / "spanbridge.yaml").read_text())["providers"]
    compose = (DEPLOY.parent / "docker-compose.yml").read_text()
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in compose
