"""Delay levels of brokers before 5.0: never earlier than asked, and no longer than they are."""

from __future__ import annotations

import pytest

from spanbridge.core.errors import SinkRejected
from spanbridge.rocketmq.remoting.delays import by_level, delay_level, is_timed

MINUTE = 60_000


@pytest.mark.parametrize(
    ("wait_ms", "level"),
    [
        (-5, 0), (0, 0), (1, 1), (1000, 1), (1001, 2), (5000, 2), (29_000, 4), (MINUTE, 5), (MINUTE + 1, 6),
        (10 * MINUTE, 14), (11 * MINUTE, 15), (31 * MINUTE, 17), (120 * MINUTE, 18), (120 * MINUTE + 1, None),
    ],
)  # fmt: skip
def test_the_first_level_that_is_long_enough(wait_ms: int, level: int | None) -> None:
    assert delay_level(wait_ms) == level


def test_properties() -> None:
    text = "TAGS\x01x\x02TIMER_DELIVER_MS\x0110000\x02n\x011\x02"
    assert is_timed(text)
    assert not is_timed("TAGS\x01x\x02MY_TIMER_DELIVER_MS\x011\x02")
    assert by_level(text, 1000) == "TAGS\x01x\x02DELAY\x013\x02n\x011\x02"
    assert by_level(text, 10_000) == "TAGS\x01x\x02n\x011\x02"
    with pytest.raises(SinkRejected) as caught:
        by_level(text, 9_000 - 120 * MINUTE)
    assert caught.value.reason == "illegal_delivery_time"
