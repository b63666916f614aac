"""What is kept of topics and user properties, which devices choose."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.core.message import Publish
from spanbridge.core.partition import BatchLimits
from spanbridge.core.routes import Route
from spanbridge.core.template import Template
from spanbridge.telemetry import Peer, Tracer
from spanbridge.uplink import recipe
from spanbridge.uplink.recipe import Ends, Partitions, Recipe, Recipes, Refused, with_catch_all
from spanbridge.uplink.tally import Tallies

from .fakes import FakeSink, route


class NoSpans:
    def add(self, pieces: object, each: int = 1) -> None:
        """Forget them."""


class Made:
    """The recipes of one source, and what they are made with."""

    def __init__(self, *routes: Route, told: bool = False) -> None:
        self.sink = FakeSink()
        self.partitions = Partitions(BatchLimits())
        self.recipes = Recipes(
            routes or [route("#")],
            self.sink,
            Tracer(NoSpans(), sampler=ALWAYS_ON),
            partitions=self.partitions,
            tallies=Tallies(None),  # type: ignore[arg-type]
            ends=Ends(gateway="gw", source="north", broker=Peer(client_id="edge"), cluster=Peer(), told=told),
        )

    def find(self, topic: str, user: Sequence[tuple[str, str]] = (), **fields: Any) -> Recipe:
        return self.recipes.find(Publish(topic, b"x", **({"qos": 1} | fields)), topic, user)

    def fixed(self, topic: str, user: Sequence[tuple[str, str]] = (), **fields: Any) -> dict[str, str]:
        self.find(topic, user, **fields)
        return dict(self.sink.heads[-1].properties)


def test_long_topics_do_not_grow_the_process() -> None:
    """A device may make up thousands of 64 KiB, each level of which is a string: a megabyte each."""
    made = Made(route("#", topic="t-{user.site|none}"), route("plain/#"))
    for first in ("", "plain/"):
        made.find(f"{first}warm/up").spans.begin(None, 0, 1)
        made.sink.heads.clear()
        tracemalloc.start()
        try:
            for number in range(50):
                made.find(f"{first}{number}/" + "abc/" * 4000, [("site", "x" * 9000)]).spans.begin(None, 0, 1)
                made.sink.heads.clear()
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert grown < 1 << 20


def test_a_recipe_is_made_once() -> None:
    made = Made()
    first = made.find("a/b")
    assert made.find("a/b") is first
    assert made.find("a/b", [("site", "ulm")]) is first, "no template reads it"
    assert made.find("a/c") is not first
    assert len(made.sink.heads) == 2


@pytest.mark.parametrize("topic", ["x" * 257, "x" * 256])
def test_the_longest_topic_whose_recipe_is_kept(topic: str) -> None:
    made = Made()
    assert (made.find(topic) is made.find(topic)) == (len(topic) == recipe.LONGEST_CACHED)


def test_flags_of_the_message_are_part_of_its_recipe() -> None:
    made = Made()
    flags = [{"qos": qos, "retain": retain} for qos in range(3) for retain in (False, True)]
    recipes = [made.find("a", **one) for one in flags]
    assert len(set(recipes)) == 6
    assert [made.find("a", **one) for one in flags] == recipes
    told = [dict(head.properties) for head in made.sink.heads]
    assert [(one["mqtt.qos"], "mqtt.retain" in one) for one in told] == [
        (str(qos), retain) for qos in range(3) for retain in (False, True)
    ]


def test_the_number_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "CACHED", 10)
    made = Made(route("#"), route("read/#", topic="{user.site|none}"))
    for number in range(100):
        made.find(str(number))
        made.find("read/a", [("site", str(number))])
        made.find(f"read/{number}")
    assert len(made.recipes._recipes) <= 20
    assert len(made.recipes._reading) <= 20
    first = len(made.sink.heads)
    made.find("0")
    assert len(made.sink.heads) == first + 1, "it was forgotten, and is made again"


def test_partitions_go_with_the_recipes_that_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "CACHED", 10)
    made = Made(route("{name}", topic="{name}"))
    for number in range(100):
        made.find(f"t{number}")
    assert len(made.partitions.all()) <= 20


def test_recipes_share_the_partition_of_their_topic_and_key() -> None:
    made = Made(route("{name}/#", topic="{name}", message_group=Template.parse("{topic[1]|x}")))
    one, same, other_key, other_topic = (made.find(topic) for topic in ("a/x", "a/y", "a/xy", "b/x"))
    assert one.partition is same.partition
    assert len({one.partition, other_key.partition, other_topic.partition}) == 3
    assert (one.partition.topic, one.partition.key, other_key.partition.key) == ("a", 1, 2)


def test_values_that_templates_read_fix_the_recipe() -> None:
    templates = {"tag": Template.parse("{user.kind}"), "keys": (Template.parse("{user.id}"),)}
    made = Made(route("#", topic="t-{user.site|none}", **templates))
    full = [("site", "ulm"), ("kind", "k"), ("id", "1"), ("unread", "x")]
    first = made.find("a", full)
    assert made.find("a", [("unread", "y"), *full[:3]]) is first
    assert made.find("a", [*full, ("site", "bonn")]) is first, "the first of a name counts"
    others = [made.find("a", [(n, v) for n, v in full if n != name]) for name in ("site", "kind", "id")]
    swapped = made.find("a", [("site", "k"), ("kind", "ulm"), ("id", "1")])
    elsewhere = made.find("b", full)
    assert len({first, *others, swapped, elsewhere}) == 6
    assert [head.topic for head in made.sink.heads] == ["t-ulm", "t-none", "t-ulm", "t-ulm", "t-k", "t-ulm"]
    assert made.find("a").partition is made.find("a", [("site", "")]).partition


def test_values_that_are_long_are_worked_out_for_each_message() -> None:
    made = Made(route("#", topic="t-{user.site}"))
    long = [("site", "x" * 256)]
    assert made.find("a", long) is not made.find("a", long)
    assert made.find("a", long).partition is made.find("a", long).partition


def test_gateways_passed_are_part_of_the_recipe() -> None:
    made = Made()
    plain = made.find("a", [("site", "ulm")])
    assert made.fixed("a", [("spanbridge.path", "other")])["spanbridge.path"] == "other,gw"
    assert made.find("a", [("spanbridge.path", "other")]) is made.find("a", [("spanbridge.path", "other")])
    assert made.find("a") is plain
    assert made.find("a", [("spanbridge.path", "no\x01gateway")]) is plain
    with pytest.raises(Refused, match="passed this gateway already") as refused:
        made.find("a", [("spanbridge.path", "gw")])
    assert refused.value.reason == "loop"


def test_the_source_is_told_where_there_are_several() -> None:
    assert "mqtt.source" not in Made().fixed("a")
    assert Made(told=True).fixed("a")["mqtt.source"] == "north"


def test_templates_see_the_topic_the_gateway_and_the_source() -> None:
    made = Made(route("{kind}/{name}", topic="{source}-{client_id}-{kind}-{name}-{topic[1]}"))
    made.find("a/b")
    assert made.sink.heads[-1].topic == "north-edge-a-b-b"


@pytest.mark.parametrize(
    ("topic", "settings", "reason", "text"),
    [
        ("out", {"message_group": Template.parse("{user.g}")}, "no_message_group", "'{user.g}' is empty"),
        ("{user.none}", {}, "no_topic", "'{user.none}' is empty"),
        ("a b", {}, "illegal_topic", "has a space"),
    ],
)
def test_what_has_no_destination_is_refused_with_its_topic_and_counted_with_its_route(
    topic: str, settings: dict[str, Any], reason: str, text: str
) -> None:
    made = Made(route("#", topic=topic, **settings))
    with pytest.raises(Refused) as refused:
        made.find("a/b")
    assert (refused.value.reason, refused.value.trace) == (reason, None)
    assert str(refused.value).startswith("MQTT topic 'a/b': ")
    assert text in str(refused.value)
    assert refused.value.tally is not None
    assert (refused.value.tally.filter, refused.value.tally.received) == ("#", 1)


def test_a_topic_without_a_route_is_refused_without_a_tally() -> None:
    made = Made(route("a"))
    for user in ((), [("site", "ulm")], [("spanbridge.path", "other")]):
        with pytest.raises(Refused, match="no route takes topic 'b'") as refused:
            made.find("b", user)
        assert (refused.value.reason, refused.value.tally) == ("unroutable", None)


def test_what_needs_a_closer_look_is_marked() -> None:
    catching = with_catch_all([route("a", max_payload=10), route("b", topic="{source}"), route("c/{x}/#")], "other")
    made = Made(*catching)
    limited, by_config, plain, caught = (made.find(topic) for topic in ("a", "b", "c/d", "z"))
    assert [one.special for one in (limited, by_config, plain, caught)] == [True, False, False, True]
    cut = made.find("c/d\x01")
    assert (cut.cut, cut.special) == (1, True)
    assert cut.room > plain.room


def test_topics_that_devices_name_are_marked() -> None:
    """Those that the configuration alone fixes are waited for without end, also where they are templates."""
    made = Made(
        route("a", topic="plain"),
        route("b/{x}", topic="t-{x}"),
        route("c", topic="{user.x|t}"),
        route("d", topic="t-{source}"),
    )
    assert [made.find(topic).by_device for topic in ("a", "b/1", "c", "d")] == [False, True, True, False]
