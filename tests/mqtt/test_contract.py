"""What every source must do, on real brokers, for both versions and both event loops."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from spanbridge.devstack import FaultProxy
from spanbridge.mqtt import Subscription
from spanbridge.ports import Link

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


async def test_messages_of_every_qos_arrive_in_order_and_whole(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, f"{topic}/#")
    watched.ack_at_once = True
    await watched.up()
    payloads = [b"", b"\x00\xff", b"x" * 300_000, *(str(n).encode() for n in range(40))]
    for qos in (0, 1, 2):
        await publish([(f"{topic}/{qos}", payload, qos) for payload in payloads])
    await watched.count(3 * len(payloads))
    for qos in (0, 1, 2):
        of_qos = [m for m in watched.messages if m.topic == f"{topic}/{qos}"]
        assert [m.payload for m in of_qos] == payloads
        assert {m.qos for m in of_qos} == {qos} or faithful_broker.kind == "rumqttd"  # which raises the QoS to ours
    assert all(m.received_ns > 0 and not m.retain for m in watched.messages)
    assert all((d.packet_id > 0) == (d.message.qos > 0) for d in watched.deliveries)
    assert watched.detail["messages"] == 3 * len(payloads)
    assert watched.detail["in_flight"] == 0


async def test_status_tells_what_an_operator_asks(broker: Any, watch: Any, unique: Any) -> None:
    topic = unique("t")
    watched = watch(broker.host, broker.port, topic, name="plant-7")
    await watched.up()
    status = watched.source.status
    assert (status.name, status.link, status.last_error) == ("plant-7", Link.UP, None)
    assert status.last_error_ns == 0
    assert status.detail["version"] == watched.options.version
    assert status.detail["broker"] == f"{broker.host}:{broker.port}"
    assert status.detail["client_id"] == watched.options.client_id
    assert status.detail["session_present"] is False
    assert status.detail["subscriptions"] == [{"filter": topic, "granted_qos": 2}]
    assert status.detail["reconnects"] == 0
    (connected,) = watched.reporter.of("mqtt.connected")
    assert "plant-7" in connected.text()
    assert connected.labels() == {"source": "plant-7"}


async def test_unacked_messages_come_again_and_are_recognised_as_those_in_hand(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any, poll: Any
) -> None:
    topic, client_id = unique("t"), unique("c")
    with FaultProxy(faithful_broker.host, faithful_broker.port) as proxy:
        watched = watch(proxy.host, proxy.port, topic, client_id=client_id)
        await watched.up()
        await publish([(topic, b"acked", 1), (topic, b"open", 1)])
        await watched.count(2)
        assert watched.detail["in_flight"] == 2
        watched.source.ack(watched.deliveries[:1])
        assert watched.detail["in_flight"] == 1
        await publish([(topic, b"later", 1)])
        await watched.count(3)
        releases = watched.releases
        await anyio.to_thread.run_sync(proxy.drop)
        lost = await watched.event("mqtt.disconnected")
        assert "unacknowledged messages stay with the broker" in lost.text()
        assert watched.releases > releases
        if faithful_broker.kind == "rumqttd":  # sends again without DUP: new messages, as far as can be told
            await watched.count(5)
            watched.ack()
        else:
            await poll(lambda: sum(event.count for event in watched.reporter.of("messages.redelivered")) == 2)
            assert watched.source.unacked == watched.source.held == watched.detail["in_flight"] == 2
            watched.source.ack(watched.deliveries[1:])
            assert watched.payloads == [b"acked", b"open", b"later"]
        await poll(lambda: watched.detail["in_flight"] == 0)
        assert (watched.source.unacked, watched.source.held, watched.source.held_bytes) == (0, 0, 0)
        assert watched.detail["reconnects"] == 1
        await watched.stop()
    after = watch(faithful_broker.host, faithful_broker.port, topic, client_id=client_id)
    after.ack_at_once = True
    await after.up()
    await publish([(topic, b"new", 1)])
    await after.count(1)
    assert after.payloads == [b"new"], "what was acked under its new packet is through"


async def test_what_is_nacked_is_handed_over_again_and_the_rest_is_not(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any, poll: Any
) -> None:
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, topic)
    await watched.up()
    await publish([(topic, str(number).encode(), 1) for number in range(4)])
    await watched.count(4)
    watched.source.ack(watched.deliveries[:1])
    watched.source.nack(watched.deliveries[1:2], "the dog ate it")
    watched.source.nack(watched.deliveries[1:2], "twice changes nothing")
    assert watched.source.unacked == 2
    (event,) = watched.reporter.of("messages.nacked")
    assert event.count == 1
    assert "1 message(s) could not be handled: the dog ate it; renewing the connection" in event.text()
    await watched.event("mqtt.connected", 2)
    await watched.count(5)
    assert watched.reporter.of("mqtt.disconnected") == [], "one line is enough"
    if faithful_broker.kind == "rumqttd":  # sends again without DUP
        await watched.count(7)
        assert watched.payloads[4:] == [b"1", b"2", b"3"]
    else:
        await poll(lambda: sum(event.count for event in watched.reporter.of("messages.redelivered")) == 2)
        assert watched.payloads == [b"0", b"1", b"2", b"3", b"1"]
    watched.ack()
    assert (watched.source.unacked, watched.source.held, watched.source.held_bytes) == (0, 0, 0)
    assert watched.detail["in_flight"] == 0
    assert watched.reporter.of("messages.lost") == []
    await publish([(topic, b"next", 2)])
    await poll(lambda: b"next" in watched.payloads)


async def test_what_the_broker_has_no_copy_of_is_lost_when_it_is_nacked(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    if faithful_broker.kind == "rumqttd":
        pytest.skip("needs mosquitto: rumqttd raises the QoS to ours")
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, topic)
    await watched.up()
    await publish([(topic, b"zero", 0)])
    await watched.count(1)
    assert watched.source.unrepeatable() == watched.deliveries
    assert (watched.source.unacked, watched.source.held) == (1, 1)
    watched.deliveries[0].nack("no room")
    (event,) = watched.reporter.of("messages.lost")
    assert event.text().startswith("test: 1 message(s) lost: no room; ")
    assert (watched.source.unacked, watched.source.held, watched.source.unrepeatable()) == (0, 0, [])
    assert watched.link is Link.UP
    assert watched.detail["reconnects"] == 0


async def test_qos2_is_received_only_when_acked(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any, poll: Any
) -> None:
    topic = unique("t")
    with FaultProxy(faithful_broker.host, faithful_broker.port) as proxy:
        watched = watch(proxy.host, proxy.port, topic)
        await watched.up()
        await publish([(topic, b"two", 2)])
        await watched.count(1)
        await anyio.to_thread.run_sync(proxy.drop)
        if faithful_broker.kind == "rumqttd":
            await watched.count(2)  # not acked, so the broker still has it
        else:
            await watched.event("messages.redelivered")
        watched.ack()
        await publish([(topic, b"next", 2)])
        await poll(lambda: watched.payloads[-1] == b"next")
        assert watched.payloads.count(b"two") <= 2


async def test_a_session_is_kept_while_the_gateway_is_away(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    topic, client_id = unique("t"), unique("c")
    first = watch(faithful_broker.host, faithful_broker.port, topic, client_id=client_id)
    await first.up()
    await publish([(topic, b"0", 1), (topic, b"1", 1)])
    await first.count(2)
    first.source.ack(first.deliveries[:1])
    await first.stop()
    assert first.link is Link.CLOSED
    await publish([(topic, b"2", 1), (topic, b"3", 2)])
    second = watch(faithful_broker.host, faithful_broker.port, topic, client_id=client_id)
    second.ack_at_once = True
    await second.count(3)
    await second.up()
    assert sorted(second.payloads) == [b"1", b"2", b"3"]
    assert second.detail["session_present"] is True


async def test_pausing_stops_delivery_and_outlives_the_keep_alive(
    broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    topic = unique("t")
    watched = watch(broker.host, broker.port, topic, keep_alive=1)
    watched.ack_at_once = True
    await watched.up()
    watched.source.pause()
    watched.source.pause()
    await publish([(topic, b"while paused", 1)])
    await asyncio.sleep(2.5)  # the broker would have thrown us out after 1.5 s without a PINGREQ
    assert watched.payloads == []
    assert watched.detail["paused"] is True
    watched.source.resume()
    watched.source.resume()
    await watched.count(1)
    assert watched.payloads == [b"while paused"]
    assert watched.detail["reconnects"] == 0
    assert watched.link is Link.UP


async def test_a_pause_holds_across_a_reconnect(broker: Any, watch: Any, publish: Any, unique: Any, poll: Any) -> None:
    topic = unique("t")
    with FaultProxy(broker.host, broker.port) as proxy:
        watched = watch(proxy.host, proxy.port, topic)
        watched.ack_at_once = True
        await watched.up()
        watched.source.pause()
        await anyio.to_thread.run_sync(proxy.drop)
        watched.source.resume()  # an end of the connection is seen by reading
        await watched.event("mqtt.disconnected")
        watched.source.pause()
        await poll(lambda: proxy.accepted == 2)
        watched.source.resume()
        await publish([(topic, b"after", 1)])
        await watched.count(1)


async def test_stop_intake_keeps_acknowledging(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any, poll: Any
) -> None:
    topic, client_id = unique("t"), unique("c")
    first = watch(faithful_broker.host, faithful_broker.port, topic, client_id=client_id)
    await first.up()
    await publish([(topic, b"0", 1)])
    await first.count(1)
    await first.source.stop_intake()
    await first.source.stop_intake()
    await publish([(topic, b"1", 1)])
    first.ack()
    await asyncio.sleep(0.1)
    assert first.payloads == [b"0"]
    assert first.link is Link.UP
    await first.stop()
    second = watch(faithful_broker.host, faithful_broker.port, topic, client_id=client_id)
    second.ack_at_once = True
    await second.count(1)
    await publish([(topic, b"2", 1)])
    await second.count(2)
    assert second.payloads == [b"1", b"2"]


async def test_closing_flushes_acknowledgements_that_were_just_written(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    """Also with much unread in the socket, where a plain close would reset the connection under them."""
    topic, client_id = unique("t"), unique("c")
    first = watch(faithful_broker.host, faithful_broker.port, topic, client_id=client_id, receive_maximum=10)
    await first.up()
    await publish([(topic, b"acked", 1)])
    await first.count(1)
    first.source.pause()
    await publish([(topic, b"x" * 50_000, 1) for _ in range(8)])
    first.ack()
    await first.stop()
    second = watch(faithful_broker.host, faithful_broker.port, topic, client_id=client_id)
    second.ack_at_once = True
    await second.count(8)
    assert b"acked" not in second.payloads


async def test_close_in_every_state_returns_and_ends_run(broker: Any, watch: Any) -> None:
    never_run = watch(broker.host, broker.port, start=False)
    await never_run.source.close()
    assert never_run.link is Link.CLOSED
    nobody = watch("127.0.0.1", 1)
    await nobody.event("mqtt.connect.failed")
    await nobody.stop()
    with FaultProxy(broker.host, broker.port) as proxy:
        await anyio.to_thread.run_sync(proxy.hang)
        hanging = watch(proxy.host, proxy.port)
        await asyncio.sleep(0.05)
        await hanging.stop()
    running = watch(broker.host, broker.port)
    await running.up()
    await running.source.close()
    await running.stop()
    for watched in (nobody, hanging, running):
        assert watched.link is Link.CLOSED
        with pytest.raises(RuntimeError, match="was run before"):
            await watched.source.run(watched.deliver, watched.released)


async def test_cancelling_run_closes_the_connection(broker: Any, watch: Any) -> None:
    with FaultProxy(broker.host, broker.port) as proxy:
        watched = watch(proxy.host, proxy.port)
        await watched.up()
        watched.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watched.task
        assert watched.link is Link.CLOSED
        watched.task = None


async def test_a_peer_that_accepts_and_never_answers(broker: Any, watch: Any) -> None:
    with FaultProxy(broker.host, broker.port) as proxy:
        await anyio.to_thread.run_sync(proxy.hang)
        watched = watch(proxy.host, proxy.port, connect_timeout=0.2)
        event = await watched.event("mqtt.connect.failed")
        assert event.reason == "timeout"
        assert "did not answer CONNECT within 0.2 s; trying again " in event.text()
        assert watched.source.status.last_error in event.text()
        await anyio.to_thread.run_sync(proxy.resume)
        failed_ns = watched.source.status.last_error_ns
        await watched.up()
        assert watched.source.status.last_error is None
        assert watched.source.status.last_error_ns >= failed_ns > 0, "kept after it is over"


async def test_a_peer_that_falls_silent_is_noticed(broker: Any, watch: Any) -> None:
    with FaultProxy(broker.host, broker.port) as proxy:
        watched = watch(proxy.host, proxy.port, keep_alive=1, connect_timeout=0.5)
        await watched.up()
        await anyio.to_thread.run_sync(proxy.hang)
        event = await watched.event("mqtt.disconnected")
        assert event.reason == "keep_alive"
        await anyio.to_thread.run_sync(proxy.resume)
        await watched.up()


async def test_nobody_listening(watch: Any) -> None:
    watched = watch("127.0.0.1", 1)
    event = await watched.event("mqtt.connect.failed", 2)
    assert event.reason == "connection_refused"
    assert event.labels() == {"source": "test", "reason": "connection_refused"}


async def test_a_name_that_does_not_resolve(watch: Any) -> None:
    watched = watch("no-such-host.invalid", 1883)
    event = await watched.event("mqtt.connect.failed")
    assert event.reason == "name_resolution"


async def test_wrong_credentials_are_refused_without_telling_them(
    version: str, mqtt_brokers: Any, watch: Any, publish: Any, unique: Any
) -> None:
    secured = mqtt_brokers(version=version, username="gateway", password="correct-horse")
    wrong = watch(secured.host, secured.port, username="gateway", password="battery-staple")
    right = watch(secured.host, secured.port, unique("t"), username="gateway", password="correct-horse")
    event = None
    await right.up()
    while event is None:
        await asyncio.sleep(0.01)
        found = wrong.reporter.of("mqtt.connect.refused") + wrong.reporter.of("mqtt.connect.failed")
        event = found[0] if found else None
    seen = f"{wrong.reporter.events} {event.text()} {wrong.source.status} {wrong.options!r} {wrong.source!r}"
    assert "battery-staple" not in seen
    assert wrong.link in (Link.BACKOFF, Link.CONNECTING)


async def test_two_filters_of_which_one_is_shared_by_two_gateways(
    version: str, broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    if version == "3.1.1" and broker.kind == "amqtt":
        pytest.skip("needs mosquitto: amqtt has no shared subscriptions; MQTT 3.1.1 does not define them")
    topic = unique("t")
    shared = (Subscription(filter=f"{topic}/+", share="group", qos=1),)
    both = [watch(broker.host, broker.port, subscriptions=shared) for _ in range(2)]
    for watched in both:
        watched.ack_at_once = True
        await watched.up()
        assert watched.detail["subscriptions"] == [{"filter": f"$share/group/{topic}/+", "granted_qos": 1}]
    await publish([(f"{topic}/a", str(n).encode(), 1) for n in range(40)])
    async with asyncio.timeout(10):
        while sum(len(watched.messages) for watched in both) < 40:
            await asyncio.sleep(0.01)
    assert sorted(int(p) for watched in both for p in watched.payloads) == list(range(40))


async def test_retained_messages_come_once_per_session(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    topic = unique("t")
    await publish([(topic, b"retained", 1)], retain=True)
    with FaultProxy(faithful_broker.host, faithful_broker.port) as proxy:
        watched = watch(proxy.host, proxy.port, topic)
        watched.ack_at_once = True
        await watched.up()
        await watched.count(1)
        assert watched.messages[0].retain
        await anyio.to_thread.run_sync(proxy.drop)
        await watched.event("mqtt.connected", 2)
        await publish([(topic, b"live", 1)])
        await watched.count(2)
        assert watched.payloads == [b"retained", b"live"]


async def test_what_is_acked_late_does_not_disturb_the_next_connection(
    faithful_broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    if faithful_broker.kind == "rumqttd":
        pytest.skip("needs mosquitto: rumqttd sends QoS 2 messages again without DUP")
    topic = unique("t")
    with FaultProxy(faithful_broker.host, faithful_broker.port) as proxy:
        watched = watch(proxy.host, proxy.port, topic)
        await watched.up()
        await publish([(topic, str(n).encode(), 2) for n in range(5)])
        await watched.count(5)
        await anyio.to_thread.run_sync(proxy.refuse)
        await anyio.to_thread.run_sync(proxy.drop)
        await watched.event("mqtt.disconnected")
        watched.ack()  # while nothing is connected
        watched.ack_at_once = True
        await anyio.to_thread.run_sync(proxy.resume)
        await watched.event("mqtt.connected", 2)
        await publish([(topic, b"marker", 2)])
        await watched.count(6)
        # Acked for good: what the broker sent again was recognised, not delivered twice.
        assert watched.payloads[5:] == [b"marker"]
