"""RocketMQ to MQTT, property by property: the inverse of the way up."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanbridge.core import mapping, mapping_down
from spanbridge.core.downlinks import Away, Downlink
from spanbridge.core.mapping import Unroutable
from spanbridge.core.message import Destination, Message, Publish
from spanbridge.core.template import DOWN, Template

from .test_mapping import PUBLISHES, SHORT, carried, is_subsequence, size

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault."""


def downlink(publish: str = "{property.mqtt.topic}", **settings: Any) -> Downlink:
    fields = {"name": "d", "topic": "t", "group": "g", "broker": "b"} | settings
    return Downlink(publish=Template.parse(publish, DOWN), **fields)


def message(body: bytes = b"x", properties: Mapping[str, str] | None = None, **fields: Any) -> Message:
    return Message("t", body, properties=properties or {}, **fields)


def down(found: Message) -> tuple[Publish, int]:
    """A message as it comes down, without its topic, and how many of its properties MQTT cannot carry."""
    made = downlink()
    user, fields, dropped, _ = mapping_down.properties(found.properties)
    qos, retain = mapping_down.flags(made, found)
    publish = mapping_down.publish("t", mapping_down.payload(found), qos, retain, user, fields)
    expires = mapping_down.expires_ns(made, found)
    publish.expiry = None if expires is None else (expires - found.born_ns) // 1_000_000_000
    return publish, dropped


def up(sent: Publish) -> tuple[Message, int]:
    """A message as it goes up."""
    fixed, cut = mapping.fixed_properties(sent.topic, sent.qos, "gw", retain=sent.retain)
    room = mapping.room(Destination("t", properties=tuple(fixed)))
    items, dropped = mapping.properties(sent, sent.payload, sent.user_properties, (), room)
    stored = dict(sorted([*fixed, *items], reverse=True))  # RocketMQ keeps no order
    return message(sent.payload or mapping.EMPTY_BODY, stored, born_ns=5), dropped + cut


FIXED = {"mqtt.topic", "mqtt.qos", "mqtt.retain", "mqtt.empty", "spanbridge.path"}


def crosses(item: tuple[str, str]) -> bool:
    """Whether MQTT brokers take a property: unlike RocketMQ, they refuse non-characters as well."""
    return all(map(mapping_down.is_text, item))


@PATIENT
@given(PUBLISHES)
@example(Publish("t", b"", user_properties=[("\ufdd0", "x"), ("a", "\U0001ffff"), ("b", "y")], content_type="\uffff"))
def test_what_goes_up_comes_down_again(sent: Publish) -> None:
    """Each field, and all user properties of one name in their order."""
    found, _ = up(sent)
    got, lost = down(found)
    assert lost == sum(not crosses(item) for item in found.properties.items() if item[0] not in FIXED)
    assert (got.qos, got.retain, got.payload) == (sent.qos, sent.retain, sent.payload)
    assert (got.expiry, got.payload_format) == (sent.expiry, sent.payload_format)
    assert found.properties.get("mqtt.topic") == (sent.topic if carried(sent.topic) else None)
    for field in ("content_type", "response_topic", "correlation_data"):
        value = getattr(sent, field)
        both = carried(value) and (isinstance(value, bytes) or mapping_down.is_text(value))
        assert getattr(got, field) == (value if both else None), field
    for name in {name for name, _ in sent.user_properties} - {mapping.PATH}:
        values = [value for other, value in sent.user_properties if other == name]
        back = [value for other, value in got.user_properties if other == name]
        assert is_subsequence(back, values), name
    assert {name for name, _ in got.user_properties} <= {name for name, _ in sent.user_properties}
    if len(sent.user_properties) <= 24 and size(sent.user_properties) < 8000:  # there is room for all
        kept = [item for item in sent.user_properties if carried(item[1]) and (not item[0] or carried(item[0]))]
        kept = [item for item in kept if crosses(item)]
        assert sorted(got.user_properties) == sorted(kept)


NAMES = st.one_of(
    st.sampled_from(["mqtt.user.a", "mqtt.user[2].a", "mqtt.user[3].a", "mqtt.user.b", "mqtt.content-type"]),
    st.sampled_from(["mqtt.response-topic", "mqtt.correlation-data", "mqtt.expiry", "mqtt.payload-format"]),
    st.text("abc.-[]2", min_size=1, max_size=8),
)
STORED = st.dictionaries(NAMES, st.text("ab19=+/# \u00e4", min_size=1, max_size=8), max_size=12)


@PATIENT
@given(st.binary(min_size=1, max_size=4), STORED)
def test_what_comes_down_goes_up_again(body: bytes, stored: dict[str, str]) -> None:
    """Every value is there again; a producer's own properties are then user properties of MQTT's."""
    first, lost = down(message(body, stored, born_ns=5))
    again, dropped = up(first)
    assert (lost, dropped) == (0, 0)
    assert again.body == body
    second, _ = down(again)
    for field in ("payload", "content_type", "response_topic", "correlation_data", "expiry", "payload_format"):
        assert getattr(second, field) == getattr(first, field), field
    assert sorted(second.user_properties) == sorted(first.user_properties)
    given_values = sorted(value for name, value in stored.items() if name not in FIELDS)
    assert [value for value in given_values if value not in [v for _, v in second.user_properties]] == []


FIELDS = {"mqtt.content-type", "mqtt.response-topic", "mqtt.correlation-data", "mqtt.expiry", "mqtt.payload-format"}


def test_every_property_has_its_field() -> None:
    found = message(
        b"\0",
        {
            "mqtt.topic": "a/b",
            "mqtt.qos": "2",
            "mqtt.retain": "true",
            "mqtt.source": "north",
            "mqtt.empty": "true",
            "mqtt.expiry": "60",
            "mqtt.payload-format": "1",
            "mqtt.correlation-data": base64.b64encode(b"\x00\xff").decode(),
            "mqtt.content-type": "application/json",
            "mqtt.response-topic": "reply/here",
            "mqtt.user[2].site": "k\u00f6ln",
            "mqtt.user.site": "ulm",
            "order": "7",
            "spanbridge.path": "gw",
            "traceparent": "x",
            "tracestate": "x",
            "baggage": "x",
            "tp": "x",
            "TRACE_CONTEXT": "x",
        },
        born_ns=7,
    )
    got, dropped = down(found)
    assert dropped == 0
    assert (got.payload, got.qos, got.retain, got.expiry, got.payload_format) == (b"", 2, True, 60, 1)
    assert (got.correlation_data, got.content_type) == (b"\x00\xff", "application/json")
    assert got.response_topic == "reply/here"
    assert got.user_properties == [("site", "ulm"), ("site", "k\u00f6ln"), ("order", "7")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mqtt.correlation-data", "not base64!"),
        ("mqtt.correlation-data", "YQ"),
        ("mqtt.correlation-data", "\u00e4"),
        ("mqtt.expiry", "-1"),
        ("mqtt.expiry", "4294967296"),
        ("mqtt.expiry", "\u0661"),
        ("mqtt.payload-format", "2"),
        ("mqtt.response-topic", "a/+"),
        ("mqtt.response-topic", ""),
    ],
)
def test_what_cannot_be_read_as_a_field_stays_a_user_property(name: str, value: str) -> None:
    got, dropped = down(message(properties={name: value}))
    assert (got.user_properties, dropped) == ([(name, value)], 0)
    assert (got.correlation_data, got.expiry, got.payload_format, got.response_topic) == (None,) * 4


@pytest.mark.parametrize("text", ["a\x00", "a\x1f", "\x7f", "\x9f", "\ud800", "\ufdd0", "\uffff", "\U0010fffe"])
def test_characters_that_brokers_end_the_connection_over_are_left_out(text: str) -> None:
    found = {text: "x", "mqtt.user.a": text, "b": text, "mqtt.content-type": text, "c": "\u2028 fine"}
    got, dropped = down(message(properties=found))
    assert (got.user_properties, dropped) == ([("c", "\u2028 fine")], 4)
    assert got.content_type is None


def test_a_zero_byte_that_is_no_empty_payload_stays() -> None:
    assert mapping_down.payload(message(b"\0")) == b"\0"
    assert mapping_down.payload(message(b"\0", {"mqtt.empty": "true"})) == b""
    assert mapping_down.payload(message(b"full", {"mqtt.empty": "true"})) == b"full"


@pytest.mark.parametrize(
    ("publish", "fields", "expected"),
    [
        ("devices/{key}/cmd", {"keys": ("d1", "d2")}, "devices/d1/cmd"),
        ("{property.mqtt.topic}", {"properties": {"mqtt.topic": "a/b"}}, "a/b"),
        ("{tag|all}/{message_group|none}", {}, "all/none"),
        ("$x/{tag}", {"tag": "\u00e4" * 30_000}, "$x/" + "\u00e4" * 30_000),
    ],
)
def test_the_topic_is_the_templates(publish: str, fields: dict[str, Any], expected: str) -> None:
    assert mapping_down.topic(downlink(publish), message(**fields)) == expected


@pytest.mark.parametrize(
    ("publish", "fields", "reason"),
    [
        ("{key}", {}, "no_topic"),
        ("devices/{key}/cmd", {}, "no_topic"),
        ("devices/{key}", {"keys": ("a/+",)}, "bad_topic"),
        ("devices/{key}", {"keys": ("#",)}, "bad_topic"),
        ("devices/{property.a}", {"properties": {"a": "\0"}}, "bad_topic"),
        ("devices/{property.a}", {"properties": {"a": "a\nb"}}, "bad_topic"),
        ("devices/{tag}", {"tag": "x" * 65_536}, "bad_topic"),
        ("devices/{tag}", {"tag": "\u20ac" * 22_000}, "bad_topic"),
    ],
)
def test_what_is_no_topic_is_refused_with_its_template(publish: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unroutable) as refused:
        mapping_down.topic(downlink(publish), message(**fields))
    assert refused.value.reason == reason
    assert repr(publish) in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "properties", "expected"),
    [
        ({}, {}, (1, False)),
        ({"qos": 2, "retain": True}, {}, (2, True)),
        ({"qos": 2, "retain": True}, {"mqtt.qos": "0", "mqtt.retain": "false"}, (0, False)),
        ({}, {"mqtt.qos": "3", "mqtt.retain": "yes"}, (1, False)),
        ({"away": Away.RETAIN}, {"mqtt.retain": "false"}, (1, True)),
    ],
)
def test_the_message_decides_about_its_flags_before_the_downlink(
    settings: dict[str, Any], properties: dict[str, str], expected: tuple[int, bool]
) -> None:
    assert mapping_down.flags(downlink(**settings), message(properties=properties)) == expected


S = 1_000_000_000


@pytest.mark.parametrize(
    ("expiry", "fields", "expected"),
    [
        (None, {"born_ns": S}, None),
        (60, {"born_ns": S}, 61 * S),
        (60, {"born_ns": S, "properties": {"mqtt.expiry": "5"}}, 6 * S),
        (60, {"born_ns": S, "properties": {"mqtt.expiry": "0"}}, S),
        (None, {"stored_ns": 2 * S, "received_ns": 9 * S, "properties": {"mqtt.expiry": "5"}}, 7 * S),
        (None, {"received_ns": 9 * S, "properties": {"mqtt.expiry": "5"}}, 14 * S),
        (None, {"born_ns": S, "delivery_timestamp_ms": 100_000, "properties": {"mqtt.expiry": "5"}}, 105 * S),
        (7, {"born_ns": S, "properties": {"mqtt.expiry": "soon"}}, 8 * S),
    ],
)
def test_an_expiry_counts_from_when_the_message_was_made_or_was_due(
    expiry: int | None, fields: dict[str, Any], expected: int | None
) -> None:
    assert mapping_down.expires_ns(downlink(expiry=expiry), message(**fields)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [(None, "gw"), ("other", "other,gw"), ("gw", "gw"), ("gw,other", "gw,other"), ("x\x01", "gw"), ("x" * 2049, "gw")],
)
def test_the_path_names_this_gateway_once(path: str | None, expected: str) -> None:
    assert mapping_down.passed({} if path is None else {"spanbridge.path": path}, "gw") == expected


def test_what_came_down_is_refused_on_its_way_up_through_the_same_gateway_alone() -> None:
    """RocketMQ to MQTT and back is a loop; MQTT to RocketMQ to another MQTT broker is what a gateway is for."""
    up_once = mapping.passed_gateways([], "gw")
    down_once = mapping_down.passed({mapping.PATH: up_once}, "gw")
    for path in (mapping_down.passed({}, "gw"), down_once):
        with pytest.raises(Unroutable) as loop:
            mapping.passed_gateways([(mapping.PATH, path)], "gw")
        assert loop.value.reason == "loop"
        assert mapping.passed_gateways([(mapping.PATH, path)], "next") == f"{path},next"


@PATIENT
@given(st.dictionaries(SHORT, st.one_of(SHORT, st.text(max_size=40)), max_size=30))
def test_no_properties_make_a_packet_that_a_broker_refuses(found: dict[str, str]) -> None:
    got, _ = down(message(properties=found))
    texts: Sequence[str | None] = [t for item in got.user_properties for t in item]
    for text in [*texts, got.content_type, got.response_topic]:
        assert text is None or not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]", text)
