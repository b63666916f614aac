"""Messages in batch layout: read back field by field, and refused where a broker would."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Destination
from spanbridge.core.rocketmq_rules import MAX_BODY_BYTES, property_name_problem
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.partitions import DELAYED, UNORDERED
from spanbridge.rocketmq.remoting.dispatch import by_queue
from spanbridge.rocketmq.remoting.encode import MAX_PROPERTIES, RemotingEncoder, split
from spanbridge.rocketmq.remoting.placing import consistent_hash, java_hash
from spanbridge.rocketmq.remoting.send import WriteQueue

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BORN = 1_700_000_000_123_456_789


class Read(NamedTuple):
    body: bytes
    properties: dict[str, str]


def encoder(namespace: str = "", partitions: int = 4) -> RemotingEncoder:
    return RemotingEncoder(MessageIds(node=1, pid=2, start=3), namespace, partitions)


def read(message: bytes) -> Read:
    """As ``MessageDecoder.decodeMessage`` does."""
    total, magic, crc, flag, size = struct.unpack_from(">iiiii", message)
    assert (total, magic, crc, flag) == (len(message), 0, 0, 0)
    (length,) = struct.unpack_from(">h", message, 20 + size)
    text = message[22 + size :].decode()
    assert len(message) == 22 + size + length
    assert text.endswith("\x02")
    return Read(message[20 : 20 + size], dict(item.split("\x01", 1) for item in text[:-1].split("\x02")))


def test_a_message_holds_what_is_fixed_and_what_is_its_own() -> None:
    destination = Destination("t", tag="tag", keys=("a", "b"), properties=(("mqtt.topic", "a/ü"), ("empty", "")))
    head = encoder().head(destination)
    found = read(head.encode(b"body", PARENT, [("n", "1"), ("nothing", "")], BORN))
    assert found.body == b"body"
    assert found.properties == {
        "mqtt.topic": "a/ü",
        "TAGS": "tag",
        "KEYS": "a b",
        "traceparent": PARENT,
        "n": "1",
        "BORN_TIMESTAMP": "1700000000123",
        "UNIQ_KEY": "01000000000001000205658B0000000003",
    }
    assert head.partition == UNORDERED
    again = read(head.encode(b"body", "", (), BORN)).properties
    assert "traceparent" not in again
    assert again["UNIQ_KEY"] == "01000000000001000205658B0000000004"


legal = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))
names = st.text(legal, min_size=1, max_size=20).filter(lambda name: property_name_problem(name) is None)
values = st.text(legal, max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(names, values), max_size=5), st.binary(min_size=1, max_size=50))
def test_whatever_is_legal_is_read_back(properties: list[tuple[str, str]], body: bytes) -> None:
    found = read(encoder().head(Destination("t")).encode(body, "", properties, BORN))
    own = {name: value for name, value in found.properties.items() if name not in {"BORN_TIMESTAMP", "UNIQ_KEY"}}
    assert found.body == body
    assert own == {name: value for name, value in properties if value}


def test_a_message_alone_is_its_body_and_its_properties() -> None:
    message = encoder().head(Destination("t", tag="x", delivery_timestamp_ms=5)).encode(b"\x00\x01", "", (), BORN)
    body, properties = split(message)
    assert body == b"\x00\x01"
    assert properties.startswith("TAGS\x01x\x02TIMER_DELIVER_MS\x015\x02BORN_TIMESTAMP\x01")


def test_a_delivery_timestamp_has_its_partition() -> None:
    assert encoder().head(Destination("t", delivery_timestamp_ms=5)).partition == DELAYED


@pytest.mark.parametrize("count", [1, 4, 7])
def test_groups_find_their_queue_and_keep_their_order(count: int) -> None:
    queues = [WriteQueue("a", number) for number in range(count)]
    shared = encoder(partitions=count)
    heads = [shared.head(Destination("t", group=f"plant/{number}/ü")) for number in range(20)]
    batch = [head.encode(b"%d" % turn, "", (), BORN) for turn in range(3) for head in heads]
    found: dict[str, list[bytes]] = {}
    for queue, part in by_queue(queues, batch):
        assert len(part.indexes) == len(part.messages)
        for index, message in zip(part.indexes, part.messages, strict=True):
            one, group = read(message), f"plant/{index % 20}/ü"
            assert one.properties["__SHARDINGKEY"] == group
            assert queue.queue == consistent_hash(java_hash(group), count) == heads[index % 20].partition
            found.setdefault(group, []).append(one.body)
    assert len(found) == 20
    assert all(bodies == [b"0", b"1", b"2"] for bodies in found.values())


def test_limits_of_a_message() -> None:
    head = encoder().head(Destination("t"))
    for body, reason in ((b"", "message_body_empty"), (b"x" * (MAX_BODY_BYTES + 1), "message_body_too_large")):
        with pytest.raises(SinkRejected) as caught:
            head.encode(body, "", (), BORN)
        assert caught.value.reason == reason
    assert len(head.encode(b"x", "", [("n", "v" * (MAX_PROPERTIES - 100))], BORN)) < MAX_PROPERTIES + 100
    for properties, reason in (
        ([("n", "v" * MAX_PROPERTIES)], "message_properties_too_large"),
        ([("KEYS", "v")], "illegal_message_property_key"),
        ([("n", "a\x02TAGS\x01b")], "illegal_message_property_key"),
    ):
        with pytest.raises(SinkRejected) as caught:
            head.encode(b"x", "", properties, BORN)
        assert caught.value.reason == reason


def test_a_topic_has_to_fit_with_its_namespace() -> None:
    encoder("ns").head(Destination("t" * 124))
    with pytest.raises(SinkRejected, match="with its namespace") as caught:
        encoder("ns").head(Destination("t" * 125))
    assert caught.value.reason == "illegal_topic"
