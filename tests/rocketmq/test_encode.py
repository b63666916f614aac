"""The hand-written encoding says what the stubs read."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Destination
from spanbridge.core.rocketmq_rules import (
    MAX_PROPERTIES_BYTES,
    group_problem,
    key_problem,
    property_name_problem,
    property_value_problem,
    tag_problem,
)
from spanbridge.rocketmq.grpc.encode import Encoder, MessageHead, message_type
from spanbridge.rocketmq.grpc.stubs import DELAY, FIFO, NORMAL, definition, service
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.partitions import DELAYED, UNORDERED

BORN_NS = 1_795_431_330_446_123_456


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def head_of(destination: Destination, namespace: str = "") -> MessageHead:
    return Encoder(MessageIds(node=0x0102030405FF, pid=0x11223, start=0xFFFF_FFFF), namespace).head(destination)


def parse(*messages: bytes) -> Any:
    return service.SendMessageRequest.FromString(b"".join(messages)).messages


def test_every_field() -> None:
    destination = Destination(
        "topic", tag="tag", keys=("k1", "k2"), group="group", delivery_timestamp_ms=1_800_000_000_001,
        properties=(("fixed", "value"), ("empty", "")),
    )  # fmt: skip
    raw = head_of(destination, "space").encode(b"\x00body", PARENT, [("own", "wert ü")], BORN_NS)

    expected = definition.Message()
    expected.topic.name = "topic"
    expected.topic.resource_namespace = "space"
    expected.user_properties.update({"fixed": "value", "empty": "", "own": "wert ü", "traceparent": PARENT})
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
    parent=st.sampled_from(["", PARENT]) | values,
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
    parent: str,
    body: bytes,
    born_ns: int,
) -> None:
    destination = Destination("t", tag=tag, keys=tuple(keys), group=group, properties=tuple(fixed.items()))
    (message,) = parse(head_of(destination).encode(body, parent, list(own.items()), born_ns))
    system = message.system_properties
    assert (system.tag if system.HasField("tag") else None) == tag
    assert list(system.keys) == keys
    assert (system.message_group if system.HasField("message_group") else None) == group
    assert dict(message.user_properties) == {**fixed, **({"traceparent": parent} if parent else {}), **own}
    assert message.body == body
    assert system.born_timestamp.ToMilliseconds() == born_ns // 1_000_000


@pytest.mark.parametrize("size", [1, 127, 128, 1023, 1024, 16_383, 16_384, 2_097_152])
def test_lengths_at_the_edges_of_varints(size: int) -> None:
    (message,) = parse(head_of(Destination("t")).encode(b"b" * size, "", [("p", "v" * (size % 8000))], 1))
    assert len(message.body) == size
    assert len(message.user_properties["p"]) == size % 8000


def test_a_batch_is_the_concatenation() -> None:
    head = head_of(Destination("t"))
    messages = parse(*(head.encode(b"%d" % n, "", (), BORN_NS) for n in range(300)))
    assert [message.body for message in messages] == [b"%d" % n for n in range(300)]
    ids = [message.system_properties.message_id for message in messages]
    assert len(set(ids)) == 300
    assert {len(one) for one in ids} == {34}
    assert ids[1].endswith("00000000")  # the sequence wraps


def test_message_types() -> None:
    assert message_type(Destination("t")) == NORMAL
    assert message_type(Destination("t", group="g")) == FIFO
    assert message_type(Destination("t", group="g", delivery_timestamp_ms=1)) == DELAY


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        (Destination("a/b"), "illegal_topic"),
        (Destination("t", tag="a|b"), "illegal_message_tag"),
        (Destination("t", keys=("a b",)), "illegal_message_key"),
        (Destination("t", group="g" * 64), "illegal_message_group"),
        (Destination("t", properties=(("TAGS", "x"),)), "illegal_message_property_key"),
        (Destination("t", properties=(("a", "\n"),)), "illegal_message_property_key"),
        (Destination("t", properties=(("a", "x" * 16_384),)), "message_properties_too_large"),
        (Destination("t", properties=tuple((f"p{n}", "") for n in range(129))), "message_properties_too_large"),
    ],
)
def test_what_an_destination_may_not_hold(destination: Destination, reason: str) -> None:
    with pytest.raises(SinkRejected) as caught:
        head_of(destination)
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
        head_of(Destination("t")).encode(body, "", properties, BORN_NS)
    assert caught.value.reason == reason


@pytest.mark.parametrize("parent", ["", PARENT])
def test_the_property_limit_is_exact(parent: str) -> None:
    head = head_of(Destination("t", tag="tt"))
    room = MAX_PROPERTIES_BYTES - 6 - (len("traceparent") + len(parent) if parent else 0)
    head.encode(b"x", parent, [("name", "v" * room)], BORN_NS)
    with pytest.raises(SinkRejected):
        head.encode(b"x", parent, [("name", "v" * (room + 1))], BORN_NS)


@pytest.mark.parametrize(
    "properties", [(("a", "x" * (MAX_PROPERTIES_BYTES - 60)),), tuple((f"p{n}", "") for n in range(128))]
)
def test_a_traceparent_counts_towards_the_limits(properties: tuple[tuple[str, str], ...]) -> None:
    head = head_of(Destination("t", properties=properties))
    head.encode(b"x", "", (), BORN_NS)
    with pytest.raises(SinkRejected) as caught:
        head.encode(b"x", PARENT, (), BORN_NS)
    assert caught.value.reason == "message_properties_too_large"


def test_partitions() -> None:
    encoder = Encoder(MessageIds(), partitions=4)
    assert encoder.head(Destination("t")).partition == UNORDERED
    assert encoder.head(Destination("t", group="g", delivery_timestamp_ms=1)).partition == DELAYED
    assert {encoder.head(Destination("t", group=f"g{n}")).partition for n in range(100)} == {0, 1, 2, 3}


def test_heads_share_the_learnt_limit() -> None:
    encoder = Encoder(MessageIds())
    head = encoder.head(Destination("t"))
    encoder.max_body_bytes = 1000
    with pytest.raises(SinkRejected, match="over the cluster's limit of 1000"):
        head.encode(b"x" * 1001, "", (), BORN_NS)


def test_made_up_property_names_do_not_grow_the_process() -> None:
    head = head_of(Destination("t"))
    for number in range(10_000):
        head.encode(b"x", "", [(f"name-{number}", "v")], BORN_NS)
        head.encode(b"x", "", [(f"{number}" * 1000, "v")], BORN_NS)
    entries, names = head._encoder.entries, head._encoder.names
    assert (len(entries), len(names)) <= (8192, 4096)
    assert sum(len(name) + len(value) for name, value in [*entries.young, *entries._old]) < 1 << 20
    assert sum(map(len, [*names.young, *names._old])) < 1 << 20


def test_ids_count_up_over_the_edges() -> None:
    for start in (0, 0xFE, 0xFFFF_FFFE):
        ids = MessageIds(start=start)
        assert [int(ids.sequence(), 16) for _ in range(600)] == [(start + n) & 0xFFFF_FFFF for n in range(600)]


def test_ids_of_two_makers_differ() -> None:
    seconds = int(time.time())
    first, second = MessageIds(), MessageIds()
    assert (first.prefix(seconds), first.sequence()) != (second.prefix(seconds), second.sequence())
