"""Readiness: a message has really gone round. A listening socket is not enough for any of these brokers."""

from __future__ import annotations

import contextlib
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from spanbridge.devstack.errors import DevstackError

_ROUND_SECONDS = 3.0
_PAUSE_SECONDS = 0.1


def until(attempt: Callable[[], None], *, timeout: float, alive: Callable[[], bool]) -> None:
    """Repeat ``attempt`` until it raises no :class:`NotYet`.

    Raises:
        DevstackError: the deadline of ``timeout`` seconds passed, or ``alive`` says that there is no point in waiting.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            attempt()
        except NotYet as reason:
            if not alive():
                raise DevstackError("the process ended by itself") from reason
            if time.monotonic() > deadline:
                raise DevstackError(f"not ready after {timeout:.0f} s: {reason}") from reason
            time.sleep(_PAUSE_SECONDS)
        else:
            return


class NotYet(Exception):  # noqa: N818 - a state, not an error
    """The peer is not ready; the message says in what way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttTarget:
    """Where and how to reach an MQTT broker."""

    host: str
    port: int
    version: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None


def mqtt_round(target: MqttTarget) -> None:
    """Publish one message with QoS 1 and receive it.

    Raises:
        NotYet: it did not come back within a few seconds.
    """
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    version = paho.MQTTv5 if target.version == "5" else paho.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, f"ready-{uuid.uuid4().hex[:12]}", protocol=version)
    _authenticate(client, target)
    seen = _echo(client)
    try:
        client.connect(target.host, target.port)
        deadline = time.monotonic() + _ROUND_SECONDS
        while not seen and time.monotonic() < deadline:
            if client.loop(0.1) != paho.MQTT_ERR_SUCCESS:
                break
    except OSError as error:
        raise NotYet(f"MQTT on {target.host}:{target.port}: {error}") from error
    finally:
        client.disconnect()
    if seen != ["back"]:
        raise NotYet(f"MQTT on {target.host}:{target.port}: {seen[0] if seen else 'a message did not come back'}")


def _authenticate(client: Any, target: MqttTarget) -> None:
    if target.username is not None:
        client.username_pw_set(target.username, target.password)
    if target.tls is not None:
        client.tls_set_context(target.tls)


def _echo(client: Any) -> list[str]:
    """Have the client send itself a message; the list gets what became of it."""
    topic = f"spanbridge/ready/{uuid.uuid4().hex}"
    seen: list[str] = []

    def on_connect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
        if code.is_failure:
            seen.append(f"refused: {code}")
        else:
            client.subscribe(topic, 1)

    def on_subscribe(*_: object) -> None:
        client.publish(topic, b"round", 1)

    def on_message(*_: object) -> None:
        seen.append("back")

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    return seen


class RocketmqProbe:
    """Sends a message through the gRPC proxy and receives it again, on a topic and group of its own.

    Args:
        endpoints: ``host:port`` of the proxy.
        topic: a NORMAL topic with one queue or more.
        group: a consumer group that nobody else uses.
    """

    def __init__(self, endpoints: str, topic: str, group: str) -> None:
        self._endpoints = endpoints
        self._topic = topic
        self._group = group
        self._metadata = (
            ("x-mq-client-id", f"spanbridge-ready-{uuid.uuid4().hex[:8]}"),
            ("x-mq-language", "PYTHON"),
            ("x-mq-protocol", "v2"),
            ("x-mq-client-version", "5.0.0"),
        )

    def round(self) -> None:
        """Send one message and receive it.

        Raises:
            NotYet: it could not be sent, or did not come back within a few seconds.
        """
        import grpc

        with grpc.insecure_channel(self._endpoints, options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                self._round(channel)
            except grpc.RpcError as error:
                raise NotYet(f"gRPC proxy on {self._endpoints}: {error.details() or error.code()}") from error

    def route(self, topic: str) -> None:
        """Ask the proxy for the topic's route.

        Raises:
            NotYet: the proxy does not know one.
        """
        import grpc
        from rocketmq.grpc_protocol import service_pb2 as service
        from rocketmq.grpc_protocol.service_pb2_grpc import MessagingServiceStub

        with grpc.insecure_channel(self._endpoints, options=[("grpc.enable_http_proxy", 0)]) as channel:
            request = service.QueryRouteRequest(topic={"name": topic}, endpoints=self._addresses())
            try:
                answer = MessagingServiceStub(channel).QueryRoute(
                    request, metadata=self._metadata, timeout=_ROUND_SECONDS
                )
            except grpc.RpcError as error:
                raise NotYet(f"gRPC proxy on {self._endpoints}: {error.details() or error.code()}") from error
        _check(answer.status)
        if not answer.message_queues:
            raise NotYet(f"topic {topic} has no queues yet")

    def _addresses(self) -> dict[str, Any]:
        host, port = self._endpoints.rsplit(":", 1)
        return {"scheme": "IPv4", "addresses": [{"host": host, "port": int(port)}]}

    def _round(self, channel: Any) -> None:
        from rocketmq.grpc_protocol import service_pb2 as service
        from rocketmq.grpc_protocol.service_pb2_grpc import MessagingServiceStub

        stub = MessagingServiceStub(channel)
        topic, group = {"name": self._topic}, {"name": self._group}
        call = {"metadata": self._metadata, "timeout": _ROUND_SECONDS}
        route = stub.QueryRoute(service.QueryRouteRequest(topic=topic, endpoints=self._addresses()), **call)
        _check(route.status)
        with self._settings(stub):
            message_id = f"01{uuid.uuid4().hex.upper()}"
            system = {"message_id": message_id, "message_type": "NORMAL", "body_encoding": "IDENTITY"}
            message = {"topic": topic, "system_properties": system, "body": b"round"}
            sent = stub.SendMessage(service.SendMessageRequest(messages=[message]), **call)
            _check(sent.status)
            request = service.ReceiveMessageRequest(
                group=group,
                message_queue=route.message_queues[0],
                filter_expression={"type": "TAG", "expression": "*"},
                batch_size=1,
                invisible_duration={"seconds": 10},
                long_polling_timeout={"seconds": 1},
            )
            for answer in stub.ReceiveMessage(request, **call):
                if answer.HasField("message"):
                    self._ack(stub, answer.message, call)
                    return
        raise NotYet(f"gRPC proxy on {self._endpoints}: a message did not come back")

    def _ack(self, stub: Any, message: Any, call: dict[str, Any]) -> None:
        from rocketmq.grpc_protocol import service_pb2 as service

        system = message.system_properties
        entry = {"message_id": system.message_id, "receipt_handle": system.receipt_handle}
        stub.AckMessage(
            service.AckMessageRequest(group={"name": self._group}, topic={"name": self._topic}, entries=[entry]), **call
        )

    @contextlib.contextmanager
    def _settings(self, stub: Any) -> Iterator[None]:
        """Introduce a consumer: the proxy refuses to deliver to a client whose settings it does not know."""
        from rocketmq.grpc_protocol import service_pb2 as service

        expression = {"topic": {"name": self._topic}, "expression": {"type": "TAG", "expression": "*"}}
        settings = {
            "client_type": "SIMPLE_CONSUMER",
            "access_point": self._addresses(),
            "request_timeout": {"seconds": 3},
            "subscription": {"group": {"name": self._group}, "subscriptions": [expression]},
        }
        commands: SimpleQueue[Any] = SimpleQueue()
        commands.put(service.TelemetryCommand(settings=settings))
        stream = stub.Telemetry(iter(commands.get, None), metadata=self._metadata, timeout=_ROUND_SECONDS)
        try:
            if next(stream, None) is None:
                raise NotYet(f"gRPC proxy on {self._endpoints}: it ended the telemetry stream")
            yield
        finally:
            commands.put(None)
            stream.cancel()


def _check(status: Any) -> None:
    from rocketmq.grpc_protocol import definition_pb2 as definition

    if status.code != definition.Code.OK:
        raise NotYet(f"{definition.Code.Name(status.code)}: {status.message}")
