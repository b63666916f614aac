"""HTTP/2 as far as gRPC calls need it: header blocks, frames, windows, and peers that do not keep to it."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from spanbridge.rocketmq.grpc.http2 import hpack
from spanbridge.rocketmq.grpc.http2.call import CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.http2.errors import Http2Error
from spanbridge.rocketmq.grpc.http2.frames import (
    FrameKind,
    MessageBeginning,
    MessageReader,
    Setting,
    frame,
    settings,
    window_update,
)
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
        self.paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


def connected() -> tuple[Http2Connection, Line]:
    connection, line = Http2Connection("a:1", "http"), Line()
    connection.connection_made(line)
    line.written = b""
    return connection, line


def begin(
    connection: Http2Connection, request: bytes = b"r", *, whole: bool = True, most: int | None = None
) -> tuple[GrpcCall, list[bytes], list[CallEnd]]:
    messages: list[bytes] = []
    ends: list[CallEnd] = []
    call = GrpcCall(messages.extend, ends.append, 1 << 20, most)
    call.outgoing.add(request)
    call.outgoing.whole = whole
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
    connection.data_received(settings({}) + window_update(0, 100_000))
    assert line.written.count(b"x") < 70_000
    connection.data_received(window_update(1, 100_000))
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


async def test_a_read_of_many_messages_waits_for_more() -> None:
    connection, line = connected()
    _, messages, _ = begin(connection)
    connection.data_received(settings({}) + HEADERS + DATA * 3)
    assert not line.paused
    connection.data_received(DATA * 20)
    assert len(messages) == 23
    assert line.paused
    while line.paused:
        await asyncio.sleep(0.001)
    connection.data_received(DATA * 20)
    line.close()
    await asyncio.sleep(0.01)
    assert line.paused  # what is closed is left alone


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each frame."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        stream = int.from_bytes(data[at + 5 : at + 9], "big")
        found.append((data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def sent(line: Line, stream: int) -> bytes:
    """The data of one stream."""
    return b"".join(body for kind, _, number, body in frames(line.written) if (kind, number) == (0, stream))


async def test_large_requests_share_the_connections_window_and_arrive_whole() -> None:
    connection, line = connected()
    connection.data_received(settings({Setting.INITIAL_WINDOW_SIZE: 1 << 18}))
    requests = [bytes((n,)) * (1 << 20) for n in range(3)]
    for request in requests:
        begin(connection, request)
    credit = 65_535
    while True:
        written = sum(len(sent(line, stream)) for stream in (1, 3, 5))
        assert written <= credit
        if written == sum(map(len, requests)) + 15:
            break
        credit += 300_000
        connection.data_received(window_update(0, 300_000) + b"".join(window_update(n, 100_000) for n in (1, 3, 5)))
    assert [sent(line, stream)[5:] for stream in (1, 3, 5)] == requests
    shown = frames(line.written)
    assert max(len(body) for _, _, _, body in shown) <= 16_384
    ends = [number for kind, flags, number, _ in shown if kind == 0 and flags & 1]
    assert sorted(ends) == [1, 3, 5]


async def test_a_call_waits_until_the_peer_takes_another() -> None:
    connection, line = connected()
    connection.data_received(settings({Setting.MAX_CONCURRENT_STREAMS: 1}))
    _, _, first = begin(connection)
    given_up, _, given_up_ends = begin(connection)
    _, _, second = begin(connection)
    connection.leave(given_up)
    heads = lambda: [number for kind, _, number, _ in frames(line.written) if kind == 1]  # noqa: E731
    assert heads() == [1]
    connection.data_received(HEADERS + DATA + TRAILERS)
    assert heads() == [1, 3]
    assert [end.code for end in first] == [GrpcStatus.OK]
    _, _, third = begin(connection)
    connection.data_received(frame(FrameKind.GOAWAY, 0, 0, struct.pack(">II", 3, 0)))
    assert [end.code for end in third] == [GrpcStatus.UNAVAILABLE], "it did not begin, and will not"
    assert not second, "what the peer has begun may end"
    assert not given_up_ends
    assert not connection.usable
    connection.data_received(frame(FrameKind.HEADERS, 0x5, 3, hpack.encode([("grpc-status", "0")])))
    assert [end.code for end in second] == [GrpcStatus.OK]
    assert connection.closed.done()


async def test_nothing_gathers_behind_a_socket_that_is_full() -> None:
    connection, line = connected()
    connection.data_received(settings({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) + window_update(0, 1 << 30))
    _, _, first = begin(connection, b"a" * 10)
    line.written = b""
    connection.pause_writing()
    begin(connection, b"x" * 1_000_000)
    assert line.written == b""
    connection.data_received(HEADERS + DATA + TRAILERS)
    assert [end.code for end in first] == [GrpcStatus.OK], "reading goes on"
    connection.resume_writing()
    assert len(sent(line, 3)) == 1_000_005


async def test_a_peer_that_only_pings_and_never_reads_is_left() -> None:
    connection, line = connected()
    _, _, ends = begin(connection)
    connection.data_received(settings({}))
    connection.pause_writing()
    flood = frame(FrameKind.PING, 0, 0, bytes(8)) * 3000
    fed = 0
    while not line.ended:
        connection.data_received(flood)
        fed += len(flood)
        assert fed < 2_000_000
    assert "does not read" in ends[0].details
    assert len(line.written) < 1_000_000


async def test_pings_are_answered() -> None:
    connection, line = connected()
    connection.data_received(settings({}) + frame(FrameKind.PING, 0, 0, b"12345678"))
    assert line.written.endswith(frame(FrameKind.PING, 1, 0, b"12345678"))


async def test_more_than_one_answer_is_none() -> None:
    connection, line = connected()
    _, _, ends = begin(connection, most=1)
    connection.data_received(settings({}) + HEADERS + DATA + DATA)
    assert [(end.code, end.details) for end in ends] == [(GrpcStatus.INTERNAL, "more than one answer")]
    assert (3, 0, 1, struct.pack(">I", 8)) in frames(line.written)


async def test_calls_that_were_cancelled_do_not_keep_a_connection() -> None:
    connection, _ = connected()
    connection.data_received(settings({}))
    for _ in range(1000):
        connection.leave(begin(connection)[0])
    connection.retire()
    assert connection.closed.done()


async def test_a_retired_connection_sees_requests_through_and_ends_what_goes_on() -> None:
    connection, line = connected()
    connection.data_received(settings({}))
    _, _, ends = begin(connection)
    _, _, going_on = begin(connection, whole=False)
    connection.retire()
    assert [end.code for end in going_on] == [GrpcStatus.CANCELLED]
    assert not ends
    assert not connection.usable
    connection.data_received(HEADERS + DATA + TRAILERS)
    assert [end.code for end in ends] == [GrpcStatus.OK]
    assert line.ended


async def test_a_retired_connection_does_not_wait_for_ever() -> None:
    connection, line = connected()
    connection.data_received(settings({}))
    _, _, ends = begin(connection)
    connection.retire(0.01)
    async with asyncio.timeout(10):
        await connection.closed
    assert [end.code for end in ends] == [GrpcStatus.CANCELLED]
    assert line.ended


async def test_a_retired_connection_that_is_closed_sooner_does_not_wait_as_long() -> None:
    connection, _ = connected()
    connection.data_received(settings({}))
    begin(connection)
    connection.retire(3600.0)
    connection.retire(0.01)
    connection.retire(3600.0)
    async with asyncio.timeout(30):
        await connection.closed


async def test_messages_go_on_both_ways() -> None:
    connection, line = connected()
    connection.data_received(settings({}))
    call, messages, ends = begin(connection, b"one", whole=False)
    connection.data_received(HEADERS + DATA)
    call.outgoing.add(b"two")
    connection.send(call)
    connection.data_received(DATA)
    assert (messages, ends) == ([b"a", b"a"], [])
    assert sent(line, 1) == b"\0\0\0\0\3one\0\0\0\0\3two"
    assert not any(flags & 1 for kind, flags, _, _ in frames(line.written) if kind == 0)
    connection.data_received(TRAILERS)
    assert [end.code for end in ends] == [GrpcStatus.OK]
