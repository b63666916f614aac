"""HTTP/2 as far as a consumer needs it: header blocks, frames, and peers that do not keep to it."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from spanbridge.rocketmq.grpc.http2 import hpack
from spanbridge.rocketmq.grpc.http2.call import CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.http2.errors import Http2Error
from spanbridge.rocketmq.grpc.http2.frames import FrameKind, MessageBeginning, MessageReader, frame, settings
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus

pytestmark = pytest.mark.anyio


def test_header_blocks_are_read_back() -> None:
    headers = {"grpc-status": "0", "a-long-value": "x" * 300, "b": ""}
    assert hpack.decode(hpack.encode(headers.items())) == headers


def test_packed_strings_are_read() -> None:
    # RFC 7541 section C.4.1: an indexed field and www.example.com, packed.
    block = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")
    assert hpack.decode(block) == {}
    # Section C.6.1 begins with the status, as a literal under a name from the static table.
    assert hpack.decode(bytes.fromhex("4882 6402".replace(" ", ""))) == {":status": "302"}
    assert hpack.decode(b"\x88") == {":status": "200"}
    named = b"\x00\x84" + bytes.fromhex("25a849e9") + b"\x01v"  # "custom-key" starts so: a part of it
    assert list(hpack.decode(named).values()) == ["v"]


@pytest.mark.parametrize(
    "block",
    [b"\xc0", b"\x7f\x00", b"\x3f\xe1\x1f", b"\x00\x05ab", b"\x00", b"\x80", b"\x00\x84\xff\xff\xff\xff\x00"],
)
def test_blocks_that_are_not_allowed(block: bytes) -> None:
    with pytest.raises(Http2Error):
        hpack.decode(block)


def test_messages_are_cut_however_they_come() -> None:
    sent = [b"", b"a", b"b" * 7_000]
    data = b"".join(b"\0" + struct.pack(">I", len(message)) + message for message in sent)
    for step in (7, 16_384, len(data)):
        reader = MessageReader(100_000)
        got = [message for at in range(0, len(data), step) for message in reader.feed(data[at : at + step])]
        assert got == sent
        assert not reader.inside
    with pytest.raises(Http2Error, match="compressed"):
        MessageReader(10).feed(b"\1\0\0\0\1a")


@pytest.mark.parametrize("step", [1, 7, 110, 1000])
def test_of_a_message_that_is_too_large_there_is_the_beginning(step: int) -> None:
    sent = [b"before", b"x" * 101, b"y" * 300, b"behind"]
    data = b"".join(b"\0" + struct.pack(">I", len(message)) + message for message in sent)
    reader = MessageReader(100)
    got = [message for at in range(0, len(data), step) for message in reader.feed(data[at : at + step])]
    assert [isinstance(message, MessageBeginning) for message in got] == [False, True, True, False]
    assert [bytes(message) for message in got] == [message[:100] for message in sent]
    assert not reader.inside


class Line(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True


def connected() -> tuple[Http2Connection, Line]:
    connection, line = Http2Connection("a:1", "http"), Line()
    connection.connection_made(line)
    line.written = b""
    return connection, line


def begin(connection: Http2Connection, request: bytes = b"r") -> tuple[GrpcCall, list[bytes], list[CallEnd]]:
    messages: list[bytes] = []
    ends: list[CallEnd] = []
    call = GrpcCall(messages.extend, ends.append, 1 << 20)
    call.outgoing.add(request)
    call.outgoing.whole = True
    connection.begin(call, b"")
    return call, messages, ends


HEADERS = frame(FrameKind.HEADERS, 0x4, 1, hpack.encode([(":status", "200")]))
TRAILERS = frame(FrameKind.HEADERS, 0x5, 1, hpack.encode([("grpc-status", "0")]))
DATA = frame(FrameKind.DATA, 0, 1, b"\0\0\0\0\1a")


async def test_a_call_byte_by_byte() -> None:
    connection, _ = connected()
    _, messages, ends = begin(connection)
    answer = settings({}) + HEADERS + DATA + frame(FrameKind.DATA, 0x8, 1, b"\2\0\0\0\0\1b..") + TRAILERS
    for at in range(len(answer)):
        connection.data_received(answer[at : at + 1])
    assert messages == [b"a", b"b"]
    assert [end.code for end in ends] == [GrpcStatus.OK]


async def test_requests_wait_for_the_peers_window() -> None:
    connection, line = connected()
    begin(connection, b"x" * 100_000)
    assert len(line.written) < 70_000
    connection.data_received(settings({}) + frame(FrameKind.WINDOW_UPDATE, 0, 0, struct.pack(">I", 100_000)))
    connection.data_received(frame(FrameKind.WINDOW_UPDATE, 0, 1, struct.pack(">I", 100_000)))
    assert line.written.count(b"x") >= 100_000


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", GrpcStatus.INTERNAL),
        (settings({}) + frame(FrameKind.PUSH_PROMISE, 0, 1), GrpcStatus.INTERNAL),
        (settings({}) + b"\xff\xff\xff" + bytes(6), GrpcStatus.INTERNAL),
        (settings({}) + frame(FrameKind.HEADERS, 0, 1, b"") + DATA, GrpcStatus.INTERNAL),
        (settings({}) + frame(FrameKind.RST_STREAM, 0, 1, struct.pack(">I", 7)), GrpcStatus.UNAVAILABLE),
        (settings({}) + frame(FrameKind.GOAWAY, 0, 0, bytes(8)), GrpcStatus.UNAVAILABLE),
        (settings({}) + HEADERS + DATA[:-1], None),
    ],
)
async def test_peers_that_do_not_keep_to_it(said: bytes, code: GrpcStatus | None) -> None:
    connection, _ = connected()
    _, _, ends = begin(connection)
    connection.data_received(said)
    if code is None:
        connection.connection_lost(None)
        code = GrpcStatus.UNAVAILABLE
    assert [end.code for end in ends] == [code]


async def test_what_comes_of_a_call_that_was_left_is_handed_over() -> None:
    connection, line = connected()
    call, messages, ends = begin(connection)
    connection.leave(call)
    assert line.written.endswith(frame(FrameKind.RST_STREAM, 0, 1, struct.pack(">I", 8)))
    answered = connection.ping()
    connection.data_received(settings({}) + HEADERS + DATA + frame(FrameKind.PING, 0x1, 0, bytes(8)))
    assert messages == [b"a"]
    assert answered.done()
    assert not ends
