"""The fault table's accounts: what counts as lost, twice and out of order, and which rows break a promise."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count

import pytest

from bench.faults.actors import Stalled
from bench.faults.lab import bounded
from bench.faults.ledger import Arrival, Ledger, Number, Row, broken

KEPT = Row(
    name="r",
    sent=9,
    acknowledged=9,
    delivered=9,
    lost=0,
    duplicated=3,
    out_of_order=0,
    recovery_s=1.0,
    rss_max_mib=80.0,
    order_promised=True,
    in_flight=3,
    repeats=1,
)


def ledger(*came: tuple[int, int], acknowledged: tuple[tuple[int, int], ...] = ()) -> Ledger:
    """``came`` are pairs of device and number, a second apart."""
    clock = count(100)
    return Ledger(
        sent=len(acknowledged),
        acknowledged={Number("run", *one) for one in acknowledged},
        arrivals=[Arrival(Number("run", *one), next(clock)) for one in came],
    )


def test_a_number_survives_the_way_as_a_payload() -> None:
    number = Number("run", 3, 17)
    assert Number.read(number.body()) == number


@pytest.mark.parametrize("body", [b"", b"run:3", b"run:3:x", b"run:-3:1", b"a:b:1:2", b"\xff\xfe"])
def test_foreign_payloads_are_no_numbers(body: bytes) -> None:
    assert Number.read(body) is None


def test_acknowledged_and_not_arrived_is_missing_and_the_unacknowledged_are_not() -> None:
    found = ledger((0, 0), (1, 5), acknowledged=((0, 0), (0, 1)))
    assert found.missing() == {Number("run", 0, 1)}


def test_every_arrival_beyond_the_first_is_a_duplicate() -> None:
    assert ledger((0, 0), (0, 1), (0, 0), (0, 0)).duplicated() == 2


@pytest.mark.parametrize(
    ("came", "late"),
    [
        (((0, 0), (1, 0), (0, 1), (1, 1)), 0),
        (((0, 1), (0, 0)), 1),
        (((0, 0), (0, 1), (0, 2), (0, 1), (0, 3)), 0),  # a copy that comes later is no disorder
        (((0, 2), (0, 0), (0, 1)), 2),
        (((0, 5), (1, 0)), 0),  # devices have no order among them
    ],
)
def test_order_is_of_first_arrivals_of_one_device(came: tuple[tuple[int, int], ...], late: int) -> None:
    assert ledger(*came).out_of_order() == late


def test_recovery_is_the_longest_wait_after_a_return() -> None:
    found = ledger((0, 0), (0, 1), (0, 2))  # at 100, 101, 102
    assert found.recovery([99.5, 101.25]) == 0.75
    assert found.recovery([]) is None
    assert found.recovery([99.5, 200.0]) is None


def test_a_row_whose_promises_are_kept() -> None:
    assert broken(KEPT) == []


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (replace(KEPT, lost=1), "lost"),
        (replace(KEPT, out_of_order=2), "order"),
        (replace(KEPT, duplicated=4), "duplicates"),
        (replace(KEPT, recovery_s=5.1), "return"),
        (replace(KEPT, failed=["no orderly stop"]), "orderly"),
        (Row.none("r", "stalled"), "stalled"),
    ],
)
def test_a_row_that_breaks_one(row: Row, word: str) -> None:
    (text,) = broken(row)
    assert word in text


def test_order_is_judged_only_where_it_is_promised() -> None:
    assert broken(replace(KEPT, out_of_order=2, order_promised=False)) == []


def test_the_last_line_has_the_fields_that_readers_know() -> None:
    names = {"name", "sent", "acknowledged", "delivered", "lost", "duplicated", "out_of_order", "recovery_s"}
    assert {*names, "rss_max_mib"} <= KEPT.json().keys()


def test_a_scenario_that_hangs_is_ended() -> None:
    with pytest.raises(Stalled, match="not done after"), bounded(0.05):
        time.sleep(60)
