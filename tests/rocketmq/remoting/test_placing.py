"""The hash by which groups find their queue, against Guava's own test values (``HashingTest``) and Java's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanbridge.rocketmq.remoting.placing import consistent_hash, java_hash

GOLDEN = [0, 55, 62, 8, 45, 59, 86, 97, 82, 59, 73, 37, 17, 56, 86, 21, 90, 37, 38, 83]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("hello", 99162322), ("polygenelubricants", -(2**31)), ("\U0001f600", 0xD83D * 31 + 0xDE00)],
)
def test_strings_hash_as_in_java(text: str, expected: int) -> None:
    assert java_hash(text) == expected


def test_numbers_find_the_buckets_that_guava_gives_them() -> None:
    assert [consistent_hash(number, 100) for number in range(20)] == GOLDEN
    large = (10863919174838991, 2016238256797177309, 1673758223894951030)
    assert [consistent_hash(number, 11) for number in large] == [6, 3, 5]


@settings(deadline=None)
@given(st.integers(-(2**31), 2**31 - 1), st.integers(1, 64))
def test_one_bucket_more_moves_a_number_there_or_nowhere(number: int, buckets: int) -> None:
    assert consistent_hash(number, buckets + 1) in {consistent_hash(number, buckets), buckets}
