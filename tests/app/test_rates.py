"""Rates."""

from __future__ import annotations

from spanbridge.app.rates import Rates


def test_growth_between_two_readings_by_the_second() -> None:
    rates = Rates(0)
    assert rates.per_second("a") == 0
    rates.read(2_000_000_000, {"a": 10})
    assert (rates.per_second("a"), rates.grown("a")) == (5, 10)
    rates.read(4_000_000_000, {"a": 13, "b": 3})
    assert (rates.per_second("a"), rates.per_second("b"), rates.per_second("c")) == (1.5, 1.5, 0)
