"""The list of scenarios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.faults.lab import Lab
from bench.faults.ledger import Row

Play = Callable[[Lab, str], Row]

SCENARIOS: dict[str, Scenario] = {}
"""By name, in the order in which they run."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table: ``what`` happens, in words."""

    name: str
    what: str
    play: Play


def scenario(name: str, what: str) -> Callable[[Play], Play]:
    """Put a function into the list."""

    def add(play: Play) -> Play:
        SCENARIOS[name] = Scenario(name, what, play)
        return play

    return add
