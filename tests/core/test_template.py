"""Templates: what they look up, what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.message import Message
from spanbridge.core.template import DOWN, MessageScope, Scope, Template, TemplateError

SCOPE = Scope(
    levels=("plant", "line-7", "temp"),
    named={"line": "line-7", "empty": ""},
    user=(("site", "ulm"), ("site", "second"), ("blank", "")),
    client_id="edge-1",
    source="plant",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("telemetry", "telemetry"),
        ("", ""),
        ("{line}", "line-7"),
        ("a-{line}-b", "a-line-7-b"),
        ("{topic}", "plant/line-7/temp"),
        ("{topic[0]}.{topic[2]}", "plant.temp"),
        ("{topic[3]}", ""),
        ("{topic[9]|none}", "none"),
        ("{client_id}", "edge-1"),
        ("{source}", "plant"),
        ("{user.site}", "ulm"),
        ("{user.blank|fallback}", "fallback"),
        ("{user.missing}", ""),
        ("{empty|x}", "x"),
        ("{{{line}}}", "{line-7}"),
        ("{{literal}}", "{literal}"),
        ("{user.site|a|b}", "ulm"),
        ("{user.none|a|b}", "a|b"),
    ],
)
def test_a_template_renders(text: str, expected: str) -> None:
    assert Template.parse(text).render(SCOPE) == expected


@pytest.mark.parametrize(
    ("text", "position"),
    [("{", 0), ("a}", 1), ("a{b", 1), ("{a b}", 0), ("x{topic[x]}", 1), ("{}", 0), ("{user.}", 0), ("{a{b}}", 0)],
)
def test_what_is_not_a_template_is_refused_with_its_place(text: str, position: int) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(text)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("text", "expected"),
    [("t", False), ("{client_id}-{source}", False), ("{line}", True), ("{source}-{topic}", True), ("{user.a|b}", True)],
)
def test_what_a_device_has_a_say_in(text: str, expected: bool) -> None:
    assert Template.parse(text).from_device is expected


def test_the_name_of_the_connection_is_empty_where_nobody_says() -> None:
    assert Template.parse("{source|none}").render(Scope(levels=("a",), named={})) == "none"


def test_only_user_properties_make_a_template_depend_on_the_message() -> None:
    assert Template.parse("{topic}{line}{client_id}").per_message is False
    assert Template.parse("{line}-{user.site}").per_message is True


@given(st.text())
def test_any_text_either_parses_or_raises_the_documented_error(text: str) -> None:
    position = 0
    try:
        rendered = Template.parse(text).render(SCOPE)
    except TemplateError as error:
        position = error.position
        rendered = "refused"
    assert isinstance(rendered, str)
    assert 0 <= position <= len(text)


@given(st.text().map(lambda text: text.replace("{", "{{").replace("}", "}}")))
def test_escaped_text_renders_as_itself(text: str) -> None:
    assert Template.parse(text).render(SCOPE) == text.replace("{{", "{").replace("}}", "}")


MESSAGE = Message(
    "commands",
    b"{}",
    tag="reboot",
    keys=("pump-7", "order-1"),
    group="pump-7",
    properties={"site": "ulm", "mqtt.topic": "a/b", "blank": ""},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("devices/{key}/commands", "devices/pump-7/commands"),
        ("{topic}/{tag}", "commands/reboot"),
        ("{keys}", "pump-7 order-1"),
        ("{message_group}", "pump-7"),
        ("{property.mqtt.topic}", "a/b"),
        ("{property.site}/{property.blank|all}/{property.missing|none}", "ulm/all/none"),
        ("{{{tag}}}", "{reboot}"),
    ],
)
def test_a_template_renders_a_rocketmq_message(text: str, expected: str) -> None:
    assert Template.parse(text, DOWN).render(MessageScope(MESSAGE)) == expected


@pytest.mark.parametrize("text", ["{tag|none}", "{key|none}", "{keys|none}", "{message_group|none}"])
def test_what_a_rocketmq_message_has_not_takes_the_default(text: str) -> None:
    assert Template.parse(text, DOWN).render(MessageScope(Message("t", b""))) == "none"


@pytest.mark.parametrize("text", ["{level}", "{topic[0]}", "{user.site}", "{client_id}", "{source}", "{property.}"])
def test_a_template_for_the_way_down_has_no_fields_of_the_way_up(text: str) -> None:
    with pytest.raises(TemplateError, match="is not a field"):
        Template.parse(text, DOWN)


def test_only_the_topic_is_the_same_for_all_messages_on_the_way_down() -> None:
    assert Template.parse("{topic}", DOWN).per_message is False
    assert Template.parse("{tag}", DOWN).per_message is True
    assert Template.parse("{property.a|b}", DOWN).per_message is True
