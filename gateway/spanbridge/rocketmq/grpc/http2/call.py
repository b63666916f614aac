"""One gRPC call: what is left of it to send, and what has come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from spanbridge.rocketmq.grpc.http2.frames import MessageReader
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus

Arrived = Callable[[list[bytes]], None]
"""Takes the messages of one read. Synchronous, never raises."""

_CODES = {str(code.value): code for code in GrpcStatus}
# What an intermediary's HTTP status means (gRPC's document http-grpc-status-mapping).
_HTTP = {
    "400": GrpcStatus.INTERNAL,
    "401": GrpcStatus.UNAUTHENTICATED,
    "403": GrpcStatus.PERMISSION_DENIED,
    "404": GrpcStatus.UNIMPLEMENTED,
    "429": GrpcStatus.UNAVAILABLE,
    "502": GrpcStatus.UNAVAILABLE,
    "503": GrpcStatus.UNAVAILABLE,
    "504": GrpcStatus.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended. ``details`` is one line."""

    code: GrpcStatus
    details: str = ""


_IN_ORDER = CallEnd(GrpcStatus.OK)


class UnsentMessages:
    """Messages to send, cut as the peer takes them. ``whole`` says that no other follows."""

    __slots__ = ("_parts", "size", "whole")

    def __init__(self) -> None:
        self.size = 0
        """Bytes that were not taken yet."""
        self.whole = False
        self._parts: deque[memoryview] = deque()

    def add(self, message: bytes) -> None:
        """Put a message behind the others."""
        prefix = b"\0" + len(message).to_bytes(4, "big")
        self._parts += (memoryview(prefix), memoryview(message))
        self.size += len(prefix) + len(message)

    def take(self, size: int) -> list[memoryview]:
        """The next ``size`` bytes, which are there, without a copy."""
        self.size -= size
        taken: list[memoryview] = []
        while size:
            part = self._parts.popleft()
            if len(part) > size:
                self._parts.appendleft(part[size:])
                part = part[:size]
            size -= len(part)
            taken.append(part)
        return taken

    def clear(self) -> None:
        """Send nothing more."""
        self._parts.clear()
        self.size = 0


class GrpcCall:
    """A call on a connection. ``ended`` is called once, unless the caller left it.

    ``most`` is how many messages of an answer are taken, None for any number.
    """

    __slots__ = (
        "_arrived",
        "_ended",
        "_most",
        "_taken",
        "credit",
        "headers",
        "left",
        "messages",
        "outgoing",
        "reader",
        "stream",
        "window",
    )

    def __init__(self, arrived: Arrived, ended: Callable[[CallEnd], None], limit: int, most: int | None = None) -> None:
        self.outgoing = UnsentMessages()
        self.reader = MessageReader(limit)
        self.headers: dict[str, str] = {}
        self.messages: list[bytes] = []
        """Those that came and were not handed over yet."""
        self.stream = 0
        """Its number on the connection, 0 until it has begun."""
        self.window = 0
        """Bytes that the peer takes of this call now."""
        self.credit = 0
        """Bytes that came since the peer was last allowed more."""
        self.left = False
        """Whether it was cancelled; what still comes of it is handed over nevertheless."""
        self._arrived = arrived
        self._ended = ended
        self._most = most
        self._taken = 0

    def took(self, messages: list[bytes]) -> bool:
        """Take messages that came. False: they are more than an answer to this call has."""
        self.messages += messages
        self._taken += len(messages)
        return self._most is None or self._taken <= self._most

    def hand_over(self) -> None:
        """Hand over the messages that came."""
        if self.messages:
            messages, self.messages = self.messages, []
            self._arrived(messages)

    def end(self, outcome: CallEnd) -> None:
        """It has ended. Nothing more is sent or told of it."""
        self.outgoing.clear()
        if not self.left:
            self._ended(outcome)

    def outcome(self) -> CallEnd:
        """What the headers say of a stream that the peer ended."""
        status = self.headers.get("grpc-status")
        if status == "0" and not self.reader.inside:
            return _IN_ORDER
        if status is None:
            http = self.headers.get(":status", "")
            if http in {"", "200"}:
                return CallEnd(GrpcStatus.INTERNAL, "an answer that ends without a status")
            return CallEnd(_HTTP.get(http, GrpcStatus.UNKNOWN), f"HTTP status {http}")
        details = " ".join(unquote(self.headers.get("grpc-message", "")).split())
        if status == "0" and self.reader.inside:
            return CallEnd(GrpcStatus.INTERNAL, "an answer that ends inside a message")
        return CallEnd(_CODES.get(status, GrpcStatus.UNKNOWN), details)
