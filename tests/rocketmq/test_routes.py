"""What a route's answer means, and when it is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkUnavailable
from spanbridge.core.events import Event
from spanbridge.rocketmq.grpc.routes import ProxyRoute, ProxyRoutes, Target, read_route
from spanbridge.rocketmq.grpc.stubs import DELAY, FIFO, NORMAL, definition, service


def queue(
    broker: str = "a", host: str = "h", *, permission: str = "READ_WRITE", follower: int = 0, types: str = "NORMAL FIFO"
) -> Any:
    made = definition.MessageQueue(permission=definition.Permission.Value(permission))
    made.broker.name, made.broker.id = broker, follower
    made.broker.endpoints.addresses.add(host=host, port=8081)
    made.accept_message_types.extend(definition.MessageType.Value(name) for name in types.split())
    return made


def read(*queues: Any, only: tuple[str, ...] | None = None) -> ProxyRoute:
    return read_route("t", service.QueryRouteResponse(message_queues=queues), only)


def test_only_queues_that_take_messages_count() -> None:
    found = read(
        queue(),
        queue(permission="WRITE"),
        queue(permission="READ", types="DELAY"),
        queue(permission="NONE"),
        queue("b", "elsewhere", follower=1),
    )
    assert found.targets == (Target(("h:8081",), 2),)
    assert (found.queues, found.types) == (2, {NORMAL, FIFO})


@pytest.mark.parametrize("queues", [[], [queue(permission="READ")], [queue(follower=2)]])
def test_a_topic_without_a_writable_queue_is_for_an_operator(queues: list[Any]) -> None:
    with pytest.raises(SinkMisconfigured, match="no writable queue") as caught:
        read(*queues)
    assert caught.value.reason == "no_writable_queue"


def test_targets_are_in_the_order_of_their_brokers_names() -> None:
    found = read(queue("b", "1.1.1.1"), queue("a", "::1"), queue("b", "1.1.1.1"))
    assert found.targets == (Target(("[::1]:8081",), 1), Target(("1.1.1.1:8081",), 2))
    assert read(queue("b", "x"), queue("a", "y"), only=("p:1", "p:2")).targets == (Target(("p:1", "p:2"), 2),)


def test_a_type_is_taken_when_every_queue_takes_it() -> None:
    found = read(queue(types="NORMAL FIFO"), queue(types="FIFO DELAY"))
    assert found.types == {FIFO}
    found.check(FIFO)
    for kind in (NORMAL, DELAY):
        with pytest.raises(SinkMisconfigured, match="topic 't' takes FIFO messages, not"):
            found.check(kind)


class Cluster:
    """Answers queries with what it is given, and keeps what was reported."""

    def __init__(self) -> None:
        self.answers: dict[str, ProxyRoute | SinkError] = {}
        self.asked: list[str] = []
        self.events: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.routes = ProxyRoutes(self.query, self)

    async def query(self, topic: str) -> ProxyRoute:
        self.asked.append(topic)
        await self.gate.wait()
        answer = self.answers[topic]
        if isinstance(answer, SinkError):
            raise answer
        return answer

    def report(self, event: Event) -> None:
        self.events.append(event.name)


ONE, TWO = (ProxyRoute("t", (Target(("h:1",), count),), frozenset({NORMAL})) for count in (1, 2))


@pytest.mark.anyio
async def test_a_route_is_asked_for_once_and_shared_by_those_who_wait() -> None:
    cluster = Cluster()
    cluster.answers["t"] = ONE
    cluster.gate.clear()
    waiting = [asyncio.create_task(cluster.routes.get("t")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    cluster.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [ONE, ONE], "one that gives up does not take it from the others"
    assert await cluster.routes.get("t") == ONE
    assert cluster.asked == ["t"]
    cluster.routes.invalidate("t")
    await cluster.routes.get("t")
    assert cluster.asked == ["t", "t"]


@pytest.mark.anyio
async def test_a_refresh_keeps_what_does_not_answer_and_forgets_what_is_gone() -> None:
    cluster = Cluster()
    names = [f"t{n}" for n in range(20)]
    cluster.answers = dict.fromkeys(names, ONE)
    for name in names:
        await cluster.routes.get(name)
    learned = len(cluster.events)
    cluster.answers |= {"t1": TWO, "t2": SinkUnavailable("away"), "t3": SinkMisconfigured("gone")}
    cluster.answers["t4"] = SinkMisconfigured("its certificate expired", reason="tls")
    await cluster.routes.refresh()
    assert sorted(cluster.asked[20:]) == sorted(names)
    assert cluster.routes.known == {name: TWO if name == "t1" else ONE for name in names if name != "t3"}
    assert sorted(cluster.events[learned:]) == ["rocketmq.route.changes", *["rocketmq.route.refresh_failures"] * 3]


@pytest.mark.anyio
async def test_a_suspect_is_used_until_the_answer_is_there() -> None:
    cluster = Cluster()
    cluster.routes.suspect("t")
    assert cluster.asked == [], "nothing is known of it, so nothing can be wrong"
    cluster.answers["t"] = ONE
    await cluster.routes.get("t")
    cluster.answers["t"] = TWO
    cluster.gate.clear()
    cluster.routes.suspect("t")
    cluster.routes.suspect("t")
    assert await cluster.routes.get("t") == ONE
    cluster.gate.set()
    while cluster.routes.known["t"] != TWO:
        await asyncio.sleep(0)
    assert cluster.asked == ["t", "t"]


@pytest.mark.anyio
async def test_closing_ends_what_is_asked() -> None:
    cluster = Cluster()
    cluster.gate.clear()
    waiting = asyncio.create_task(cluster.routes.get("t"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cluster.routes.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
