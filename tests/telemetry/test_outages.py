"""A peer that is away makes few lines, and the last one is true."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import pytest

from spanbridge.core.events import Event, Phase, Severity
from spanbridge.telemetry.log.reporter import EventReporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing(Event):
    name: ClassVar[str] = "test.failing"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("topic",)
    outage: ClassVar[str] = "rocketmq"
    part: ClassVar[str] = "topic"

    topic: str = "t"
    cause: str = "nobody there"

    def text(self) -> str:
        return f"{self.topic}: {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Working(Event):
    name: ClassVar[str] = "test.working"
    labelled: ClassVar[tuple[str, ...]] = ("topic",)
    outage: ClassVar[str] = "rocketmq"
    phase: ClassVar[Phase] = Phase.BACK
    part: ClassVar[str] = "topic"

    topic: str = "t"

    def text(self) -> str:
        return f"{self.topic} works again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone(Event):
    name: ClassVar[str] = "test.gone"
    severity: ClassVar[Severity] = Severity.WARNING
    outage: ClassVar[str] = "mqtt:{event.source}"

    source: str = "edge"

    def text(self) -> str:
        return f"{self.source}: gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Event):
    name: ClassVar[str] = "test.connected"
    outage: ClassVar[str] = "mqtt:{event.source}"
    phase: ClassVar[Phase] = Phase.BACK

    source: str = "edge"

    def text(self) -> str:
        return f"{self.source}: connected"


class Bench:
    """A reporter on a clock, flushed every ten seconds as the gateway's is."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self.now = 1000.0
        self._caplog = caplog
        self.reporter = EventReporter(interval=10.0, clock=lambda: self.now)

    def wait(self, seconds: int, *events: Event, every: int = 1) -> None:
        for second in range(seconds):
            self.now += 1
            if second % every == 0:
                for event in events:
                    self.reporter.report(event)
            if self.now % 10 == 0:
                self.reporter.flush()

    def lines(self) -> list[str]:
        found = list(self._caplog.messages)
        self._caplog.clear()
        return found


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    return Bench(caplog)


def test_away_for_81_s_is_three_lines(bench: Bench) -> None:
    bench.reporter.waiting("rocketmq", lambda: "1 234 messages wait, the oldest for 61 s")
    bench.wait(81, *(Failing(topic=f"t{n}") for n in range(30)), every=5)
    for n in range(30):
        bench.reporter.report(Working(topic=f"t{n}"))
    bench.wait(120)
    waits = "; 1 234 messages wait, the oldest for 61 s"
    begin, reminder, end = bench.lines()
    assert begin == "t0: nobody there (1 234 messages wait, the oldest for 61 s)"
    assert reminder == f"t29: nobody there (away for 69 s, 419 more failure(s){waits})"
    assert end == f"t29 works again (away for 80 s, 90 more failure(s){waits})"
    assert bench.reporter.counted("test.failing") == 510
    assert bench.reporter.counted("test.working") == 30
    assert [one.name for one in bench.reporter.recent] == ["test.failing"]


def test_a_part_that_works_again_is_not_the_end_while_another_fails(bench: Bench) -> None:
    bench.wait(3, Failing(topic="a"), Failing(topic="b"))
    bench.reporter.report(Working(topic="a"))
    assert bench.lines() == ["a: nobody there"]
    bench.wait(5, Failing(topic="b"))
    bench.reporter.report(Working(topic="b"))
    assert bench.lines() == ["b works again (away for 7 s, 10 more failure(s))"]


def test_a_part_that_nobody_uses_any_more_does_not_keep_an_outage_open(bench: Bench) -> None:
    bench.wait(3, Failing(topic="a"), Failing(topic="b"))
    bench.reporter.report(Working(topic="a"))
    bench.wait(90)
    assert bench.lines() == ["a: nobody there", "a works again (away for 2 s, 5 more failure(s))"]


def test_a_peer_that_comes_and_goes_has_one_line_in_the_interval(bench: Bench) -> None:
    bench.wait(30, Gone(), Connected())
    bench.wait(30)
    assert bench.lines() == [
        "edge: gone",
        "edge: connected (away for 0 s)",
        "edge: connected (away for 19 s, 19 more failure(s), it came and went 20 times)",
        "edge: connected (away for 29 s, 10 more failure(s), it came and went 30 times)",
    ]
    bench.wait(1, Gone(), Connected())
    bench.wait(3, Gone())
    bench.wait(20)
    assert bench.lines() == [
        "edge: gone",
        "edge: connected (away for 0 s)",
        "edge: gone (away for 19 s, 3 more failure(s), it came and went 2 times)",
    ]
    bench.reporter.report(Connected())
    bench.wait(10)
    assert bench.lines() == ["edge: connected (away for 23 s, it came and went 2 times)"]


def test_peers_are_told_apart_and_a_first_connection_is_an_ordinary_line(bench: Bench) -> None:
    bench.reporter.report(Connected(source="a"))
    bench.reporter.report(Gone(source="a"))
    bench.reporter.report(Gone(source="b"))
    bench.reporter.report(Connected(source="b"))
    assert bench.lines() == ["a: connected", "a: gone", "b: gone", "b: connected (away for 0 s)"]


def test_nothing_held_back_is_told_after_the_end(bench: Bench) -> None:
    bench.wait(8, Gone())
    bench.reporter.report(Connected())
    bench.wait(100)
    bench.reporter.flush(everything=True)
    assert bench.lines() == ["edge: gone", "edge: connected (away for 7 s, 7 more failure(s))"]


def test_an_owner_that_cannot_say_what_waits_does_not_cost_the_line(bench: Bench) -> None:
    bench.reporter.waiting("mqtt:edge", lambda: str(1 // 0))
    bench.reporter.report(Gone())
    assert bench.lines() == ["edge: gone"]


def test_an_outage_after_a_quiet_time_is_another_one(bench: Bench) -> None:
    for _ in range(2):
        bench.reporter.report(Gone())
        bench.now += 5
        bench.reporter.report(Connected())
        bench.now += 60  # without a flush
    assert bench.lines() == ["edge: gone", "edge: connected (away for 5 s)"] * 2
