"""The benchmark's payload, and the packets its generator makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.loadgen import receive_maximum
from bench.packets import Contexts, Packets, connect, template, varint
from bench.payload import SIZE, Phase, Stamp, pack, unpack
from bench.shapes import SHAPES, Shape, shape
from spanbridge_context import extract_user_properties, split_topic


@pytest.mark.parametrize("size", [SIZE, 4096])
def test_a_payload_has_its_size_and_reads_back(size: int) -> None:
    payload = pack(7, Phase.PACED, 123456, 1_700_000_000_000_000_001, size)
    assert len(payload) == size
    assert unpack(payload, size) == Stamp(7, Phase.PACED, 123456, 1_700_000_000_000_000_001)


@pytest.mark.parametrize("other", [b"", b"x" * 128, pack(1, 0, 1, 1)[:-1], pack(1, 0, 1, 1) + b"x"])
def test_foreign_payloads_are_refused(other: bytes) -> None:
    with pytest.raises(ValueError, match="not a benchmark payload"):
        unpack(other)


@pytest.mark.parametrize(("value", "encoded"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (16383, b"\xff\x7f")])
def test_variable_byte_integers(value: int, encoded: bytes) -> None:
    assert varint(value) == encoded


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Decode a UTF-8 Encoded String (MQTT 5.0 section 1.5.4): the text, and where it ends."""
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    return data[at + 2 : end].decode(), end


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Decode a Variable Byte Integer (MQTT 5.0 section 1.5.5): the value, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 128:
            return value, at


def _properties(block: bytes) -> list[tuple[str, str]]:
    """Decode properties (MQTT 5.0 section 2.2.2.2); MQTT's own get names with a colon."""
    found, at = [], 0
    while at < len(block):
        identifier = block[at]
        first, at = _text(block, at + 1)
        if identifier == 0x26:
            second, at = _text(block, at)
            found.append((first, second))
        else:
            found.append((f":{identifier}", first))
    return found


def _publishes(data: bytes, version: str) -> list[tuple[str, int, list[tuple[str, str]], bytes]]:
    """Decode PUBLISH packets with QoS 1 (MQTT section 3.3): topic, packet identifier, properties, payload."""
    found, at = [], 0
    while at < len(data):
        assert data[at] == 0x32
        length, at = _number(data, at + 1)
        end = at + length
        topic, at = _text(data, at)
        packet_id, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        properties: list[tuple[str, str]] = []
        if version == "5":
            size, at = _number(data, at)
            properties, at = _properties(data[at : at + size]), at + size
        found.append((topic, packet_id, properties, data[at:end]))
        at = end
    return found


def _packets(of: Shape, carrier: str | None = None, sampled: int = 100, step: int = 4) -> Packets:
    return Packets(template(of, 9, carrier or of.carrier, sampled), 1, step)


@pytest.mark.parametrize("of", SHAPES, ids=lambda of: of.name)
def test_every_shape_s_packets_decode_to_what_was_meant(of: Shape) -> None:
    unacked: dict[int, int] = {}
    found = _publishes(_packets(of).encode(300, Phase.LOAD, 1000, unacked), of.version)
    assert [packet_id for _, packet_id, _, _ in found] == list(range(1, 301))
    assert unacked == {packet_id: 999 + packet_id for packet_id in range(1, 301)}
    assert [unpack(payload, of.payload).seq for *_, payload in found] == list(range(1000, 1300))
    assert {unpack(payload, of.payload).run for *_, payload in found} == {9}
    for topic, _, properties, _ in found:
        if of.version == "5":
            context, problem = extract_user_properties(properties)
            plain = topic
        else:
            plain, context, problem = split_topic(topic)
            assert plain != topic
        assert problem is None
        assert context is not None
        assert context.sampled
        assert plain.startswith(of.topics(9).partition("{")[0])
        assert properties[1:] in [[(_renamed(name), value) for name, value in named] for _, named in of.variants]


def _renamed(name: str) -> str:
    return {":content-type": ":3", ":correlation-data": ":9"}.get(name, name)


def test_connections_share_the_devices_among_them() -> None:
    made = template(shape("plain"), 9, "tp", 100)
    topics = [{topic for topic, *_ in _publishes(Packets(made, n, 4).encode(100, 1, 0, {}), "5")} for n in range(4)]
    assert [len(own) for own in topics] == [25] * 4
    assert len(set().union(*topics)) == 100


def test_packet_identifiers_start_again_after_the_last_one_without_zero() -> None:
    packets = _packets(shape("plain"))
    packets.packet_id = 65534
    assert [number for _, number, *_ in _publishes(packets.encode(3, 1, 0, {}), "5")] == [65535, 1, 2]


def test_every_fourth_message_of_the_readme_has_a_kind_and_each_device_sends_both() -> None:
    found = _publishes(_packets(shape("readme")).encode(5000, Phase.LOAD, 0, {}), "5")
    kinds = [dict(properties).get("kind") for _, _, properties, _ in found]
    assert sum(kind is not None for kind in kinds) == pytest.approx(1250, rel=0.15)
    assert set(kinds) == {None, "alarm", "status"}
    one = {dict(properties).get("kind") for topic, _, properties, _ in found if topic == found[0][0]}
    assert len(one) > 1


@pytest.mark.parametrize("carrier", ["tp", "traceparent"])
@pytest.mark.parametrize("percent", [0, 10, 100])
def test_contexts_are_valid_distinct_and_sampled_as_often_as_asked(carrier: str, percent: int) -> None:
    contexts = Contexts(carrier, percent)
    found = [extract_user_properties(_properties(contexts.next())) for _ in range(2000)]
    assert {problem for _, problem in found} == {None}
    decoded = [context for context, _ in found if context is not None]
    assert len({context.trace_id for context in decoded}) == 2000
    assert sum(context.sampled for context in decoded) == 20 * percent


def test_without_a_carrier_there_are_no_properties() -> None:
    [(_, _, properties, _)] = _publishes(_packets(shape("plain"), "none").encode(1, Phase.LOAD, 0, {}), "5")
    assert properties == []


@pytest.mark.parametrize(("version", "level"), [("5", 5), ("3.1.1", 4)])
def test_connect_names_its_protocol_level_and_is_as_long_as_it_says(version: str, level: int) -> None:
    packet = connect(version, b"one")
    assert packet[1] == len(packet) - 2
    assert packet[8] == level
    assert packet.endswith(b"\x00\x03one")


def test_a_device_s_name_is_as_long_in_every_shape() -> None:
    few = replace(shape("topics_10k"), devices=1)
    assert len(_publishes(Packets(template(few, 9, "tp", 100), 0, 1).encode(1, 1, 0, {}), "5")[0][0]) == len(
        _publishes(_packets(shape("plain")).encode(1, 1, 0, {}), "5")[0][0]
    )


@pytest.mark.parametrize(
    ("properties", "expected"),
    [(b"", 65535), (b"\x21\x00\x14", 20), (b"\x25\x01\x12\x00\x02ab\x21\x03\xe8\x24\x01", 1000), (b"\x24\x01", 65535)],
)
def test_receive_maximum_is_found_among_other_properties(properties: bytes, expected: int) -> None:
    assert receive_maximum(properties) == expected
