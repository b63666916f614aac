"""Events are counted always and logged without flooding."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from spanbridge.core.events import Event, Severity
from spanbridge.telemetry.log import lines
from spanbridge.telemetry.log.reporter import EventReporter
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Event):
    name: ClassVar[str] = "test.lost"
    severity: ClassVar[Severity] = Severity.WARNING
    where: str = "a"
    text_is: str = "it broke"

    def labels(self) -> dict[str, str]:
        return {"where": self.where}

    def text(self) -> str:
        return f"{self.where}: {self.text_is}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet(Event):
    name: ClassVar[str] = "test.quiet"
    counted: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared(Event):
    name: ClassVar[str] = "test.declared"
    labelled: ClassVar[tuple[str, ...]] = ("signal", "reason")
    attributes: ClassVar[Mapping[str, str]] = {"signal": "otel.signal"}
    signal: str
    reason: str


class Unlabelled(Event):
    name: ClassVar[str] = "test.unlabelled"


class Broken(Event):
    def text(self) -> str:
        raise RuntimeError("no text")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock, caplog: pytest.LogCaptureFixture) -> EventReporter:
    caplog.set_level(logging.DEBUG)
    return EventReporter(interval=10.0, clock=clock)


def test_the_first_is_logged_at_once_and_the_rest_with_a_count(
    reporter: EventReporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        reporter.report(Lost())
    assert caplog.messages == ["a: it broke"]
    clock.now += 12
    reporter.report(Lost(text_is="again"))
    assert caplog.messages[1:] == ["a: again (4 more like this in 12 s)"]
    clock.now += 10
    reporter.report(Lost())
    assert caplog.messages[2:] == ["a: it broke"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_many_kinds_of_one_type_do_not_flood(
    reporter: EventReporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """With RocketMQ away, each of a thousand topics fails by itself."""
    for _ in range(2):
        for number in range(1000):
            reporter.report(Lost(where=str(number)))
    assert caplog.messages[:2] == ["0: it broke", "1: it broke"]
    assert len(caplog.messages) == 21
    clock.now += 10
    reporter.flush()
    assert caplog.messages[-1] == "999: it broke (1958 more like this in 10 s, this one 10 s ago)"
    assert len(caplog.messages) == 42
    assert reporter.counted("test.lost") == 2000
    clock.now += 10
    reporter.flush()
    reporter.report(Lost(where="new"))
    assert caplog.messages[42:] == ["new: it broke"]


def test_kinds_are_told_apart_by_type_and_labels(reporter: EventReporter, caplog: pytest.LogCaptureFixture) -> None:
    for where in ("a", "b", "a", "b"):
        reporter.report(Lost(where=where))
    reporter.report(Quiet())
    assert caplog.messages == ["a: it broke", "b: it broke", "test.quiet"]


def test_what_is_held_back_is_told_when_due(
    reporter: EventReporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("1", "2", "3"):
        reporter.report(Lost(text_is=text))
    reporter.flush()
    assert caplog.messages == ["a: 1"]
    clock.now += 10
    reporter.flush()
    assert caplog.messages == ["a: 1", "a: 3 (1 more like this in 10 s, this one 10 s ago)"]
    reporter.report(Lost(text_is="4"))
    reporter.flush(everything=True)
    assert caplog.messages[2:] == ["a: 4"]


def test_quiet_kinds_are_forgotten(reporter: EventReporter, clock: Clock) -> None:
    for n in range(20):
        reporter.report(Lost(where=str(n)))
    clock.now += 10
    reporter.flush()
    assert reporter._lines == {}


def test_every_event_is_counted(clock: Clock) -> None:
    exported: list[HotCounter] = []
    reporter = EventReporter(export=exported.append, interval=10.0, clock=clock)
    reporter.report(Lost(count=3))
    reporter.report(Lost())
    reporter.report(Lost(where="b"))
    reporter.report(Quiet())
    (counter,) = exported
    assert counter.name == "spanbridge.test.lost"
    assert counter.values == {(("where", "a"),): 4, (("where", "b"),): 1}
    assert reporter.counted("test.lost") == 5
    assert reporter.counted("test.quiet") == 0


def test_an_event_that_fails_does_not_fail_its_reporter(
    reporter: EventReporter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        reporter.report(Broken())
    (line,) = caplog.messages
    assert line.startswith("internal error: the event Broken could not be reported: RuntimeError: no text")
    reporter.flush(everything=True)


def test_counters_that_are_declared_stand_at_zero(reporter: EventReporter) -> None:
    reporter.declare(Declared, {"signal": "traces", "reason": "full"}, {"signal": "traces", "reason": "rejected"})
    reporter.declare(Unlabelled)
    reporter.declare(Quiet)
    assert reporter._counters["test.declared"].values == {
        (("otel.signal", "traces"), ("reason", "full")): 0,
        (("otel.signal", "traces"), ("reason", "rejected")): 0,
    }
    assert reporter._counters["test.unlabelled"].values == {(): 0}
    assert "test.quiet" not in reporter._counters
    reporter.report(Declared(signal="traces", reason="full", count=2))
    reporter.declare(Declared, {"signal": "traces", "reason": "full"})
    assert reporter._counters["test.declared"].values[("otel.signal", "traces"), ("reason", "full")] == 2


def test_metrics_never_raise(caplog: pytest.LogCaptureFixture) -> None:
    counter, histogram = HotCounter("test.c", "1", ""), HotHistogram("test.h", "s", "")
    unhashable: Any = [["a", "b"]]
    wrong: Any = "many"
    counter.add(unhashable)
    counter.touch(unhashable)
    counter.add((), wrong)
    histogram.record(unhashable, 1.0)
    histogram.record((), wrong)
    assert len(caplog.messages) == 2  # one for each metric, once a minute


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    root = logging.getLogger()
    before = list(root.handlers)
    level = logging.getLogger("spanbridge").level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = before
    logging.getLogger("spanbridge").setLevel(level)


def test_json_lines(stderr: Callable[[], str]) -> None:
    lines.configure("auto", "info")
    logging.getLogger("spanbridge.mqtt").info("two\nlines %s", "\u00fc")
    logging.getLogger("spanbridge.mqtt").debug("not this")
    logging.getLogger("library").info("nor this")
    line = json.loads(stderr())
    assert (line["level"], line["logger"], line["message"]) == ("info", "spanbridge.mqtt", "two\nlines \u00fc")
    assert line["time"].endswith("Z")


def test_json_lines_of_events_carry_their_name_and_fields(stderr: Callable[[], str]) -> None:
    lines.configure("json", "info")
    EventReporter().report(Lost(where="here", count=3))
    logging.getLogger("spanbridge").info("no event")
    lost, other = map(json.loads, stderr().splitlines())
    assert (lost["event"], lost["level"], lost["message"]) == ("test.lost", "warning", "here: it broke")
    assert lost["fields"] == {"count": 3, "where": "here", "text_is": "it broke"}
    assert "event" not in other


def test_text_lines_are_single_lines(stderr: Callable[[], str]) -> None:
    lines.configure("text", "debug")
    lines.configure("text", "debug")
    logging.getLogger("spanbridge.mqtt").warning("two\nlines")
    (line,) = stderr().splitlines()
    assert line.endswith("WARNING  mqtt: two\\nlines")


def test_exceptions_are_kept(stderr: Callable[[], str]) -> None:
    for form in ("json", "text"):
        lines.configure(form, "info")
        try:
            int("bad")
        except ValueError:
            logging.getLogger("spanbridge").exception("oh")
    assert stderr().count("ValueError: invalid literal") == 2


def test_a_line_that_was_held_back_tells_its_age_and_warnings_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    reporter = EventReporter(interval=10, clock=lambda: now[0])
    caplog.set_level(logging.INFO)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Trouble(Event):
        name: ClassVar[str] = "trouble"
        severity: ClassVar[Severity] = Severity.WARNING

        def text(self) -> str:
            return "trouble; trying again"

    reporter.report(Trouble())
    now[0] = 1.0
    reporter.report(Trouble())
    now[0] = 8.0
    reporter.flush(everything=True)
    assert caplog.messages == ["trouble; trying again", "trouble; trying again (this one 7 s ago)"]
    assert [(one.name, one.text) for one in reporter.recent] == [("trouble", text) for text in caplog.messages]


def test_what_devices_write_cannot_forge_lines_or_steer_terminals() -> None:
    hostile = "a\r\nb\x1b[31mc\x9bd\u2028"
    record = logging.LogRecord("spanbridge.x", logging.INFO, "", 0, hostile, None, None)
    line = lines.TextFormatter().format(record)
    assert line.isprintable()
    assert line.endswith(r"a\r\nb\x1b[31mc\x9bd\u2028")
    line = lines.JsonFormatter().format(record)
    assert line.isprintable()
    assert json.loads(line)["message"] == hostile
