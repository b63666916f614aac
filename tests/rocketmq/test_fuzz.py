"""Whatever a peer answers: an error of ours, or a result; no other exception, and no memory without bound."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from typing import Any

import hypothesis.strategies as st
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings

from spanbridge.core.errors import SinkError
from spanbridge.rocketmq.grpc.decode import read_message
from spanbridge.rocketmq.grpc.http2 import hpack
from spanbridge.rocketmq.grpc.http2.call import CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.http2.errors import Http2Error
from spanbridge.rocketmq.grpc.http2.frames import FrameKind, MessageReader, frame
from spanbridge.rocketmq.grpc.routes import read_origins, read_route
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.remoting import admin
from spanbridge.rocketmq.remoting.call import Call, answer
from spanbridge.rocketmq.remoting.errors import RemotingError
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.pull import pull
from tests.drawing import examples

from .test_http2 import Line

LIMIT = 1000
BLOCKS = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(
        st.sampled_from(["grpc-status", "grpc-message", ":status", "x"]),
        st.text("0123456789%ab", max_size=9),
        max_size=4,
    ).map(lambda headers: hpack.encode(headers.items())),
)
FRAMES = st.one_of(
    st.builds(frame, st.sampled_from(list(FrameKind)), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=60)),
    st.builds(frame, st.just(FrameKind.HEADERS), st.sampled_from([0, 1, 4, 5]), st.sampled_from([1, 3]), BLOCKS),
    st.builds(
        lambda stream, flags, size, body: frame(FrameKind.DATA, flags, stream, b"\0" + struct.pack(">I", size) + body),
        st.sampled_from([1, 3]), st.sampled_from([0, 1, 8]), st.sampled_from([0, 3, 60, LIMIT, 2**32 - 1]),
        st.binary(max_size=60),
    ),
    st.binary(max_size=20),
)  # fmt: skip


def received(parts: list[bytes], step: int) -> tuple[list[bytes], list[list[CallEnd]], bool]:
    """What a connection with two calls makes of these bytes, cut into steps."""

    async def run() -> tuple[list[bytes], list[list[CallEnd]], bool]:
        connection, line = Http2Connection("a:1", "http"), Line()
        connection.connection_made(line)
        got: list[bytes] = []
        ends: list[list[CallEnd]] = [[], []]
        for ended in ends:
            call = GrpcCall(got.extend, ended.append, LIMIT)
            call.outgoing.add(b"request")
            call.outgoing.whole = True
            connection.begin(call, b"")
        data = frame(FrameKind.SETTINGS, 0, 0, b"") + b"".join(parts)
        for at in range(0, len(data), step):
            if not line.ended:
                connection.data_received(data[at : at + step])
        closed = connection.closed.done()
        connection.connection_lost(None)
        assert len(line.written) < 20_000 + 20 * len(data)
        return got, ends, closed

    return asyncio.run(run())


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(FRAMES, max_size=12), st.sampled_from([1, 5, 1 << 20]))
@example([frame(FrameKind.SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff\0\5\0\0\0\0")], 1 << 20)
@example([frame(FrameKind.WINDOW_UPDATE, 0, 1, b"\xff\xff\xff\xff")] * 3, 1 << 20)
@example([frame(FrameKind.GOAWAY, 0, 0, b"")], 1 << 20)
@example([frame(FrameKind.RST_STREAM, 0, 1, b"")] * 2, 1 << 20)
def test_http2_whatever_comes_each_call_ends_once(parts: list[bytes], step: int) -> None:
    got, ends, _ = received(parts, step)
    assert [len(ended) for ended in ends] == [1, 1]
    assert all(len(message) <= LIMIT for message in got)
    assert sum(map(len, got)) <= sum(map(len, parts))
    assert all("\n" not in end.details for ended in ends for end in ended if end.code.name == "INTERNAL")


def test_headers_without_end_are_not_kept() -> None:
    blocks = [hpack.encode([(f"name-{n}", "v")]) for n in range(2000)]
    _, ends, closed = received([frame(FrameKind.HEADERS, 4, 1, block) for block in blocks], 1 << 20)
    assert closed
    assert "headers" in ends[0][0].details


@settings(max_examples=examples(150), deadline=None)
@given(BLOCKS)
def test_hpack_decodes_or_refuses(block: bytes) -> None:
    with contextlib.suppress(Http2Error):
        found = hpack.decode(block)
        assert sum(len(name) + len(value) for name, value in found.items()) <= 2 * len(block) + 10


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=10))
def test_messages_are_cut_or_refused(parts: list[bytes]) -> None:
    reader, got = MessageReader(LIMIT), []
    with contextlib.suppress(Http2Error):
        for part in parts:
            got += reader.feed(part)
    assert sum(map(len, got)) <= sum(map(len, parts))


def _answers() -> dict[Any, bytes]:
    route = service.QueryRouteResponse()
    queue = route.message_queues.add(id=3, permission=definition.Permission.Value("READ_WRITE"))
    queue.broker.name = "b"
    queue.broker.endpoints.addresses.add(host="h", port=8081)
    queue.accept_message_types.append(definition.MessageType.Value("FIFO"))
    received_message = service.ReceiveMessageResponse()
    message = received_message.message
    message.topic.name, message.body = "t", b"body"
    message.user_properties["a"] = "b"
    system = message.system_properties
    system.message_id, system.receipt_handle, system.delivery_attempt = "id", "handle", 2
    system.born_timestamp.FromMilliseconds(1)
    system.invisible_duration.FromMilliseconds(1)
    system.body_digest.checksum = "00"
    return {
        service.QueryRouteResponse: route.SerializeToString(),
        service.ReceiveMessageResponse: received_message.SerializeToString(),
    }


ANSWERS = _answers()


@settings(max_examples=examples(120), deadline=None)
@given(st.sampled_from(list(ANSWERS)), st.data())
def test_protobuf_answers_are_read_or_refused(kind: Any, data: st.DataObject) -> None:
    spoilt = bytearray(ANSWERS[kind])
    for at in data.draw(st.lists(st.integers(0, len(spoilt) - 1), max_size=4)):
        spoilt[at] = data.draw(st.integers(0, 255))
    spoilt += data.draw(st.binary(max_size=12))
    try:
        response = kind.FromString(bytes(spoilt))
    except DecodeError:
        return
    if kind is service.QueryRouteResponse:
        for read in (read_route, read_origins):
            with contextlib.suppress(SinkError):
                read("t", response, None)
    else:
        message = read_message(response.message, "broker", 1, LIMIT)
        assert message.fault is not None or len(message.body) <= LIMIT


CALLS: list[Call[Any]] = [
    admin.topic_route("t"), admin.max_offset("t", 0), admin.min_offset("t", 0), admin.offset_at("t", 0, 1),
    admin.committed_offset("g", "t", 0), admin.groups_of_topic("t"), admin.members_of_group("g"), admin.all_groups(),
    pull("g", "t", 0, 0),
]  # fmt: skip
NUMBERS = st.one_of(st.integers().map(str), st.sampled_from(["", "x", "1e9", "9" * 5000, "-1", "\uff11"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "queueDatas", "brokerDatas", "brokerName", "brokerAddrs", "readQueueNums", "writeQueueNums", "perm",
        "groupList", "consumerIdList", "subscriptionGroupTable", "consumeMessageOrderly", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
NAMED = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("queueDatas", "brokerDatas", "groupList", "consumerIdList", "subscriptionGroupTable"), JSON
    ),
)


@settings(max_examples=examples(80), deadline=None)
@given(
    st.sampled_from(CALLS),
    st.sampled_from([0, 1, 17, 19, 22, 1500, -5, 2**40]),
    st.dictionaries(st.sampled_from(["offset", "nextBeginOffset", "minOffset", "maxOffset"]), NUMBERS),
    st.one_of(st.binary(max_size=100), (JSON | NAMED).map(lambda value: json.dumps(value).encode())),
)
@example(CALLS[5], 0, {}, b"[" * 100_000)
@example(CALLS[7], 0, {}, b'{"subscriptionGroupTable": [1]}')
@example(CALLS[7], 0, {}, b'{"subscriptionGroupTable": {"g": null}}')
def test_remoting_answers_are_read_or_refused(call: Call[Any], code: int, fields: dict[str, str], body: bytes) -> None:
    text = ""
    try:
        answer(call, Frame(code=code, opaque=1, fields=fields, body=body), "broker:10911")
    except RemotingError as error:
        text = str(error)
    assert "\n" not in text
    assert len(text) < 1000


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.what)
def test_remarks_of_any_size_are_one_short_line(call: Call[Any]) -> None:
    with pytest.raises(RemotingError) as caught:
        answer(call, Frame(code=2, opaque=1, remark="a\nb\x1b[0m" * 100_000), "broker:10911")
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()
