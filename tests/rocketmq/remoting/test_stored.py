"""Stored messages byte by byte, and bytes that are none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.rocketmq.remoting.errors import FrameError
from spanbridge.rocketmq.remoting.stored import StoredMessage, read_messages

V1, V2 = -626843481, -626843477
BORN_V6, STORE_V6 = 0x10, 0x20


def stored(message: StoredMessage, magic: int = V1) -> bytes:
    """The bytes of a message, as ``MessageDecoder.encode`` writes them."""
    topic = message.topic.encode()
    rest = struct.pack(">q", message.born_ms) + bytes(20 if message.system_flag & BORN_V6 else 8)
    rest += struct.pack(">q", message.store_ms) + bytes(20 if message.system_flag & STORE_V6 else 8)
    rest += struct.pack(">iqi", message.attempts, 0, len(message.body)) + message.body
    rest += struct.pack(">B" if magic == V1 else ">H", len(topic)) + topic
    rest += struct.pack(">H", len(message.raw_properties)) + message.raw_properties
    head = struct.pack(">iiii", magic, message.body_crc, message.queue_id, 0)
    head += struct.pack(">qqi", message.queue_offset, message.physical_offset, message.system_flag)
    return struct.pack(">i", 4 + len(head) + len(rest)) + head + rest


long = st.integers(0, 2**63 - 1)
messages = st.builds(
    StoredMessage,
    topic=st.text(st.characters(codec="ascii"), max_size=127),
    queue_id=st.integers(0, 100),
    queue_offset=long,
    physical_offset=long,
    system_flag=st.sampled_from([0, BORN_V6, STORE_V6, BORN_V6 | STORE_V6]),
    born_ms=long,
    store_ms=long,
    attempts=st.integers(0, 16),
    body=st.binary(max_size=50),
    raw_properties=st.binary(max_size=50),
    body_crc=st.integers(0, 2**31 - 1),
)
ONE = StoredMessage("t", 1, 2, 3, 0, 4, 5, 6, b"body", b"KEYS\x01a b\x02x\x01\x02broken\x02traceparent\x0100-1\x02")


@given(st.lists(st.tuples(messages, st.sampled_from([V1, V2])), max_size=3))
def test_messages_are_read_as_they_were_stored(written: list[tuple[StoredMessage, int]]) -> None:
    body = b"".join(stored(message, magic) for message, magic in written)
    assert list(read_messages(body)) == [message for message, _ in written]


def test_properties_are_pairs() -> None:
    assert ONE.properties == {"KEYS": "a b", "x": "", "traceparent": "00-1"}
    assert ONE._replace(raw_properties=b"a\x01\xff\x02").properties == {"a": "\ufffd"}


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_a_frame_error(noise: bytes) -> None:
    if noise:
        with pytest.raises(FrameError):
            list(read_messages(noise))


@given(st.data())
def test_a_message_with_wrong_bytes_is_read_or_refused(data: st.DataObject) -> None:
    spoilt = bytearray(stored(ONE))
    spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(list(read_messages(bytes(spoilt)))) <= 1
    except FrameError:
        return


@pytest.mark.parametrize("size", range(1, 100, 7))
def test_a_message_cut_short_is_told(size: int) -> None:
    with pytest.raises(FrameError, match="ends too early"):
        list(read_messages(stored(ONE)[:size]))


def test_sizes_that_disagree_are_told() -> None:
    with pytest.raises(FrameError, match="gives its size as 4"):
        list(read_messages(struct.pack(">i", 4) + stored(ONE)[4:]))
