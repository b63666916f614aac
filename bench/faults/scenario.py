"""The list of scenarios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.faults.lab import Lab
from bench.faults.ledger import Row

Play = Callable[[Lab, str], Row]

SCENARIOS: dict[str, Scenario] = {}
"""By name, in the order in which they run."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table: ``what`` happens, and what duplicates it may make (see :class:`Row`).

    ``limit`` is how long it may take, in seconds, before it is given up.
    """

    name: str
    what: str
    play: Play
    repeats: int = 0
    because: str = ""
    limit: float = 420.0

    def run(self, lab: Lab) -> Row:
        """Play it."""
        return replace(self.play(lab, self.name), repeats=self.repeats, because=self.because)


def scenario(
    name: str, what: str, *, repeats: int = 0, because: str = "", limit: float = 420.0
) -> Callable[[Play], Play]:
    """Put a function into the list. ``repeats`` and ``because`` say which duplicates it may make: else none."""

    def add(play: Play) -> Play:
        SCENARIOS[name] = Scenario(name, what, play, repeats, because, limit)
        return play

    return add
