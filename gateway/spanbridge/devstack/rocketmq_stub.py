"""The calls of RocketMQ's gRPC proxy that the devstack makes, one after the other.

The official client has a stub of its own, but importing that package opens a log file in the user's home, which may be
read-only or missing.
"""

from __future__ import annotations

from typing import Any

from spanbridge.rocketmq.grpc.stubs import SERVICE, definition, service

__all__ = ["ProxyStub", "definition", "service"]


class ProxyStub:
    """The calls by their names in ``service.proto``, on one synchronous channel."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.QueryRoute = self._call("unary_unary", "QueryRoute")
        self.Heartbeat = self._call("unary_unary", "Heartbeat")
        self.SendMessage = self._call("unary_unary", "SendMessage")
        self.AckMessage = self._call("unary_unary", "AckMessage")
        self.ReceiveMessage = self._call("unary_stream", "ReceiveMessage")
        self.Telemetry = channel.stream_stream(
            SERVICE + "Telemetry",
            request_serializer=service.TelemetryCommand.SerializeToString,
            response_deserializer=service.TelemetryCommand.FromString,
        )

    def _call(self, kind: str, name: str) -> Any:
        return getattr(self._channel, kind)(
            SERVICE + name,
            request_serializer=getattr(service, f"{name}Request").SerializeToString,
            response_deserializer=getattr(service, f"{name}Response").FromString,
        )
