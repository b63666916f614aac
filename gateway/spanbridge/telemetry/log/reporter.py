"""Internal events become a counter each and log lines that do not flood."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from spanbridge.core.events import Event, Severity
from spanbridge.telemetry import faults
from spanbridge.telemetry.log.outages import Outages, Waiting
from spanbridge.telemetry.metrics.hot import HotCounter, Labels

_LATE = 1.0
"""Seconds after which a line that was held back tells its age."""
_KEPT = 20
_KINDS = 20
"""Kinds of one type that have lines of their own: with RocketMQ away, hundreds of topics fail at once."""

_Key = tuple[type[Event], tuple[tuple[str, str], ...]]
_OTHERS = (("", ""),)


@dataclass(slots=True)
class _Line:
    logged_at: float
    held_back: int = 0
    newest: Event | None = None
    newest_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Recent:
    """A warning or an error that was logged. ``at_ns`` is Unix time in nanoseconds."""

    at_ns: int
    name: str
    severity: Severity
    text: str


class EventReporter:
    """Counts every event as ``spanbridge.<name>`` and logs it: at once, then at most once in ``interval`` seconds.

    What was held back is told with the next line of its kind ("12 more like this in 10 s"), by :meth:`flush` at the
    latest. A kind is an event's type with its labels; kinds beyond the twentieth of a type share one line.
    Events of an outage have lines of their own (:class:`~spanbridge.telemetry.log.outages.Outages`).
    ``export`` is called with each new counter.
    """

    def __init__(
        self,
        *,
        export: Callable[[HotCounter], None] | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._export = export
        self._interval = interval
        self._clock = clock
        self._counters: dict[str, HotCounter] = {}
        self._lines: dict[_Key, _Line] = {}
        self._kinds: Counter[type[Event]] = Counter()
        self._outages = Outages(self._write_outage, interval)
        self.recent: deque[Recent] = deque(maxlen=_KEPT)
        """The last warnings and errors as they were logged, oldest first."""

    def report(self, event: Event) -> None:
        """Take an event. Never raises, never blocks."""
        try:
            labels = tuple(sorted(event.labels().items()))
            if event.counted:
                self._counter(event.name).add(labels, event.count)
            key = event.outage_key()
            if not key or not self._outages.take(key, event, self._clock()):
                self._log((type(event), labels), event)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an event must not reach who reports it
            faults.tell(f"the event {type(event).__name__} could not be reported", error)

    def declare(self, kind: type[Event], *rows: Mapping[str, str]) -> None:
        """Have the counter of ``kind`` from the start, at 0: a series that begins at 1 hides its first event.

        Each row has the fields in ``kind.labelled`` with values that are known to occur; none is needed for a kind
        without labels. Too many rows are left out, all of them (:data:`~spanbridge.telemetry.metrics.hot.DECLARED`).
        """
        if kind.counted:
            found = rows or (() if kind.labelled else ({},))
            self._counter(kind.name).declare(_labels(kind, row) for row in found)

    def waiting(self, outage: str, waiting: Waiting) -> None:
        """Say with each line about that outage what waits: ``1 234 messages wait, the oldest for 61 s``."""
        self._outages.waiting(outage, waiting)

    def flush(self, *, everything: bool = False) -> None:
        """Tell what is held back and due (all of it with ``everything``), and forget kinds that have gone quiet."""
        now = self._clock()
        try:
            self._outages.flush(now)
            self._flush_lines(now, everything)
        except Exception as error:  # noqa: BLE001 - one text that cannot be made must not end the log
            faults.tell("held back log lines could not be written", error)

    def _flush_lines(self, now: float, everything: bool) -> None:
        for key, line in list(self._lines.items()):
            due = now - line.logged_at >= self._interval
            if line.newest is not None and (due or everything):
                self._write(line.newest, line, now, repeats=line.held_back - 1, age=now - line.newest_at)
            elif due:
                del self._lines[key]
                self._kinds[key[0]] -= 1

    def counted(self, name: str) -> int:
        """How often an event of that name was counted, over all its labels."""
        counter = self._counters.get(name)
        return sum(counter.values.values()) if counter else 0

    def _counter(self, name: str) -> HotCounter:
        counter = self._counters.get(name)
        if counter is None:
            counter = HotCounter(f"spanbridge.{name}", "{event}", f"Events of the kind {name}.")
            self._counters[name] = counter
            if self._export is not None:
                self._export(counter)
        return counter

    def _log(self, key: _Key, event: Event) -> None:
        now = self._clock()
        line = self._lines.get(key)
        if line is None and self._kinds[key[0]] >= _KINDS:
            key = (key[0], _OTHERS)
            line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(now)
            self._kinds[key[0]] += 1
        elif now - line.logged_at < self._interval:
            line.held_back += 1
            line.newest = event
            line.newest_at = now
            return
        self._write(event, line, now, repeats=line.held_back)

    def _write(self, event: Event, line: _Line, now: float, repeats: int, age: float = 0.0) -> None:
        notes = [f"{repeats} more like this in {now - line.logged_at:.0f} s"] if repeats else []
        if age >= _LATE:
            notes.append(f"this one {age:.0f} s ago")
        # First, so that an event whose text cannot be made is not tried again for ever.
        line.logged_at, line.held_back, line.newest = now, 0, None
        self._emit(event, ", ".join(notes), age)

    def _write_outage(self, event: Event, note: str, reminder: bool) -> None:
        self._emit(event, note, remember=not reminder)

    def _emit(self, event: Event, note: str, age: float = 0.0, *, remember: bool = True) -> None:
        text = f"{event.text()} ({note})" if note else event.text()
        logger = logging.getLogger(type(event).__module__)
        if logger.isEnabledFor(event.severity):
            logger.log(event.severity, "%s", text, extra={"event": event.name, "fields": _fields(event)})
        if remember and event.severity >= Severity.WARNING:
            self.recent.append(Recent(time.time_ns() - int(age * 1e9), event.name, event.severity, text))


def _fields(event: Event) -> dict[str, object]:
    return {one.name: getattr(event, one.name) for one in fields(event)}


def _labels(kind: type[Event], row: Mapping[str, str]) -> Labels:
    """A row as :meth:`EventReporter.report` makes it of an event."""
    return tuple(sorted((kind.attributes.get(field, field), row[field]) for field in kind.labelled))
