"""`[lag]` in a running gateway: its numbers are on /metrics and /status, and failures change nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.rocketmq.remoting.blocking import ask_once
from spanbridge.rocketmq.remoting.call import Call

from .harness import Device, Gateway, wait_until
from .test_forwarding import config, route

pytestmark = pytest.mark.brokers


def commit(group: str, topic: str) -> Call[None]:
    """Commit offset 0, as a consumer that has received nothing yet (UPDATE_CONSUMER_OFFSET)."""
    fields = {"consumerGroup": group, "topic": topic, "queueId": "0", "commitOffset": "0"}
    return Call(what="commit", code=15, fields=fields, read=lambda _: None)


def test_the_lag_of_a_routes_topic(
    devstack: SharedStack, gateways: Callable[..., Gateway], devices: Callable[..., Device]
) -> None:
    rocketmq = devstack.rocketmq
    topic, group, base = devstack.topic(queues=1), devstack.group(), devstack.unique("d")
    ask_once(f"{rocketmq.host}:{rocketmq.broker_port}", commit(group, topic))
    lag = f'[lag]\nname_servers = "{rocketmq.namesrv}"\nperiod = 1\n'
    gateway = gateways(config(devstack, route(f"{base}/{{device}}", topic), extra=lag))
    gateway.start()
    devices(devstack.mqtt_v5.host, devstack.mqtt_v5.port).publish(f"{base}/pump-1", "21.5")

    def behind() -> bool:
        rows = gateway.status["lag"]["groups"]
        return [(row["group"], row["state"], row["lag"]) for row in rows] == [(group, "no_consumer", 1)]

    wait_until(behind, "the lag to be 1", gateway=gateway)
    samples = [
        line for line in gateway.text("/metrics").splitlines() if line.startswith("spanbridge_rocketmq_consumer_")
    ]
    (line,) = [line for line in samples if line.startswith("spanbridge_rocketmq_consumer_lag{")]
    for label in (f'messaging_consumer_group_name="{group}"', f'messaging_destination_name="{topic}"', "not_delivered"):
        assert label in line
    assert line.endswith(" 1")
    assert any(line.startswith("spanbridge_rocketmq_consumer_lag_age_seconds{") for line in samples)


def test_a_name_server_that_is_away_is_told_and_nothing_else(
    devstack: SharedStack, gateways: Callable[..., Gateway]
) -> None:
    lag = '[lag]\nname_servers = "127.0.0.1:1"\nperiod = 1\n'
    gateway = gateways(config(devstack, route("a/b", devstack.topic()), extra=lag))
    gateway.start()
    wait_until(lambda: gateway.status["services"]["lag"]["degraded"], "it to be degraded", gateway=gateway)
    assert gateway.is_ready()
    assert "127.0.0.1:1" in gateway.status["services"]["lag"]["last_error"]
    assert "messages are not affected" in gateway.log
