"""Filters and the route table, judged against MQTT's matching rules written the slow way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.routes import Route, RouteError, RouteTable, TopicFilter, minimal_filters
from spanbridge.core.template import Template


def route(text: str, name: str = "") -> Route:
    return Route(name=name or text, filter=TopicFilter.parse(text), topic=Template.parse("t"))


def matches(filter_: str, topic: str) -> bool:
    """MQTT 5.0 section 4.7, level by level."""
    pattern, levels = filter_.split("/"), topic.split("/")
    if levels[0].startswith("$") and pattern[0] in ("+", "#"):
        return False
    for index, level in enumerate(pattern):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(pattern) == len(levels)


LEVEL = st.sampled_from(["a", "b", "", "$SYS", "long level"])
TOPICS = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(st.one_of(LEVEL, st.just("+")), min_size=1, max_size=3),
    st.sampled_from([[], ["#"]]),
).filter(bool) | st.just("#")


@pytest.mark.parametrize(
    "text", ["", "a\0b", "a/b#", "#/a", "a+/b", "+a", "a/{x", "a/x}", "a/x{y}", "{a}/{a}", "{topic}/x", "x" * 65536]
)
def test_filters_that_mqtt_or_naming_forbids_are_refused(text: str) -> None:
    with pytest.raises(RouteError):
        TopicFilter.parse(text)


def find(table: RouteTable, topic: str) -> Route | None:
    return table.find(topic.split("/"))


def test_named_levels_become_single_level_wildcards() -> None:
    parsed = TopicFilter.parse("plant/{line}/+/{sensor}/#")
    assert parsed.mqtt == "plant/+/+/+/#"
    assert parsed.names == ((1, "line"), (3, "sensor"))
    assert find(RouteTable([route("plant/{line}/+/{sensor}/#")]), "plant/7/x/temp/raw/1") is not None


def test_the_most_specific_route_wins_wherever_it_stands() -> None:
    table = RouteTable([route("#"), route("a/#"), route("a/+/c"), route("a/b/+"), route("a/b/c"), route("+/b")])
    expected = {"a/b/c": "a/b/c", "a/b/d": "a/b/+", "a/x/c": "a/+/c", "a/x": "a/#", "a": "a/#", "z/b": "+/b", "z": "#"}
    for topic, winner in expected.items():
        found = find(table, topic)
        assert found is not None
        assert found.name == winner, topic


def test_wildcards_do_not_reach_system_topics() -> None:
    table = RouteTable([route("#"), route("+/broker")])
    assert find(table, "$SYS/broker") is None
    explicit = find(RouteTable([route("$SYS/#")]), "$SYS/broker/load")
    assert explicit is not None


def test_two_routes_of_one_shape_are_an_error() -> None:
    with pytest.raises(RouteError, match="same topics"):
        RouteTable([route("a/{x}"), route("a/+")])


@given(st.lists(FILTERS, min_size=1, max_size=5, unique=True), TOPICS)
def test_the_table_matches_exactly_what_mqtt_matches(filters: list[str], topic: str) -> None:
    found = find(RouteTable([route(text) for text in filters]), topic)
    candidates = {text for text in filters if matches(text, topic)}
    assert (found.name in candidates) if found else not candidates


@given(FILTERS, FILTERS, TOPICS)
def test_a_filter_that_covers_another_matches_all_it_matches(wide: str, narrow: str, topic: str) -> None:
    if TopicFilter.parse(wide).covers(TopicFilter.parse(narrow)) and matches(narrow, topic):
        assert matches(wide, topic)


@given(st.lists(FILTERS, max_size=6), TOPICS)
def test_minimal_filters_miss_no_topic(filters: list[str], topic: str) -> None:
    kept = minimal_filters([TopicFilter.parse(text) for text in filters])
    assert any(matches(text, topic) for text in filters) == any(matches(item.mqtt, topic) for item in kept)


def test_covered_filters_are_left_out() -> None:
    parsed = [TopicFilter.parse(text) for text in ("a/b", "a/+", "a/{x}", "c", "a/b/#")]
    assert [item.mqtt for item in minimal_filters(parsed)] == ["a/+", "c", "a/b/#"]
    system = [TopicFilter.parse(text) for text in ("#", "+/a", "$SYS/a", "$SYS/#")]
    assert [item.mqtt for item in minimal_filters(system)] == ["#", "$SYS/#"], "no wildcard reaches those"
