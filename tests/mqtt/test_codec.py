"""The codecs: what is encoded comes out again, in whatever pieces; what is broken is refused by name.

mqtt5, the codec of other authors, is the judge of our bytes.
"""

from __future__ import annotations

from typing import Any

import mqtt5
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Decoder, Publishes, v5, v311
from spanbridge.mqtt.codec.layouts import Layouts
from spanbridge.mqtt.codec.packets import (
    AuthPacket,
    ConnackPacket,
    ConnectPacket,
    DisconnectPacket,
    FilterOptions,
    PingreqPacket,
    PingrespPacket,
    PubackPacket,
    PubcompPacket,
    PubrecPacket,
    PubrelPacket,
    SubackPacket,
    SubscribePacket,
    UnsubackPacket,
    UnsubscribePacket,
    WillPacket,
)
from spanbridge.mqtt.codec.properties import BY_NAME, MAX_PROPERTIES
from spanbridge.mqtt.codec.topics import LIMIT, Topics
from spanbridge.mqtt.codec.wire import Remainder, packet_size, variable
from spanbridge.mqtt.delivery import MqttDelivery
from spanbridge.mqtt.errors import PacketError


def decoder(*, of_v5: bool = True, limit: int = 1 << 28, alias_maximum: int = 0) -> Decoder:
    source: Any = None
    return Decoder(source, v5=of_v5, limit=limit, alias_maximum=alias_maximum)


def fed(made: Decoder, *pieces: bytes) -> list[Any]:
    """Control packets and deliveries, in order."""
    found: list[Any] = []
    for piece in pieces:
        for packet in made.feed(piece, 7, 11):
            if isinstance(packet, Publishes):
                assert packet.size == sum(delivery.size for delivery in packet.deliveries)
                assert packet.plain == all(d.message.qos == 1 and d.state == 0 for d in packet.deliveries)
                found += packet.deliveries
            else:
                found.append(packet)
    return found


def shown(packet: Any) -> Any:
    """A packet as a value that compares."""
    if not isinstance(packet, MqttDelivery):
        return packet
    fields = tuple(getattr(packet.message, name) for name in Publish.__slots__)
    return (fields, packet.packet_id, packet.state, packet.arrived_ns, packet.expires_ns, packet.size)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
topics = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20)
identifiers = st.integers(1, 0xFFFF)
codes = st.sampled_from(sorted(v5.REASONS))
pairs = st.lists(st.tuples(texts, texts), max_size=12).map(tuple)
compact = st.text("abcXYZ019_-", min_size=35, max_size=35).map(lambda value: (("tp", value),))


def numbers(low: int, high: int) -> Any:
    return st.one_of(st.sampled_from([low, high]), st.integers(low, high))


VALUES: dict[str, Any] = {
    "subscription_identifier": numbers(1, 0x0FFF_FFFF).map(lambda value: (value,)),
    "user_property": pairs.filter(bool),
    **dict.fromkeys(
        ("content_type", "response_topic", "assigned_client_identifier", "authentication_method",
         "response_information", "server_reference", "reason_string"), texts),
    **dict.fromkeys(("correlation_data", "authentication_data"), st.binary(max_size=20)),
    **dict.fromkeys(
        ("session_expiry_interval", "will_delay_interval", "message_expiry_interval"), numbers(0, 0xFFFF_FFFF)),
    "maximum_packet_size": numbers(1, 0xFFFF_FFFF),
    "receive_maximum": numbers(1, 0xFFFF),
    "topic_alias": numbers(1, 0xFFFF),
    **dict.fromkeys(("server_keep_alive", "topic_alias_maximum"), numbers(0, 0xFFFF)),
}  # fmt: skip
FLAGS = {name for name in BY_NAME if name not in VALUES}


def properties(kind: int) -> Any:
    """Any properties that may stand in a packet of this type."""
    names = [name for name, known in BY_NAME.items() if kind in known.packets]
    return st.fixed_dictionaries({}, optional={name: VALUES.get(name, st.integers(0, 1)) for name in names})


def answers(make: Any, kind: int) -> Any:
    return st.builds(make, identifiers, codes, properties(kind))


filters = st.builds(FilterOptions, texts, st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2))
wills = st.builds(WillPacket, topics, st.binary(max_size=20), st.integers(0, 2), st.booleans(), properties(16))
V5 = st.one_of(
    st.builds(
        ConnectPacket, texts, st.booleans(), st.integers(0, 0xFFFF), st.none() | texts,
        st.none() | st.binary(max_size=20), st.none() | wills, properties(1),
    ),
    st.builds(ConnackPacket, st.booleans(), codes, properties(2)),
    answers(PubackPacket, 4), answers(PubrecPacket, 5), answers(PubrelPacket, 6), answers(PubcompPacket, 7),
    st.builds(SubscribePacket, identifiers, st.lists(filters, min_size=1, max_size=3).map(tuple), properties(8)),
    st.builds(SubackPacket, identifiers, st.lists(codes, min_size=1, max_size=3).map(tuple), properties(9)),
    st.builds(UnsubscribePacket, identifiers, st.lists(texts, min_size=1, max_size=3).map(tuple), properties(10)),
    st.builds(UnsubackPacket, identifiers, st.lists(codes, max_size=3).map(tuple), properties(11)),
    st.just(PingreqPacket()), st.just(PingrespPacket()),
    st.builds(DisconnectPacket, codes, properties(14)), st.builds(AuthPacket, codes, properties(15)),
)  # fmt: skip
plain_filters = st.builds(FilterOptions, texts, st.integers(0, 2))
plain_wills = st.builds(WillPacket, topics, st.binary(max_size=20), st.integers(0, 2), st.booleans())
V311 = st.one_of(
    st.builds(ConnectPacket, texts, st.booleans(), st.integers(0, 0xFFFF), texts, st.none() | st.binary(max_size=20),
              st.none() | plain_wills),
    st.builds(ConnackPacket, st.booleans(), st.integers(0, 5)),
    *(st.builds(make, identifiers) for make in (PubackPacket, PubrecPacket, PubrelPacket, PubcompPacket)),
    st.builds(SubscribePacket, identifiers, st.lists(plain_filters, min_size=1, max_size=3).map(tuple)),
    st.builds(SubackPacket, identifiers, st.lists(st.sampled_from([0, 1, 2, 128]), min_size=1).map(tuple)),
    st.builds(UnsubscribePacket, identifiers, st.lists(texts, min_size=1, max_size=3).map(tuple)),
    st.builds(UnsubackPacket, identifiers),
    st.sampled_from([PingreqPacket(), PingrespPacket(), DisconnectPacket()]),
)  # fmt: skip
messages = st.builds(
    Publish, topics, st.binary(max_size=300), st.integers(0, 2), st.booleans(), st.one_of(st.just(()), compact, pairs),
    st.none() | texts, st.none() | texts, st.none() | st.binary(max_size=20), st.none() | numbers(0, 0xFFFF_FFFF),
    st.none() | st.integers(0, 1),
)  # fmt: skip
plain_messages = st.builds(Publish, topics, st.binary(max_size=300), st.integers(0, 2), st.booleans())


@given(V5)
def test_control_packets_of_mqtt_5_come_out_as_they_went_in(packet: Any) -> None:
    data = v5.encode(packet)
    assert fed(decoder(), data) == [packet]
    assert fed(decoder(), *(data[at : at + 1] for at in range(len(data)))) == [packet]


@given(V311)
def test_control_packets_of_mqtt_3_1_1_come_out_as_they_went_in(packet: Any) -> None:
    data = v311.encode(packet)
    assert fed(decoder(of_v5=False), data) == [packet]
    assert fed(decoder(of_v5=False), *(data[at : at + 1] for at in range(len(data)))) == [packet]


@given(messages, identifiers, st.booleans(), st.booleans())
@example(Publish("t", b"x" * 20_000, 1), 1, False, True)
@example(Publish("t", b"", 1, user_properties=(("k" * 9000, "v" * 9000),)), 1, False, True)
def test_publish_comes_out_as_it_went_in(message: Publish, packet_id: int, dup: bool, of_v5: bool) -> None:
    packet_id = packet_id if message.qos else 0
    if not of_v5:
        message = Publish(message.topic, message.payload, message.qos, message.retain)
    encode: Any = v5.encode_publish if of_v5 else v311.encode_publish
    data = encode(message, packet_id, dup=dup)
    message.received_ns = 7
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))] if len(data) < 500 else [data[:9], data[9:]]):
        (delivery,) = fed(decoder(of_v5=of_v5), *pieces)
        expires_ns = None if message.expiry is None else 11 + message.expiry * 10**9
        wanted = MqttDelivery(
            message, delivery.source, delivery.size, 11, expires_ns, packet_id=packet_id, state=dup * 8
        )
        assert shown(delivery) == shown(wanted)


@given(st.lists(st.tuples(st.sampled_from([0, 1]), messages, V5), max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_any_split_of_the_bytes_gives_the_same_packets(parts: list[tuple[int, Publish, Any]], cuts: list[int]) -> None:
    """Of several packets in a row, of all kinds."""
    encoded = [
        v5.encode(control) if which else v5.encode_publish(message, 9 if message.qos else 0)
        for which, message, control in parts
    ]
    data, pieces = b"".join(encoded), []
    at = index = 0
    while at < len(data):
        pieces.append(data[at : at + cuts[index % len(cuts)]])
        at += cuts[index % len(cuts)]
        index += 1
    whole = [shown(packet) for packet in fed(decoder(), data)]
    assert [shown(packet) for packet in fed(decoder(), *pieces)] == whole
    assert len(whole) == len(parts)


@given(st.binary(max_size=300), st.booleans(), st.integers(1, 7))
@example(b"\x30\x00", True, 1)
@example(b"\x30\x02\x00\x00", False, 1)
@example(b"\x32\x03\x00\x00\x01", True, 1)
def test_no_bytes_surprise_it(data: bytes, of_v5: bool, step: int) -> None:
    outcomes = []
    for pieces in ([data], [data[at : at + step] for at in range(0, len(data), step)]):
        made, found = decoder(of_v5=of_v5), []
        try:
            for piece in pieces:
                found += [shown(packet) for packet in fed(made, piece)]
        except PacketError as error:
            found.append(str(error))
        outcomes.append(found)
    assert outcomes[0][: len(outcomes[1])] == outcomes[1][: len(outcomes[0])]


@given(messages, st.data())
def test_a_changed_byte_is_no_surprise_either(message: Publish, data: Any) -> None:
    packet = bytearray(v5.encode_publish(message, 9 if message.qos else 0))
    at = data.draw(st.integers(1, min(len(packet), 80) - 1))
    packet[at] = data.draw(st.integers(0, 255))
    follower = v5.encode_publish(Publish("after", b"", 1), 3)
    try:
        found = fed(decoder(), bytes(packet) + follower)
    except PacketError:
        return
    for delivery in found:
        if isinstance(delivery, MqttDelivery):
            assert delivery.message.topic.isprintable() or delivery.message.fault is None


@given(messages)
def test_mqtt5_reads_what_we_write(message: Publish) -> None:
    data = v5.encode_publish(message, 9 if message.qos else 0)
    theirs, size = mqtt5.read(memoryview(data))
    assert isinstance(theirs, mqtt5.PublishPacket)
    assert size == len(data)
    assert (theirs.topic, theirs.payload, theirs.retain) == (message.topic, message.payload, message.retain)
    assert tuple(theirs.user_properties) == message.user_properties
    assert theirs.content_type == message.content_type
    assert theirs.response_topic == message.response_topic
    assert theirs.correlation_data == message.correlation_data
    assert theirs.message_expiry_interval == message.expiry


@given(topics, pairs, st.none() | texts, st.none() | st.integers(0, 0xFFFF_FFFF), st.binary(max_size=20))
def test_we_read_what_mqtt5_writes(
    topic: str, user: tuple[tuple[str, str], ...], content_type: str | None, expiry: int | None, data: bytes
) -> None:
    packet = mqtt5.PublishPacket(
        topic,
        payload=data,
        qos=mqtt5.QoS(1),
        packet_id=77,
        user_properties=list(user),
        content_type=content_type,
        message_expiry_interval=expiry,
        correlation_data=data,
        subscription_ids=[3, 300],
    )
    (delivery,) = fed(decoder(), packet.write())
    message = delivery.message
    assert (message.topic, message.payload, message.user_properties) == (topic, data, user)
    assert (message.content_type, message.expiry, message.correlation_data) == (content_type, expiry, data)
    assert message.fault is None


def test_connect_is_as_mqtt5_has_it() -> None:
    ours = v5.encode(
        ConnectPacket(
            "id", True, 30, "u", b"p", WillPacket("w", b"x", 1, True, {"will_delay_interval": 5}),
            {"session_expiry_interval": 60, "receive_maximum": 9},
        )
    )  # fmt: skip
    theirs, _ = mqtt5.read(memoryview(ours))
    assert isinstance(theirs, mqtt5.ConnectPacket)
    assert (theirs.client_id, theirs.clean_start, theirs.keep_alive) == ("id", True, 30)
    assert (theirs.username, theirs.password) == ("u", b"p")
    assert theirs.will is not None
    assert (theirs.will.topic, theirs.will.payload, theirs.will.will_delay_interval) == ("w", b"x", 5)
    assert (theirs.session_expiry_interval, theirs.receive_max) == (60, 9)


# -- what is refused, and how -----------------------------------------------------------------------------------------

BROKEN = {
    "reserved type": (b"\x00\x00", "packet type 0", 0x81),
    "flags of PUBREL": (b"\x60\x02\x00\x01", "PUBREL: flags are 0x0", 0x81),
    "flags of PUBACK": (b"\x41\x02\x00\x01", "PUBACK: flags are 0x1", 0x81),
    "identifier cut off": (b"\x40\x01\x00", "PUBACK: packet identifier does not fit into the packet", 0x81),
    "identifier 0": (b"\x40\x02\x00\x00", "PUBACK: packet identifier 0", 0x82),
    "too much": (b"\xd0\x01\x00", "PINGRESP: end has 1 bytes too many", 0x81),
    "CONNACK's flags": (b"\x20\x03\x02\x00\x00", "CONNACK: flags are 0x02", 0x81),
    "no code": (b"\x90\x03\x00\x01\x00", "SUBACK without a code", 0x82),
    "wrong property": (b"\x20\x06\x00\x00\x03\x01\x01\x00", "CONNACK: property 0x01 may not stand there", 0x81),
    "property twice": (b"\x20\x09\x00\x00\x06\x21\x00\x01\x21\x00\x01", "CONNACK: receive_maximum twice", 0x82),
    "0 where none may be": (b"\x20\x06\x00\x00\x03\x21\x00\x00", "CONNACK: receive_maximum is 0", 0x82),
    "flag of 2": (b"\x20\x05\x00\x00\x02\x25\x02", "CONNACK: retain_available is 2", 0x82),
    "not UTF-8": (b"\xe0\x06\x00\x04\x1f\x00\x01\xff", "DISCONNECT: reason_string is not UTF-8", 0x81),
    "NUL": (b"\xe0\x06\x00\x04\x1f\x00\x01\x00", "DISCONNECT: reason_string contains a NUL", 0x81),
    "QoS 3": (b"\x36\x06\x00\x01a\x00\x01\x00", "PUBLISH: QoS 3", 0x81),
    "topic cut off": (b"\x30\x03\x00\x05a", "PUBLISH: topic does not fit into the packet", 0x81),
    "PUBLISH with identifier 0": (b"\x32\x06\x00\x01a\x00\x00\x00", "PUBLISH: packet identifier 0", 0x82),
    "alias over the maximum": (b"\x30\x07\x00\x01a\x03\x23\x00\x09", "topic alias 9 where 2 is the maximum", 0x94),
    "alias 0": (b"\x30\x07\x00\x01a\x03\x23\x00\x00", "topic alias 0 where 2 is the maximum", 0x94),
    "alias twice": (b"\x30\x0a\x00\x01a\x06\x23\x00\x01\x23\x00\x01", "topic_alias twice", 0x94),
    "alias of nothing": (b"\x30\x06\x00\x00\x03\x23\x00\x01", "topic alias 1 was never given a topic", 0x94),
    "length of five bytes": (b"\x30\xff\xff\xff\xff\x01", "remaining length of more than four bytes", 0x81),
    "too large": (b"\x30\xff\xff\x7f", "2097155 bytes where maximum_packet_size is 1000", 0x95),
    "subscription of QoS 3": (b"\x82\x07\x00\x01\x00\x00\x01a\x03", "SUBSCRIBE: options are 0x03", 0x81),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_refused_by_name(what: str) -> None:
    data, text, code = BROKEN[what]
    made = decoder(limit=1000, alias_maximum=2)
    with pytest.raises(PacketError) as caught:
        fed(made, data)
    assert text in str(caught.value)
    assert caught.value.code == code


def v5_packet(topic: bytes, fields: bytes = b"", *, qos: int = 1) -> bytes:
    body = (
        len(topic).to_bytes(2, "big") + topic + (b"\x00\x09" if qos else b"") + variable(len(fields)) + fields + b"pay"
    )
    return bytes([0x30 | qos << 1]) + variable(len(body)) + body


FAULTS = {
    "topic": (v5_packet(b"a/\xff"), "PUBLISH: topic is not UTF-8", b"pay"),
    "NUL in topic": (v5_packet(b"a/\0"), "PUBLISH: topic contains a NUL or a wildcard", b"pay"),
    "wildcard in topic": (v5_packet(b"a/+"), "PUBLISH: topic contains a NUL or a wildcard", b"pay"),
    "no topic": (v5_packet(b""), "PUBLISH: topic is empty", b"pay"),
    "property not UTF-8": (v5_packet(b"a", b"\x26\x00\x01k\x00\x01\xff"), "user_property is not UTF-8", b"pay"),
    "compact context not UTF-8": (v5_packet(b"a", b"\x26\x00\x02tp\x00\x23" + b"\xff" * 35), "is not UTF-8", b"pay"),
    "property twice": (v5_packet(b"a", b"\x03\x00\x01a\x03\x00\x01a"), "PUBLISH: content_type twice", b"pay"),
    "unknown property": (v5_packet(b"a", b"\x7f\x00"), "PUBLISH: property 0x7F may not stand there", b"pay"),
    "indicator of 2": (v5_packet(b"a", b"\x01\x02"), "PUBLISH: payload_format_indicator is 2", b"pay"),
    "subscription 0": (v5_packet(b"a", b"\x0b\x00"), "PUBLISH: subscription_identifier is 0", b"pay"),
    "property cut off": (v5_packet(b"a", b"\x26\x00\x09a"), "PUBLISH: user_property does not fit", b"pay"),
    "expiry cut off": (v5_packet(b"a", b"\x02\x00"), "PUBLISH: message_expiry_interval does not fit", b"pay"),
    "too many properties": (
        v5_packet(b"a", b"\x26\x00\x01k\x00\x01v" * 40_000),
        f"280000 bytes of properties, where {MAX_PROPERTIES}", b"pay",
    ),
    "properties longer than the packet": (
        b"\x32\x08\x00\x01a\x00\x09\x70xy", "PUBLISH: properties does not fit into the packet", b"\x70xy",
    ),
    "no properties' length": (b"\x32\x05\x00\x01a\x00\x09", "PUBLISH: properties' length does not fit", b""),
    "properties' length of five bytes": (
        b"\x32\x0a\x00\x01a\x00\x09\xff\xff\xff\xff\x01",
        "PUBLISH: properties' length has more than four", b"\xff" * 4 + b"\x01",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_a_publish_whose_frame_is_sound_is_refused_alone(what: str) -> None:
    data, text, payload = FAULTS[what]
    good = v5.encode_publish(Publish("t", b"good", 1), 3)
    before, faulty, after = fed(decoder(), good + data + good)
    assert faulty.message.fault.startswith("the broker sent a malformed packet (")
    assert text in faulty.message.fault
    assert (faulty.message.payload, faulty.packet_id, faulty.message.qos) == (payload, 9, 1)
    assert faulty.message.topic.isprintable()
    assert faulty.message.user_properties == ()
    assert before.message.fault is after.message.fault is None


def test_control_characters_in_properties_cost_the_property_and_not_the_message() -> None:
    (delivery,) = fed(decoder(), v5_packet(b"a", b"\x26\x00\x01\x00\x00\x01\x01"))
    assert delivery.message.user_properties == (("\0", "\1"),)
    assert delivery.message.fault is None


def test_no_alias_outlives_a_packet_that_may_have_changed_it() -> None:
    made = decoder(alias_maximum=1)
    aliased = v5.encode_publish(Publish("t/1", b"", 0), topic_alias=1)
    assert [d.message.topic for d in fed(made, aliased, b"\x30\x06\x00\x00\x03\x23\x00\x01")] == ["t/1", "t/1"]
    fed(made, FAULTS["unknown property"][0])
    with pytest.raises(PacketError, match="topic alias 1 was never given a topic"):
        fed(made, b"\x30\x06\x00\x00\x03\x23\x00\x01")


def test_what_came_before_a_broken_packet_is_given_first() -> None:
    made = decoder()
    packets = made.feed(v5.encode_publish(Publish("t", b"", 1), 3) + b"\xd0\x00" + b"\x00\x00")
    assert [type(next(packets)), type(next(packets))] == [Publishes, PingrespPacket]
    with pytest.raises(PacketError):
        next(packets)


def test_what_cannot_be_encoded_is_refused() -> None:
    for wrong in (
        Publish("a" * 65_536, b""),
        Publish("a\0", b""),
        Publish("a", b"", 1),
        Publish("a", b"", expiry=1 << 32),
    ):
        with pytest.raises(ValueError, match=r"."):
            v5.encode_publish(wrong)
    with pytest.raises(ValueError, match="AUTH"):
        v311.encode(AuthPacket())
    with pytest.raises(ValueError, match="variable byte integer"):
        variable(1 << 28)


def test_messages_of_one_topic_share_its_name() -> None:
    one, other = fed(decoder(), v5.encode_publish(Publish("a/b", b""), 0) * 2)
    assert one.message.topic is other.message.topic


def test_topics_that_were_used_lately_stay_when_others_go() -> None:
    topics = Topics()
    kept = topics[b"0"]
    for number in range(3 * LIMIT):
        assert topics[b"%d" % number] == str(number)
        assert topics[b"0"] is kept
    assert len(topics) <= LIMIT
    long = b"t" * 257
    assert topics[long] == "t" * 257
    assert long not in topics


def test_packet_size() -> None:
    assert packet_size(b"\x30") == 0
    assert packet_size(b"\x30\xff") == 0
    assert packet_size(b"\xd0\x00") == 2
    assert packet_size(b"\x30\x7f") == 129
    assert packet_size(b"xx\x30\x80\x01", 2) == 131
    assert packet_size(b"\x30\xff\xff\xff\x7f") == 268_435_460
    with pytest.raises(PacketError, match="remaining length of more than four bytes"):
        packet_size(b"\x30\xff\xff\xff\xff\x01")


@given(st.binary(min_size=0, max_size=500), st.lists(st.integers(1, 50), min_size=1))
def test_a_packet_in_any_pieces_comes_out_whole(payload: bytes, cuts: list[int]) -> None:
    size = len(payload)
    packet = b"\x30" + (bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])) + payload
    rest, position, index, whole = Remainder(1000), 0, 0, None
    while whole is None:
        piece = packet[position : position + cuts[index % len(cuts)]]
        assert piece
        if len(rest):
            whole = rest.add(piece)
        elif packet_size(piece) == len(piece):
            whole = piece
        else:
            rest.keep(piece)
        position += len(piece)
        index += 1
    assert whole == packet
    assert len(rest) == 0


alike = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "xy"]), min_size=3, max_size=3),
        st.sampled_from([b"1", b"2", b"34"]),
        st.none() | st.integers(0, 3),
        st.sampled_from(["p", "q", "rs"]),
        st.booleans(),
    ),
    min_size=2,
    max_size=40,
)


@given(alike)
def test_properties_that_look_alike_are_told_apart(drawn: list[Any]) -> None:
    """Same lengths, other values, other names, other order: each message comes out as it went in."""
    made = decoder()
    for values, correlation, expiry, name, swap in drawn:
        user = [("k1", values[0]), (name, values[1]), ("k2", values[2])]
        message = Publish(
            "t", b"", 0, user_properties=tuple(reversed(user)) if swap else tuple(user), correlation_data=correlation,
            expiry=expiry, content_type="text",
        )  # fmt: skip
        (delivery,) = fed(made, v5.encode_publish(message))
        message.received_ns = 7
        assert shown(delivery)[0] == shown(MqttDelivery(message, delivery.source, 0, 0))[0]


def test_a_value_that_is_not_utf8_is_found_among_those_that_look_alike() -> None:
    made = decoder()
    for value in (b"a", b"b", b"c"):
        fed(made, v5_packet(b"t", b"\x26\x00\x01k\x00\x01" + value))
    (delivery,) = fed(made, v5_packet(b"t", b"\x26\x00\x01k\x00\x01\xff"))
    assert delivery.message.fault is not None


def test_forms_of_properties_are_remembered_within_bounds() -> None:
    layouts = Layouts()
    for number in range(3000):
        for value in (b"a", b"b"):
            pair = b"\x26\x00\x01k" + (number % 1100).to_bytes(2, "big") + value * (number % 1100)
            layouts.decode(pair, 0, len(pair))
    assert len(layouts._known) <= 512
    for number in range(100):  # two forms of one length, in turn
        pair = b"\x26\x00\x01k\x00\x02xy" if number % 2 else b"\x26\x00\x02ky\x00\x01x"
        assert layouts.decode(pair, 0, len(pair))[0][0][0] == ("k" if number % 2 else "ky")
    assert len(pair) not in layouts._known
