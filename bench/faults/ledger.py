"""What was sent, what was acknowledged, what arrived: and the row that follows from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class Number(NamedTuple):
    """One message: the ``seq``-th of its ``device``, in the ``run`` of one scenario."""

    run: str
    device: int
    seq: int

    def body(self) -> bytes:
        """The payload that carries it."""
        return f"{self.run}:{self.device}:{self.seq}".encode()

    @classmethod
    def read(cls, body: bytes) -> Number | None:
        """The number in a payload; None when it is not one of ours, or was changed on the way."""
        parts = body.decode("utf-8", "replace").split(":")
        if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))


class Arrival(NamedTuple):
    """A message where it was to go. ``at`` is Unix time in seconds."""

    number: Number
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scenario's result. ``recovery_s`` is from the peer's return to the next message that arrives.

    ``because`` says why messages come twice. At most ``in_flight`` messages (the gateway's bound) do ``repeats`` times.
    ``load`` is the machine's load average at the end: recovery is nothing to go by where that is high.
    """

    name: str
    sent: int
    acknowledged: int
    delivered: int
    lost: int
    duplicated: int
    out_of_order: int
    recovery_s: float | None
    rss_max_mib: float
    order_promised: bool = False
    in_flight: int = 0
    repeats: int = 0
    because: str = ""
    load: float = 0.0
    notes: Sequence[str] = ()
    failed: Sequence[str] = ()

    @classmethod
    def none(cls, name: str, why: str) -> Row:
        """Of a scenario that did not come to its end."""
        return cls(
            name=name, sent=0, acknowledged=0, delivered=0, lost=0, duplicated=0, out_of_order=0, recovery_s=None,
            rss_max_mib=0.0, failed=[why],
        )  # fmt: skip

    def json(self) -> dict[str, Any]:
        """For the last line."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Both ends of one scenario."""

    sent: int = 0
    acknowledged: set[Number] = field(default_factory=set)
    arrivals: list[Arrival] = field(default_factory=list)

    def missing(self) -> set[Number]:
        """Acknowledged messages that have not arrived."""
        return self.acknowledged - {arrival.number for arrival in self.arrivals}

    def duplicated(self) -> int:
        """Arrivals beyond the first of each message."""
        return len(self.arrivals) - len({arrival.number for arrival in self.arrivals})

    def out_of_order(self) -> int:
        """First arrivals of messages that came after a later one of the same device had come."""
        newest: dict[int, int] = {}
        seen: set[Number] = set()
        late = 0
        for number, _ in self.arrivals:
            if number in seen:
                continue
            seen.add(number)
            late += number.seq < newest.get(number.device, -1)
            newest[number.device] = max(number.seq, newest.get(number.device, -1))
        return late

    def recovery(self, returned: Iterable[float]) -> float | None:
        """The longest time from a return (Unix time, seconds) to the next arrival; None where nothing came after."""
        times = sorted(arrival.at for arrival in self.arrivals)
        found = []
        for moment in returned:
            later = next((at for at in times if at >= moment), None)
            if later is None:
                return None
            found.append(later - moment)
        return round(max(found), 2) if found else None


RECOVERY = 5.0
"""Seconds from a peer's return to the next message, at most."""


def broken(row: Row) -> list[str]:
    """The promises that a row breaks."""
    found = list(row.failed)
    if row.lost:
        found.append(f"{row.lost} acknowledged messages are lost")
    if row.order_promised and row.out_of_order:
        found.append(f"{row.out_of_order} messages out of order")
    if row.duplicated > row.repeats * row.in_flight:
        found.append(f"{row.duplicated} duplicates, where {row.repeats} times {row.in_flight} are explained")
    if row.recovery_s is not None and row.recovery_s > RECOVERY:
        found.append(f"{row.recovery_s:g} s from the peer's return to the next message")
    return found
