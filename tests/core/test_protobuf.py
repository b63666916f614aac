"""Protobuf writing says what protobuf's own reader reads."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.protobuf import VARINTS, field, integer, length, text, timestamp, varint


def test_varints() -> None:
    assert [varint(n) for n in (0, 127, 128, 300)] == [b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02"]
    assert varint(-1) == b"\xff" * 9 + b"\x01"
    assert list(VARINTS) == [varint(n) for n in range(len(VARINTS))]


@pytest.mark.parametrize("size", [0, 127, 128, 1023, 1024, 16_383, 16_384, 1 << 40])
def test_lengths_at_the_edges(size: int) -> None:
    assert length(size) == varint(size)


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_are_read_back(value: int) -> None:
    assert Int64Value.FromString(integer(1, value)).value == value


@given(st.binary(max_size=20_000))
def test_fields_are_read_back(content: bytes) -> None:
    assert BytesValue.FromString(field(1, content)).value == content


@given(st.text())
def test_texts_are_read_back(content: str) -> None:
    expected = content.encode("utf-8", "replace").decode()
    assert StringValue.FromString(text(1, content)).value == expected
    assert bool(text(1, content)) is bool(content)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_timestamps_are_read_back(milliseconds: int) -> None:
    assert Timestamp.FromString(timestamp(milliseconds)).ToMilliseconds() == milliseconds
