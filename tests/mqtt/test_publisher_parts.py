"""The parts of the publisher by themselves: encoding, aliases, expiry, and the search for what ends connections."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanbridge.core.errors import SinkRejected, SinkUnavailable, SourceError
from spanbridge.core.message import Publish
from spanbridge.mqtt import PublisherOptions, check_options
from spanbridge.mqtt.codec import Answers, Decoder, v5
from spanbridge.mqtt.codec.aliases import Aliases
from spanbridge.mqtt.codec.packets import PubackPacket
from spanbridge.mqtt.codec.publish import PublishEncoder
from spanbridge.mqtt.outbound import OutboundSession
from spanbridge.mqtt.outcomes import error_for
from spanbridge.mqtt.version import Accepted, Version5, Version311
from tests.drawing import examples

from .publishing import Command, command

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=20)
PATIENT = settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
MESSAGES = st.builds(
    Publish,
    topic=TEXT.filter(lambda name: bool(name) and not set(name) & set("+#")),
    payload=st.binary(max_size=200),
    retain=st.booleans(),
    user_properties=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
    content_type=st.none() | TEXT,
    response_topic=st.none() | st.just("answer/here"),
    correlation_data=st.none() | st.binary(max_size=20),
    payload_format=st.none() | st.integers(0, 1),
)


def decode(data: bytes, *, is_v5: bool = True, aliases: int = 0) -> list[Any]:
    decoder = Decoder(None, v5=is_v5, limit=10_000_000, alias_maximum=aliases)  # type: ignore[arg-type]
    return [delivery for run in decoder.feed(data) for delivery in run.deliveries]  # type: ignore[union-attr]


@PATIENT
@example([Publish("t", b"x" * 3000, user_properties=(("k", "v" * 300),))], 1, True, None)
@given(st.lists(MESSAGES, max_size=3), st.integers(0, 2), st.booleans(), st.none() | st.integers(1, 2**32 - 1))
def test_what_is_encoded_decodes_to_the_same(messages: list[Publish], qos: int, dup: bool, expiry: int | None) -> None:
    encoder = PublishEncoder(v5=True, alias_maximum=2)
    twice = [*messages, *messages]
    data = [encoder.encode(m, 9 if qos else 0, qos, dup=dup, expiry=expiry) for m in twice]
    found = decode(b"".join(data), aliases=2)
    assert len(found) == len(twice)
    for delivery, message in zip(found, twice, strict=True):
        got = delivery.message
        assert (got.topic, got.payload, got.qos, got.retain) == (message.topic, message.payload, qos, message.retain)
        assert (got.user_properties, got.content_type) == (message.user_properties, message.content_type)
        assert (got.response_topic, got.correlation_data) == (message.response_topic, message.correlation_data)
        assert (got.payload_format, got.expiry, got.fault) == (message.payload_format, expiry, None)
        assert (delivery.packet_id, bool(delivery.state & 8)) == (9 if qos else 0, dup)


@PATIENT
@given(MESSAGES)
def test_3_1_1_has_topic_and_payload_alone(message: Publish) -> None:
    (found,) = decode(PublishEncoder(v5=False).encode(message, 7, 1, expiry=3), is_v5=False)
    assert (found.message.topic, found.message.payload, found.packet_id) == (message.topic, message.payload, 7)
    assert (found.message.user_properties, found.message.expiry) == ((), None)


@pytest.mark.parametrize("limit", range(20, 60))
def test_a_packet_is_as_large_as_is_allowed_and_no_larger(limit: int) -> None:
    encoder = PublishEncoder(v5=True, limit=limit, alias_maximum=3)
    sizes = []
    for size in range(60):
        for _ in range(3):
            with contextlib.suppress(SinkRejected):
                sizes.append(len(encoder.encode(Publish("a/long/topic", b"x" * size), 1, 1)))
    assert not sizes or max(sizes) == limit


def test_many_topics_in_turn_get_no_alias_and_frequent_ones_mostly_keep_theirs() -> None:
    aliases = Aliases(4)

    def use(topic: bytes) -> bool:
        if aliases.known(topic) is not None:
            return True
        if aliases.wanted(topic) is not None:
            aliases.assign(topic)
        return False

    for _ in range(3):
        for number in range(100):
            assert not use(b"fleet/%d" % number)
    for name in (b"hot/1", b"hot/2", b"hot/3"):
        use(name)
        use(name)
    hits = 0
    for number in range(1000):
        hits += use(b"hot/%d" % (number % 3 + 1))
        if number % 3 == 0:
            use(b"cold/%d" % (number // 6))
    assert hits > 900


@pytest.mark.parametrize("size", range(1, 9))
def test_answers_come_in_pieces_of_any_size(size: int) -> None:
    data = b"\x40\x02\x00\x01" + b"\x50\x03\x00\x02\x10" + b"\x70\x04\x00\x03\x92\x00" + b"\xd0\x00"
    data += v5.encode(PubackPacket(4, 0x97, {"reason_string": "full"})) + b"\x40\x02\x00\x05"
    decoder = Decoder(None, v5=True, limit=100, answers=True)  # type: ignore[arg-type]
    packets = [packet for at in range(0, len(data), size) for packet in decoder.feed(data[at : at + size])]
    words = [word for packet in packets if isinstance(packet, Answers) for word in packet.words]
    assert words == [0x4000_0001, 0x5010_0002, 0x7092_0003, 0x4000_0005]
    assert [p.properties["reason_string"] for p in packets if isinstance(p, PubackPacket)] == ["full"]


def test_outcomes_of_one_read_are_told_together() -> None:
    outbound: OutboundSession[Command] = OutboundSession(Version5())
    told: list[list[Command]] = []
    commands = [command("t", qos=qos) for qos in (1, 1, 0, 1, 0)]
    outbound.put(commands, lambda done, _: told.append(list(done)), 0)
    outbound.connected(Accepted(False, "", 0), resumed=False, aliases=0)
    sent = decode(outbound.take(0))
    outbound.outcomes.tell()
    outbound.answers([0x4000_0000 | delivery.packet_id for delivery in sent if delivery.packet_id])
    outbound.outcomes.tell()
    assert told == [[commands[2], commands[4]], [commands[0], commands[1], commands[3]]]


def test_expiry_counts_down_while_a_message_waits() -> None:
    outbound: OutboundSession[Command] = OutboundSession(Version5())
    told: dict[Any, Any] = {}
    commands = [command("t", expiry=seconds) for seconds in (2, 10, 5)]
    outbound.put(commands, lambda done, error: told.update(dict.fromkeys(done, error)), 0)
    outbound.connected(Accepted(False, "", 0), resumed=False, aliases=0)
    found = decode(outbound.take(2_000_000_001))
    outbound.outcomes.tell()
    assert [delivery.message.expiry for delivery in found] == [8, 3]
    assert told[commands[0]].reason == "expired"
    outbound.disconnected(by_peer=False)
    outbound.connected(Accepted(True, "", 0), resumed=True, aliases=0)
    again = decode(outbound.take(7_500_000_000))
    assert [delivery.message.expiry for delivery in again] == [3, 1], "what may have been received is sent all the same"


def test_the_message_that_ends_connections_is_found_among_many() -> None:
    """Also when nothing before it is answered, and when it is not the first."""
    outbound: OutboundSession[Command] = OutboundSession(Version311())
    told: dict[Any, Any] = {}
    commands = [command("t", str(number)) for number in range(30)]
    outbound.put(commands, lambda done, error: told.update(dict.fromkeys(done, error)), 0)
    for connections in range(40):
        outbound.connected(Accepted(connections > 0, "", 0), resumed=connections > 0, aliases=0)
        alive = True
        while alive and (data := outbound.take(0)):
            sent = decode(data, is_v5=False)
            alive = all(delivery.message.payload != b"17" for delivery in sent)
            if alive:  # a broker that answers nothing of a batch in which it found something
                outbound.answers([0x4000_0000 | delivery.packet_id for delivery in sent])
        outbound.disconnected(by_peer=True)
        outbound.outcomes.tell()
        if len(told) == 30:
            break
    assert connections == 8
    assert [number for number, one in enumerate(commands) if told[one] is not None] == [17]
    assert told[commands[17]].reason == "connection_closed"


def test_a_broker_that_goes_away_makes_nothing_suspicious() -> None:
    outbound: OutboundSession[Command] = OutboundSession(Version5())
    outbound.put([command("t")], lambda *_: None, 0)
    for number in range(20):
        outbound.connected(Accepted(number > 0, "", 0), resumed=number > 0, aliases=0)
        assert outbound.take(0)
        outbound.disconnected(by_peer=False)
    assert outbound.in_flight == 1


def test_what_is_not_known_is_tried_again() -> None:
    error = error_for(0xF0)
    assert isinstance(error, SinkUnavailable)
    assert error_for(0x01) is None


@pytest.mark.parametrize("wrong", [{"answer_timeout": 0}, {"topic_aliases": 70_000}, {"topic_aliases": -1}])
def test_options_that_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=next(iter(wrong))):
        check_options(PublisherOptions(name="x", host="127.0.0.1", **wrong))
