"""A whole gateway inside the test's own loop: nothing may block that loop, and nothing may be left behind."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

import anyio
import paho.mqtt.client as paho
import pytest
from blockbuster import blockbuster_ctx
from paho.mqtt.publish import multiple

from bench.remoting import Broker
from spanbridge.app.gateway import Gateway
from spanbridge.config import Config, load
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.telemetry import Telemetry

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]

FILE = """
name = "{name}"
[mqtt]
url = "mqtt://{mqtt}"
version = "{version}"
[rocketmq]
endpoints = "{endpoints}"
protocol = "{protocol}"
[admin]
port = 0
probe_interval = 1
[telemetry]
log_format = "text"
[[routes]]
filter = "{base}/+"
topic = "{topic}"
"""

NO_EXPORT = {**os.environ, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}


def make_config(
    devstack: SharedStack, directory: Path, version: str, protocol: str = "grpc", *, endpoints: str | None = None
) -> tuple[Config, str, str]:
    broker = devstack.mqtt_v5 if version == "5" else devstack.mqtt_v311
    topic, base = devstack.topic(), devstack.unique("in-process")
    file = directory / "gateway.toml"
    file.write_text(
        FILE.format(
            name=devstack.unique("gw"),
            mqtt=f"{broker.host}:{broker.port}",
            version=version,
            endpoints=endpoints or devstack.rocketmq.endpoints,
            protocol=protocol,
            base=base,
            topic=topic,
        )
    )
    return load(file, os.environ), topic, base


async def publish(devstack: SharedStack, version: str, topic: str, count: int) -> None:
    broker = devstack.mqtt_v5 if version == "5" else devstack.mqtt_v311
    messages = [{"topic": topic, "payload": f"m{number}", "qos": 1} for number in range(count)]
    protocol = paho.MQTTv5 if version == "5" else paho.MQTTv311
    send = partial(multiple, messages, hostname=broker.host, port=broker.port, protocol=protocol)
    await anyio.to_thread.run_sync(send)


@pytest.mark.parametrize(("version", "protocol"), [("5", "grpc"), ("5", "auto"), ("3.1.1", "auto")])
async def test_a_gateway_never_blocks_its_loop_and_leaves_no_task_behind(
    devstack: SharedStack, tmp_path: Path, version: str, protocol: str
) -> None:
    """With ``auto``, one of the two has name servers for endpoints."""
    endpoints = devstack.rocketmq.namesrv if (version, protocol) == ("5", "auto") else None
    make = partial(make_config, devstack, tmp_path, version, protocol, endpoints=endpoints)
    config, topic, base = await anyio.to_thread.run_sync(make)
    gateway = await anyio.to_thread.run_sync(lambda: Gateway(config, Telemetry(config.telemetry, environ=NO_EXPORT)))
    before = asyncio.all_tasks()
    stop = asyncio.Event()
    with blockbuster_ctx("spanbridge"):
        running = asyncio.create_task(gateway.run(stop, lambda: "the test"))
        with anyio.fail_after(30):
            while not gateway.watch.readiness().ready:
                await anyio.sleep(0.05)
            await publish(devstack, version, f"{base}/a", 50)
            while gateway.uplink.sender.tally.messages < 50:
                await anyio.sleep(0.05)
            stop.set()
            await running
    assert asyncio.all_tasks() == before

    def count() -> int:
        with Broker(f"{devstack.rocketmq.host}:{devstack.rocketmq.broker_port}") as reader:
            return sum(reader.max_offsets(topic, 4))

    assert await anyio.to_thread.run_sync(count) == 50


def granted(gateway: Gateway) -> list[int | None]:
    return [row["granted_qos"] for one in gateway.watch.status()["mqtt"] for row in one["subscriptions"]]


@pytest.mark.parametrize("protocol", ["grpc", "auto"])
async def test_a_reload_never_blocks_the_loop_and_leaves_no_task_behind(
    devstack: SharedStack, tmp_path: Path, protocol: str
) -> None:
    config, topic, base = await anyio.to_thread.run_sync(make_config, devstack, tmp_path, "5", protocol)
    file = tmp_path / "gateway.toml"
    telemetry = Telemetry(config.telemetry, environ=NO_EXPORT)
    gateway = await anyio.to_thread.run_sync(lambda: Gateway(config, telemetry, file=file, environ=os.environ))
    text = await anyio.to_thread.run_sync(file.read_text)
    before = asyncio.all_tasks()
    stop = asyncio.Event()
    with blockbuster_ctx("spanbridge"):
        running = asyncio.create_task(gateway.run(stop, lambda: "the test"))
        with anyio.fail_after(30):
            while not gateway.watch.readiness().ready:
                await anyio.sleep(0.05)
            changed = text.replace("127.0.0.1", "localhost") + f'[[routes]]\nfilter = "{base}/x/y"\ntopic = "{topic}"\n'
            await anyio.to_thread.run_sync(file.write_text, changed)
            gateway.reload.ask()
            while gateway.watch.status()["config"]["reloads"] < 1:
                await anyio.sleep(0.05)
            while None in granted(gateway) or len(granted(gateway)) < 2:
                await anyio.sleep(0.05)
            await publish(devstack, "5", f"{base}/x/y", 10)
            while gateway.uplink.sender.tally.messages < 10:
                await anyio.sleep(0.05)
            (row,) = gateway.watch.status()["mqtt"]
            assert (row["broker"].split(":")[0], row["reconnects"]) == ("localhost", 1)
            stop.set()
            await running
    assert asyncio.all_tasks() == before


async def test_status_is_what_an_operator_needs(devstack: SharedStack, tmp_path: Path) -> None:
    config, _, base = await anyio.to_thread.run_sync(make_config, devstack, tmp_path, "5")
    telemetry = Telemetry(config.telemetry, environ=NO_EXPORT)
    gateway = await anyio.to_thread.run_sync(lambda: Gateway(config, telemetry))
    stop = asyncio.Event()
    running = asyncio.create_task(gateway.run(stop, lambda: "the test"))
    with anyio.fail_after(30):
        while not gateway.watch.readiness().ready:
            await anyio.sleep(0.05)
        first = telemetry.prometheus()[0].decode()
        gateway.watch.read_rates()
        await publish(devstack, "5", f"{base}/a", 40)
        while gateway.uplink.sender.tally.messages < 40:
            await anyio.sleep(0.05)
        gateway.watch.read_rates()
        status = gateway.watch.status()
        stop.set()
        await running
    zeros = [line for line in first.splitlines() if line.startswith("spanbridge_dropped_total{")]
    assert any(f'"{base}/+"' in line and 'reason="loop"' in line for line in zeros)
    assert all(line.endswith(" 0") for line in zeros), "series are there before the first message"
    (row,) = status["routes"]
    assert (row["received"], row["sent"], row["dropped"]) == (40, 40, 0)
    assert row["received_per_s"] > 0
    assert row["last_s"] < 30
    batches = status["batches"]
    assert 1 <= batches["stored"] <= 40
    assert batches["messages_per_request"] >= 1
    assert batches["request_ms"] > 0
    assert status["uplink"]["sent_per_s"] > 0
    assert status["last_errors"] == []
    assert list(status["services"]) == ["telemetry", "admin", "rocketmq", "probe", "rates", "reload"]
    assert status["services"]["admin"]["url"].startswith("http://127.0.0.1:")
    assert status["services"]["probe"]["probes"] >= 1
    assert status["config"]["file"] is None
    assert {"mqtt", "rocketmq", "ready", "uptime_s"} <= set(status)
