"""Recipes are kept by what their templates read."""

from __future__ import annotations

from typing import Any

import pytest

from spanbridge.core.message import Message
from spanbridge.downlink import DownlinkEnds
from spanbridge.downlink.recipe import LONGEST_KEY, DownlinkRecipe, DownlinkRecipes
from spanbridge.telemetry import Peer, Tracer

from .fakes import downlink


def recipes(publish: str, **settings: Any) -> DownlinkRecipes:
    ends = DownlinkEnds(gateway="gw", cluster=Peer(), broker=Peer())
    return DownlinkRecipes(downlink(publish, **settings), ends, Tracer(None))


def find(known: DownlinkRecipes, **fields: Any) -> DownlinkRecipe:
    return known.find(Message("commands", b"", **fields))


@pytest.mark.parametrize(
    ("publish", "one", "other", "topics"),
    [
        ("{key}", {"keys": ("a", "x")}, {"keys": ("b", "x")}, ("a", "b")),
        ("{keys}", {"keys": ("a", "x")}, {"keys": ("a", "y")}, ("a x", "a y")),
        ("{tag}", {"tag": "a"}, {"tag": "b"}, ("a", "b")),
        ("{message_group}", {"group": "a"}, {"group": "b"}, ("a", "b")),
        ("{property.a}", {"properties": {"a": "1"}}, {"properties": {"a": "2"}}, ("1", "2")),
        ("{topic}/{tag|none}", {"tag": "a"}, {}, ("commands/a", "commands/none")),
    ],
)
def test_messages_that_read_alike_share_a_recipe(
    publish: str, one: dict[str, Any], other: dict[str, Any], topics: tuple[str, str]
) -> None:
    known = recipes(publish)
    first, second = find(known, **one), find(known, **other)
    assert (first.topic, second.topic) == topics
    assert find(known, message_id="another", **one) is first


def test_flags_of_the_message_make_another_recipe() -> None:
    known = recipes("a")
    plain = find(known)
    other = find(known, properties={"mqtt.qos": "2", "mqtt.retain": "true"})
    assert (plain.qos, plain.retain, other.qos, other.retain) == (1, False, 2, True)
    assert find(known) is plain


def test_long_values_are_not_kept() -> None:
    known = recipes("{property.a}")
    long = {"properties": {"a": "x" * (LONGEST_KEY + 1)}}
    assert find(known, **long) is not find(known, **long)
    assert find(known, **long).topic == find(known, **long).topic
