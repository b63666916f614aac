"""One gRPC call with one request: what is left of it to send, and what has come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from grpc import StatusCode

from spanbridge.rocketmq.grpc.http2.frames import MessageReader

Arrived = Callable[[list[bytes]], None]
"""Takes the messages of one read. Synchronous, never raises."""

_CODES: dict[str, StatusCode] = {str(code.value[0]): code for code in StatusCode}
# What an intermediary's HTTP status means (gRPC's document http-grpc-status-mapping).
_HTTP = {
    "400": StatusCode.INTERNAL,
    "401": StatusCode.UNAUTHENTICATED,
    "403": StatusCode.PERMISSION_DENIED,
    "404": StatusCode.UNIMPLEMENTED,
    "429": StatusCode.UNAVAILABLE,
    "502": StatusCode.UNAVAILABLE,
    "503": StatusCode.UNAVAILABLE,
    "504": StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended. ``details`` is one line."""

    code: StatusCode
    details: str = ""


class GrpcCall:
    """A call on a connection. ``ended`` is called once, unless the caller left it."""

    __slots__ = (
        "arrived",
        "begun",
        "credit",
        "ended",
        "headers",
        "left",
        "messages",
        "reader",
        "stream",
        "unsent",
        "window",
    )

    def __init__(self, request: bytes, arrived: Arrived, ended: Callable[[CallEnd], None], limit: int) -> None:
        self.unsent = b"\0" + len(request).to_bytes(4, "big") + request
        self.arrived = arrived
        self.ended = ended
        self.reader = MessageReader(limit)
        self.headers: dict[str, str] = {}
        self.messages: list[bytes] = []
        """Those that came and were not handed over yet."""
        self.stream = 0
        self.window = 0
        """Bytes that the peer takes of this call now."""
        self.credit = 0
        """Bytes that came since the peer was last allowed more."""
        self.begun = False
        """Whether any part of an answer has come."""
        self.left = False
        """Whether it was cancelled; what still comes of it is handed over nevertheless."""

    def hand_over(self) -> None:
        """Hand over the messages that came."""
        if self.messages:
            messages, self.messages = self.messages, []
            self.arrived(messages)

    def outcome(self) -> CallEnd:
        """What the headers say of a stream that the peer ended."""
        status = self.headers.get("grpc-status")
        if status is None:
            http = self.headers.get(":status", "")
            if http in {"", "200"}:
                return CallEnd(StatusCode.INTERNAL, "an answer that ends without a status")
            return CallEnd(_HTTP.get(http, StatusCode.UNKNOWN), f"HTTP status {http}")
        details = unquote(self.headers.get("grpc-message", ""))
        if status == "0" and self.reader.inside:
            return CallEnd(StatusCode.INTERNAL, "an answer that ends inside a message")
        return CallEnd(_CODES.get(status, StatusCode.UNKNOWN), details)
