"""The benchmark's payload, and the packets its generator makes."""

from __future__ import annotations

import pytest

from bench.loadgen import Contexts, receive_maximum, varint
from bench.payload import SIZE, Phase, Stamp, pack, unpack
from spanbridge_context import extract_user_properties


def test_a_payload_is_128_bytes_and_reads_back() -> None:
    payload = pack(7, Phase.PACED, 123456, 1_700_000_000_000_000_001)
    assert len(payload) == SIZE == 128
    assert unpack(payload) == Stamp(7, Phase.PACED, 123456, 1_700_000_000_000_000_001)


@pytest.mark.parametrize("other", [b"", b"x" * 128, pack(1, 0, 1, 1)[:-1], pack(1, 0, 1, 1) + b"x"])
def test_foreign_payloads_are_refused(other: bytes) -> None:
    with pytest.raises(ValueError, match="not a benchmark payload"):
        unpack(other)


@pytest.mark.parametrize(("value", "encoded"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (16383, b"\xff\x7f")])
def test_variable_byte_integers(value: int, encoded: bytes) -> None:
    assert varint(value) == encoded


def _property(block: bytes) -> tuple[str, str]:
    """Decode a property block that holds one User Property (MQTT 5.0 section 2.2.2.2)."""
    assert block[0] == len(block) - 1
    assert block[1] == 0x26
    name_end = 4 + int.from_bytes(block[2:4], "big")
    value_end = name_end + 2 + int.from_bytes(block[name_end : name_end + 2], "big")
    assert value_end == len(block)
    return block[4:name_end].decode(), block[name_end + 2 : value_end].decode()


@pytest.mark.parametrize("carrier", ["tp", "traceparent"])
@pytest.mark.parametrize("percent", [0, 10, 100])
def test_contexts_are_valid_distinct_and_sampled_as_often_as_asked(carrier: str, percent: int) -> None:
    contexts = Contexts(carrier, percent)
    found = [extract_user_properties([_property(contexts.property())]) for _ in range(2000)]
    assert {problem for _, problem in found} == {None}
    decoded = [context for context, _ in found if context is not None]
    assert len({context.trace_id for context in decoded}) == 2000
    assert sum(context.sampled for context in decoded) == 20 * percent


def test_without_a_carrier_there_are_no_properties() -> None:
    assert Contexts("none", 100).property() == b"\0"


@pytest.mark.parametrize(
    ("properties", "expected"),
    [(b"", 65535), (b"\x21\x00\x14", 20), (b"\x25\x01\x12\x00\x02ab\x21\x03\xe8\x24\x01", 1000), (b"\x24\x01", 65535)],
)
def test_receive_maximum_is_found_among_other_properties(properties: bytes, expected: int) -> None:
    assert receive_maximum(properties) == expected
