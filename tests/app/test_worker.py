"""What a worker makes of the gateway's configuration."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from spanbridge.app import changes, convert
from spanbridge.app.worker import Worker
from spanbridge.app.worker_run import run_worker
from spanbridge.config import Config, examine_text
from spanbridge.supervisor.channel import frame

FILE = """
name = "gw"
[gateway]
workers = 2
[[mqtt]]
name = "a"
url = "mqtt://127.0.0.1:1883"
client_id = "bridge"
will = { topic = "state" }
[[mqtt]]
name = "b"
url = "mqtt://127.0.0.2:1883"
version = "3.1.1"
[rocketmq]
endpoints = "127.0.0.1:8081"
[[routes]]
filter = "plain/+"
topic = "plain"
source = "a"
[[routes]]
filter = "ordered/+"
topic = "ordered"
source = "a"
message_group = "{topic}"
[[routes]]
filter = "old/+"
topic = "old"
source = "b"
[[downlinks]]
topic = "commands"
consumer_group = "spanbridge-commands"
mqtt_topic = "devices/{key}/commands"
broker = "a"
[spool]
path = "/var/lib/spanbridge/spool"
max_bytes = "1GiB"
[lag]
name_servers = "127.0.0.1:9876"
"""


def config(text: str = FILE) -> Config:
    report = examine_text(text, {}, base=Path())
    assert report.config is not None, report.errors
    return report.config


def test_each_has_its_own_names_and_its_share_of_the_spool() -> None:
    first, second = (Worker(number, 2).config(config(), {}) for number in (1, 2))
    assert [second.client_id(one) for one in second.mqtt] == ["bridge-2", "gw-2"]
    assert second.publisher_client_id(second.mqtt[0]) == "bridge-down-2"
    assert second.spool is not None
    assert (str(second.spool.path), second.spool.max_bytes) == ("/var/lib/spanbridge/spool/worker-2", 1 << 29)
    assert second.telemetry.resource == {"service.instance.id": "gw-2"}
    assert (second.name, second.admin.enabled) == ("gw", False)
    assert (first.mqtt[0].will is None, second.mqtt[0].will is None) == (False, True), "the gateway has one will"
    assert (first.lag is None, second.lag is None) == (False, True), "one reading of the lag is enough"
    assert second.downlinks == first.downlinks == config().downlinks, "consumer groups divide messages themselves"


def test_the_instance_is_named_after_whoever_named_it() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-7"}
    assert Worker(2, 2).config(config(), environ).telemetry.resource == {"service.instance.id": "pod-7-2"}
    text = FILE + '[telemetry.resource]\n"service.instance.id" = "mine"\n'
    assert Worker(1, 2).config(config(text), environ).telemetry.resource == {"service.instance.id": "mine-1"}


def subscribed(number: int, text: str = FILE) -> tuple[list[str], list[str]]:
    worker = Worker(number, 2)
    found = changes.loaded(worker.config(config(text), {}), worker).mqtt.values()
    mine = [one.wire_filter for options in found for one in options.subscriptions]
    return mine, [filter_ for options in found for filter_ in options.foreign]


def test_subscriptions_are_shared_or_one_workers_and_the_others_are_foreign() -> None:
    (first, foreign_to_first), (second, foreign_to_second) = subscribed(1), subscribed(2)
    shared = "$share/gw/plain/+"
    assert shared in first
    assert shared in second
    assert sorted([*first, *second]) == ["$share/gw/plain/+", "$share/gw/plain/+", "old/+", "ordered/+"]
    alone = {"old/+", "ordered/+"}
    assert alone & set(first) == set(foreign_to_second) & alone
    assert alone & set(second) == set(foreign_to_first) & alone
    assert "plain/+" in foreign_to_first
    assert not set(first) & set(foreign_to_first)


def test_a_group_that_the_file_names_is_kept() -> None:
    text = FILE.replace('client_id = "bridge"', 'share = "pair"')
    mine, foreign = subscribed(1, text)
    assert {"$share/pair/plain/+", "$share/pair/ordered/+"} <= set(mine)
    assert "plain/+" in foreign


def test_without_workers_nothing_is_foreign() -> None:
    found = changes.loaded(config())
    assert all(options.foreign == () for options in found.mqtt.values())
    assert found.mqtt["a"] == convert.mqtt_options(config(), config().mqtt[0])


def test_the_number_of_workers_takes_a_restart() -> None:
    held, needed = changes.hold(config(), config(FILE.replace("workers = 2", "workers = 3")))
    assert (held.gateway.workers, needed) == (2, ("gateway.workers",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 7", "name: must be text"),
        (FILE, "OTEL_TRACES_EXPORTER='zipkin' is not known here"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_exit_code_2(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = {"workers": 2, "text": text, "base": ".", "file": "gw.toml", "log_format": "text"}
        ours.sendall(frame(start))
        assert run_worker(2, theirs) == 2
    from spanbridge.telemetry.log.writer import _writers

    for writer in _writers.values():
        writer.flush(10)
    shown = capfd.readouterr().err
    assert said in shown
    assert "[2] worker: " in shown


def test_a_supervisor_that_is_gone_before_it_said_anything() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        assert run_worker(1, theirs) == 0
