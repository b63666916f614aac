"""Backoff: growing, bounded, never a busy loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.retry import Backoff


@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=200))
def test_delays_stay_between_a_tenth_and_the_whole_of_the_ceiling(draws: list[float]) -> None:
    backoff = Backoff(initial=0.1, maximum=5.0)
    for failures, draw in enumerate(draws):
        ceiling = min(5.0, 0.1 * 2.0 ** min(failures, 64))
        assert 0.1 * ceiling <= backoff.next_delay(draw) <= ceiling


def test_success_starts_over() -> None:
    backoff = Backoff(initial=1.0, maximum=60.0)
    assert [backoff.next_delay(1.0) for _ in range(3)] == [1.0, 2.0, 4.0]
    backoff.reset()
    assert backoff.next_delay(1.0) == 1.0
