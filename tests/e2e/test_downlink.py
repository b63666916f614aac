"""The gateway's other job, on real brokers: what is sent to RocketMQ reaches the device, in the same trace."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from bench.remoting import RemotingError
from spanbridge.devstack import FaultProxy
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge_context import TraceContext, extract_user_properties, parse_traceparent

from .commands import Arrived, Command, Commander, Link, Receiver, address_of
from .harness import Gateway, bodies, wait_until

pytestmark = pytest.mark.brokers

MakeGateway = Callable[..., Gateway]
MakeReceiver = Callable[..., Receiver]


def by_topic(receiver: Receiver, count: int, gateway: Gateway) -> dict[str, Arrived]:
    """The command of each topic, once there are this many."""

    def found() -> dict[str, Arrived]:
        return {one.topic.split("/")[1]: one for one in list(receiver.arrived)}

    wait_until(lambda: len(found()) >= count, f"commands of {count} topics", gateway=gateway)
    return found()


def test_v5_commands_arrive_with_their_context_and_properties(
    devstack: SharedStack, gateways: MakeGateway, receivers: MakeReceiver, commander: Commander
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v5))
    topics = {
        "compact": link.add("compact/{key}/{tag}"),
        "w3c": link.add("w3c/{key}", 'carrier = "w3c"', "qos = 2"),
        "json": link.add("json/{key}", 'carrier = "json-payload"', "qos = 0"),
        "suffix": link.add("suffix/{property.site|nowhere}", 'carrier = "topic-suffix"'),
        "tags": link.add("tags/{key}", 'filter = "reboot || update"'),
    }
    gateway = gateways(link.text)
    gateway.start()
    device = receivers(devstack.mqtt_v5, f"{link.base}/#", qos=2)
    context = TraceContext.new().replace(tracestate="vendor=1", baggage="tenant=7")
    traced = {"traceparent": context.traceparent, "tracestate": "vendor=1", "baggage": "tenant=7"}
    more = {
        "mqtt.response-topic": "reply/here",
        "mqtt.correlation-data": base64.b64encode(b"\x00\x01").decode(),
        "mqtt.user.unit": "C",
    }
    commander.send(topics["compact"], Command("c", key="pump-1", tag="reboot", properties=traced | more))
    commander.send(topics["w3c"], Command("w", key="pump-1", properties=traced))
    commander.send(topics["json"], Command('{"a": 1}', key="pump-1", properties=traced))
    commander.send(topics["suffix"], Command("s", properties=traced | {"site": "north"}))
    commander.send(topics["tags"], *(Command(tag, key="pump-1", tag=tag) for tag in ("other", "update")))
    found = by_topic(device, 5, gateway)

    compact = found["compact"]
    assert (compact.topic, compact.body, compact.qos) == (f"{link.base}/compact/pump-1/reboot", "c", 1)
    assert (compact.response_topic, compact.correlation_data) == ("reply/here", b"\x00\x01")
    assert ("unit", "C") in compact.user
    carried = extract_user_properties(compact.user).context
    assert carried is not None
    assert (carried.trace_id, carried.tracestate, carried.baggage) == (context.trace_id, "vendor=1", "tenant=7")
    assert "tp" in dict(compact.user)
    assert "traceparent" not in dict(compact.user)
    assert (found["w3c"].qos, parse_traceparent(dict(found["w3c"].user)["traceparent"]).trace_id) == (
        2,
        context.trace_id,
    )
    payload = json.loads(found["json"].body)
    assert (found["json"].qos, payload["a"]) == (0, 1)
    assert parse_traceparent(payload["traceparent"]).trace_id == context.trace_id
    assert found["suffix"].topic.startswith(f"{link.base}/suffix/north/~tp/")
    assert [one.body for one in device.arrived if "/tags/" in one.topic] == ["update"]
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log


def test_v311_commands_arrive_by_each_qos_and_carrier(
    devstack: SharedStack, gateways: MakeGateway, receivers: MakeReceiver, commander: Commander
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v311), version="3.1.1")
    topics = {
        "none": link.add("none/{key}", "qos = 2"),
        "suffix": link.add("suffix/{key}", 'carrier = "topic-suffix"'),
        "json": link.add("json/{key}", 'carrier = "json-payload"', "qos = 0"),
        "kept": link.add("kept/{key}", "retain = true"),
    }
    gateway = gateways(link.text)
    gateway.start()
    device = receivers(devstack.mqtt_v311, f"{link.base}/#", version="3.1.1", qos=2)
    context = TraceContext.new()
    for topic in topics.values():
        commander.send(topic, Command('{"a": 1}', key="k", properties={"traceparent": context.traceparent}))
    found = by_topic(device, 4, gateway)
    assert {name: one.qos for name, one in found.items()} == {"none": 2, "suffix": 1, "json": 0, "kept": 1}
    assert (found["none"].topic, found["none"].body) == (f"{link.base}/none/k", '{"a": 1}')
    assert found["suffix"].topic.startswith(f"{link.base}/suffix/k/~tp/")
    assert parse_traceparent(json.loads(found["json"].body)["traceparent"]).trace_id == context.trace_id
    late = receivers(devstack.mqtt_v311, f"{link.base}/kept/#", version="3.1.1")
    wait_until(lambda: bool(late.arrived), "the retained command")
    assert late.arrived[0].retain


def test_a_device_that_is_away_gets_its_commands_when_it_is_back(
    devstack: SharedStack, gateways: MakeGateway, receivers: MakeReceiver, commander: Commander
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v5))
    topic = link.add("{key}", kind="FIFO")
    gateway = gateways(link.text)
    gateway.start()
    device = receivers(devstack.mqtt_v5, f"{link.base}/a", client_id=devstack.unique("device"))
    other = receivers(devstack.mqtt_v5, f"{link.base}/b")
    device.leave()
    commands = [Command(f"{key}{number}", key=key, group=key) for number in range(5) for key in "ab"]
    commander.send(topic, *commands)
    wait_until(lambda: len(other.bodies) == 5, "the commands of the one that is there", gateway=gateway)
    wait_until(lambda: gateway.status["downlink"]["in_flight"] == 0, "all to be acknowledged", gateway=gateway)
    device.connect()
    wait_until(lambda: len(device.bodies) == 5, "the commands that waited", gateway=gateway)
    assert device.bodies == [f"a{number}" for number in range(5)]
    assert other.bodies == [f"b{number}" for number in range(5)]


def test_what_can_never_be_published_goes_to_the_dead_letters(
    devstack: SharedStack, gateways: MakeGateway, receivers: MakeReceiver, commander: Commander
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v5))
    topic = link.add("x/{property.to}")
    gateway = gateways(link.text)
    gateway.start()
    device = receivers(devstack.mqtt_v5, f"{link.base}/#")
    commander.send(topic, Command("bad", properties={"to": "a/#"}), Command("good", properties={"to": "b"}))
    wait_until(lambda: device.bodies == ["good"], "the one that can be published", gateway=gateway)
    wait_until(lambda: gateway.status["downlinks"][0]["rejected"] == 1, "the other to be rejected", gateway=gateway)

    def dead() -> list[str]:
        try:
            return bodies(devstack.rocketmq, f"%DLQ%{link.group}", queues=1)
        except RemotingError:  # the first dead letter makes the topic
            return []

    wait_until(lambda: dead() == ["bad"], "the dead letter", gateway=gateway)
    wait_until(gateway.is_ready, "the gateway to be ready again", gateway=gateway)


def test_sigterm_gives_back_at_once_what_the_broker_has_not_answered(
    devstack: SharedStack, gateways: MakeGateway, receivers: MakeReceiver, commander: Commander
) -> None:
    with FaultProxy(devstack.mqtt_v5.host, devstack.mqtt_v5.port) as proxy:
        extra = '[downlink]\ninvisible_time = "10m"\ndrain_timeout = "1s"'
        link = Link(devstack, f"{proxy.host}:{proxy.port}", extra=extra)
        topic = link.add("{key}")
        gateway = gateways(link.text)
        gateway.start()
        device = receivers(devstack.mqtt_v5, f"{link.base}/#")
        commander.send(topic, Command("first", key="k"))
        wait_until(lambda: device.bodies == ["first"], "the way to work", gateway=gateway)
        proxy.hang()
        commander.send(topic, *(Command(f"m{number}", key="k") for number in range(20)))
        wait_until(lambda: gateway.status["downlink"]["in_flight"] == 20, "all in flight", gateway=gateway)
        assert gateway.stop() == 0
        proxy.resume()
        after = gateways(link.text)
        after.start()
        expected = {"first", *(f"m{number}" for number in range(20))}
        wait_until(lambda: set(device.bodies) == expected, "what was given back", timeout=120, gateway=after)


def test_a_gateway_killed_under_load_loses_no_command(
    devstack: SharedStack, gateways: MakeGateway, receivers: MakeReceiver, commander: Commander
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v5), extra='[downlink]\ninvisible_time = "10s"')
    topic = link.add("{key}")
    gateway = gateways(link.text)
    gateway.start()
    device = receivers(devstack.mqtt_v5, f"{link.base}/#")
    sent = [f"m{number}" for number in range(1500)]
    commander.send(topic, *(Command(body, key=str(number % 7)) for number, body in enumerate(sent)))
    wait_until(lambda: len(device.bodies) > 100, "some load", gateway=gateway)
    gateway.kill()
    gateway.start(ready=False)
    wait_until(lambda: set(device.bodies) == set(sent), "every command", timeout=120, gateway=gateway)
    assert "Traceback" not in gateway.log


@pytest.mark.mosquitto
def test_an_mqtt_broker_restarted_under_load_loses_no_command(
    devstack: SharedStack,
    mqtt_brokers: Callable[..., MqttBroker],
    gateways: MakeGateway,
    receivers: MakeReceiver,
    commander: Commander,
) -> None:
    broker = mqtt_brokers(version="5", mqtt="mosquitto")
    link = Link(devstack, address_of(broker))
    topic = link.add("{key}")
    gateway = gateways(link.text)
    gateway.start()
    device = receivers(broker, f"{link.base}/#", client_id="kept")
    sent = [f"m{number}" for number in range(1500)]
    commander.send(topic, *(Command(body, key=str(number % 7)) for number, body in enumerate(sent[:800])))
    wait_until(lambda: len(device.bodies) > 100, "some load", gateway=gateway)
    broker.restart()
    commander.send(topic, *(Command(body, key=str(number % 7)) for number, body in enumerate(sent[800:])))
    wait_until(lambda: set(device.bodies) == set(sent), "every command", timeout=120, gateway=gateway)
    wait_until(gateway.is_ready, "recovery", gateway=gateway)
    assert "Traceback" not in gateway.log


def test_downlinks_come_change_and_go_while_it_runs(
    devstack: SharedStack, gateways: MakeGateway, receivers: MakeReceiver, commander: Commander
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v5))
    first = link.add("first/{key}")
    before = link.text
    gateway = gateways(before)
    gateway.start()
    device = receivers(devstack.mqtt_v5, f"{link.base}/#")
    commander.send(first, Command("one", key="k"))
    wait_until(lambda: device.bodies == ["one"], "the first downlink", gateway=gateway)

    second = link.add("second/{key}")
    both = link.text.replace("first/{key}", "changed/{key}")
    told = gateway.reload(both)
    assert (told["last_error"], told["needs_restart"]) == (None, [])
    commander.send(first, Command("two", key="k"))
    commander.send(second, Command("three", key="k"))
    wait_until(lambda: len(device.bodies) == 3, "both downlinks", gateway=gateway)
    topics = {one.body: one.topic.removeprefix(link.base) for one in device.arrived}
    assert (topics["two"], topics["three"]) == ("/changed/k", "/second/k")

    gateway.reload(before)
    wait_until(lambda: len(gateway.status["downlinks"]) == 1, "the second to be gone", gateway=gateway)
    commander.send(first, Command("four", key="k"))
    commander.send(second, Command("five", key="k"))
    wait_until(lambda: "four" in device.bodies, "the first downlink", gateway=gateway)
    assert "five" not in device.bodies
    assert gateway.stop() == 0


def test_a_missing_topic_is_named_as_the_reason_for_not_being_ready(
    devstack: SharedStack, gateways: MakeGateway
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v5))
    topic = link.add("{key}")
    gateway = gateways(link.text.replace(topic, "no-such-topic"))
    gateway.start(ready=False)

    def reasons() -> list[str]:
        code, body = gateway.get("/readyz")
        return [one["message"] for one in body["reasons"] if one["code"] == "consumer_down"] if code else []

    wait_until(lambda: any("no-such-topic" in reason for reason in reasons()), "the reason", gateway=gateway)
    assert gateway.get("/livez")[0] == 200
    assert gateway.stop() == 0
