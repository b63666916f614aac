"""Checks across sections, and warnings."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from spanbridge.config import Problem, Report, examine_text
from spanbridge.config.overlap import more_specific, overlap
from spanbridge.core.routes import Route, RouteTable, TopicFilter
from spanbridge.core.template import Template

HEAD = """\
[[mqtt]]
name = "a"
url = "mqtt://127.0.0.1:1883"
[[mqtt]]
name = "b"
url = "mqtt://127.0.0.2:1883"
version = "3.1.1"
[rocketmq]
endpoints = "127.0.0.1:8081"
"""


def read(text: str) -> Report:
    return examine_text(text, {}, base=Path())


def routes(*items: str) -> str:
    return HEAD + "".join(f"[[routes]]\n{item}\n" for item in items)


def route(filter_: str, topic: str = "t", *more: str) -> str:
    return "\n".join([f'filter = "{filter_}"', f'topic = "{topic}"', *more])


def single(text: str, severity: str) -> Problem:
    found = [problem for problem in read(text).problems if problem.severity == severity]
    assert len(found) == 1, [problem.text() for problem in found]
    return found[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (route("x/{a}"), route("x/+")),
        (route("x/#"), route("x/#", "u", 'source = "a"')),
    ],
)
def test_two_routes_for_the_same_topics(first: str, second: str) -> None:
    problem = single(routes(first, second), "error")
    assert problem.path == "routes[1].filter"
    assert "exactly the same topics as routes[0]" in problem.message


def test_the_same_filter_on_two_brokers_is_fine() -> None:
    assert read(routes(route("x/#", "t", 'source = "a"'), route("x/#", "u", 'source = "b"'))).problems == []


def test_overlap_says_which_wins() -> None:
    problem = single(routes(route("x/#"), route("x/{a}", "u"), route("y/+", "v")), "warning")
    assert problem.path == "routes[0].filter"
    assert "overlaps routes[1]" in problem.message


def test_overlap_that_brings_copies_says_so() -> None:
    """Where one filter covers the others, it alone is subscribed to."""
    first, second = route("x/+/b"), route("x/y/#", "u")
    problem = single(routes(first, second), "warning")
    assert problem.hint is not None
    assert "each copy is forwarded" in problem.hint
    assert [found.hint for found in read(routes(first, second, route("x/#", "v"))).problems] == [None, None]


def test_many_overlaps_make_one_warning() -> None:
    text = routes(route("#"), *(route(f"x{index}/+", "u") for index in range(6)))
    assert "routes[1], routes[2], routes[3] and 3 more" in single(text, "warning").message


LEVELS = ("a", "b", "+", "#")
FILTERS = [
    combination for length in (1, 2, 3) for combination in product(LEVELS, repeat=length) if "#" not in combination[:-1]
]
TOPICS = ["/".join(levels) for length in (1, 2, 3, 4) for levels in product("abc", repeat=length)]


def core_route(levels: tuple[str, ...]) -> Route:
    text = "/".join(levels)
    return Route(name=text, filter=TopicFilter.parse(text), topic=Template.parse("t"))


def test_overlap_and_winner_agree_with_the_route_table() -> None:
    matched = {
        levels: {topic for topic in TOPICS if RouteTable([core_route(levels)]).find(topic.split("/"))}
        for levels in FILTERS
    }
    for first, second in product(FILTERS, FILTERS):
        if first == second:
            continue
        common = matched[first] & matched[second]
        assert overlap(first, second) == bool(common), (first, second)
        if common:
            match = RouteTable([core_route(first), core_route(second)]).find(next(iter(common)).split("/"))
            assert match is not None
            assert (match.filter.levels == first) == more_specific(first, second), (first, second)


def test_wildcards_do_not_overlap_dollar_topics() -> None:
    assert not overlap(("#",), ("$SYS", "x"))
    assert overlap(("$SYS", "#"), ("$SYS", "x"))


def test_topics_that_become_the_same() -> None:
    problem = single(routes(route("x/{a}", "p.{a}"), route("y/{a}", "p_{a}")), "error")
    assert problem.path == "routes[1].topic"
    assert "same RocketMQ topic as routes[0].topic" in problem.message


def test_several_routes_may_share_a_topic() -> None:
    assert (
        read(routes(route("x/{a}", "p-{a}"), route("y/{b}", "p-{b}"), route("z", "q"), route("w", "q"))).problems == []
    )


def test_names_are_unique() -> None:
    problem = single(routes(route("x", "t", 'name = "n"'), route("y", "t", 'name = "n"')), "error")
    assert problem.path == "routes[1].name"
    problem = single(HEAD.replace('name = "b"', 'name = "a"') + "[[routes]]\n" + route("x"), "error")
    assert problem.path == "mqtt[1].name"


def test_one_client_id_twice_at_one_broker() -> None:
    text = HEAD.replace("127.0.0.2", "127.0.0.1") + "[[routes]]\n" + route("x")
    assert single(text, "error").path == "mqtt[1].client_id"


def test_cross_checks_run_beside_other_errors() -> None:
    report = read(routes(route("x/{a}"), route("x/+"), route("{bad", "t")))
    assert {problem.path for problem in report.errors} == {"routes[1].filter", "routes[2].filter"}


ONE = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
%s
[rocketmq]
endpoints = "127.0.0.1:8081"
[[routes]]
filter = "devices/{device}"
topic = "telemetry"
%s
"""


WARNED = [
    ("session_expiry = 0", "", "mqtt.session_expiry"),
    ("clean_start = true", "", "mqtt.clean_start"),
    ("keep_alive = 0", "", "mqtt.keep_alive"),
    ('version = "3.1.1"\nsession_expiry = 7', "", "mqtt.session_expiry"),
    ('version = "3.1.1"\nreceive_maximum = 7', "", "mqtt.receive_maximum"),
    ('version = "3.1.1"\nshare = "g"', "", "mqtt.share"),
    ('share = "g"', 'message_group = "{device|none}"', "mqtt.share"),
    ("", "qos = 0", "routes[0].qos"),
    ("", 'context = "passthrough"\ntrust = false', "routes[0].context"),
    ('version = "3.1.1"', 'tag = "{user.kind}"', "routes[0].tag"),
    ('version = "3.1.1"', 'keys = ["{user.kind}"]', "routes[0].keys[0]"),
    ("", "[uplink]\nmax_in_flight = 5", "uplink.max_in_flight"),
    ("", '[admin]\nhost = "0.0.0.0"\nallow_remote = true', "admin.host"),
]


@pytest.mark.parametrize(("mqtt", "rest", "path"), WARNED)
def test_warnings(mqtt: str, rest: str, path: str) -> None:
    report = read(ONE % (mqtt, rest))
    assert report.config is not None
    assert [problem.path for problem in report.warnings] == [path]


@pytest.mark.parametrize(("mqtt", "rest", "path"), WARNED)
def test_warnings_are_told_beside_errors_in_the_same_section(mqtt: str, rest: str, path: str) -> None:
    report = read(ONE % (f"{mqtt}\nwrong = 1\n", f"{rest}\nwrong = 1"))
    assert len(report.errors) == 2
    assert [problem.path for problem in report.warnings] == [path]


@pytest.mark.parametrize(
    ("mqtt", "rest"),
    [
        ('version = "9"\nsession_expiry = 0', ""),
        ('version = "3.1.1"\nreceive_maximum = -1', ""),
        ("", 'qos = "none"\ncontext = "passthrough"\ntrust = "off?"'),
        ('version = "9"', 'tag = "{user.kind}"'),
        ("", "[uplink]\nmax_in_flight = 5\n[uplink.batch]\nmax_messages = 0"),
        ("", '[admin]\nhost = "0.0.0.0"\nallow_remote = true\ntoken = 5'),
    ],
)
def test_no_warning_rests_on_what_is_invalid(mqtt: str, rest: str) -> None:
    report = read(ONE % (mqtt, rest))
    assert report.errors
    assert report.warnings == []


def test_warnings_about_security_and_empty_topics() -> None:
    text = ONE % ('username = "u"\npassword = "hunter2"', "")
    problem = single(text.replace("127.0.0.1:1883", "broker:1883"), "warning")
    assert problem.path == "mqtt.url"
    assert "hunter2" not in problem.text()
    unverified = ONE % ("tls = { verify = false }", "")
    assert single(unverified.replace("mqtt://", "mqtts://"), "warning").path == "mqtt.tls.verify"
    assert single((ONE % ("", "")).replace('"telemetry"', '"{user.site}"'), "warning").path == "routes[0].topic"


def test_a_broker_without_routes() -> None:
    assert single(routes(route("x", "t", 'source = "a"')), "warning").path == "mqtt[1]"


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        ('message_group = "{device}"', "message_group", "whose level `device` is empty (`devices/`)"),
        ('message_group = "{topic[1]}"', "message_group", "whose level 1 is empty"),
        ('message_group = "{user.group}"', "message_group", "without the user property `group`"),
        ('message_group = "{user.group}{device}"', "message_group", "without the user property `group`"),
        ('delivery_timestamp = "{user.at}"', "delivery_timestamp", "without the user property `at`"),
    ],
)
def test_templates_that_a_device_can_empty(lines: str, path: str, message: str) -> None:
    problem = single(ONE % ("", lines), "warning")
    assert problem.path == f"routes[0].{path}"
    assert message in problem.message
    assert problem.hint is not None
    assert "give a default" in problem.hint
    field = lines.partition("{")[2].partition("}")[0]
    default = "0" if path == "delivery_timestamp" else "none"
    assert read(ONE % ("", lines.replace(field, f"{field}|{default}"))).problems == []


@pytest.mark.parametrize(
    ("filter_", "topic", "message"),
    [
        ("d/{device}/t", "{device}", "whose level `device` is empty (`d//t`)"),
        ("{site}/{device}", "{device}", "(`site/`)"),
        ("d/#", "{topic[1]}", "whose topic has no level 1"),
        ("d/#", "{topic[4]}", "whose topic has no level 4"),
        ("d/+", "{topic[1]}", "whose level 1 is empty"),
        ("d//+", "{topic[1]}", "whose level 1 is empty"),
    ],
)
def test_topics_that_a_device_can_empty(filter_: str, topic: str, message: str) -> None:
    text = (ONE % ("", "")).replace("devices/{device}", filter_).replace('"telemetry"', f'"{topic}"')
    problem = single(text, "warning")
    assert problem.path == "routes[0].topic"
    assert message in problem.message
    assert "unroutable" in problem.message


@pytest.mark.parametrize(
    "topic", ["t-{device}", "{topic}", "{topic[0]}", "{client_id}", "{source}", "{device}{source}"]
)
def test_topics_that_are_never_empty(topic: str) -> None:
    assert read((ONE % ("", "")).replace('"telemetry"', f'"{topic}"')).problems == []


def test_tags_and_keys_may_be_empty() -> None:
    assert read(ONE % ("", 'tag = "{user.kind}"\nkeys = ["{device}"]')).problems == []


def test_a_topic_has_one_type() -> None:
    ordered, delayed = 'message_group = "g"', 'delivery_timestamp = "{user.at|0}"'
    problem = single(routes(route("x", "t", ordered), route("y", "t", delayed, 'source = "a"')), "warning")
    assert problem.path == "routes[1].topic"
    assert "gets DELAY messages, and FIFO ones by routes[0].topic" in problem.message
    text = routes(route("x", "t", ordered)) + '[uplink]\nrejected_topic = "t"\n'
    assert single(text, "warning").path == "uplink.rejected_topic"
    assert read(routes(route("x", "t", ordered), route("y", "t", ordered))).problems == []


def test_the_port_of_a_name_server() -> None:
    problem = single((ONE % ("", "")).replace(":8081", ":8081;ns:9876"), "warning")
    assert problem.path == "rocketmq.endpoints"
    assert "name servers listen" in problem.message


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ('protocol = "remoting"', "rocketmq.endpoints"),
        ('stored_unsafely = "retry"', "rocketmq.stored_unsafely"),
        ('protocol = "remoting"\ntls = { verify = false }\nendpoints = "a:9876"', "rocketmq.tls.verify"),
        ("tls = { verify = false }", "rocketmq.tls.verify"),
    ],
)
def test_settings_of_the_other_protocol(setting: str, path: str) -> None:
    text = (ONE % ("", "")).replace('endpoints = "127.0.0.1:8081"', setting)
    if "endpoints" not in setting:
        text = (ONE % ("", "")).replace("[rocketmq]", f"[rocketmq]\n{setting}")
    assert single(text, "warning").path == path


def test_auto_takes_what_both_protocols_can() -> None:
    text = (ONE % ("", "")).replace("[rocketmq]", '[rocketmq]\nprotocol = "auto"')
    assert read(text).problems == []
    problem = single(text.replace("[rocketmq]", "[rocketmq]\nfollow_routes = false"), "error")
    assert problem.path == "rocketmq.follow_routes"


def test_a_topic_for_unroutable_messages_that_never_come() -> None:
    text = ONE % ("", '[uplink]\nunroutable_topic = "rest"')
    problem = single(text, "warning")
    assert problem.path == "uplink.unroutable_topic"
    assert problem.hint is not None
    assert 'subscribe = ["#"]' in problem.hint
    assert read(text.replace("[rocketmq]", 'subscribe = ["#"]\n[rocketmq]')).problems == []


@pytest.mark.parametrize(
    ("subscribe", "position", "message"),
    [
        ('"devices/one"', 0, "brings nothing"),
        ('"rest/#", "rest/+"', 1, "brings nothing"),
        ('"#", "$SYS/#"', 1, "that no route takes"),
        ('"+/one"', 0, "overlaps other subscriptions"),
    ],
)
def test_extra_subscriptions_that_are_seldom_meant(subscribe: str, position: int, message: str) -> None:
    text = ONE % (f"subscribe = [{subscribe}]", '[uplink]\nunroutable_topic = "rest"')
    problem = single(text, "warning")
    assert problem.path == f"mqtt.subscribe[{position}]"
    assert message in problem.message


def test_an_extra_subscription_of_which_everything_is_dropped() -> None:
    problem = single(ONE % ('subscribe = ["#"]', ""), "warning")
    assert problem.path == "mqtt.subscribe[0]"
    assert problem.hint == "set `uplink.unroutable_topic`"
    assert read(ONE % ('subscribe = ["#"]', '[uplink]\nrejected_topic = "r"')).problems == []


def test_a_broker_may_have_extra_subscriptions_alone() -> None:
    text = routes(route("x", "t", 'source = "a"')) + '[uplink]\nunroutable_topic = "rest"\n'
    assert read(text.replace('version = "3.1.1"', 'version = "3.1.1"\nsubscribe = ["#"]')).problems == []


def test_the_winner_of_an_overlap_is_one_or_several() -> None:
    assert "routes[1], which wins where" in single(routes(route("x/#"), route("x/y", "u")), "warning").message
    several = single(routes(route("x/#"), route("x/y", "u"), route("x/z", "v")), "warning")
    assert "routes[1], routes[2], which win where" in several.message


def test_an_extra_subscription_that_covers_both_brings_no_copies() -> None:
    text = routes(route("x/+/b"), route("x/y/#", "u")) + '[uplink]\nrejected_topic = "r"\n'
    for name in ("a", "b"):
        text = text.replace(f'name = "{name}"', f'name = "{name}"\nsubscribe = ["#"]')
    assert single(text, "warning").hint is None


def test_a_name_and_the_filter_of_another_route() -> None:
    problem = single(routes(route("x"), route("y", "u", 'name = "x"')), "error")
    assert problem.path == "routes[1].name"
    problem = single(routes(route("y", "u", 'name = "x"'), route("x")), "error")
    assert problem.path == "routes[1].filter"
