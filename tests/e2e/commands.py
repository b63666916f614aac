"""The two ends of the way down: who sends commands to RocketMQ, and a device that receives them over MQTT."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import paho.mqtt.client as paho
from google.protobuf.timestamp_pb2 import Timestamp
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from rocketmq.grpc_protocol import definition_pb2 as definition
from rocketmq.grpc_protocol import service_pb2 as service
from rocketmq.grpc_protocol.service_pb2_grpc import MessagingServiceStub

from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.devstack.rocketmq import RocketmqBroker

from .harness import wait_until


@dataclass(frozen=True, slots=True)
class Command:
    """One message for RocketMQ."""

    body: str
    key: str | None = None
    tag: str | None = None
    group: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


class Commander:
    """Sends to RocketMQ's proxy, without a client's heartbeats and threads."""

    def __init__(self, endpoints: str) -> None:
        self._channel = grpc.insecure_channel(endpoints)
        self._stub = MessagingServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def send(self, topic: str, *commands: Command) -> None:
        """Send in requests of up to 64; messages with a group one by one, as the proxy wants them."""
        size = 1 if any(command.group for command in commands) else 64
        for start in range(0, len(commands), size):
            messages = [_encoded(topic, command) for command in commands[start : start + size]]
            wait_until(partial(self._stored, messages), "RocketMQ to take commands")

    def _stored(self, messages: list[definition.Message]) -> bool:
        """Send these, and leave those that are not stored (a broker that is busy says so)."""
        request = service.SendMessageRequest(messages=messages)
        answer = self._stub.SendMessage(request, timeout=30, metadata=[("x-mq-client-id", "commander")])
        entries = answer.entries if len(answer.entries) == len(messages) else [answer] * len(messages)
        messages[:] = [one for one, told in zip(messages, entries, strict=True) if told.status.code != definition.OK]
        return not messages


def _encoded(topic: str, command: Command) -> definition.Message:
    kind = definition.MessageType.FIFO if command.group else definition.MessageType.NORMAL
    system = definition.SystemProperties(
        message_id=f"01{uuid.uuid4().hex.upper()}",
        message_type=kind,
        body_encoding=definition.Encoding.IDENTITY,
        born_host="127.0.0.1",
        born_timestamp=Timestamp(seconds=int(time.time())),
        keys=[command.key] if command.key else [],
    )
    if command.tag:
        system.tag = command.tag
    if command.group:
        system.message_group = command.group
    return definition.Message(
        topic=definition.Resource(name=topic),
        user_properties=dict(command.properties),
        system_properties=system,
        body=command.body.encode(),
    )


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message as a device received it."""

    topic: str
    body: str
    qos: int
    retain: bool
    user: tuple[tuple[str, str], ...] = ()
    response_topic: str | None = None
    correlation_data: bytes | None = None


class Receiver:
    """A device that subscribes. With a client id, its session outlives its connection."""

    def __init__(
        self, address: tuple[str, int], filters: Sequence[str], *, version: str = "5", client_id: str = "", qos: int = 1
    ) -> None:
        self.arrived: list[Arrived] = []
        self._address = address
        self._filters = [(one, qos) for one in filters]
        self._granted: list[Any] = []
        self._client_id = client_id
        self._v5 = version == "5"
        self.connect()

    def connect(self) -> None:
        """Connect and wait for the subscription."""
        self._client = self._make()
        self._granted.clear()
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if self._client_id else 0
            self._client.connect(*self._address, clean_start=False, properties=properties)
        else:
            self._client.connect(*self._address)
        self._client.loop_start()
        wait_until(lambda: bool(self._granted), "the device's subscription")

    def _make(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            clean_session=None if self._v5 else not self._client_id,
        )
        client.reconnect_delay_set(1, 1)
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._granted.append(codes)
        return client

    def leave(self) -> None:
        """Disconnect; a session with a client id stays with the broker."""
        if self._client.is_connected():
            left = threading.Event()
            self._client.on_disconnect = lambda *_: left.set()
            self._client.disconnect()
            wait_until(left.is_set, "the device's goodbye")
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._filters)

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        found = message.properties
        self.arrived.append(
            Arrived(
                topic=message.topic,
                body=message.payload.decode(),
                qos=message.qos,
                retain=message.retain,
                user=tuple(getattr(found, "UserProperty", ())),
                response_topic=getattr(found, "ResponseTopic", None),
                correlation_data=getattr(found, "CorrelationData", None),
            )
        )

    @property
    def bodies(self) -> list[str]:
        """The payloads in the order in which they came."""
        return [one.body for one in list(self.arrived)]


class Link:
    """A gateway's configuration with downlinks, each with a topic and a group of its own."""

    def __init__(
        self,
        devstack: SharedStack,
        address: str,
        *,
        version: str = "5",
        extra: str = "",
        rocketmq: RocketmqBroker | None = None,
    ) -> None:
        self._rocketmq = rocketmq or devstack.rocketmq
        self.base = devstack.unique("down")
        self.text = f"""
name = "{devstack.unique("gw")}"
[mqtt]
url = "mqtt://{address}"
version = "{version}"
backoff_maximum = 1
[rocketmq]
endpoints = "{self._rocketmq.endpoints}"
{extra}
"""

    def add(self, mqtt_topic: str, *lines: str, kind: Any = "NORMAL", max_attempts: int = 16) -> str:
        """One more downlink; its RocketMQ topic."""
        topic = self._rocketmq.create_topic(None, kind)
        group = self._rocketmq.create_group(None, fifo=kind == "FIFO", max_attempts=max_attempts)
        self.group = group
        head = f'[[downlinks]]\ntopic = "{topic}"\nconsumer_group = "{group}"\nmqtt_topic = "{self.base}/{mqtt_topic}"'
        self.text += "\n".join([head, *lines, ""])
        return topic


def address_of(broker: MqttBroker) -> str:
    return f"{broker.host}:{broker.port}"
