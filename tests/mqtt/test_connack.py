"""What a v5 broker says in CONNACK is respected (MQTT 5.0 section 3.2.2.3), on a scripted peer; wills and aliases."""

from __future__ import annotations

import asyncio
from typing import Any

import mqtt5
import pytest
from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from spanbridge.devstack import FaultProxy
from spanbridge.mqtt import Subscription, WillMessage

pytestmark = pytest.mark.anyio


def accepting(*after: bytes, **connack: Any) -> Any:
    """A script that accepts with these properties, grants what it is asked for and sends ``after`` at once."""

    async def script(broker: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await broker.packet(reader)
        writer.write(mqtt5.ConnAckPacket(**connack).write() + b"".join(after))
        while True:
            packet = await broker.packet(reader)
            if packet[0] >> 4 == 8:
                writer.write(b"\x90\x04" + packet[2:4] + b"\x00\x01")

    return script


def publish(topic: str, payload: bytes, **fields: Any) -> bytes:
    return mqtt5.PublishPacket(topic, payload=payload, **fields).write()


async def test_an_assigned_client_id_is_kept_for_reconnects(watch: Any, scripted: Any) -> None:
    async with (
        scripted(accepting(assigned_client_id="given-1")) as peer,
    ):
        with FaultProxy(peer.host, peer.port) as proxy:
            watched = watch(proxy.host, proxy.port, "t", version="5", client_id="")
            await watched.up()
            assert watched.detail["client_id"] == "given-1"
            proxy.drop()
            await watched.event("mqtt.connected", 2)
            connects = [packet for packet in peer.received if packet[0] == 0x10]
            assert b"given-1" not in connects[0]
            assert b"given-1" in connects[1]
            await watched.stop()


async def test_the_brokers_keep_alive_wins(watch: Any, scripted: Any, poll: Any) -> None:
    async with scripted(accepting(server_keep_alive=1)) as peer:
        watched = watch(peer.host, peer.port, "t", version="5", keep_alive=600)
        await poll(lambda: b"\xc0\x00" in peer.received, "a PINGREQ within half a second or so")
        await watched.stop()


@pytest.mark.parametrize("version", ["5"])
async def test_a_session_that_is_kept_for_less_time_is_reported(watch: Any, scripted: Any) -> None:
    async with scripted(accepting(session_expiry_interval=60)) as peer:
        watched = watch(peer.host, peer.port, "t", session_expiry=3600)
        event = await watched.event("mqtt.session.shortened")
        assert "keeps the session for 60 s where session_expiry is 3600 s" in event.text()
        await watched.up()
        assert watched.detail["session_expiry"] == 60
        content = watch(peer.host, peer.port, "t", session_expiry=60)
        await content.up()
        assert content.reporter.of("mqtt.session.shortened") == []
        await content.stop()
        await watched.stop()


@pytest.mark.parametrize(
    ("connack", "subscription", "reason"),
    [
        ({"wildcard_subscription_available": False}, Subscription(filter="a/#"), "wildcards_unavailable"),
        ({"shared_subscription_available": False}, Subscription(filter="a", share="g"), "shared_unavailable"),
        ({"max_packet_size": 30}, Subscription(filter="a" * 40), "packet_too_large"),
    ],
)
async def test_what_the_broker_cannot_do_is_not_asked_for(
    connack: dict[str, Any], subscription: Subscription, reason: str, watch: Any, scripted: Any
) -> None:
    async with scripted(accepting(**connack)) as peer:
        both = (Subscription(filter="fine"), subscription)
        watched = watch(peer.host, peer.port, version="5", subscriptions=both)
        event = await watched.event("mqtt.subscription.refused")
        assert event.reason == reason
        await watched.up()
        asked = [packet for packet in peer.received if packet[0] >> 4 == 8]
        assert not [packet for packet in asked if subscription.filter.encode() in packet and b"fine" not in packet]
        assert peer.connections == 1
        await watched.stop()


async def test_topic_aliases_are_resolved_for_each_connection_anew(watch: Any, scripted: Any, poll: Any) -> None:
    aliased = [
        publish("t/1", b"a", topic_alias=1),
        publish("", b"b", topic_alias=1),
        publish("t/2", b"c", topic_alias=1),
    ]
    async with scripted(accepting(*aliased, publish("", b"d", topic_alias=1))) as peer:
        watched = watch(peer.host, peer.port, "t/#", version="5", topic_alias_maximum=4)
        await watched.count(4)
        found = [(message.topic, message.payload) for message in watched.messages]
        assert found == [("t/1", b"a"), ("t/1", b"b"), ("t/2", b"c"), ("t/2", b"d")]
        await watched.stop()
    async with scripted(accepting(publish("", b"x", topic_alias=1))) as peer:
        watched = watch(peer.host, peer.port, "t/#", version="5", topic_alias_maximum=4)
        event = await watched.event("mqtt.bad_packet")
        assert "topic alias 1 was never given a topic" in event.text()
        await watched.stop()


@pytest.mark.parametrize("version", ["5"])
async def test_no_alias_outlives_a_packet_that_may_have_changed_it(watch: Any, scripted: Any) -> None:
    """Alias 1 stands for t/1; what cannot be decoded may say t/2. Under which topic is the last one to go?"""
    broken = b"\x30\x0f\x00\x03t/2\x07\x7f\x00\x23\x00\x01\x00\x00bc"
    sent = [publish("t/1", b"a", topic_alias=1), broken, publish("", b"d", topic_alias=1)]
    async with scripted(accepting(*sent)) as peer:
        watched = watch(peer.host, peer.port, "t/#", topic_alias_maximum=4)
        event = await watched.event("mqtt.bad_packet")
        assert "topic alias 1 was never given a topic" in event.text()
        assert [(message.topic, message.fault is None) for message in watched.messages[:2]] == [
            ("t/1", True),
            ("t/2", False),
        ]
        assert b"d" not in watched.payloads
        await watched.stop()


async def test_a_redelivery_on_the_heels_of_connack_knows_that_the_session_was_resumed(
    watch: Any, scripted: Any
) -> None:
    """The uplink asks at the first message of a connection, which may be in the same read as CONNACK."""
    again = publish("t", b"x", qos=mqtt5.QoS(1), packet_id=3)
    async with scripted(accepting(again, session_present=True)) as peer:
        watched = watch(peer.host, peer.port, "t", version="5", start=False)
        seen: list[tuple[bool, int]] = []
        deliver = watched.deliver

        def look(batch: Any) -> None:
            seen.append((watched.detail["session_present"], watched.detail["in_flight"]))
            deliver(batch)

        watched.deliver = look
        watched.start()
        await watched.count(1)
        assert seen == [(True, 1)]
        await watched.up()
        await watched.stop()


async def test_a_broker_that_repeats_within_the_connection_is_answered_once(
    watch: Any, scripted: Any, poll: Any
) -> None:
    first, again = (publish("t", b"x", qos=mqtt5.QoS(1), packet_id=3, duplicate=dup) for dup in (False, True))
    last = publish("t", b"y", qos=mqtt5.QoS(1), packet_id=4)
    async with scripted(accepting(first, again, last)) as peer:
        watched = watch(peer.host, peer.port, "t", version="5")
        await watched.count(2)
        assert watched.payloads == [b"x", b"y"]
        watched.ack()
        await poll(lambda: b"\x40\x02\x00\x04" in peer.received, "the last PUBACK")
        assert peer.received.count(b"\x40\x02\x00\x03") == 1
        assert watched.detail["in_flight"] == 0
        await watched.stop()


async def test_the_will_is_published_when_the_gateway_vanishes_and_not_when_it_stops(
    broker: Any, version: str, watch: Any, unique: Any, poll: Any
) -> None:
    topic = unique("will")
    heard: list[bytes] = []
    witness = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5 if version == "5" else MQTTv311)  # as the port speaks
    witness.on_message = lambda _c, _u, message: heard.append(message.payload)
    ready: list[int] = []
    witness.on_subscribe = lambda *_: ready.append(1)
    witness.connect(broker.host, broker.port)
    witness.subscribe(topic, 1)
    witness.loop_start()
    try:
        await poll(lambda: ready)
        with FaultProxy(broker.host, broker.port) as proxy:
            will = WillMessage(topic=topic, payload=b"gone", qos=1)
            stopped = watch(
                proxy.host, proxy.port, unique("t"), will=WillMessage(topic=topic, payload=b"stopped", qos=1)
            )
            await stopped.up()
            await stopped.stop()
            vanishing = watch(proxy.host, proxy.port, unique("t"), will=will)
            await vanishing.up()
            proxy.drop()
            await poll(lambda: heard, "the will")
            assert heard[0] == b"gone"
            await vanishing.stop()
    finally:
        await asyncio.to_thread(witness.loop_stop)
        witness.disconnect()
