"""What the publisher must do, on real brokers, for both versions and both event loops."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import anyio
import pytest

from spanbridge.core.errors import NoSubscribers, SinkRejected, SinkUnavailable
from spanbridge.devstack import FaultProxy
from spanbridge.mqtt import MqttOptions, PublisherOptions, create_publisher
from spanbridge.ports import Link
from tests.fakes import FakeReporter

from .publishing import Command, command

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


async def test_messages_of_every_qos_arrive_in_order_and_whole(
    faithful_broker: Any, watch: Any, publishing: Any, unique: Any
) -> None:
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, f"{topic}/#")
    watched.ack_at_once = True
    await watched.up()
    down = publishing(faithful_broker.host, faithful_broker.port)
    payloads = [b"", b"\x00\xff", b"x" * 300_000, *(str(n).encode() for n in range(300))]
    commands = [command(f"{topic}/{qos}", payload, qos) for payload in payloads for qos in (0, 1, 2)]
    down.send(*commands[:30])
    down.send(*commands[30:])
    await down.through(commands)
    await watched.count(len(commands))
    for qos in (0, 1, 2):
        assert [m.payload for m in watched.messages if m.topic == f"{topic}/{qos}"] == payloads
    assert down.publisher.in_flight == 0
    assert down.detail["published"] == len(commands)


async def test_what_mqtt_5_carries_arrives(faithful_broker: Any, watch: Any, publishing: Any, unique: Any) -> None:
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, topic)
    watched.ack_at_once = True
    await watched.up()
    down = publishing(faithful_broker.host, faithful_broker.port)
    fields: dict[str, Any] = {
        "user_properties": (("tp", "x" * 35), ("grüße", "ü" * 3000), ("", ""), ("tp", "twice")),
        "content_type": "text/plain",
        "response_topic": f"{topic}/answer",
        "correlation_data": b"\x00\x01",
        "payload_format": 1,
        "expiry": 600,
    }
    await down.through(down.send(command(topic, "ü", **fields), command(topic, "plain")))
    await watched.count(2)
    message = watched.messages[0]
    if down.options.version == "5":
        assert [getattr(message, name) for name in fields if name != "expiry"] == [
            value for name, value in fields.items() if name != "expiry"
        ]
        assert 0 < message.expiry <= 600
    assert message.payload == "ü".encode()
    assert (watched.messages[1].expiry, watched.messages[1].user_properties) == (None, ())


async def test_status_tells_what_an_operator_asks(broker: Any, publishing: Any) -> None:
    down = publishing(broker.host, broker.port, name="plant-7-down")
    await down.up()
    status = down.publisher.status
    assert (status.name, status.link, status.last_error) == ("plant-7-down", Link.UP, None)
    for name, value in {
        "version": down.options.version,
        "broker": f"{broker.host}:{broker.port}",
        "client_id": down.options.client_id,
        "session_present": False,
        "in_flight": 0,
        "waiting": 0,
        "clogged": False,
        "reconnects": 0,
        "published": 0,
        "stray_answers": 0,
    }.items():
        assert status.detail[name] == value
    assert 0 < status.detail["receive_maximum"] <= 0xFFFF
    (connected,) = down.reporter.of("mqtt.connected")
    assert connected.text().endswith(", with a new session, to publish")


async def test_a_broker_may_choose_the_client_id(broker: Any, version: str, publishing: Any, poll: Any) -> None:
    if version == "3.1.1":
        pytest.skip("MQTT 3.1.1 does not tell the client id that a broker chose")
    with FaultProxy(broker.host, broker.port) as proxy:
        down = publishing(proxy.host, proxy.port, client_id="")
        await down.up()
        chosen = down.detail["client_id"]
        assert chosen
        await anyio.to_thread.run_sync(proxy.drop)
        await down.event("mqtt.connected", 2)
        assert down.detail["client_id"] == chosen


async def test_nobody_subscribes(broker: Any, version: str, publishing: Any, unique: Any) -> None:
    """MQTT 5.0 can tell (reason code 0x10); brokers need not, and 3.1.1 cannot."""
    down = publishing(broker.host, broker.port)
    commands = down.send(*(command(unique("nobody"), "x", qos) for qos in (1, 2)))
    await down.done(commands)
    for one in commands:
        assert one.outcomes == [None] or isinstance(one.error, NoSubscribers)
    if version == "5" and broker.kind == "mosquitto":
        assert commands[0].error.reason == "no_matching_subscribers"


async def test_what_cannot_be_sent_is_rejected_alone(broker: Any, publishing: Any, unique: Any) -> None:
    down = publishing(broker.host, broker.port)
    topic = unique("t")
    bad = ["", "a/#", "+/a", "a\0b", "x" * 65_536, "a\nb", "\ud800", "\uffff"]
    commands = [command(topic, "before", 0), *(command(t) for t in bad), command(topic, "after", 0)]
    await down.done(down.send(*commands))
    assert (commands[0].outcomes, commands[-1].outcomes) == ([None], [None])
    for one in commands[1:-1]:
        assert isinstance(one.error, SinkRejected)
        assert one.error.reason == "bad_topic"
    properties = [("k\0", "v"), ("k", "v\0"), ("k", "\x07"), ("k", "v" * 65_536), ("k" * 65_536, "v")]
    if down.options.version == "5":
        several = down.send(*(command(topic, user_properties=(pair,)) for pair in properties))
        await down.done(several)
        assert {one.error.reason for one in several} == {"bad_property"}
    await down.through(down.send(command(topic, "end", 0)))
    assert down.detail["reconnects"] == 0


async def test_messages_wait_for_a_connection(
    faithful_broker: Any, watch: Any, publishing: Any, unique: Any, poll: Any
) -> None:
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, topic)
    watched.ack_at_once = True
    await watched.up()
    with FaultProxy(faithful_broker.host, faithful_broker.port) as proxy:
        await anyio.to_thread.run_sync(proxy.refuse)
        down = publishing(proxy.host, proxy.port)
        commands = down.send(*(command(topic, str(n), n % 3) for n in range(30)))
        short = down.send(command(topic, "gone", 1, expiry=1), command(topic, "gone", 0, expiry=0))
        kept = down.send(command(topic, "end", 1, expiry=600))
        await down.event("mqtt.connect.failed")
        assert down.publisher.in_flight == down.detail["waiting"] == 33
        await asyncio.sleep(1.1)  # the shortest expiry that there is
        await anyio.to_thread.run_sync(proxy.resume)
        await down.through([*commands, *kept])
        await down.done(short)
        assert [one.error.reason for one in short] == ["expired", "expired"]
        await watched.count(31)
        for qos in (0, 1, 2):  # a broker passes QoS 2 on when it is released, so others of the topic overtake it
            of_qos = [int(m.payload) for m in watched.messages if m.qos == qos and m.payload != b"end"]
            assert of_qos == list(range(qos, 30, 3)) or faithful_broker.kind == "rumqttd"  # which raises the QoS
        (expiry,) = [m.expiry for m in watched.messages if m.payload == b"end"]
        assert expiry is None or expiry < 600


async def test_nothing_is_lost_when_the_connection_breaks(
    faithful_broker: Any, watch: Any, publishing: Any, unique: Any, poll: Any
) -> None:
    """Also what is answered just then; QoS 2 arrives once, and each topic in its order."""
    topic = unique("t")
    watched = watch(faithful_broker.host, faithful_broker.port, f"{topic}/#")
    watched.ack_at_once = True
    await watched.up()
    with FaultProxy(faithful_broker.host, faithful_broker.port) as proxy:
        down = publishing(proxy.host, proxy.port)
        await down.up()
        commands: list[Command] = []
        for round_ in range(4):
            commands += down.send(*(command(f"{topic}/{n % 6}", f"{round_}-{n}", 1 + n % 2) for n in range(120)))
            await down.event("mqtt.connected", round_ + 1)
            await anyio.to_thread.run_sync(proxy.drop)
            await down.event("mqtt.disconnected", round_ + 1)
        await down.through(commands)
    said = down.reporter.of("mqtt.disconnected")[0].text()
    assert "; unanswered messages are sent again, connecting again " in said
    await poll(lambda: len(set(watched.payloads)) == len(commands), "all messages")
    arrived: defaultdict[str, list[bytes]] = defaultdict(list)
    for message in watched.messages:
        if message.payload not in arrived[message.topic]:
            arrived[message.topic].append(message.payload)
    for name, payloads in arrived.items():
        assert payloads == [one.publish.payload for one in commands if one.publish.topic == name]
    if faithful_broker.kind == "mosquitto":
        once = Counter(m.payload for m in watched.messages if m.qos == 2)
        assert set(once.values()) == {1}


@pytest.mark.mosquitto
async def test_nothing_is_lost_when_the_broker_restarts(
    version: str, mqtt_brokers: Any, watch: Any, publishing: Any, unique: Any, poll: Any
) -> None:
    broker = mqtt_brokers(version=version)
    topic = unique("t")
    watched = watch(broker.host, broker.port, f"{topic}/#")
    watched.ack_at_once = True
    await watched.up()
    down = publishing(broker.host, broker.port)
    await down.up()
    commands = down.send(*(command(f"{topic}/{n % 6}", str(n), 1 + n % 2) for n in range(600)))
    await poll(lambda: any(one.done for one in commands), "the first answer")
    await anyio.to_thread.run_sync(broker.restart)
    commands += down.send(*(command(f"{topic}/{n % 6}", str(n), 1 + n % 2) for n in range(600, 660)))
    await down.through(commands, timeout=60)
    await poll(lambda: len(set(watched.payloads)) == 660, "all messages", timeout=60)
    assert down.detail["reconnects"] >= 1
    for number in range(6):
        first = list(dict.fromkeys(m.payload for m in watched.messages if m.topic == f"{topic}/{number}"))
        assert first == [one.publish.payload for one in commands if one.publish.topic == f"{topic}/{number}"]


async def test_retained_messages_are_kept_by_the_broker(
    faithful_broker: Any, watch: Any, publishing: Any, unique: Any
) -> None:
    topic = unique("t")
    down = publishing(faithful_broker.host, faithful_broker.port)
    await down.done(down.send(command(topic, "kept", 1, retain=True)))
    watched = watch(faithful_broker.host, faithful_broker.port, topic)
    await watched.count(1)
    assert (watched.messages[0].retain, watched.payloads) == (True, [b"kept"])


async def test_a_new_process_does_not_meet_the_old_ones_identifiers(
    faithful_broker: Any, watch: Any, publishing: Any, unique: Any, poll: Any
) -> None:
    """A broker that keeps the session of a process that was killed would take message 1 of QoS 2 for the old one."""
    topic, client_id = unique("t"), unique("d")
    watched = watch(faithful_broker.host, faithful_broker.port, topic)
    watched.ack_at_once = True
    await watched.up()
    with FaultProxy(faithful_broker.host, faithful_broker.port) as proxy:
        first = publishing(proxy.host, proxy.port, client_id=client_id)
        await first.through(first.send(command(topic, "same", 2)))
        await anyio.to_thread.run_sync(proxy.refuse)
        await anyio.to_thread.run_sync(proxy.drop)
        await first.stop()
    second = publishing(faithful_broker.host, faithful_broker.port, client_id=client_id)
    await second.through(second.send(command(topic, "same", 2)))
    await watched.count(2)
    assert second.detail["session_present"] is False
    assert second.reporter.of("mqtt.renewed") == []


async def test_close_in_every_state_ends_what_is_unanswered(broker: Any, publishing: Any, poll: Any) -> None:
    never_run = publishing(broker.host, broker.port, start=False)
    early = never_run.send(command("t"))
    await never_run.publisher.close()
    nobody = publishing("127.0.0.1", 1)
    waiting = nobody.send(command("t", qos=0), command("t"), command("t", qos=2))
    await nobody.event("mqtt.connect.failed")
    await nobody.stop()
    with FaultProxy(broker.host, broker.port) as proxy:
        hanging = publishing(proxy.host, proxy.port)
        await hanging.up()
        await anyio.to_thread.run_sync(proxy.hang)
        unanswered = hanging.send(command("t"))
        await poll(lambda: hanging.detail["in_flight"] == 1)
        await hanging.stop()
    for one in [*early, *waiting, *unanswered]:
        assert isinstance(one.error, SinkUnavailable)
        assert one.error.reason == "closed"
    for down in (never_run, nobody, hanging):
        assert (down.link, down.publisher.in_flight) == (Link.CLOSED, 0)
        late = down.send(command("t"))
        await down.done(late)
        assert late[0].error.reason == "closed"
        await down.publisher.close()
    with pytest.raises(RuntimeError, match="was run before"):
        await hanging.publisher.run()


async def test_cancelling_run_ends_everything(broker: Any, publishing: Any) -> None:
    with FaultProxy(broker.host, broker.port) as proxy:
        down = publishing(proxy.host, proxy.port)
        await down.up()
        await anyio.to_thread.run_sync(proxy.hang)
        commands = down.send(command("t"))
        down.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await down.task
        down.task = None
        assert commands[0].error.reason == "closed"
        assert down.link is Link.CLOSED


async def test_other_options_are_taken_over(broker: Any, publishing: Any, unique: Any, poll: Any) -> None:
    topic = unique("t")
    down = publishing(broker.host, 1)
    commands = down.send(command(topic, "x", 1))
    await down.event("mqtt.connect.failed")
    down.publisher.reconfigure(PublisherOptions(**_fields(down.options) | {"port": broker.port}))
    await down.done(commands)
    down.publisher.reconfigure(PublisherOptions(**_fields(down.publisher.options) | {"keep_alive": 7}))
    await down.event("mqtt.renewed")
    await down.event("mqtt.connected", 2)
    down.publisher.reconfigure(PublisherOptions(**_fields(down.publisher.options) | {"backoff_initial": 0.06}))
    await down.done(down.send(command(topic, "x", 2)))
    assert down.detail["reconnects"] == 1
    down.publisher.reconfigure(down.publisher.options, renew=True)
    await down.event("mqtt.connected", 3)
    assert down.reporter.of("mqtt.disconnected") == []


def _fields(options: PublisherOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in PublisherOptions.__dataclass_fields__}


def test_a_publisher_of_a_source_s_options_has_a_name_of_its_own() -> None:
    options = MqttOptions(name="plant", host="127.0.0.1", client_id="gateway-1")
    made = create_publisher(options, FakeReporter())
    assert (made.name, made.options.client_id) == ("plant-down", "gateway-1-down")
    assert create_publisher(made.options, FakeReporter()).options is made.options
