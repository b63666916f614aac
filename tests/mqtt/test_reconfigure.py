"""Other options for a source that runs, on real brokers."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from spanbridge.mqtt import Subscription
from spanbridge.mqtt.codec import v5, v311
from spanbridge.mqtt.codec.packets import ConnackPacket, SubackPacket, UnsubackPacket
from spanbridge.ports import Link

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


def subscriptions(*filters: str, qos: int = 1) -> tuple[Subscription, ...]:
    return tuple(Subscription(filter=one, qos=qos) for one in filters)


def granted(watched: Any) -> dict[str, Any]:
    return {row["filter"]: row["granted_qos"] for row in watched.detail["subscriptions"]}


async def test_other_subscriptions_are_taken_over_on_the_living_connection(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any, poll: Any
) -> None:
    base, client_id = unique("t"), unique("c")
    old, new, both = f"{base}/old", f"{base}/new", f"{base}/both"
    broker = faithful_broker
    watched = watch(broker.host, broker.port, client_id=client_id, subscriptions=subscriptions(old, both))
    watched.ack_at_once = True
    await watched.up()
    watched.source.reconfigure(replace(watched.options, subscriptions=subscriptions(both, new)))
    await poll(lambda: granted(watched) == {both: 1, new: 1} and not watched.source._subscriptions.unwanted)
    await publish([(old, b"1", 1), (both, b"2", 1), (new, b"3", 1)])
    await watched.count(2)
    assert sorted(watched.payloads) == [b"2", b"3"]
    assert watched.detail["reconnects"] == 0
    await watched.stop()
    await publish([(old, b"4", 1), (both, b"5", 1)])  # what the session subscribes to is seen while nobody is there
    again = watch(broker.host, broker.port, client_id=client_id, subscriptions=subscriptions(both, new))
    again.ack_at_once = True
    await again.up()
    await again.count(1)
    assert again.payloads == [b"5"]


async def test_a_subscription_with_another_qos_is_asked_for_again(
    faithful_broker: Any, watch: Any, unique: Any, poll: Any
) -> None:
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, subscriptions=subscriptions(topic, qos=0))
    await watched.up()
    watched.source.reconfigure(replace(watched.options, subscriptions=subscriptions(topic, qos=2)))
    await poll(lambda: granted(watched) == {topic: 2})
    assert watched.detail["reconnects"] == 0


async def test_other_options_renew_the_connection_and_what_is_in_hand_comes_once(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any, poll: Any
) -> None:
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, topic, keep_alive=30)
    await watched.up()
    await publish([(topic, b"%d" % number, 1) for number in range(5)])
    await watched.count(5)
    watched.source.ack(watched.deliveries[1:2])  # waits for the first one, and for the connection that follows
    watched.source.reconfigure(replace(watched.options, keep_alive=60, username="someone", password="else"))
    await poll(lambda: watched.detail["reconnects"] == 1 and watched.link is Link.UP)
    assert watched.detail["session_present"] is True
    assert [event.name for event in watched.reporter.of("mqtt.renewed")] == ["mqtt.renewed"]
    assert not watched.reporter.of("mqtt.disconnected")
    await publish([(topic, b"5", 1)])
    await watched.count(6)
    watched.ack()
    await poll(lambda: watched.source.held == 0 and watched.detail["in_flight"] == 0)
    assert watched.payloads == [b"%d" % number for number in range(6)]


async def test_only_pauses_that_differ_renew_nothing(broker: Any, watch: Any, unique: Any) -> None:
    watched = watch(broker.host, broker.port, unique("t"))
    await watched.up()
    watched.source.reconfigure(replace(watched.options, backoff_maximum=7.0, connect_timeout=3.0))
    await asyncio.sleep(0.2)
    assert watched.link is Link.UP
    assert watched.detail["reconnects"] == 0


async def test_with_the_content_of_tls_files_changed_the_connection_is_renewed(
    broker: Any, watch: Any, unique: Any, poll: Any
) -> None:
    watched = watch(broker.host, broker.port, unique("t"))
    await watched.up()
    watched.source.reconfigure(watched.options, renew=True)
    await poll(lambda: watched.detail["reconnects"] == 1 and watched.link is Link.UP)


async def test_a_connection_that_is_not_read_is_renewed_as_well(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any, poll: Any
) -> None:
    """While RocketMQ is away the socket is not read, and new credentials may be wanted just then."""
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, topic)
    await watched.up()
    watched.source.pause()
    await publish([(topic, b"%d" % number, 1) for number in range(5)])
    watched.source.reconfigure(replace(watched.options, username="someone"))
    watched.source.reconfigure(replace(watched.options, username="else", subscriptions=subscriptions(topic, "more")))
    await poll(lambda: watched.detail["reconnects"] == 1)
    watched.source.resume()
    watched.ack_at_once = True
    await watched.count(5)
    await poll(lambda: granted(watched) == {topic: 1, "more": 1})
    assert watched.payloads == [b"%d" % number for number in range(5)]


async def test_a_broker_that_is_away_is_left_for_another_at_once(
    broker: Any, watch: Any, unique: Any, poll: Any
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    watched = watch("127.0.0.1", port, unique("t"), backoff_initial=3600.0, backoff_maximum=3600.0)
    await poll(lambda: watched.link is Link.BACKOFF)
    watched.source.reconfigure(replace(watched.options, host=broker.host, port=broker.port))
    await watched.up()
    assert watched.detail["broker"] == f"{broker.host}:{broker.port}"
    assert not watched.reporter.of("mqtt.session.lost")


async def test_while_a_connection_is_being_made_other_options_are_taken_up_after_it(
    broker: Any, watch: Any, unique: Any, poll: Any
) -> None:
    watched = watch(broker.host, broker.port, unique("t"))
    while watched.link is not Link.CONNECTING:
        await asyncio.sleep(0)
    watched.source.reconfigure(replace(watched.options, keep_alive=77))
    await poll(lambda: watched.source._connection is not None and watched.source._connection.options.keep_alive == 77)
    await watched.up()


async def test_an_unsubscription_that_got_no_answer_is_asked_for_again(watch: Any, scripted: Any, poll: Any) -> None:
    """The broker that vanished before UNSUBACK may still have the subscription in its session."""
    unsubscribed: list[bytes] = []

    async def script(broker: Any, reader: Any, writer: Any, number: int) -> None:
        await broker.packet(reader)  # CONNECT
        writer.write(v311.encode(ConnackPacket(number > 1)))
        while packet := await broker.packet(reader):
            packet_id = int.from_bytes(packet[2:4], "big")
            if packet[0] >> 4 == 8:
                writer.write(v311.encode(SubackPacket(packet_id, (1,))))
            elif packet[0] >> 4 == 10:
                unsubscribed.append(packet[4:])
                if len(unsubscribed) == 1:
                    writer.close()
                    return
                writer.write(v311.encode(UnsubackPacket(packet_id)))

    async with scripted(script) as server:
        watched = watch(server.host, server.port, version="3.1.1", subscriptions=subscriptions("old", "stays"))
        await watched.up()
        watched.source.reconfigure(replace(watched.options, subscriptions=subscriptions("stays")))
        await poll(lambda: len(unsubscribed) == 2 and not watched.source._subscriptions.unwanted)
        assert set(unsubscribed) == {b"\x00\x03old"}
        await watched.stop()


async def test_a_refused_subscription_that_is_not_wanted_any_more_is_no_error(
    version: str, watch: Any, scripted: Any, poll: Any
) -> None:
    codec = v5 if version == "5" else v311

    async def script(broker: Any, reader: Any, writer: Any, _: int) -> None:
        await broker.packet(reader)  # CONNECT
        writer.write(codec.encode(ConnackPacket(False)))
        while packet := await broker.packet(reader):
            packet_id = int.from_bytes(packet[2:4], "big")
            if packet[0] >> 4 == 8:
                writer.write(codec.encode(SubackPacket(packet_id, (0x80 if b"forbidden" in packet else 1,))))
            elif packet[0] >> 4 == 10:
                writer.write(codec.encode(UnsubackPacket(packet_id, (0,) if version == "5" else ())))

    async with scripted(script) as server:
        watched = watch(server.host, server.port, subscriptions=subscriptions("fine", "forbidden"))
        await watched.up()
        assert "forbidden" in watched.source.status.last_error
        watched.source.reconfigure(replace(watched.options, subscriptions=subscriptions("fine")))
        await poll(lambda: watched.source.status.last_error is None)
        assert watched.link is Link.UP
        assert watched.source.status.last_error_ns > 0
        await watched.stop()
