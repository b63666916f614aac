"""A peer that is away, told in few lines: when it goes, once a minute, and when it is back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from spanbridge.core.events import Event, Phase

REMIND = 60.0
"""Seconds between two lines about a peer that stays away."""
SETTLE = 60.0
"""Seconds without a failure after a sign of life, after which a peer is back although not each part said so.

More than the longest pause between two attempts: a part that nobody uses any more has nothing to say.
"""
_PARTS = 1000
"""Parts of one peer that are told apart."""

Waiting = Callable[[], str]
"""What waits for the peer, as words: ``1 234 messages wait, the oldest for 61 s``; "" for nothing."""

Tell = Callable[[Event, str, bool], None]
"""Writes a line: the event whose text it is, what is added in brackets, and whether it is a reminder."""


@dataclass(slots=True)
class _Outage:
    """``away`` is what is true, ``told_away`` what the log said last. ``spells`` are times that it went away."""

    away: bool = False
    told_away: bool = False
    began: float = 0.0
    ended: float = float("-inf")
    told: float = float("-inf")
    last_failure: float = 0.0
    sign_of_life: float | None = None
    failures: int = 0
    spells: int = 0
    told_spells: int = 0
    parts: set[str] = field(default_factory=set)
    failed: Event | None = None
    recovered: Event | None = None


class Outages:
    """The outages of all peers. ``tell`` is called for each line; the clock is the caller's, in seconds.

    A peer that comes and goes has one line in ``interval`` seconds, and it says what is true then.
    """

    def __init__(self, tell: Tell, interval: float) -> None:
        self._tell = tell
        self._interval = interval
        self._found: dict[str, _Outage] = {}
        self._waiting: dict[str, Waiting] = {}

    def waiting(self, key: str, waiting: Waiting) -> None:
        """Say with each line of that outage what waits."""
        self._waiting[key] = waiting

    def take(self, key: str, event: Event, now: float) -> bool:
        """Take an event of an outage; False when it is told like any other, since nothing was away."""
        outage = self._found.get(key)
        if event.phase is Phase.AWAY:
            if outage is None or self._is_over(outage, now):
                outage = self._found[key] = _Outage()
            self._failed(key, outage, event, now)
            return True
        if outage is None or not outage.away:
            return False
        self._recovered(key, outage, event, now)
        return True

    def flush(self, now: float) -> None:
        """Remind of peers that stay away, and tell what was held back because a peer came and went."""
        for key, outage in list(self._found.items()):
            if outage.away:
                self._settle(key, outage, now)
            if outage.away:
                pause = REMIND if outage.told_away else self._interval
                if now - outage.told >= pause:
                    self._tell_away(key, outage, now)
            elif outage.told_away or outage.spells > outage.told_spells:
                if now - outage.told >= self._interval:
                    self._tell_back(key, outage, now)
            elif self._is_over(outage, now):
                del self._found[key]

    def _is_over(self, outage: _Outage, now: float) -> bool:
        """Whether it was told to the end, and so long ago that a failure now begins another one."""
        told = not outage.told_away and outage.spells == outage.told_spells
        return not outage.away and told and now - outage.ended >= self._interval

    def _failed(self, key: str, outage: _Outage, event: Event, now: float) -> None:
        part = event.outage_part()
        if len(outage.parts) < _PARTS:
            outage.parts.add(part)
        outage.last_failure, outage.failed = now, event
        if outage.away:
            outage.failures += 1
            return
        outage.away, outage.sign_of_life = True, None
        outage.spells += 1
        if outage.spells > 1:  # it came and went: said at the next flush, unless it is over by then
            outage.failures += 1
            return
        outage.began = now
        self._tell_away(key, outage, now)

    def _recovered(self, key: str, outage: _Outage, event: Event, now: float) -> None:
        outage.sign_of_life, outage.recovered = now, event
        part = event.outage_part()
        if part:
            outage.parts.discard(part)
        else:
            outage.parts.clear()
        if not outage.parts:
            self._ended(key, outage, now)

    def _settle(self, key: str, outage: _Outage, now: float) -> None:
        """End an outage of which some parts were never heard of again."""
        alive = outage.sign_of_life
        if alive is not None and outage.last_failure <= alive and now - alive >= SETTLE:
            self._ended(key, outage, alive)

    def _ended(self, key: str, outage: _Outage, at: float) -> None:
        outage.away, outage.ended = False, at
        outage.parts.clear()
        if outage.told_away and (outage.spells == 1 or at - outage.told >= self._interval):
            self._tell_back(key, outage, at)

    def _tell_away(self, key: str, outage: _Outage, now: float) -> None:
        if outage.failed is None:
            return
        reminder = now > outage.began
        notes = [f"away for {_duration(now - outage.began)}", *self._counts(outage)] if reminder else []
        outage.told, outage.told_away, outage.told_spells, outage.failures = now, True, outage.spells, 0
        self._tell(outage.failed, _joined(notes, self._waits(key)), reminder)

    def _tell_back(self, key: str, outage: _Outage, now: float) -> None:
        if outage.recovered is None:
            return
        notes = [f"away for {_duration(outage.ended - outage.began)}", *self._counts(outage)]
        outage.told, outage.told_away, outage.told_spells, outage.failures = now, False, outage.spells, 0
        self._tell(outage.recovered, _joined(notes, self._waits(key)), True)

    @staticmethod
    def _counts(outage: _Outage) -> list[str]:
        found = [f"{outage.failures} more failure(s)"] if outage.failures else []
        return [*found, f"it came and went {outage.spells} times"] if outage.spells > 1 else found

    def _waits(self, key: str) -> str:
        waiting = self._waiting.get(key)
        try:
            return waiting() if waiting is not None else ""
        except Exception:  # noqa: BLE001 - a line without this is better than none
            return ""


def _joined(notes: list[str], waits: str) -> str:
    return "; ".join(filter(None, (", ".join(notes), waits)))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
