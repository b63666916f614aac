"""RocketMQ through its gRPC proxy: readiness (a message has gone round), and a look at what a topic receives."""

from __future__ import annotations

import contextlib
import hmac
import math
import time
import uuid
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from spanbridge.devstack.probe import NotYet

_ROUND_SECONDS = 3.0
_LOOK_SECONDS = 5.0
_BATCH = 32


class RocketmqProbe:
    """Sends and receives through the gRPC proxy, one call after the other: enough to see that it works.

    Args:
        endpoints: ``host:port`` of the proxy.
        topic: for :meth:`round` a NORMAL topic with one queue.
        group: a consumer group that nobody else uses.
        credentials: access key and secret key, where the proxy asks for them.
    """

    def __init__(self, endpoints: str, topic: str, group: str, *, credentials: tuple[str, str] | None = None) -> None:
        self._endpoints = endpoints
        self._topic = topic
        self._group = group
        self._credentials = credentials
        self._identity = (
            ("x-mq-client-id", f"spanbridge-ready-{uuid.uuid4().hex[:8]}"),
            ("x-mq-language", "PYTHON"),
            ("x-mq-protocol", "v2"),
            ("x-mq-client-version", "5.0.0"),
        )

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Headers for one request: who asks and, signed, who says so.

        The signature is the HMAC-SHA1 of the time stamp under the secret key (``DefaultAuthenticationContextBuilder``
        in RocketMQ's ``auth`` module).
        """
        if self._credentials is None:
            return self._identity
        access_key, secret_key = self._credentials
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        signature = hmac.new(secret_key.encode(), stamp.encode(), "sha1").hexdigest()
        value = f"MQv2-HMAC-SHA1 Credential={access_key}, SignedHeaders=x-mq-date-time, Signature={signature}"
        return (*self._identity, ("x-mq-date-time", stamp), ("authorization", value))

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

        from spanbridge.devstack.rocketmq_stub import ProxyStub, service

        with grpc.insecure_channel(self._endpoints, options=[("grpc.enable_http_proxy", 0)]) as channel:
            request = service.QueryRouteRequest(topic={"name": topic}, endpoints=self._addresses())
            try:
                answer = ProxyStub(channel).QueryRoute(request, metadata=self._metadata, timeout=_ROUND_SECONDS)
            except grpc.RpcError as error:
                raise NotYet(f"gRPC proxy on {self._endpoints}: {error.details() or error.code()}") from error
        _check(answer.status)
        if not answer.message_queues:
            raise NotYet(f"topic {topic} has no queues yet")

    def messages(self, *, wait: float, limit: int | None = None) -> Iterator[Any]:
        """Receive and acknowledge what the topic gets, until nothing came for ``wait`` seconds or ``limit`` were taken.

        Yields:
            ``Message`` of RocketMQ's protocol buffers.

        Raises:
            NotYet: the proxy does not answer, or refuses.
        """
        import grpc

        from spanbridge.devstack.rocketmq_stub import ProxyStub

        with grpc.insecure_channel(self._endpoints, options=[("grpc.enable_http_proxy", 0)]) as channel:
            stub = ProxyStub(channel)
            try:
                yield from self._receive_on(stub, wait, limit)
            except grpc.RpcError as error:
                raise NotYet(f"gRPC proxy on {self._endpoints}: {error.details() or error.code()}") from error

    def _receive_on(self, stub: Any, wait: float, limit: int | None) -> Iterator[Any]:
        from spanbridge.devstack.rocketmq_stub import service

        topic, group = {"name": self._topic}, {"name": self._group}
        call: dict[str, Any] = {"metadata": self._metadata, "timeout": _ROUND_SECONDS}
        route = stub.QueryRoute(service.QueryRouteRequest(topic=topic, endpoints=self._addresses()), **call)
        _check(route.status)
        deadline = time.monotonic() + wait
        left = math.inf if limit is None else limit  # what is received beyond would be hidden from the next look
        while time.monotonic() < deadline and left > 0:
            # A stream and a heartbeat for each look keep the proxy from forgetting us, and need no thread of ours.
            with self._settings(stub, timeout=_LOOK_SECONDS + _ROUND_SECONDS):
                stub.Heartbeat(service.HeartbeatRequest(group=group, client_type="SIMPLE_CONSUMER"), **call)
                found = self._look(stub, route.message_queues[0], min(_LOOK_SECONDS, wait), int(min(left, _BATCH)))
                for message in found:
                    self._ack(stub, message, call)
                    yield message
                    left -= 1
                    deadline = time.monotonic() + wait

    def _look(self, stub: Any, queue: Any, seconds: float, most: int) -> list[Any]:
        """Wait for messages in every queue: the proxy takes the queue in the request for its broker only."""
        from spanbridge.devstack.rocketmq_stub import definition, service

        request = service.ReceiveMessageRequest(
            group={"name": self._group},
            message_queue=queue,
            filter_expression={"type": "TAG", "expression": "*"},
            batch_size=most,
            invisible_duration={"seconds": 30},
        )
        request.long_polling_timeout.FromMilliseconds(int(seconds * 1000))
        found = []
        for answer in stub.ReceiveMessage(request, metadata=self._metadata, timeout=seconds + _ROUND_SECONDS):
            if answer.HasField("message"):
                found.append(answer.message)
            elif answer.HasField("status") and answer.status.code != definition.Code.MESSAGE_NOT_FOUND:
                _check(answer.status)
        return found

    def _addresses(self) -> dict[str, Any]:
        host, port = self._endpoints.rsplit(":", 1)
        return {"scheme": "IPv4", "addresses": [{"host": host, "port": int(port)}]}

    def _round(self, channel: Any) -> None:
        from spanbridge.devstack.rocketmq_stub import ProxyStub, service

        stub = ProxyStub(channel)
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
        from spanbridge.devstack.rocketmq_stub import service

        system = message.system_properties
        entry = {"message_id": system.message_id, "receipt_handle": system.receipt_handle}
        stub.AckMessage(
            service.AckMessageRequest(group={"name": self._group}, topic={"name": self._topic}, entries=[entry]), **call
        )

    @contextlib.contextmanager
    def _settings(self, stub: Any, timeout: float = _ROUND_SECONDS) -> Iterator[None]:
        """Introduce a consumer: the proxy refuses to deliver to a client whose settings it does not know."""
        from spanbridge.devstack.rocketmq_stub import service

        expression = {"topic": {"name": self._topic}, "expression": {"type": "TAG", "expression": "*"}}
        settings = {
            "client_type": "SIMPLE_CONSUMER",
            "access_point": self._addresses(),
            "request_timeout": {"seconds": 3},
            "subscription": {"group": {"name": self._group}, "subscriptions": [expression]},
        }
        commands: SimpleQueue[Any] = SimpleQueue()
        commands.put(service.TelemetryCommand(settings=settings))
        stream = stub.Telemetry(iter(commands.get, None), metadata=self._metadata, timeout=timeout)
        try:
            if next(stream, None) is None:
                raise NotYet(f"gRPC proxy on {self._endpoints}: it ended the telemetry stream")
            yield
        finally:
            commands.put(None)
            stream.cancel()


def _check(status: Any) -> None:
    from spanbridge.devstack.rocketmq_stub import definition

    if status.code != definition.Code.OK:
        raise NotYet(f"{definition.Code.Name(status.code)}: {status.message}")
