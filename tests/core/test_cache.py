"""The bounded cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.cache import Generations


def test_what_is_put_is_found() -> None:
    cache: Generations[str, int] = Generations(2)
    assert cache.get("a") is None
    cache.put("a", 1)
    cache.put("a", 2)
    assert (cache.get("a"), len(cache)) == (2, 1)


def test_what_is_in_use_stays_and_the_rest_goes() -> None:
    cache: Generations[int, int] = Generations(4)
    cache.put(-1, -1)
    for number in range(100):
        cache.put(number, number)
        assert cache.get(-1) == -1
    assert cache.get(0) is None
    assert cache.get(99) == 99


def test_working_sets_of_the_capacity_stay_whole() -> None:
    cache: Generations[int, int] = Generations(100)
    for number in range(100):
        cache.put(number, number)
    for _ in range(5):
        assert [cache.get(number) for number in range(100)] == list(range(100))


def test_a_promoted_entry_that_is_put_anew_has_its_new_value() -> None:
    cache: Generations[str, int] = Generations(1)
    cache.put("a", 1)
    cache.put("b", 1)
    cache.put("a", 2)
    assert cache.get("a") == 2
    cache.put("c", 1)
    assert cache.get("a") == 2


def test_clear() -> None:
    cache: Generations[str, int] = Generations(1)
    cache.put("a", 1)
    cache.put("b", 1)
    cache.clear()
    assert (len(cache), cache.get("a"), cache.get("b")) == (0, None, None)


def test_a_capacity_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Generations(0)


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 12))))
def test_never_a_wrong_value_and_never_more_than_two_generations(capacity: int, steps: list[tuple[bool, int]]) -> None:
    cache: Generations[int, int] = Generations(capacity)
    put: dict[int, int] = {}
    for turn, (is_put, key) in enumerate(steps, 1):
        if is_put:
            put[key] = turn
            cache.put(key, turn)
            assert cache.get(key) == turn
        else:
            assert cache.get(key) in {None, put.get(key)}
        assert len(cache) <= 2 * capacity
