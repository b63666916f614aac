"""What `check --connect` finds out, on real brokers: who answers, what is granted, what is missing."""

from __future__ import annotations

import itertools
import socket
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from spanbridge.app.connect import ask_both_sides
from spanbridge.devstack.pytest_plugin import SharedStack

from .asking import by_subject, configuration, route

pytestmark = pytest.mark.brokers


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_both_sides_answer(devstack: SharedStack, version: str) -> None:
    plain, ordered = devstack.topic(), devstack.topic("FIFO")
    routes = route("a/{x}", plain) + route("b/#", ordered, 'message_group = "g"', "qos = 0")
    found = by_subject(ask_both_sides(configuration(devstack, routes, version)))
    assert set(found) == {
        ("mqtt", "connection"),
        ("mqtt", "subscription a/+"),
        ("mqtt", "subscription b/#"),
        ("rocketmq", "connection"),
        ("rocketmq", f"topic {plain}"),
        ("rocketmq", f"topic {ordered}"),
    }
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["mqtt", "connection"].milliseconds is not None
    assert "'gw-check-" in found["mqtt", "connection"].text
    assert found["mqtt", "subscription a/+"].text == "granted with QoS 1"
    topic = found["rocketmq", f"topic {ordered}"]
    assert topic.text == "4 queue(s) for FIFO"
    assert topic.milliseconds is not None


def test_name_servers_and_brokers_answer(devstack: SharedStack) -> None:
    topic, missing = devstack.topic(), devstack.unique("missing")
    endpoints = f'{devstack.rocketmq.namesrv}"\nprotocol = "remoting'
    routes = route("a/{x}", topic) + route("b", missing)
    found = by_subject(ask_both_sides(configuration(devstack, routes, endpoints=endpoints)))
    assert {key[1]: finding.state for key, finding in found.items() if key[0] == "rocketmq"} == {
        "connection": "ok",
        f"topic {topic}": "ok",
        f"topic {missing}": "failed",
    }
    assert found["rocketmq", f"topic {topic}"].text == "4 queue(s) for messages of any type"
    assert "does not exist" in found["rocketmq", f"topic {missing}"].text


def test_what_the_endpoints_are_is_asked(devstack: SharedStack) -> None:
    topic = devstack.topic()
    for spoken, endpoints in (("grpc", devstack.rocketmq.endpoints), ("remoting", devstack.rocketmq.namesrv)):
        config = configuration(devstack, route("a/{x}", topic), endpoints=f'{endpoints}"\nprotocol = "auto')
        found = by_subject(ask_both_sides(config))
        assert found["rocketmq", "protocol"].text == f"{endpoints} speaks {spoken}"
        assert found["rocketmq", f"topic {topic}"].state == "ok"
        other = "grpc" if spoken == "remoting" else "remoting"
        config = configuration(devstack, route("a/{x}", topic), endpoints=f'{endpoints}"\nprotocol = "{other}')
        failed = by_subject(ask_both_sides(config))["rocketmq", "connection"]
        assert failed.state == "failed"
        assert f'set `protocol = "{spoken}"`' in failed.text


def test_topics_that_are_missing_or_of_the_wrong_type(devstack: SharedStack) -> None:
    plain, missing = devstack.topic(), devstack.unique("missing")
    routes = (
        route("a", plain, 'message_group = "g"') + route("b", missing) + f'[uplink]\nrejected_topic = "{missing}-2"\n'
    )
    found = by_subject(ask_both_sides(configuration(devstack, routes)))
    assert found["rocketmq", "connection"].ok
    for topic in (plain, missing, f"{missing}-2"):
        finding = found["rocketmq", f"topic {topic}"]
        assert (finding.state, finding.ok) == ("failed", False)
        assert topic in finding.text


def test_nobody_there(devstack: SharedStack) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        ask_nobody(devstack, f"127.0.0.1:{taken.getsockname()[1]}")


def ask_nobody(devstack: SharedStack, nowhere: str) -> None:
    config = configuration(devstack, route("a", "t"), url=f"mqtt://{nowhere}", endpoints=nowhere)
    found = by_subject(ask_both_sides(config))
    assert {key: finding.state for key, finding in found.items()} == {
        ("mqtt", "connection"): "failed",
        ("rocketmq", "connection"): "failed",
        ("rocketmq", "topic t"): "skipped",
    }
    assert all(nowhere in finding.text for finding in found.values() if finding.state == "failed")


def test_credentials_that_a_broker_refuses(devstack: SharedStack, mqtt_brokers: Any) -> None:
    secured = mqtt_brokers(version="3.1.1", mqtt="amqtt", username="gateway", password="correct-horse")
    url = f"mqtt://{secured.host}:{secured.port}"
    topic = devstack.topic()
    for password, state in (("correct-horse", "ok"), ("battery-staple", "failed")):
        mqtt = f'username = "gateway"\npassword = "{password}"'
        config = configuration(devstack, route("a", topic), "3.1.1", mqtt, url=url)
        finding = by_subject(ask_both_sides(config))["mqtt", "connection"]
        assert finding.state == state
        assert password not in str(asdict(finding))


def test_a_running_gateway_is_left_alone(devstack: SharedStack) -> None:
    config = configuration(devstack, route("a/+", devstack.topic()), mqtt='share = "group"\n[mqtt.will]\ntopic = "w"')
    finding = by_subject(ask_both_sides(config))["mqtt", "subscription a/+"]
    assert finding.ok


def test_a_certificate_that_is_none(devstack: SharedStack, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    broker = devstack.mqtt_v5
    mqtt = f'tls.ca_file = "{tmp_path / "ca.pem"}"'
    config = configuration(
        devstack, route("a", devstack.topic()), mqtt=mqtt, url=f"mqtts://{broker.host}:{broker.port}"
    )
    finding = by_subject(ask_both_sides(config))["mqtt", "connection"]
    assert finding.state == "failed"
    assert "ca.pem" in finding.text


def test_a_subscription_that_a_broker_refuses_or_cuts(devstack: SharedStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=grudging_broker, args=(server,))
        answering.start()
        routes = route("a", devstack.topic()) + route("b", devstack.topic(), "qos = 2")
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        found = by_subject(ask_both_sides(configuration(devstack, routes, "3.1.1", url=url)))
        answering.join()
    assert found["mqtt", "connection"].ok
    refused, cut = found["mqtt", "subscription a"], found["mqtt", "subscription b"]
    assert (refused.state, refused.text.startswith("refused: ")) == ("failed", True)
    assert (cut.state, cut.text) == ("warning", "granted with QoS 0, asked for 2")
    assert cut.ok


def grudging_broker(server: socket.socket) -> None:
    """Take one MQTT 3.1.1 connection and its two subscriptions: the first is refused, the second gets QoS 0."""
    codes = iter(b"\x80\x00")
    peer, _ = server.accept()
    with peer, peer.makefile("rb") as packets:
        while head := packets.read(2):  # no packet here is longer than 127 bytes
            body = packets.read(head[1])
            if head[0] == 0x10:
                peer.sendall(b"\x20\x02\x00\x00")  # CONNACK, section 3.2
            elif head[0] == 0x82:
                answers = bytes(itertools.islice(codes, filters_in(body)))
                peer.sendall(bytes([0x90, 2 + len(answers)]) + body[:2] + answers)  # SUBACK, section 3.9


def filters_in(subscribe: bytes) -> int:
    """How many filters a SUBSCRIBE packet holds: a packet identifier, then for each its length, itself, its QoS."""
    position, count = 2, 0
    while position < len(subscribe):
        position += 3 + int.from_bytes(subscribe[position : position + 2])
        count += 1
    return count
