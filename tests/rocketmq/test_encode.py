"""The hand-written encoding says what the stubs read."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Address
from spanbridge.core.rocketmq_rules import (
    MAX_PROPERTIES_BYTES,
    group_problem,
    key_problem,
    property_name_problem,
    property_value_problem,
    tag_problem,
)
from spanbridge.rocketmq.encode import Encoder, Prepared, message_type, varint
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.stubs import DELAY, FIFO, NORMAL, definition, service

BORN_NS = 1_795_431_330_446_123_456


def encoder() -> Encoder:
    return Encoder(MessageIds(node=0x0102030405FF, pid=0x11223, start=0xFFFF_FFFF))


def parse(*messages: bytes) -> Any:
    return service.SendMessageRequest.FromString(b"".join(messages)).messages


def test_every_field() -> None:
    address = Address(
        "topic", tag="tag", keys=("k1", "k2"), group="group", delivery_timestamp_ms=1_800_000_000_001,
        properties=(("fixed", "value"), ("empty", "")),
    )  # fmt: skip
    raw = encoder().encode(Prepared(address, "space", 0), b"\x00body", [("own", "wert ü")], BORN_NS)

    expected = definition.Message()
    expected.topic.name = "topic"
    expected.topic.resource_namespace = "space"
    expected.user_properties.update({"fixed": "value", "empty": "", "own": "wert ü"})
    system = expected.system_properties
    system.tag = "tag"
    system.keys.extend(["k1", "k2"])
    system.message_id = "010102030405FF1223" + f"{1_795_431_330 - 1_609_459_200:08X}" + "FFFFFFFF"
    system.body_encoding = definition.Encoding.IDENTITY
    system.message_type = definition.MessageType.DELAY
    system.born_timestamp.FromMilliseconds(BORN_NS // 1_000_000)
    system.delivery_timestamp.FromMilliseconds(1_800_000_000_001)
    system.message_group = "group"
    expected.body = b"\x00body"
    (message,) = parse(raw)
    assert message == expected


texts = st.text(max_size=300)
names = texts.filter(lambda text: property_name_problem(text) is None)
values = texts.filter(lambda text: property_value_problem(text) is None)


@given(
    tag=st.none() | texts.filter(lambda text: tag_problem(text) is None),
    keys=st.lists(texts.filter(lambda text: key_problem(text) is None), max_size=3),
    group=st.none() | st.text(max_size=20).filter(lambda text: group_problem(text) is None),
    fixed=st.dictionaries(names, values, max_size=3),
    own=st.dictionaries(names, values, max_size=3),
    body=st.binary(min_size=1, max_size=20_000),
    born_ns=st.integers(min_value=0, max_value=2**62),
)
def test_whatever_is_legal_is_read_back(
    *,
    tag: str | None,
    keys: list[str],
    group: str | None,
    fixed: dict[str, str],
    own: dict[str, str],
    body: bytes,
    born_ns: int,
) -> None:
    address = Address("t", tag=tag, keys=tuple(keys), group=group, properties=tuple(fixed.items()))
    (message,) = parse(encoder().encode(Prepared(address, "", 0), body, list(own.items()), born_ns))
    system = message.system_properties
    assert (system.tag if system.HasField("tag") else None) == tag
    assert list(system.keys) == keys
    assert (system.message_group if system.HasField("message_group") else None) == group
    assert dict(message.user_properties) == {**fixed, **own}
    assert message.body == body
    assert system.born_timestamp.ToMilliseconds() == born_ns // 1_000_000


@pytest.mark.parametrize("size", [1, 127, 128, 1023, 1024, 16_383, 16_384, 2_097_152])
def test_lengths_at_the_edges_of_varints(size: int) -> None:
    (message,) = parse(encoder().encode(Prepared(Address("t"), "", 0), b"b" * size, [("p", "v" * (size % 8000))], 1))
    assert len(message.body) == size
    assert len(message.user_properties["p"]) == size % 8000


def test_a_batch_is_the_concatenation() -> None:
    made, prepared = encoder(), Prepared(Address("t"), "", 0)
    messages = parse(*(made.encode(prepared, b"%d" % n, (), BORN_NS) for n in range(300)))
    assert [message.body for message in messages] == [b"%d" % n for n in range(300)]
    ids = [message.system_properties.message_id for message in messages]
    assert len(set(ids)) == 300
    assert {len(one) for one in ids} == {34}
    assert ids[1].endswith("00000000")  # the sequence wraps


def test_message_types() -> None:
    assert message_type(Address("t")) == NORMAL
    assert message_type(Address("t", group="g")) == FIFO
    assert message_type(Address("t", group="g", delivery_timestamp_ms=1)) == DELAY


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (Address("a/b"), "illegal_topic"),
        (Address("t", tag="a|b"), "illegal_message_tag"),
        (Address("t", keys=("a b",)), "illegal_message_key"),
        (Address("t", group="g" * 64), "illegal_message_group"),
        (Address("t", properties=(("TAGS", "x"),)), "illegal_message_property_key"),
        (Address("t", properties=(("a", "\n"),)), "illegal_message_property_key"),
        (Address("t", properties=(("a", "x" * 16_384),)), "message_properties_too_large"),
        (Address("t", properties=tuple((f"p{n}", "") for n in range(129))), "message_properties_too_large"),
    ],
)
def test_what_an_address_may_not_hold(address: Address, reason: str) -> None:
    with pytest.raises(SinkRejected) as caught:
        Prepared(address, "", 0)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "properties", "reason"),
    [
        (b"", [], "message_body_empty"),
        (b"x" * (4 * 1024 * 1024 + 1), [], "message_body_too_large"),
        (b"x", [("KEYS", "x")], "illegal_message_property_key"),
        (b"x", [("", "x")], "illegal_message_property_key"),
        (b"x", [("a", "\x00")], "illegal_message_property_key"),
        (b"x", [("a", "\ud800")], "illegal_message_property_key"),
        (b"x", [("a", "x" * MAX_PROPERTIES_BYTES)], "message_properties_too_large"),
        (b"x", [(f"p{n}", "") for n in range(129)], "message_properties_too_large"),
    ],
)
def test_what_a_message_may_not_hold(body: bytes, properties: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(SinkRejected) as caught:
        encoder().encode(Prepared(Address("t"), "", 0), body, properties, BORN_NS)
    assert caught.value.reason == reason


def test_the_property_limit_is_exact() -> None:
    prepared = Prepared(Address("t", tag="tt"), "", 0)
    encoder().encode(prepared, b"x", [("name", "v" * (MAX_PROPERTIES_BYTES - 6))], BORN_NS)
    with pytest.raises(SinkRejected):
        encoder().encode(prepared, b"x", [("name", "v" * (MAX_PROPERTIES_BYTES - 5))], BORN_NS)


def test_made_up_property_names_do_not_grow_the_process() -> None:
    made, prepared = encoder(), Prepared(Address("t"), "", 0)
    for number in range(10_000):
        made.encode(prepared, b"x", [(f"name-{number}", "v")], BORN_NS)
        made.encode(prepared, b"x", [(f"{number}" * 1000, "v")], BORN_NS)
    assert len(made._names) <= 4096
    assert sum(map(len, made._names)) < 1 << 20


def test_varint() -> None:
    assert [varint(n) for n in (0, 127, 128, 300)] == [b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02"]


def test_ids_of_two_makers_differ() -> None:
    seconds = int(time.time())
    first, second = MessageIds(), MessageIds()
    assert (first.prefix(seconds), first.sequence()) != (second.prefix(seconds), second.sequence())
