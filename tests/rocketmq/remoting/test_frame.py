"""Frames byte by byte, and bytes that are no frames."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spanbridge.rocketmq.remoting.errors import FrameError
from spanbridge.rocketmq.remoting.frame import (
    MAX_FRAME,
    MAX_HEADER,
    AclKeys,
    Frame,
    FrameDecoder,
    HeaderFormat,
    decode,
    encode,
    signed,
)

FIELDS = {"topic": "t", "queueId": "0"}
JSON_REQUEST = (
    b"\x00\x00\x00\x6f\x00\x00\x00\x69"  # 111 bytes follow; JSON, a header of 105
    b'{"code":30,"language":"PYTHON","version":513,"opaque":7,"flag":0,"extFields":{"topic":"t","queueId":"0"}}ab'
)
BINARY_REQUEST = (
    b"\x00\x00\x00\x35\x01\x00\x00\x2f"  # 53 bytes follow; binary, a header of 47
    b"\x00\x1e\x03\x02\x01\x00\x00\x00\x07\x00\x00\x00\x00"  # GET_MAX_OFFSET, PYTHON, V5_5_0, 7, no flags
    b"\x00\x00\x00\x00\x00\x00\x00\x1a"  # no remark, 26 bytes of fields
    b"\x00\x05topic\x00\x00\x00\x01t\x00\x07queueId\x00\x00\x00\x010ab"
)
FROM_5_5_0 = (
    b"\x00\x00\x00~\x00\x00\x00z"
    b'{"code":0,"extFields":{"offset":"0"},"flag":1,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON",'
    b'"version":513}'
)
"""What a broker of that version answered."""

number = st.integers(-(2**31), 2**31 - 1)
short = st.integers(-(2**15), 2**15 - 1)
text = st.text(st.characters(codec="utf-8"), max_size=40)
frames = st.builds(
    Frame,
    code=short,
    opaque=number,
    fields=st.dictionaries(text, text, max_size=6),
    body=st.binary(max_size=200),
    remark=st.none() | text.filter(bool),
    flag=number,
    version=short,
    language=st.integers(0, 13),
    header_format=st.sampled_from(HeaderFormat),
)


@pytest.mark.parametrize(
    ("header_format", "expected"), [(HeaderFormat.JSON, JSON_REQUEST), (HeaderFormat.BINARY, BINARY_REQUEST)]
)
def test_a_request_is_these_bytes(header_format: HeaderFormat, expected: bytes) -> None:
    frame = Frame(code=30, opaque=7, fields=FIELDS, body=b"ab", header_format=header_format)
    assert encode(frame) == expected
    assert FrameDecoder().feed(expected) == [frame]


def test_a_response_of_a_real_broker_is_read() -> None:
    (frame,) = FrameDecoder().feed(FROM_5_5_0)
    assert frame.is_response
    assert not frame.is_oneway
    assert (frame.code, frame.opaque, frame.fields, frame.language, frame.version) == (0, 7, {"offset": "0"}, 0, 513)


def test_a_response_pairs_with_its_request() -> None:
    asked = Frame(code=40, opaque=9, header_format=HeaderFormat.JSON)
    answered = asked.response(3, remark="no")
    assert (answered.is_response, answered.opaque, answered.header_format) == (True, 9, HeaderFormat.JSON)


@given(frames)
def test_what_is_encoded_is_decoded(frame: Frame) -> None:
    assert FrameDecoder().feed(encode(frame)) == [frame]


@given(st.lists(frames, max_size=4), st.data())
def test_frames_are_found_wherever_the_stream_is_cut(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, found = FrameDecoder(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[begin:end])
    assert found == sent


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x00\x00\x00\x04\x02\x00\x00\x00")
def test_bytes_that_are_no_frame_are_a_frame_error(noise: bytes) -> None:
    try:
        FrameDecoder().feed(noise)
    except FrameError:
        return


@given(frames, st.data())
def test_a_frame_with_wrong_bytes_is_read_or_refused(frame: Frame, data: st.DataObject) -> None:
    spoilt = bytearray(encode(frame)[4:])
    for at in data.draw(st.lists(st.integers(0, len(spoilt) - 1), min_size=1, max_size=3)):
        spoilt[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(spoilt))
    except FrameError:
        return


def binary(
    *, remark: bytes = b"", fields: bytes = b"", remark_size: int | None = None, size: int | None = None
) -> bytes:
    """A frame's content, with lengths that may be wrong."""
    header = struct.pack(">hBhii", 0, 0, 513, 1, 1)
    header += struct.pack(">i", len(remark) if remark_size is None else remark_size) + remark
    header += struct.pack(">i", len(fields) if size is None else size) + fields
    return struct.pack(">I", 1 << 24 | len(header)) + header


def json_frame(header: bytes) -> bytes:
    return struct.pack(">I", len(header)) + header


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\0\0", "before its header's length"),
        (struct.pack(">I", 5) + b"{}", "a header of 5 bytes in a frame of 6"),
        (struct.pack(">I", 2 << 24 | 2) + b"{}", "format 2"),
        (json_frame(b"{"), "not JSON"),
        (json_frame(b"\xff"), "not JSON"),
        (json_frame(b"[" * 200_000), "not JSON"),
        (json_frame(b"[]"), "not a JSON object"),
        (json_frame(b'{"code":' + b"9" * 5000 + b"}"), "not JSON"),
        (json_frame(b"{}"), "code is not a number"),
        (json_frame(b'{"code":true}'), "code is not a number"),
        (json_frame(b'{"code":0,"opaque":4294967296}'), "opaque is not a number of 32 bits"),
        (json_frame(b'{"code":0,"opaque":1.5}'), "opaque is not a number"),
        (json_frame(b'{"code":0,"extFields":[1]}'), "fields that are not"),
        (json_frame(b'{"code":0,"extFields":{"a":1}}'), "field that is not text"),
        (json_frame(b'{"code":0,"extFields":{"a":"\\ud800"}}'), "half a character"),
        (json_frame(b'{"code":0,"remark":{}}'), "not text"),
        (struct.pack(">I", 1 << 24 | 3) + b"abc", "ends too early"),
        (binary(remark_size=-1), "longer than its header"),
        (binary(remark_size=2**31 - 1), "longer than its header"),
        (binary(size=-1), "longer than their header"),
        (binary(size=2**31 - 1), "longer than their header"),
        (binary(fields=b"\x00"), "ends too early"),
        (binary(fields=b"\x00\x01a\x7f\xff\xff\xff"), "longer than its header"),
        (binary(fields=b"\x80\x01a"), "longer than its header"),
        (binary(fields=b"\x00\x01a\x00\x00\x00\x01b", size=7), "longer than all of them"),
        (binary(remark=b"\xff"), "not UTF-8"),
    ],
)
def test_a_wrong_header_is_told(content: bytes, told: str) -> None:
    with pytest.raises(FrameError, match=told):
        decode(content)


@pytest.mark.parametrize("size", [-1, 0, 3, MAX_FRAME - 3, 2**31 - 1, 0x48545450])
def test_a_length_that_cannot_be_is_refused_before_anything_is_kept(size: int) -> None:
    with pytest.raises(FrameError, match="does not speak"):
        FrameDecoder().feed(struct.pack(">i", size))


def test_a_header_over_the_bound_is_refused() -> None:
    content = struct.pack(">I", MAX_HEADER + 1) + bytes(MAX_HEADER + 1)
    with pytest.raises(FrameError, match="a header of"):
        decode(content)


def test_the_decoder_keeps_one_frame_at_most() -> None:
    frame = encode(Frame(code=0, body=bytes(64 * 1024)))
    stream = frame * 16
    decoder = FrameDecoder()
    pieces = random.Random(1)
    found = at = 0
    tracemalloc.start()
    try:
        for _ in range(20):  # 20 MiB pass through
            at = 0
            while at < len(stream):
                size = pieces.randrange(1, 50_000)
                found += len(decoder.feed(stream[at : at + size]))
                at += size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 320
    assert peak < 1024 * 1024


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (Frame(code=200_050), "code 200050 does not fit"),
        (Frame(code=1, opaque=2**31), "does not fit"),
        (Frame(code=1, fields={"n" * 40_000: "v"}), "name has 40000 bytes"),
        (Frame(code=1, fields={"n": "\ud800"}), "not Unicode"),
        (Frame(code=1, fields={"n": "\ud800"}, header_format=HeaderFormat.JSON), "not Unicode"),
        (Frame(code=1, fields={"n": "v" * MAX_HEADER}), "larger than allowed"),
        (Frame(code=1, body=bytes(MAX_FRAME)), "larger than allowed"),
    ],
)
def test_what_does_not_fit_is_not_sent(frame: Frame, told: str) -> None:
    with pytest.raises(FrameError, match=told):
        encode(frame)


def test_codes_of_pop_requests_go_in_json() -> None:
    frame = Frame(code=200_050, header_format=HeaderFormat.JSON)
    assert FrameDecoder().feed(encode(frame)) == [frame]


def test_the_signature_covers_values_in_the_order_of_their_names_and_the_body() -> None:
    keys = AclKeys("gateway", "correct-horse", "token")
    fields = signed({"topic": "t", "a": "1", "Signature": "old"}, b"body", keys)
    assert fields["AccessKey"] == "gateway"
    assert fields["SecurityToken"] == "token"
    # printf 'gatewaytoken1tbody' | openssl dgst -sha1 -hmac correct-horse -binary | base64
    assert fields["Signature"] == "PZpiok1Q4O1O4saMxnJsa6medNk="
    assert "SecurityToken" not in signed({}, b"", AclKeys("a", "b"))
    assert signed({"topic": "t", "a": "1", "i": ""}, b"body", keys) == fields, "a server would sign null"


def test_secrets_are_not_shown() -> None:
    assert "correct-horse" not in repr(AclKeys("gateway", "correct-horse", "tok"))
    assert "tok=" not in repr(AclKeys("gateway", "correct-horse", "tok="))
