"""A gateway that only carries commands down, in the test's own loop: it blocks nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from blockbuster import blockbuster_ctx

from spanbridge.app.gateway import Gateway
from spanbridge.config import Config, load
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.telemetry import Telemetry
from tests.e2e.commands import Command, Commander, Receiver

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]

FILE = """
name = "{name}"
[mqtt]
url = "mqtt://{mqtt}"
[rocketmq]
endpoints = "{endpoints}"
protocol = "{protocol}"
[admin]
port = 0
probe_interval = 1
[telemetry]
log_format = "text"
[[downlinks]]
topic = "{topic}"
consumer_group = "{group}"
mqtt_topic = "{base}/{{key}}"
"""

NO_EXPORT = {**os.environ, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}


def make_config(devstack: SharedStack, directory: Path, protocol: str) -> tuple[Config, str, str]:
    broker, topic, base = devstack.mqtt_v5, devstack.topic(), devstack.unique("in-process")
    file = directory / "gateway.toml"
    text = FILE.format(
        name=devstack.unique("gw"),
        mqtt=f"{broker.host}:{broker.port}",
        endpoints=devstack.rocketmq.endpoints if protocol == "grpc" else devstack.rocketmq.namesrv,
        protocol=protocol,
        topic=topic,
        group=devstack.group(),
        base=base,
    )
    file.write_text(text)
    return load(file, os.environ), topic, base


def send(devstack: SharedStack, topic: str, count: int) -> None:
    with Commander(devstack.rocketmq.endpoints) as commander:
        commander.send(topic, *(Command(f"m{number}", key="a") for number in range(count)))


@pytest.mark.parametrize("protocol", ["grpc", "remoting"])
async def test_a_gateway_with_downlinks_alone(devstack: SharedStack, tmp_path: Path, protocol: str) -> None:
    config, topic, base = await anyio.to_thread.run_sync(make_config, devstack, tmp_path, protocol)
    telemetry = Telemetry(config.telemetry, environ=NO_EXPORT)
    gateway = await anyio.to_thread.run_sync(lambda: Gateway(config, telemetry))
    address = devstack.mqtt_v5.host, devstack.mqtt_v5.port
    device = await anyio.to_thread.run_sync(Receiver, address, [f"{base}/+"])
    before = asyncio.all_tasks()
    stop = asyncio.Event()
    with blockbuster_ctx("spanbridge"):
        running = asyncio.create_task(gateway.run(stop, lambda: "the test"))
        with anyio.fail_after(60):
            while not gateway.watch.readiness().ready:
                await anyio.sleep(0.05)
            first = telemetry.prometheus()[0].decode()
            gateway.watch.read_rates()
            await anyio.to_thread.run_sync(send, devstack, topic, 40)
            while gateway.downlinks.status()["published"] < 40 or gateway.downlinks.in_flight:
                await anyio.sleep(0.05)
            gateway.watch.read_rates()
            status, page = gateway.watch.status(), telemetry.prometheus()[0].decode()
            stop.set()
            await running
    assert asyncio.all_tasks() == before
    await anyio.to_thread.run_sync(device.leave)
    check_status(status, topic)
    assert sample(first, "spanbridge_downlink_rejected_total", topic, 'reason="bad_topic"') == [" 0"]
    assert sample(page, "spanbridge_consumer_up", topic) == [" 1"]
    assert sample(page, "spanbridge_publisher_up", "mqtt") == [" 1"]
    assert not gateway.watch.liveness()


def sample(page: str, name: str, *labels: str) -> list[str]:
    lines = [line for line in page.splitlines() if line.startswith(f"{name}{{")]
    return [line.rpartition("}")[2] for line in lines if all(label in line for label in labels)]


def check_status(status: dict[str, Any], topic: str) -> None:
    (row,) = status["downlinks"]
    assert (row["name"], row["received"], row["published"], row["rejected"]) == (topic, 40, 40, 0)
    assert row["published_per_s"] > 0
    assert (status["downlink"]["published"], status["downlink"]["in_flight"]) == (40, 0)
    assert status["mqtt"] == []  # nothing is subscribed to
    (publisher,) = status["publishers"]
    (consumer,) = status["consumers"]
    assert (publisher["link"], consumer["link"], consumer["name"]) == ("up", "up", topic)
