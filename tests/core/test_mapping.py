"""MQTT to RocketMQ, property by property, and back."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spanbridge.core import mapping
from spanbridge.core import rocketmq_rules as rules
from spanbridge.core.message import Destination, Publish
from spanbridge.core.routes import Route, RouteTable, TopicFilter
from spanbridge.core.template import Scope, Template

USUAL = [("site", "plant-7"), ("line", "3"), ("unit", "\u00b0C")]


def destination(publish: Publish, /, *, keys: Sequence[str] = (), **templates: str) -> Destination:
    parsed: dict[str, Any] = {name: Template.parse(text) for name, text in ({"topic": "out"} | templates).items()}
    route = Route(
        name="r", filter=TopicFilter.parse("devices/{device}/#"), keys=tuple(map(Template.parse, keys)), **parsed
    )
    levels = publish.topic.split("/")
    assert RouteTable([route]).find(levels) is route
    named = {name: levels[index] for index, name in route.filter.names}
    fixed, dropped = mapping.fixed_properties(publish.topic, publish.qos, "gw", retain=publish.retain)
    assert not dropped
    return mapping.destination(route, Scope(levels, named, publish.user_properties, "edge"), fixed)


def properties(
    user: Sequence[tuple[str, str]],
    context: Sequence[tuple[str, str]] = (),
    room: int = mapping.MAX_PROPERTY_BYTES,
    publish: Publish | None = None,
) -> mapping.Properties:
    publish = publish or Publish("t", b"x")
    return mapping.properties(publish, publish.payload, user, context, room)


def size(items: Sequence[tuple[str, str]]) -> int:
    return sum(len(f"{name}{value}".encode()) for name, value in items)


def test_what_the_topic_fixes() -> None:
    at = [("at", "1795430589684")]
    publish = Publish("devices/d1/temp", b"21", qos=1, retain=True, user_properties=at)
    got = destination(publish, tag="{topic[2]}", message_group="{device}", delivery_timestamp="{user.at}")
    assert got == Destination(
        topic="out",
        tag="temp",
        group="d1",
        delivery_timestamp_ms=1795430589684,
        properties=(
            ("mqtt.topic", "devices/d1/temp"),
            ("mqtt.qos", "1"),
            ("spanbridge.path", "gw"),
            ("mqtt.retain", "true"),
        ),
    )


def test_no_destination_has_more_fixed_properties_than_are_kept_free_for_them() -> None:
    fixed, dropped = mapping.fixed_properties("a/b", 0, "gw", "north", retain=True)
    assert (len(fixed), dropped) == (mapping.FIXED_PROPERTIES, 0)
    assert dict(fixed)["mqtt.source"] == "north"
    assert mapping.fixed_properties("a/b", 0, "gw")[0] == [
        ("mqtt.topic", "a/b"),
        ("mqtt.qos", "0"),
        ("spanbridge.path", "gw"),
    ]


@pytest.mark.parametrize("topic", ["a\x01b", "a\tb", "a\x7f", "a\x85", "x" * 16_000, "\u00e4" * 8_000])
def test_a_topic_that_rocketmq_cannot_carry_is_left_out_and_counted(topic: str) -> None:
    fixed, dropped = mapping.fixed_properties(topic, 1, "gw", "north", retain=True)
    assert dropped == 1
    assert [name for name, _ in fixed] == ["mqtt.qos", "spanbridge.path", "mqtt.retain", "mqtt.source"]


@pytest.mark.parametrize(("letter", "width"), [("x", 1), ("\u00e4", 2)])
def test_a_topic_leaves_room_for_a_trace_context(letter: str, width: int) -> None:
    free = 16384 - 512 - len("mqtt.topic") - len("mqtt.qos1") - len("spanbridge.pathgw")
    longest = letter * (free // width)
    fixed, dropped = mapping.fixed_properties(longest, 1, "gw")
    assert (dropped, fixed[0]) == (0, ("mqtt.topic", longest))
    assert mapping.room(Destination("t", properties=tuple(fixed))) >= 512
    assert mapping.fixed_properties(longest + letter, 1, "gw")[1] == 1


@pytest.mark.parametrize(
    ("templates", "reason", "text"),
    [
        ({"topic": "{user.none}"}, "no_topic", "route 'r': topic '{user.none}' is empty for this message"),
        (
            {"message_group": "{user.none}"},
            "no_message_group",
            "route 'r': message_group '{user.none}' is empty",
        ),
        (
            {"delivery_timestamp": "{user.none}"},
            "no_delivery_timestamp",
            "route 'r': delivery_timestamp '{user.none}' is empty",
        ),
        ({"delivery_timestamp": "{user.at}"}, "bad_timestamp", "'soon' is not Unix time in milliseconds"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_a_route_asks_for_and_a_message_lacks_has_a_reason_and_names_the_template(
    templates: dict[str, str], reason: str, text: str
) -> None:
    publish = Publish("devices/d1", b"", user_properties=[("at", "soon")])
    with pytest.raises(mapping.Unroutable) as refused:
        destination(publish, **templates)
    assert refused.value.reason == reason
    assert text in str(refused.value)


def test_a_tag_that_comes_out_empty_is_none() -> None:
    assert destination(Publish("devices/d1", b""), tag="{user.none}").tag is None


def test_a_timestamp_is_a_plain_number() -> None:
    publish = Publish("devices/d1", b"", user_properties=[("at", "1795430589684")])
    assert destination(publish, delivery_timestamp="{user.at}").delivery_timestamp_ms == 1795430589684
    for text in ("-1", "1.5", "\u0661", "\u00b2"):  # the last two are digits to Python as well
        with pytest.raises(mapping.Unroutable, match="not Unix time"):
            destination(publish, delivery_timestamp=text)


@pytest.mark.parametrize("at", ["253402300800000", "9" * 30, "9" * 5000, "0" * 40, "-1", "1e3"])
def test_a_delivery_timestamp_that_no_message_can_carry_has_a_reason(at: str) -> None:
    """RocketMQ could not parse the request, nor say which message of it was meant: it would be sent for ever."""
    publish = Publish("devices/d1", b"", user_properties=[("at", at)])
    with pytest.raises(mapping.Unroutable) as refused:
        destination(publish, delivery_timestamp="{user.at}")
    assert refused.value.reason == "bad_timestamp"
    latest = Publish("devices/d1", b"", user_properties=[("at", "253402300799999")])
    assert destination(latest, delivery_timestamp="{user.at}").delivery_timestamp_ms == 253402300799999


def test_keys_that_come_out_empty_are_left_out() -> None:
    got = destination(Publish("devices/d 1", b""), keys=("{device}", "{user.none}", "a-{topic[0]}"))
    assert got.keys == ("d_1", "a-devices")


def test_what_devices_name_is_brought_into_rocketmqs_alphabet_and_literals_stay() -> None:
    publish = Publish("devices/p\u00e4\u00f6 d1/a|b", b"x")
    got = destination(publish, topic="t-{device}", tag="{topic[2]}", message_group="{device}")
    assert got.topic == "t-p___d1"
    assert got.tag == "a_b"
    assert got.group == "p\u00e4\u00f6 d1"
    assert destination(publish, topic="ns%plain").topic == "ns%plain"


def test_what_fills_the_room_exactly_is_carried() -> None:
    """The traceparent is written later by the sink: room for it is kept."""
    for value, length in (("x" * 9, 9), ("\u00e4" * 4 + "x", 9)):
        room = len("traceparent") + 55 + len("mqtt.user.a") + length
        for user in ([("a", value)], [(mapping.PATH, "gw"), ("a", value)]):
            assert properties(user, room=room) == ([("mqtt.user.a", value)], 0)
            assert properties(user, room=room - 1) == ([], 1)
    many = properties([(f"{n}", "x") for n in range(200)])
    assert (len(many.items), many.dropped) == (122, 78)


def test_what_stands_for_the_publish_itself_comes_before_user_properties() -> None:
    """Also where user properties are few and short: what stands for the publish is worth more."""
    room = len("traceparent") + 55 + len("tracestate") + 20 + len("mqtt.user.b") + 1
    for user in ([("a", "x" * 9), ("b", "1")], [("a", "x" * 9), ("b", "1"), (mapping.PATH, "gw")]):
        got = properties(user, [("tracestate", "s" * 20)], room)
        assert got == ([("tracestate", "s" * 20), ("mqtt.user.b", "1")], 1)


def test_all_properties_beyond_the_most_that_rocketmq_takes_are_counted() -> None:
    user = [(mapping.PATH, "gw"), *((str(number), "x") for number in range(1000))]
    got = properties(user, publish=Publish("t", b"x", content_type="text/plain"))
    assert len(got.items) + mapping.FIXED_PROPERTIES + 1 == mapping.MAX_PROPERTIES
    assert len(got.items) + got.dropped == 1001
    assert got.items[0] == ("mqtt.content-type", "text/plain")


def test_every_field_of_a_publish_has_its_property() -> None:
    publish = Publish(
        "t",
        b"",
        content_type="application/json",
        response_topic="reply/here",
        correlation_data=b"\x00\xff",
        expiry=60,
        payload_format=1,
    )
    user = [("site", "ulm"), ("site", "k\u00f6ln"), ("x", "y")]
    got = mapping.properties(publish, b"", user, [("tracestate", "a=b"), ("baggage", "c=d")])
    assert dict(got.items) == {
        "tracestate": "a=b",
        "baggage": "c=d",
        "mqtt.empty": "true",
        "mqtt.expiry": "60",
        "mqtt.payload-format": "1",
        "mqtt.correlation-data": base64.b64encode(b"\x00\xff").decode(),
        "mqtt.content-type": "application/json",
        "mqtt.response-topic": "reply/here",
        "mqtt.user.site": "ulm",
        "mqtt.user[2].site": "k\u00f6ln",
        "mqtt.user.x": "y",
    }
    assert got.dropped == 0


def test_fields_whose_value_is_0_are_there() -> None:
    got = properties((), publish=Publish("t", b"x", expiry=0, payload_format=0))
    assert got == ([("mqtt.expiry", "0"), ("mqtt.payload-format", "0")], 0)
    assert properties(()) == ([], 0)


def test_a_payload_that_is_empty_without_its_context_is_empty() -> None:
    assert mapping.properties(Publish("t", b"{}"), b"", (), ()).items == [("mqtt.empty", "true")]


@pytest.mark.parametrize(
    "fields",
    [{"content_type": ""}, {"response_topic": ""}, {"correlation_data": b""}, {"user_properties": [("x", "")]}],
    ids=str,
)
def test_what_has_no_value_gets_lost_in_rocketmq_so_it_is_dropped_and_counted(fields: dict[str, Any]) -> None:
    publish = Publish("t", b"x", **fields)
    assert properties(publish.user_properties, publish=publish) == ([], 1)
    assert properties([*publish.user_properties, *USUAL], publish=publish).dropped == 1


def test_what_rocketmq_cannot_carry_is_dropped_and_counted_alone() -> None:
    user = [("ok", "1"), ("bad\x01name", "2"), ("tab", "a\tb"), ("big", "x" * 20000), ("c1", "\x9f"), ("last", "3")]
    got = properties(user, [("baggage", "a=\x7f")])
    assert got == ([("mqtt.user.ok", "1"), ("mqtt.user.last", "3")], 5)


def test_nothing_in_a_context_or_a_publish_is_too_large_to_send_the_rest() -> None:
    """A tracestate of 32 members may have 16 415 bytes, correlation data 65 535: each over what RocketMQ takes."""
    context = [("tracestate", "x" * 16415), ("baggage", "a=b")]
    publish = Publish("t", b"", correlation_data=bytes(65535), content_type="text/plain")
    got = properties([("site", "ulm")], context, publish=publish)
    assert got.items == [
        ("mqtt.empty", "true"),
        ("baggage", "a=b"),
        ("mqtt.content-type", "text/plain"),
        ("mqtt.user.site", "ulm"),
    ]
    assert got.dropped == 2


def test_what_the_topic_fixes_leaves_less_room_for_the_rest() -> None:
    made = Destination("t", tag="t" * 100, keys=("k" * 1000, "\u00e4" * 50), properties=(("mqtt.topic", "x" * 1000),))
    room = mapping.room(made)
    assert room == 16384 - 100 - 1000 - 100 - 1010
    user = [("a", "x" * 8000), ("b", "y" * 8000), ("c", "z")]
    got = properties(user, room=room)
    assert [name for name, _ in got.items] == ["mqtt.user.a", "mqtt.user.c"]
    assert got.dropped == 1


def test_text_that_is_no_unicode_stops_no_message() -> None:
    for user in ([("a", "\udc80"), ("b", "x")], [("a", "\udc80" * 300), ("b", "x")], [("\ud800", "y"), ("b", "x")]):
        assert properties(user) == ([("mqtt.user.b", "x")], 1)
    assert mapping.fixed_properties("a/\udc80", 0, "gw")[1] == 1


TEXT = st.text(max_size=300)
SHORT = st.text("ab\u00e4\u20ac\x01\x9f\u2028 .[]2", max_size=6)
USER = st.one_of(
    st.lists(st.tuples(TEXT, TEXT), max_size=200),
    st.lists(st.tuples(SHORT, st.one_of(SHORT, TEXT)), max_size=24),
    st.lists(st.tuples(SHORT, SHORT), max_size=24, unique_by=lambda item: item[0]),
)
CONTEXT = st.lists(st.sampled_from(["tracestate", "baggage"]), unique=True).flatmap(
    lambda names: st.tuples(*(st.tuples(st.just(name), TEXT) for name in names))
)
PUBLISHES = st.builds(
    Publish,
    topic=st.text(min_size=1, max_size=300),
    payload=st.binary(max_size=3),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    user_properties=USER,
    content_type=st.none() | SHORT | TEXT,
    response_topic=st.none() | SHORT,
    correlation_data=st.none() | st.binary(max_size=40),
    expiry=st.none() | st.integers(0, 2**32 - 1),
    payload_format=st.none() | st.integers(0, 1),
)
ROOM = st.one_of(st.just(mapping.MAX_PROPERTY_BYTES), st.integers(150, 1500), st.integers(150, 16384))


@given(USER, CONTEXT, PUBLISHES, ROOM)
@example([(f"{n:0240}", "xxxxxx") for n in range(24)], [("tracestate", "s" * 10240)], Publish("t", b"x"), 16384)
@example([(f"{n:0200}", "x") for n in range(24)], [], Publish("t", b"x"), 5000)
def test_limits_hold_whatever_devices_send(
    user: list[tuple[str, str]], context: Sequence[tuple[str, str]], publish: Publish, room: int
) -> None:
    got = mapping.properties(publish, publish.payload, user, context, room)
    assert len(got.items) + 1 + mapping.FIXED_PROPERTIES <= mapping.MAX_PROPERTIES
    assert size(got.items) + len("traceparent") + 55 <= room
    assert len({name for name, _ in got.items}) == len(got.items)
    assert [rules.property_loss(name, value) for name, value in got.items] == [None] * len(got.items)
    said = (publish.content_type, publish.response_topic, publish.correlation_data)
    offered = len(user) + len(context) + sum(one is not None for one in said)
    always = (not publish.payload) + (publish.expiry is not None) + (publish.payload_format is not None)
    assert len(got.items) + got.dropped == offered + always - sum(name == mapping.PATH for name, _ in user)


@given(
    st.lists(st.tuples(SHORT, st.one_of(SHORT, TEXT)), max_size=24, unique_by=lambda item: item[0]),
    CONTEXT,
    PUBLISHES,
    ROOM,
)
@example([(f"{n:0240}", "xxxxxx") for n in range(24)], [("tracestate", "s" * 10240)], Publish("t", b"x"), 16384)
@example([(f"{n:0200}", "x") for n in range(24)], [], Publish("t", b"x"), 5000)
def test_few_short_user_properties_come_out_as_they_do_among_many(
    user: list[tuple[str, str]], context: Sequence[tuple[str, str]], publish: Publish, room: int
) -> None:
    """The gateways passed make the mapping look at each property; they are no user's and add none."""
    usual = mapping.properties(publish, publish.payload, user, context, room)
    again = mapping.properties(publish, publish.payload, user, context, room)
    closer = mapping.properties(publish, publish.payload, [*user, (mapping.PATH, "other")], context, room)
    assert usual == again == closer


def publish_again(body: bytes, items: Sequence[tuple[str, str]]) -> Publish:
    """What came down from RocketMQ as the PUBLISH it was: the inverse of the mapping."""
    found = dict(items)
    numbered: dict[str, dict[int, str]] = defaultdict(dict)
    for name, value in items:
        if one := re.fullmatch(r"mqtt\.user(?:\[(\d+)\])?\.(.*)", name, re.DOTALL):
            numbered[one[2]][int(one[1] or 1)] = value
    data, expiry, payload_format = (found.get(f"mqtt.{n}") for n in ("correlation-data", "expiry", "payload-format"))
    return Publish(
        topic=found.get("mqtt.topic", ""),
        payload=b"" if found.get("mqtt.empty") == "true" else body,
        qos=int(found["mqtt.qos"]),
        retain=found.get("mqtt.retain") == "true",
        user_properties=[(name, nth[n]) for name, nth in numbered.items() for n in sorted(nth)],
        content_type=found.get("mqtt.content-type"),
        response_topic=found.get("mqtt.response-topic"),
        correlation_data=None if data is None else base64.b64decode(data),
        expiry=None if expiry is None else int(expiry),
        payload_format=None if payload_format is None else int(payload_format),
    )


def carried(value: Any) -> bool:
    """Whether RocketMQ can carry a field's value: nothing empty, no control characters."""
    return bool(value) and (isinstance(value, bytes) or not re.search("[\0-\x1f\x7f-\x9f]", value))


@given(PUBLISHES)
def test_what_goes_up_can_come_down_again(sent: Publish) -> None:
    """Each field, and all user properties of one name in their order. RocketMQ keeps no order of names."""
    fixed, cut = mapping.fixed_properties(sent.topic, sent.qos, "gw", retain=sent.retain)
    room = mapping.room(Destination("t", properties=tuple(fixed)))
    items, dropped = mapping.properties(sent, sent.payload, sent.user_properties, (), room)
    stored = sorted([*fixed, *items], reverse=True)  # a map: as it comes
    got = publish_again(sent.payload or mapping.EMPTY_BODY, stored)

    assert (got.qos, got.retain, got.payload) == (sent.qos, sent.retain, sent.payload)
    assert (got.expiry, got.payload_format) == (sent.expiry, sent.payload_format)
    assert got.topic == (sent.topic if carried(sent.topic) else "")
    assert cut == (not carried(sent.topic))
    missing = 0
    for field in ("content_type", "response_topic", "correlation_data"):
        value = getattr(sent, field)
        assert getattr(got, field) == (value if carried(value) else None)
        missing += value is not None and not carried(value)
    for name in {name for name, _ in sent.user_properties} - {mapping.PATH}:
        values = [value for other, value in sent.user_properties if other == name]
        back = [value for other, value in got.user_properties if other == name]
        assert is_subsequence(back, values), name
        missing += len(values) - len(back)
    assert {name for name, _ in got.user_properties} <= {name for name, _ in sent.user_properties}
    assert dropped == missing
    if len(sent.user_properties) <= 24 and size(sent.user_properties) < 8000:  # there is room for all
        kept = [item for item in sent.user_properties if carried(item[1]) and (not item[0] or carried(item[0]))]
        assert sorted(got.user_properties) == sorted(kept)


def is_subsequence(few: Sequence[str], many: Sequence[str]) -> bool:
    rest = iter(many)
    return all(one in rest for one in few)


def test_a_gateway_recognises_its_own_messages() -> None:
    assert mapping.passed_gateways([("a", "b")], "me") == "me"
    assert mapping.passed_gateways([("spanbridge.path", "other")], "me") == "other,me"
    with pytest.raises(mapping.Unroutable) as loop:
        mapping.passed_gateways([("spanbridge.path", "other,me")], "me")
    assert loop.value.reason == "loop"
    assert mapping.passed_gateways([("spanbridge.path", "me2,notme")], "me") == "me2,notme,me"
    assert mapping.passed_gateways([("spanbridge.path", "x" * 2048)], "me") == "x" * 2048 + ",me"


@pytest.mark.parametrize("path", ["a\x01b", "x" * 2049])
def test_a_path_that_no_gateway_writes_stops_no_message(path: str) -> None:
    assert mapping.passed_gateways([("spanbridge.path", path)], "me") == "me"
    assert mapping.passed_before([("spanbridge.path", path)]) is None


def test_gateways_passed_are_no_user_property() -> None:
    user = [("spanbridge.path", "other"), ("a", "b"), ("spanbridge.path", "third")]
    assert properties(user) == ([("mqtt.user.a", "b")], 0)


def test_what_rocketmq_cannot_carry_is_written_as_an_escape() -> None:
    assert mapping.printable("plain \u00e4") == "plain \u00e4"
    assert mapping.printable("a\tb\x9f\udc80") == "a\\x09b\\x9f\\udc80"
