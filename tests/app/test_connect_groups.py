"""What `check --connect` finds out about downlinks: groups, topics, filters. Nothing is received meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio.to_thread
import pytest

from spanbridge.app.connect import ask_both_sides
from spanbridge.app.connect_groups import problems_of
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.devstack.topics import ask
from spanbridge.rocketmq.remoting.admin import ConsumerGroup
from spanbridge.rocketmq.remoting.call import Call
from tests.rocketmq.consuming import consuming, sending

from .asking import by_subject, configuration, downlink

pytestmark = pytest.mark.brokers


def name_servers(devstack: SharedStack) -> str:
    return f'[lag]\nname_servers = "{devstack.rocketmq.namesrv}"\n'


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_topics_and_groups_of_downlinks(devstack: SharedStack, version: str) -> None:
    plain, ordered, missing = devstack.topic(), devstack.topic("FIFO"), devstack.unique("missing")
    first, fifo, loose, nobody = (
        devstack.group(),
        devstack.group(fifo=True),
        devstack.group(),
        devstack.unique("nobody"),
    )
    lines = (
        downlink(plain, first)
        + downlink(ordered, fifo)
        + downlink(ordered, loose)
        + downlink(plain, nobody)
        + downlink(missing, devstack.group())
    )
    found = by_subject(ask_both_sides(configuration(devstack, lines, version)))
    assert found["mqtt", "publishing"].state == "ok"
    assert "'gw-down-check-" in found["mqtt", "publishing"].text
    assert found["rocketmq", f"topic {plain}"].text == "4 queue(s) to receive from, on broker-a"
    assert found["rocketmq", f"topic {missing}"].state == "failed"
    told = {name: found["rocketmq", f"consumer group {name}"] for name in (first, fifo, loose, nobody)}
    assert [told[name].state for name in told] == ["ok", "ok", "warning", "failed"]
    assert told[first].text == "receives not in order; dead letters after 17 deliveries"
    assert told[fifo].text.startswith("receives in order, queue by queue")
    assert "The topic is FIFO, and its order is lost" in told[loose].text
    assert f"group not found: {nobody}" in told[nobody].text
    assert not any("on each broker" in subject for _, subject in found)


def test_name_servers_let_each_broker_be_asked(devstack: SharedStack) -> None:
    topic, group, nobody = devstack.topic(), devstack.group(), devstack.unique("nobody")
    lines = downlink(topic, group) + downlink(topic, nobody) + name_servers(devstack)
    found = by_subject(ask_both_sides(configuration(devstack, lines)))
    assert found["rocketmq", f"consumer group {group} on each broker"].text == "alike on broker-a"
    lacking = found["rocketmq", f"consumer group {nobody} on each broker"]
    assert (lacking.state, lacking.text.split(":")[0]) == ("failed", "broker-a does not have it")


def test_without_a_proxy_name_servers_and_brokers_are_asked(devstack: SharedStack) -> None:
    topic, group, nobody, missing = devstack.topic(), devstack.group(), devstack.unique("nobody"), devstack.unique("no")
    lines = downlink(topic, group) + downlink(topic, nobody) + downlink(missing, devstack.group())
    endpoints = f'{devstack.rocketmq.namesrv}"\nprotocol = "remoting'
    found = by_subject(ask_both_sides(configuration(devstack, lines, endpoints=endpoints)))
    assert found["rocketmq", f"topic {topic}"].text == "4 queue(s) to receive from, on broker-a"
    assert found["rocketmq", f"topic {missing}"].state == "failed"
    assert found["rocketmq", f"consumer group {group} on each broker"].text == "alike on broker-a"
    assert found["rocketmq", f"consumer group {nobody} on each broker"].state == "failed"


@contextmanager
def parsing(devstack: SharedStack) -> Iterator[None]:
    """Brokers that look at SQL92 filters before they are received with."""

    def turn(value: str) -> None:
        body = f"enablePropertyFilter={value}".encode()
        ask(devstack.rocketmq.broker_port, Call(what="change its settings", code=25, body=body, read=lambda _: None))

    turn("true")
    try:
        yield
    finally:
        turn("false")


def test_sql92_filters_are_asked_about_where_brokers_look_at_them(devstack: SharedStack) -> None:
    topic, good, bad = devstack.topic(), devstack.group(), devstack.group()
    sql = 'filter_type = "sql92"'
    lines = downlink(topic, good, sql, 'filter = "n > 1"') + downlink(topic, bad, sql, 'filter = "n >"')
    subjects = [("rocketmq", f"filter of downlink {group}") for group in (good, bad)]
    found = by_subject(ask_both_sides(configuration(devstack, lines)))
    assert {found[subject].state for subject in subjects} == {"warning"}
    assert "lag.name_servers" in found[subjects[0]].text
    reaching = configuration(devstack, lines + name_servers(devstack))
    found = by_subject(ask_both_sides(reaching))
    assert {found[subject].state for subject in subjects} == {"warning"}
    assert "enablePropertyFilter=false" in found[subjects[0]].text
    with parsing(devstack):
        found = by_subject(ask_both_sides(reaching))
    assert [found[subject].state for subject in subjects] == ["ok", "failed"]
    assert "cannot parse it" in found[subjects[1]].text


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("fifo", [False, True])
async def test_no_message_is_taken(devstack: SharedStack, fifo: bool) -> None:
    topic, group = devstack.topic("FIFO" if fifo else "NORMAL", queues=1), devstack.group(fifo=fifo)
    endpoints = devstack.rocketmq.endpoints
    async with sending(endpoints, topic) as send:
        for number in range(3):
            await send(b"%d" % number, **({"group": "d1"} if fifo else {}))
    config = configuration(devstack, downlink(topic, group) + name_servers(devstack))
    found = by_subject(await anyio.to_thread.run_sync(ask_both_sides, config))
    assert found["rocketmq", f"consumer group {group}"].state == "ok"
    async with consuming(endpoints, group, topic) as taker:
        await taker.have(3)
        assert [delivery.message.attempt for delivery in taker.deliveries] == [1, 1, 1]
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()


def test_a_group_has_to_be_alike_on_every_broker() -> None:
    def told(**tables: dict[str, ConsumerGroup]) -> list[str]:
        return [problem.split(":")[0] for problem in problems_of("g", tables)]

    ordered, loose, off = (
        ConsumerGroup(ordered=ordered, consumes=consumes, retries=16)
        for ordered, consumes in ((True, True), (False, True), (True, False))
    )
    assert told(a={"g": ordered}, b={"g": ordered, "other": loose}) == []
    assert told(a={"g": ordered}, b={"other": loose}) == ["b does not have it"]
    assert told(a={"g": ordered}, b={"g": loose}) == ["receives in order on a only"]
    assert told(a={"g": off}) == ["may not receive on a (consumeEnable=false)"]
