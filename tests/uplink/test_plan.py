"""What is kept of topics, which devices choose."""

from __future__ import annotations

import tracemalloc

from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.core.batch import BatchLimits
from spanbridge.core.message import Publish
from spanbridge.core.routes import RouteTable
from spanbridge.telemetry import Peer, Tracer
from spanbridge.uplink.plan import CACHED_TOPICS, Lanes, Planner

from .fakes import FakeSink, route


class NoSpans:
    def add(self, spans: object) -> None:
        """Forget them."""


def planner() -> Planner:
    tracer = Tracer(NoSpans(), sampler=ALWAYS_ON)
    return Planner(RouteTable([route("#")]), FakeSink(), tracer, Lanes(BatchLimits()), gateway="gw", peer=Peer())


def take(made: Planner, topic: str) -> None:
    plan = made.find(topic)
    assert plan is not None
    publish = Publish(topic, b"x", qos=1)
    ready = made.ready(plan, publish, ())
    ready.tracer.begin(publish, None, ready.address)


def test_long_topics_do_not_grow_the_process() -> None:
    """A device may make up thousands of 64 KiB, each level of which is a string: a megabyte each."""
    made = planner()
    take(made, "warm/up")
    tracemalloc.start()
    try:
        for number in range(50):
            take(made, f"{number}/" + "abc/" * 4000)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 1 << 20


def test_a_topic_is_planned_once_and_the_number_kept_is_bounded() -> None:
    made = planner()
    assert made.find("a/b") is made.find("a/b")
    first = made.find("0")
    for number in range(CACHED_TOPICS + 1):
        made.find(str(number))
    assert made.find("0") is not first
