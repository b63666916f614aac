"""Checks across sections, and warnings."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from spanbridge.config import Problem, Report, examine_text
from spanbridge.config.filters import more_specific, overlap
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
        levels: {topic for topic in TOPICS if RouteTable([core_route(levels)]).match(topic)} for levels in FILTERS
    }
    for first, second in product(FILTERS, FILTERS):
        if first == second:
            continue
        common = matched[first] & matched[second]
        assert overlap(first, second) == bool(common), (first, second)
        if common:
            match = RouteTable([core_route(first), core_route(second)]).match(next(iter(common)))
            assert match is not None
            assert (match.route.filter.levels == first) == more_specific(first, second), (first, second)


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


@pytest.mark.parametrize(
    ("mqtt", "rest", "path"),
    [
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
    ],
)
def test_warnings(mqtt: str, rest: str, path: str) -> None:
    report = read(ONE % (mqtt, rest))
    assert report.config is not None
    assert [problem.path for problem in report.warnings] == [path]


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
