"""From `[lag]` and the command line to what is watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanbridge.app import lag
from spanbridge.app.lag import LagQuery, lag_options, lag_query
from spanbridge.config import Config, examine_text
from spanbridge.lag import WatchedGroup

BASE = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
[rocketmq]
endpoints = "127.0.0.1:8081"
access_key = "gateway"
secret_key = "hunter2"
[[routes]]
filter = "devices/{device}/telemetry"
topic = "telemetry"
[[routes]]
filter = "devices/{device}/{kind}"
topic = "{kind}"
"""
LAG = 'name_servers = "a:9876; b:9876"\n'


def config(text: str = "") -> Config:
    report = examine_text(BASE + text, {}, base=Path())
    assert report.config is not None, report.errors
    return report.config


def test_without_groups_those_of_the_routes_topics_are_looked_up() -> None:
    options = lag_options(config(f"[lag]\n{LAG}"))
    assert (options.groups, options.topics) == ((), ("telemetry",))


def test_groups_have_their_topics_or_those_of_the_routes() -> None:
    text = (
        f'[lag]\n{LAG}[[lag.groups]]\nname = "a"\n[[lag.groups]]\nname = "b"\ntopics = ["u"]\nprotocol = "remoting"\n'
    )
    options = lag_options(config(text))
    assert options.groups == (WatchedGroup("a", ("telemetry",)), WatchedGroup("b", ("u",), pops=False))
    assert options.topics == ()


def test_the_gateways_own_groups_are_always_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    own = (WatchedGroup("down", ("commands",), ordered=True), WatchedGroup("a", ("replies",)))
    monkeypatch.setattr(lag, "own_groups", lambda _: own)
    found = lag_options(config(f"[lag]\n{LAG}"))
    assert (found.groups, found.topics) == (own, ("telemetry",))
    both = lag_options(config(f'[lag]\n{LAG}[[lag.groups]]\nname = "a"\n'))
    assert both.groups == (WatchedGroup("a", ("telemetry", "replies")), own[0])


def query(*arguments: object) -> LagQuery:
    found = lag_query(*arguments)  # type: ignore[arg-type]
    assert isinstance(found, LagQuery)
    return found


def test_name_servers_and_keys_come_from_the_file() -> None:
    found = query(config(f"[lag]\n{LAG}timeout = 1\n"), None, [], []).offsets
    assert (found.name_servers, found.access_key, found.secret_key, found.timeout) == (
        ("a:9876", "b:9876"),
        "gateway",
        "hunter2",
        1.0,
    )
    assert "hunter2" not in repr(found)


def test_arguments_go_over_the_file() -> None:
    known = config(f'[lag]\n{LAG}[[lag.groups]]\nname = "a"\nordered = true\n')
    assert query(known, "c:9876", [], []).offsets.name_servers == ("c:9876",)
    assert query(known, None, ["a"], ["x"]).options.groups == (WatchedGroup("a", ("x",), ordered=True),)
    assert query(known, None, ["new"], []).options.groups == (WatchedGroup("new", ("telemetry",)),)
    by_topic = query(known, None, [], ["x"]).options
    assert (by_topic.groups, by_topic.topics) == ((), ("x",))
    without = query(None, "c:9876", ["g"], ["x"])
    assert without.options.groups == (WatchedGroup("g", ("x",)),)
    assert without.offsets.access_key is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name_servers = "a"', "is not `host:port`"),
        ('name_servers = ""', "names no name server"),
        (f'{LAG}[[lag.groups]]\nname = "a"\n[[lag.groups]]\nname = "a"', "is given twice"),
        (f'{LAG}[[lag.groups]]\nname = "a b"', "lag.groups[0].name"),
        (f"{LAG}period = 0", "lag.period"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    report = examine_text(f"{BASE}[lag]\n{text}\n", {}, base=Path())
    assert any(problem in error.located("f") for error in report.errors), report.errors
