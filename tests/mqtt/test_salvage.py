"""Cutting a PUBLISH up by its frame: never a surprise, and the codec's own answer where it has one."""

from __future__ import annotations

from contextlib import nullcontext

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.mqtt import salvage


def frame(head: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return bytes([head]) + length + body


texts = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), max_size=40)


@given(
    texts.filter(bool),
    st.sampled_from([0, 1, 2]),
    st.binary(max_size=300),
    st.lists(st.tuples(texts, texts), max_size=4),
    st.one_of(st.none(), texts),
)
def test_it_agrees_with_the_codec(
    topic: str, qos: int, payload: bytes, user: list[tuple[str, str]], content_type: str | None
) -> None:
    packet = mqtt5.PublishPacket(
        topic,
        payload=payload,
        qos=mqtt5.QoS(qos),
        packet_id=77 if qos else None,
        user_properties=user,
        content_type=content_type,
        message_expiry_interval=5,
        correlation_data=b"\xff\xfe",
    ).write()
    salvage.check_strings(packet)
    parts = salvage.split(packet)
    assert parts is not None
    assert (parts.topic.decode(), parts.packet_id, parts.payload) == (topic, 77 if qos else 0, payload)


@pytest.mark.parametrize(
    ("head", "body", "parts"),
    [
        (0x32, b"\x00\x02ab\x00\x07\x09xy", (b"ab", 7, b"", b"\x09xy")),  # properties longer than the packet
        (0x32, b"\x00\x02ab\x00\x07\xff\xff\xff\xff\x01", (b"ab", 7, b"", b"\xff\xff\xff\xff\x01")),
        (0x32, b"\x00\x02ab\x00\x07", (b"ab", 7, b"", b"")),
        (0x30, b"\x00\x02ab\x02\x01\x00", (b"ab", 0, b"\x01\x00", b"")),
        (0x32, b"\x00\x02ab\x00", None),  # half an identifier
        (0x30, b"\x00\x03ab", None),
        (0x36, b"\x00\x02ab\x00\x07\x00", None),  # QoS 3
    ],
)
def test_what_can_be_told_of_a_broken_packet(head: int, body: bytes, parts: tuple[object, ...] | None) -> None:
    assert salvage.split(frame(head, body)) == parts


@given(st.integers(0x30, 0x3F), st.binary(max_size=200))
def test_no_packet_surprises_it(head: int, body: bytes) -> None:
    packet = frame(head, body)
    parts = salvage.split(packet)
    if parts is not None:
        assert len(parts.topic) + len(parts.properties) + len(parts.payload) <= len(body)
    try:
        salvage.check_strings(packet)
    except UnicodeDecodeError:
        assert not body.isascii()


@pytest.mark.parametrize(
    "properties",
    [b"\x26\x00\x01\xff\x00\x01b", b"\x26\x00\x01k\x00\x01\xff", b"\x03\x00\x01\xff", b"\x0b\x80\x01\x08\x00\x01\xff"],
)
def test_strings_that_are_not_utf8_are_found(properties: bytes) -> None:
    packet = frame(0x30, b"\x00\x01t" + bytes([len(properties)]) + properties + b"\xff")
    with pytest.raises(UnicodeDecodeError):
        salvage.check_strings(packet)


@pytest.mark.parametrize(
    "before",
    [
        b"\x01\x01",
        b"\x02\xff\xff\xff\xff",
        b"\x03\x00\x01c",
        b"\x08\x00\x01r",
        b"\x09\x00\x02\xff\xfe",
        b"\x0b\xff\x01",
        b"\x23\xff\xff",
        b"\x26\x00\x01k\x00\x01v",
    ],
    ids=bytes.hex,
)
def test_strings_behind_any_other_property_are_looked_at(before: bytes) -> None:
    for value in (b"v", b"\xff"):
        properties = before + b"\x26\x00\x01k\x00\x01" + value
        packet = frame(0x30, b"\x00\x01t" + bytes([len(properties)]) + properties)
        with pytest.raises(UnicodeDecodeError) if value == b"\xff" else nullcontext():
            salvage.check_strings(packet)
