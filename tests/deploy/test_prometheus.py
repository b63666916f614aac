"""What `spanbridge demo --observe` runs, looked at by a real Prometheus: every query of the dashboard, every rule."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spanbridge.demo.observe import Observed, observe
from spanbridge.demo.observe_cli import as_dict
from spanbridge.demo.observe_stage import DEVICE, GROUP, ObserveStage
from spanbridge.demo.observe_view import show
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.demo.prometheus import PrometheusClient, prometheus_program
from spanbridge.devstack import Devstack
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.pytest_plugin import SharedStack
from tests.deploy.alarms import fired, shorten
from tests.deploy.test_dashboard import ALERTS, DEPLOY, PANELS, RULES
from tests.e2e.commands import Command, Commander
from tests.e2e.harness import Device

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(600)]  # a module's processes start within its first test
needs_prometheus = pytest.mark.skipif(prometheus_program() is None, reason="prometheus is not on the PATH")

LIMIT = 120.0
"""Seconds that anything may take on a busy machine."""
SETTINGS = """
[uplink]
rejected_topic = "rejected-readings"

[[routes]]
filter = "large/{device}"
topic = "readings"
max_payload = 4

[[routes]]
filter = "lost/{device}"
topic = "no-such-{device}"

[[downlinks]]
topic = "orders"
consumer_group = "gateway-orders"
broker = "mqtt"
mqtt_topic = "devices/{key}/orders"

[[downlinks]]
topic = "recalls"
consumer_group = "gateway-recalls"
mqtt_topic = "devices/{key}/recalls"
away = "retry"
expiry = "5s"
broker = "mqtt"

[[downlinks]]
topic = "notices"
consumer_group = "gateway-notices"
mqtt_topic = "devices/{key}/notices"
broker = "hangs"
"""
LAG_GROUPS = """
[[lag.groups]]
name = "never-started"
topics = ["readings"]

[[lag.groups]]
name = "gateway-orders"
topics = ["orders"]
"""
NOTHING_HAPPENED = {
    "spanbridge_dropped_total",
    "spanbridge_downlink_rejected_total",
    "spanbridge_downlink_dropped_total",
    "spanbridge_downlink_nacked_total",
    "spanbridge_spool_time_left_seconds",  # nothing while it does not grow
    "spanbridge_rocketmq_consumer_status",  # groups that have no lag, of which there is none
}
"""What counts faults that this run does not have. Series of counters begin with their first event."""
TROUBLE = "Trouble"
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}: {target['legendFormat']}")
    for panel in PANELS
    for target in panel["targets"]
    if "rocketmq_consumer_" not in target["expr"] or "spanbridge_" in target["expr"]
    if panel["title"] != TROUBLE
]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def hanging() -> Iterator[MqttBroker]:
    """An MQTT broker for the alerts to freeze."""
    with Devstack.up(rocketmq=False, mqtt_v311=False) as brokers:
        yield brokers.mqtt_v5


@pytest.fixture(scope="module")
def stage(
    devstack: SharedStack, hanging: MqttBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObserveStage]:
    spool, rules = tmp_path_factory.mktemp("spool"), tmp_path_factory.mktemp("rules")
    broker = f'[[mqtt]]\nname = "hangs"\nurl = "mqtt://{hanging.host}:{hanging.port}"'
    settings = f'{SETTINGS}\n{broker}\n{LAG_GROUPS}\n[spool]\npath = "{spool}"\n'
    with OtlpReceiver() as receiver, ObserveStage(receiver, settings, devstack.stack) as running:
        for topic in ("orders", "recalls", "notices", "rejected-readings"):
            running.stack.rocketmq.create_topic(topic)
        for group in ("gateway-orders", "gateway-recalls", "gateway-notices", "never-started", "hanging"):
            running.stack.rocketmq.create_group(group)
        running.start_observed()
        running.start_prometheus(shorten([ALERTS, DEPLOY / "prometheus" / "lag.yml"], rules))
        yield running


@pytest.fixture(scope="module")
def traffic(stage: ObserveStage) -> Iterator[Callable[[], None]]:
    """Sends one of each: a command that goes down, messages that are rejected, lost for want of a topic, and stored."""
    device = Device(stage.places.v5_host, stage.places.v5_port)
    with Commander(stage.places.endpoints) as commander:

        def send() -> None:
            commander.send("orders", Command("go", key="meter-1"))
            device.publish("large/meter-1", "too large")
            device.publish("lost/meter-1", "lost")
            device.publish("meters/meter-1/reading", '{"seq": 1}')

        yield send
    device.close()


@pytest.fixture(scope="module")
def trouble(
    stage: ObserveStage, prometheus: PrometheusClient, traffic: Callable[[], None], hanging: MqttBroker
) -> Iterator[PrometheusClient]:
    """Goes on sending: to consumers that stand still or hang, to nobody, to no topic, to a broker that hangs."""
    program = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable]
    consumer = [str(Path(__file__).with_name("hanging_consumer.py")), stage.places.endpoints, "hanging", "readings"]
    environment = {**os.environ, **stage.environment("hanging"), "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
    environment["HOME"] = str(stage.directory)
    ended = threading.Event()
    hanging.pause()
    stage.consumer.pause()

    def send() -> None:
        with Commander(stage.places.endpoints) as commander:
            while not ended.wait(1):
                traffic()
                commander.send("orders", Command("to whom?"))
                commander.send("recalls", Command("come back", key="nobody"))
                commander.send("notices", Command("read this", key="meter-1"))

    thread = threading.Thread(target=send, daemon=True)
    with subprocess.Popen([*program, *consumer], stdin=subprocess.PIPE, env=environment) as process:
        thread.start()
        yield prometheus
        ended.set()
        thread.join()
        process.kill()
    stage.consumer.resume()
    hanging.resume()


@pytest.fixture(scope="module")
def seen(stage: ObserveStage, traffic: Callable[[], None]) -> Observed:
    traffic()
    return observe(stage, 150, LIMIT)


@pytest.fixture(scope="module")
def prometheus(stage: ObserveStage, seen: Observed, traffic: Callable[[], None]) -> PrometheusClient:
    """Once it has seen each kind of event happen: a rate takes two scrapes."""
    client = stage.prometheus
    assert client is not None

    def moves(metric: str) -> bool:
        traffic()
        return any(float(one["value"][1]) > 0 for one in client.query(f"increase({metric}[2m])"))

    for metric in (
        'messaging_process_duration_seconds_count{messaging_system="mqtt"}',
        'messaging_process_duration_seconds_count{messaging_system="rocketmq"}',
        'messaging_client_operation_duration_seconds_count{messaging_system="mqtt"}',
        "spanbridge_delivery_delay_seconds_count",
        "spanbridge_rejected_total",
    ):
        until(lambda metric=metric: moves(metric), metric)  # type: ignore[misc]
    return client


def test_the_slow_consumer_is_found(stage: ObserveStage, seen: Observed, tmp_path: Path) -> None:
    assert seen.problems == []
    assert seen.lag is not None
    assert (seen.lag["group"], seen.lag["means"]) == (GROUP, "not_delivered")
    assert seen.lag["lag"] > 0
    assert seen.delay is not None
    assert seen.delay.count > 0
    assert seen.trace is not None
    assert seen.hottest is not None
    assert {node.span.service for node in seen.trace.nodes} == {DEVICE, "spanbridge", "consumer"}
    page = tmp_path / "flames.html"
    console = Console(record=True, width=118, file=io.StringIO())
    show(console, seen, stage.prometheus.url if stage.prometheus else None, page)
    told = console.export_text()
    first = told[told.index("Where the consumer's CPU time went") :].splitlines()[1]
    assert "find_tariff" in first
    assert f"trace {seen.hottest.trace_id}" in told
    assert str(page) in told
    assert "find_tariff (zero_code/consumer_slow.py)" in page.read_text()
    assert seen.hottest.trace_id in page.read_text()
    assert json.loads(json.dumps(as_dict(seen)))["ok"]


@needs_prometheus
@pytest.mark.parametrize("expression", QUERIES)
def test_every_query_of_the_dashboard_returns_data(expression: str, prometheus: PrometheusClient) -> None:
    asked = re.sub(r"\$__(rate_interval|range)", "2m", expression).replace("$instance", ".*")
    found = prometheus.query(asked)
    names = set(re.findall(r"\b(?:spanbridge|messaging|process)_\w+(?=\{)", expression))
    assert found or names <= NOTHING_HAPPENED
    for sample in found:
        assert sample["value"][1] != "NaN", sample


@needs_prometheus
def test_every_rule_is_evaluated(prometheus: PrometheusClient) -> None:
    def rules() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{prometheus.url}/api/v1/rules", timeout=10) as answer:
            groups = json.load(answer)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()), "the evaluation of every rule")
    assert {rule["name"]: rule.get("lastError") for rule in rules() if rule["health"] != "ok"} == {}
    assert {rule["alert"] for rule in RULES} <= {rule["name"] for rule in rules()}


@needs_prometheus
@pytest.mark.parametrize(
    ("alert", "labels"),
    [
        ("SpanbridgeRejecting", {"reason": "too_large", "topic": "rejected-readings"}),
        ("SpanbridgeDownlinkRejecting", {"downlink": "orders"}),
        pytest.param(
            "SpanbridgeDownlinkDrops", {"downlink": "recalls", "reason": "expired"}, marks=pytest.mark.mosquitto
        ),
        pytest.param("SpanbridgeDownlinkRetries", {"downlink": "recalls"}, marks=pytest.mark.mosquitto),
        ("SpanbridgeDownlinkStuck", {"downlink": "notices"}),
        ("SpanbridgeDeadLetters", {"messaging_consumer_group_name": "gateway-orders"}),
        ("SpanbridgeConsumerNeverCommitted", {"messaging_consumer_group_name": "never-started"}),
        ("SpanbridgeConsumerBehind", {"messaging_consumer_group_name": GROUP}),
        ("SpanbridgeConsumerHangs", {"messaging_consumer_group_name": "hanging"}),
    ],
)
def test_alerts_fire(alert: str, labels: dict[str, str], trouble: PrometheusClient) -> None:
    until(lambda: any(labels.items() <= found.items() for found in fired(trouble, alert)), f"{alert} with {labels}")
