"""What a message more costs in calls is less than what a read of one costs."""

from __future__ import annotations

import asyncio

from bench.calls import READS, table


def test_a_message_more_takes_fewer_calls_than_a_read() -> None:
    found = asyncio.run(table())
    assert tuple(found) == READS
    assert 0 < found[2] - found[1] < found[1]
    assert found[32] < 32 * found[1] / 2
