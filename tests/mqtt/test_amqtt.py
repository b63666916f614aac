"""The v3.1.1 source on a broker of other authors: what is told apart only by a second reading of the specification."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest

from spanbridge.devstack import MqttBroker
from spanbridge.ports import Link

from .test_contract import (  # noqa: F401 - collected here again, with this module's broker
    test_a_pause_holds_across_a_reconnect,
    test_a_peer_that_falls_silent_is_noticed,
    test_cancelling_run_closes_the_connection,
    test_close_in_every_state_returns_and_ends_run,
    test_status_tells_what_an_operator_asks,
)

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]

stops_delivering = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="amqtt 0.12 stops delivering a burst in the middle on Python 3.12 and later"
)


@pytest.fixture
def version() -> str:
    return "3.1.1"


@pytest.fixture
def broker(amqtt_broker: MqttBroker) -> MqttBroker:
    return amqtt_broker


@stops_delivering
async def test_every_qos_arrives_in_order_and_whole(broker: Any, watch: Any, publish: Any, unique: Any) -> None:
    topic = unique("t")
    watched = watch(broker.host, broker.port, f"{topic}/#")
    watched.ack_at_once = True
    await watched.up()
    payloads = [b"", b"\x00\xff", b"x" * 300_000, *(str(n).encode() for n in range(40))]
    for qos in (0, 1, 2):
        await publish([(f"{topic}/{qos}", payload, qos) for payload in payloads])
    await watched.count(3 * len(payloads))
    for qos in (0, 1, 2):
        assert [m.payload for m in watched.messages if m.topic == f"{topic}/{qos}"] == payloads
    assert {m.qos for m in watched.messages} == {2}  # it takes the granted QoS, whatever was published
    assert watched.detail["in_flight"] == 0


@stops_delivering
async def test_what_was_queued_for_an_absent_gateway_comes_first_and_in_order(
    broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    topic, client_id = unique("t"), unique("c")
    first = watch(broker.host, broker.port, topic, client_id=client_id)
    await first.up()
    await first.stop()
    await publish([(topic, str(n).encode(), 1) for n in range(30)])
    second = watch(broker.host, broker.port, topic, client_id=client_id)
    second.ack_at_once = True
    await second.count(30)
    await publish([(topic, b"live", 1)])
    await second.count(31)
    assert second.payloads == [*(str(n).encode() for n in range(30)), b"live"]
    assert second.detail["session_present"] is True
    assert all(m.retain for m in second.messages[:-1])  # against MQTT-3.3.1-9; nothing may be lost over it


async def test_it_comes_back_to_a_broker_that_lost_the_session(
    mqtt_brokers: Any, watch: Any, publish: Any, unique: Any
) -> None:
    topic = unique("t")
    broker = await anyio.to_thread.run_sync(lambda: mqtt_brokers(version="3.1.1", mqtt="amqtt"))
    watched = watch(broker.host, broker.port, topic)
    watched.ack_at_once = True
    await watched.up()
    await publish([(topic, b"before", 1)], to=broker)
    await watched.count(1)
    await anyio.to_thread.run_sync(broker.kill)
    await watched.event("mqtt.disconnected")
    await anyio.to_thread.run_sync(broker.start)
    await watched.event("mqtt.connected", 2)
    assert watched.detail["session_present"] is False
    await publish([(topic, b"after", 1)], to=broker)  # it subscribed anew
    await watched.count(2)
    assert watched.payloads == [b"before", b"after"]


async def test_refused_credentials_are_named_as_such(mqtt_brokers: Any, watch: Any) -> None:
    secured = await anyio.to_thread.run_sync(
        lambda: mqtt_brokers(version="3.1.1", mqtt="amqtt", username="gateway", password="correct-horse")
    )
    wrong = watch(secured.host, secured.port, username="gateway", password="battery-staple")
    right = watch(secured.host, secured.port, username="gateway", password="correct-horse")
    await right.up()
    refused = await wrong.event("mqtt.connect.refused")
    assert "battery-staple" not in f"{refused!r} {refused.text()}"
    assert wrong.link is not Link.UP
