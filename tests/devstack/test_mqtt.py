"""The MQTT brokers of the devstack, and the trouble they can be put to."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge.config.example import EXAMPLE
from spanbridge.config.load import examine_text
from spanbridge.devstack import Devstack, DevstackError, MqttBroker, MqttSetup
from spanbridge.devstack.mqtt_setup import Capability, choose_kind, mosquitto_path
from spanbridge.devstack.probe import MqttTarget, NotYet, mqtt_round
from spanbridge.devstack.pytest_plugin import MqttFactory, requires

pytestmark = pytest.mark.brokers
MOSQUITTO = pytest.param("mosquitto", marks=pytest.mark.mosquitto)
KINDS = ["iotcore", MOSQUITTO]
BROKERS = [
    pytest.param(*chosen, id="-".join(chosen), marks=[pytest.mark.mosquitto] if "mosquitto" in chosen else [])
    for chosen in (
        ("5", "iotcore"),
        ("3.1.1", "iotcore"),
        ("3.1.1", "amqtt"),
        ("5", "mosquitto"),
        ("3.1.1", "mosquitto"),
    )
]


class Client:
    """A paho client driven step by step, so that nothing runs in the background."""

    def __init__(self, broker: MqttBroker, client_id: str, *, clean: bool, acknowledge: bool = True) -> None:
        v5 = broker.version == "5"
        self.received: list[paho.MQTTMessage] = []
        self.session_present: bool | None = None
        self._subscribed = False
        options: dict[str, Any] = {"manual_ack": not acknowledge} | ({} if v5 else {"clean_session": clean})
        protocol = paho.MQTTv5 if v5 else paho.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=protocol, **options)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = lambda _c, _u, message: self.received.append(message)
        if v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600
            self._client.connect(broker.host, broker.port, clean_start=clean, properties=properties)
        else:
            self._client.connect(broker.host, broker.port)
        self.until(lambda: self.session_present is not None)

    def _on_connect(self, _c: object, _u: object, flags: Any, *_: object) -> None:
        self.session_present = bool(flags.session_present)

    def _on_subscribe(self, *_: object) -> None:
        self._subscribed = True

    def until(self, condition: Any, *, raising: bool = True) -> None:
        deadline = time.monotonic() + (5.0 if raising else 0.5)
        while not condition():
            if time.monotonic() > deadline:
                assert not raising, "nothing came"
                return
            self._client.loop(0.05)

    def subscribe(self, topic: str) -> None:
        self._subscribed = False
        self._client.subscribe(topic, 1)
        self.until(lambda: self._subscribed)

    def publish(
        self, topic: str, payload: bytes, properties: Properties | None = None, *, qos: int = 1, retain: bool = False
    ) -> None:
        sent = self._client.publish(topic, payload, qos, retain, properties=properties)
        self.until(sent.is_published)

    def live(self, base: str) -> list[paho.MQTTMessage]:
        return [message for message in self.received if message.topic == f"{base}/live"]

    def drop(self) -> None:
        """End the connection without DISCONNECT."""
        self._client.socket().close()

    def close(self) -> None:
        self._client.disconnect()


@pytest.fixture(scope="module", params=KINDS)
def stack(request: pytest.FixtureRequest) -> Iterator[Devstack]:
    if request.param == "mosquitto" and mosquitto_path() is None:
        pytest.skip("needs mosquitto")
    with Devstack.up(rocketmq=False, mqtt=request.param) as made:
        yield made


def target(broker: MqttBroker, **changes: Any) -> MqttTarget:
    return MqttTarget(**{"host": broker.host, "port": broker.port, "version": broker.version, **changes})


def test_both_versions_are_served(stack: Devstack) -> None:
    mqtt_round(target(stack.mqtt_v5))
    mqtt_round(target(stack.mqtt_v311, version="3.1.1"))
    assert (stack.mqtt_v5 is stack.mqtt_v311) == (stack.mqtt_v5.kind == "mosquitto")
    assert stack.env()["SPANBRIDGE__MQTT__URL"] == f"mqtt://127.0.0.1:{stack.mqtt_v5.port}"


def test_a_broker_for_the_older_version_alone_is_what_the_gateway_is_told() -> None:
    with Devstack.up(rocketmq=False, mqtt_v5=False) as stack:
        report = examine_text(EXAMPLE, stack.env(), base=Path())
        assert report.config is not None, report.problems
        assert (report.config.mqtt[0].url, report.config.mqtt[0].version) == (stack.mqtt_v311.url, "3.1.1")


def test_listens_on_loopback_only(stack: Devstack) -> None:
    for service in stack.services:
        assert service.running
    with socket.socket() as probe:  # the port is free on another address of this host
        probe.bind(("127.0.0.2", stack.mqtt_v5.port))


def test_user_properties_arrive_in_order(stack: Devstack) -> None:
    topic = uuid.uuid4().hex
    pairs = [("tp", "1"), ("a", "b"), ("a", "c")]
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = pairs
    client = Client(stack.mqtt_v5, uuid.uuid4().hex, clean=True)
    client.subscribe(topic)
    client.publish(topic, b"x", properties)
    client.until(lambda: client.received)
    client.close()
    assert client.received[0].properties.UserProperty == pairs


@pytest.mark.parametrize(("version", "kind"), BROKERS)
def test_a_session_keeps_its_messages_and_lasts_as_long_as_the_broker_says(
    mqtt_brokers: MqttFactory, version: str, kind: str
) -> None:
    broker = mqtt_brokers(version=version, mqtt=kind)
    name, topic = uuid.uuid4().hex, uuid.uuid4().hex
    first = Client(broker, name, clean=False)
    first.subscribe(topic)
    first.close()
    publisher = Client(broker, uuid.uuid4().hex, clean=True)
    publisher.publish(topic, b"kept")
    publisher.close()
    port = broker.port
    if broker.persistent:
        broker.restart()
    again = Client(broker, name, clean=False)
    again.until(lambda: again.received)
    again.close()
    assert again.session_present
    assert again.received[0].payload == b"kept"
    assert broker.port == port


@pytest.mark.parametrize(("version", "kind"), BROKERS)
def test_kill_start_pause_resume_and_stop(mqtt_brokers: MqttFactory, version: str, kind: str) -> None:
    broker = mqtt_brokers(version=version, mqtt=kind)
    first = broker.pid
    broker.kill()
    assert not broker.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((broker.host, broker.port), 1)
    broker.start()
    assert broker.pid != first
    broker.pause()
    with socket.create_connection((broker.host, broker.port), 1) as hung:
        v5 = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"
        hung.sendall(v5 if version == "5" else b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc")
        hung.settimeout(0.3)
        with pytest.raises(TimeoutError):
            hung.recv(1)
        broker.resume()
        hung.settimeout(5)
        assert hung.recv(1) == b"\x20"  # CONNACK
    broker.stop()
    assert not broker.running


@pytest.mark.parametrize(("version", "kind"), BROKERS)
def test_tls_with_a_password(mqtt_brokers: MqttFactory, version: str, kind: str) -> None:
    broker = mqtt_brokers(version=version, mqtt=kind, tls=True, username="device", password="s3cret")
    made = broker.certificates
    assert made is not None
    assert broker.url.startswith("mqtts://")
    assert "s3cret" not in repr(broker.setup)
    trusting = made.client_context(with_certificate=False)
    mqtt_round(target(broker, username="device", password="s3cret", tls=trusting))
    for wrong in ({"username": "device", "password": "guess", "tls": trusting}, {"tls": trusting}):
        with pytest.raises(NotYet):
            mqtt_round(target(broker, **wrong))


@pytest.mark.mosquitto
def test_mutual_tls(mqtt_brokers: MqttFactory) -> None:
    broker = mqtt_brokers(mqtt="mosquitto", client_certificates=True)
    made = broker.certificates
    assert made is not None
    mqtt_round(target(broker, tls=made.client_context(with_certificate=True)))
    with pytest.raises(NotYet):
        mqtt_round(target(broker, tls=made.client_context(with_certificate=False)))


@pytest.mark.parametrize("kind", ["iotcore", "amqtt"])
def test_mutual_tls_is_refused_where_it_would_not_be_checked(kind: str) -> None:
    with pytest.raises(DevstackError, match="does not check clients' certificates"):
        Devstack.up(rocketmq=False, mqtt=kind, mqtt_v5=False, mqtt_v311=MqttSetup(client_certificates=True))


@pytest.mark.parametrize(("version", "kind"), BROKERS)
def test_each_broker_can_do_what_its_capabilities_say_and_no_more(
    mqtt_brokers: MqttFactory, version: str, kind: str
) -> None:
    broker = mqtt_brokers(version=version, mqtt=kind)
    base, name = uuid.uuid4().hex, uuid.uuid4().hex
    publisher = Client(broker, uuid.uuid4().hex, clean=True)
    publisher.subscribe(f"{base}/retained")
    publisher.publish(f"{base}/retained", b"old", retain=True)
    away = Client(broker, name, clean=False, acknowledge=False)
    away.subscribe(f"{base}/live")
    publisher.publish(f"{base}/live", b"at most once", qos=0)
    publisher.publish(f"{base}/live", b"unacknowledged")
    away.until(lambda: len(away.live(base)) == 2)
    away.drop()
    back = Client(broker, name, clean=False, acknowledge=False)
    back.until(lambda: back.live(base), raising=False)
    back.subscribe(f"{base}/end")
    publisher.publish(f"{base}/end", b"end")
    back.until(lambda: any(message.payload == b"end" for message in back.received))

    again = [message for message in back.live(base) if message.payload == b"unacknowledged"]
    foreign = [message for message in away.received + back.received if message.topic == f"{base}/retained"]
    found: dict[Capability, bool] = {
        "redelivery": bool(again),
        "duplicate-flag": bool(again) and again[0].dup,
        "published-qos": [message.qos for message in away.live(base)] == [0, 1],
        "retained": not foreign,
    }
    assert found == {capability: broker.can(capability) for capability in found}
    for client in (back, publisher):
        client.close()


def test_a_test_that_needs_more_is_skipped_by_name(mqtt_brokers: MqttFactory) -> None:
    broker = mqtt_brokers(version="3.1.1", mqtt="amqtt")
    requires(broker, "sessions")
    with pytest.raises(pytest.skip.Exception, match="needs mosquitto: amqtt lacks redelivery, retained"):
        requires(broker, "sessions", "retained", "redelivery")


def test_amqtt_is_for_the_version_it_speaks() -> None:
    with Devstack.up(rocketmq=False, mqtt="amqtt") as stack:
        assert (stack.mqtt_v5.kind, stack.mqtt_v311.kind) == ("rumqttd", "amqtt")
        with pytest.raises(NotYet, match=r"(?i)protocol"):
            mqtt_round(target(stack.mqtt_v311, version="5"))


def test_the_kind_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_MQTT", "iotcore")
    assert choose_kind() == choose_kind(version="3.1.1") == "rumqttd"
    monkeypatch.setenv("SPANBRIDGE_MQTT", "amqtt")
    assert (choose_kind(), choose_kind(version="3.1.1")) == ("rumqttd", "amqtt")
    monkeypatch.setenv("SPANBRIDGE_MQTT", "hivemq")
    with pytest.raises(DevstackError, match="hivemq"):
        choose_kind()
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    assert choose_kind("auto") == "rumqttd"
    with pytest.raises(DevstackError, match="apt-get install mosquitto"):
        choose_kind("mosquitto")
