"""What a configuration that was read again changes, and what takes a restart."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from spanbridge.app.changes import Changes, DownlinkChanges, compare, hold, loaded
from spanbridge.config import Config

BASE = """
name = "edge"
[[mqtt]]
name = "a"
url = "mqtt://a.example"
client_id = "edge-a"
[[mqtt]]
name = "b"
url = "mqtt://b.example"
[rocketmq]
endpoints = "cluster.example:8081"
[[routes]]
filter = "x/+"
topic = "x"
source = "a"
[[routes]]
filter = "y/+"
topic = "y"
"""


def read(text: str = BASE, **more: Any) -> Config:
    return Config.model_validate(tomllib.loads(text) | more)


def changes(new: Config, old: Config | None = None) -> tuple[Changes, tuple[str, ...]]:
    old = old or read()
    held, needed = hold(old, new)
    return compare(loaded(old), loaded(held)), needed


def replaced(*pairs: tuple[str, str]) -> Config:
    text = BASE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return read(text)


def test_the_same_configuration_changes_nothing() -> None:
    found, needed = changes(read())
    assert (found, needed) == (Changes(), ())
    assert found.words() == "nothing has changed"


def test_another_topic_of_a_route_leaves_every_connection_alone() -> None:
    assert changes(replaced(('topic = "x"', 'topic = "z"'))) == (Changes(routes=True), ())


def test_another_filter_changes_subscriptions_of_the_connections_that_it_applies_to() -> None:
    assert changes(replaced(("x/+", "z/+")))[0] == Changes(subscribed=("a",), routes=True)


@pytest.mark.parametrize(
    "line",
    ['username = "u"', "keep_alive = 7", "receive_maximum = 7", 'url = "mqtt://c.example"', "session_expiry = 7"],
)
def test_other_options_of_a_connection_renew_that_one(line: str) -> None:
    url = 'url = "mqtt://b.example"'
    found, needed = changes(replaced((url, line if line.startswith("url") else f"{url}\n{line}")))
    assert (found, needed) == (Changes(renewed=("b",)), ())


def test_pauses_between_attempts_renew_nothing() -> None:
    url = 'url = "mqtt://b.example"'
    assert changes(replaced((url, f"{url}\nbackoff_maximum = 7")))[0] == Changes(subscribed=("b",))


def test_other_endpoints_renew_the_connection_to_rocketmq_alone() -> None:
    assert changes(replaced(("cluster.example", "other.example"))) == (Changes(cluster=True), ())


def test_limits_are_taken_over() -> None:
    assert changes(read(uplink={"rejected_topic": "dead"})) == (Changes(uplink=True), ())
    assert changes(read(admin={"probe_interval": 5})) == (Changes(health=True), ())


def test_other_content_of_a_tls_file_renews_those_who_use_it(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("one")
    text = BASE.replace('url = "mqtt://a.example"', f'url = "mqtts://a.example"\ntls = {{ ca_file = "{file}" }}')
    old = read(text)
    before = loaded(old)
    assert compare(before, loaded(old)) == Changes()
    file.write_text("two")
    assert compare(before, loaded(old)) == Changes(renewed=("a",))


def test_connections_come_and_go() -> None:
    config = replaced(('name = "b"', 'name = "c"\nclient_id = "edge-c"'))
    assert changes(config) == (Changes(added=("c",), removed=("b",)), ())
    assert changes(config)[0].words() == "connection c added, connection b removed"


def test_a_connection_that_is_renamed_keeps_its_name_until_a_restart() -> None:
    """Under its client id there is one session: two connections would throw each other out."""
    config = replaced(('name = "a"', 'name = "c"'), ('source = "a"', 'source = "c"'))
    assert changes(config) == (Changes(), ("mqtt[0].name",))


def test_a_connection_that_comes_back_waits_for_its_former_self() -> None:
    running = replaced(('[[mqtt]]\nname = "b"\nurl = "mqtt://b.example"\n', ""))
    leaving = loaded(read()).mqtt["b"]
    held, needed = hold(running, read(), [leaving])
    assert [broker.name for broker in held.mqtt] == ["a"]
    assert needed == ("mqtt[1] (its former connection still sends what it holds)",)
    held, needed = hold(running, read())
    assert ([broker.name for broker in held.mqtt], needed) == (["a", "b"], ())


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        (replaced(('name = "edge"', 'name = "other"')), ("name",)),
        (replaced(('client_id = "edge-a"', 'client_id = "edge-c"')), ("mqtt[0].client_id",)),
        (replaced(('name = "b"', 'name = "b"\nversion = "3.1.1"')), ("mqtt[1].version",)),
        (replaced(('endpoints = "', 'ordered_partitions = 8\nendpoints = "')), ("rocketmq.ordered_partitions",)),
        (
            replaced(('endpoints = "', 'protocol = "remoting"\nattempts = 9\nendpoints = "ns:9876;')),
            ("rocketmq.endpoints", "rocketmq.protocol", "rocketmq.attempts"),
        ),
        (read(admin={"port": 1, "host": "::1"}), ("admin.host", "admin.port")),
        (read(telemetry={"traces": False, "log_level": "debug"}), ("telemetry.traces", "telemetry.log_level")),
    ],
)
def test_what_takes_a_restart_is_named_and_stays_as_it_was(config: Config, needed: tuple[str, ...]) -> None:
    held, found = hold(read(), config)
    assert found == needed
    assert held == read()


def test_a_restart_is_asked_for_until_the_setting_is_as_it_runs() -> None:
    held, _ = hold(read(), read(admin={"port": 1}))
    assert hold(held, read(admin={"port": 1}))[1] == ("admin.port",)
    assert hold(held, read())[1] == ()


DOWN = """
[[downlinks]]
topic = "commands"
consumer_group = "g"
mqtt_topic = "d/{key}"
broker = "b"
"""


def down(text: str, new: str) -> tuple[Changes, tuple[str, ...]]:
    return changes(read(new), read(text))


def test_a_downlink_more_or_less_touches_nothing_else() -> None:
    more, needed = down(BASE, BASE + DOWN)
    assert (more, needed) == (Changes(downlinks=DownlinkChanges(added=("commands",), publishers=("b",))), ())
    assert more.words() == "downlink commands added"
    less = down(BASE + DOWN, BASE)[0].downlinks
    assert less == DownlinkChanges(removed=("commands",), publishers_gone=("b",))


@pytest.mark.parametrize("line", ["qos = 2", 'away = "retry"', 'carrier = "w3c"', "expiry = 60", "trust = false"])
def test_how_a_downlink_treats_messages_changes_without_a_connection(line: str) -> None:
    assert down(BASE + DOWN, f"{BASE}{DOWN}{line}\n")[0].downlinks == DownlinkChanges(changed=("commands",))


@pytest.mark.parametrize(
    ("old", "new"), [('"g"', '"h"'), ('broker = "b"', 'broker = "b"\nfilter = "x"'), ("cluster.e", "other.e")]
)
def test_another_subscription_or_cluster_renews_a_downlink(old: str, new: str) -> None:
    found = down(BASE + DOWN, (BASE + DOWN).replace(old, new, 1))[0].downlinks
    assert (found.renewed, found.publishers, found.publishers_gone) == (("commands",), (), ())


def test_another_broker_renews_a_downlink_and_its_publisher() -> None:
    found = down(BASE + DOWN, (BASE + DOWN).replace('broker = "b"', 'broker = "a"'))[0].downlinks
    assert (found.renewed, found.publishers, found.publishers_gone) == (("commands",), ("a",), ("b",))


def test_other_options_of_a_publisher_keep_what_it_has() -> None:
    url = 'url = "mqtt://b.example"'
    found = down(BASE + DOWN, (BASE + DOWN).replace(url, f'{url}\nusername = "u"'))[0]
    assert found.downlinks == DownlinkChanges(reconnected=("b",))
    assert "connection that publishes to b renewed" in found.words()


def test_another_client_id_is_another_publisher() -> None:
    url = 'url = "mqtt://b.example"'
    found = down(BASE + DOWN, (BASE + DOWN).replace(url, f'{url}\npublisher_client_id = "p"'))[0].downlinks
    assert (found.renewed, found.publishers, found.publishers_gone) == (("commands",), ("b",), ("b",))


def test_bounds_of_downlinks_are_told() -> None:
    found = down(BASE + DOWN, BASE + DOWN + "[downlink]\nmax_in_flight = 7\n")[0]
    assert found.bounds
    assert "limits of downlinks" in found.words()


def test_a_downlink_follows_its_broker_that_keeps_its_former_name() -> None:
    text = BASE + DOWN.replace('"b"', '"a"')
    found, needed = changes(read(text.replace('"a"', '"c"')), read(text))
    assert needed == ("mqtt[0].name",)
    assert found.downlinks == DownlinkChanges()


def test_another_lag_takes_a_restart() -> None:
    watched = read(lag={"name_servers": "a:9876"})
    held, needed = hold(read(), watched)
    assert (held.lag, needed) == (None, ("lag",))
    held, needed = hold(watched, read())
    assert (held.lag, needed) == (watched.lag, ("lag",))
