"""The ledger: settle once, in receive order, across reconnects."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.ack import AckLedger, InFlight
from spanbridge.core.message import Publish


def entry(packet_id: int, *, qos: int = 1, epoch: int = 1, payload: bytes = b"x", received_ns: int = 0) -> InFlight:
    publish = Publish("t", payload, qos, packet_id=packet_id, epoch=epoch, received_ns=received_ns)
    return InFlight(publish, None, "t", None, b"1234")


def again(of: InFlight, *, epoch: int, payload: bytes | None = None) -> Publish:
    body = of.publish.payload if payload is None else payload
    return Publish("t", body, of.publish.qos, packet_id=of.publish.packet_id, epoch=epoch, dup=True)


def ids(publishes: list[Publish]) -> list[int]:
    return [publish.packet_id for publish in publishes]


@given(st.permutations(range(1, 9)))
def test_acknowledgements_leave_in_receive_order_whatever_order_they_settle_in(order: list[int]) -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    entries = {number: entry(number) for number in range(1, 9)}
    for item in entries.values():
        ledger.add(item)
    released: list[int] = []
    for number in order:
        released += ids(ledger.settle([entries[number]]))
    assert released == list(range(1, 9))
    assert ledger.unsettled == 0
    assert ledger.held_bytes == 0


def test_an_unsettled_message_holds_back_those_behind_it() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    first, second = entry(1), entry(2)
    ledger.add(first)
    ledger.add(second)
    assert ledger.settle([second]) == []
    assert ids(ledger.settle([first])) == [1, 2]


def test_what_is_settled_while_the_connection_is_gone_is_remembered() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    first = entry(7)
    ledger.add(first)
    ledger.lost()
    assert ledger.settle([first]) == [], "nobody there to take it"
    assert (ledger.unsettled, ledger.held, ledger.held_bytes) == (0, 0, 0)
    ledger.turn(2, resumed=True)
    assert ledger.adopt(again(first, epoch=2)) is first
    assert ledger.held == 1
    assert ids(ledger.release()) == [7]
    assert (ledger.held, ledger.held_bytes) == (0, 0)


def test_messages_of_a_connection_that_is_gone_still_tell_the_age() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    first = entry(7, received_ns=5)
    ledger.add(first)
    ledger.lost()
    assert ledger.oldest_ns() == 5
    ledger.turn(2, resumed=True)
    ledger.add(entry(8, epoch=2, received_ns=9))
    assert ledger.oldest_ns() == 5
    adopted = ledger.adopt(again(first, epoch=2))
    assert adopted is first
    assert ledger.oldest_ns() == 5, "a redelivery does not make a message younger"
    ledger.settle([first])
    assert ledger.oldest_ns() == 9


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 2)),
            st.tuples(st.just("settle"), st.integers(0, 30)),
            st.tuples(st.just("cut"), st.booleans()),
        ),
        max_size=60,
    )
)
def test_the_books_balance_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    """Held never falls below unsettled, and both are zero in the end, whatever was cut and sent again between."""
    ledger, epoch, number = AckLedger(), 1, 0
    ledger.turn(epoch, resumed=False)
    unacknowledged: dict[int, InFlight] = {}
    everything: list[InFlight] = []
    for what, detail in steps:
        if what == "add":
            number += 1
            new = entry(number if detail else 0, qos=int(detail), epoch=epoch)
            ledger.add(new)
            everything.append(new)
            if detail:
                unacknowledged[number] = new
        elif what == "settle" and everything:
            for publish in ledger.settle([everything[detail % len(everything)]]):
                assert publish.epoch == epoch
                del unacknowledged[publish.packet_id]
        elif what == "cut":
            ledger.lost()
            if everything:
                ledger.settle([everything[-1]])
            epoch += 1
            ledger.turn(epoch, resumed=True)
            for packet_id in sorted(unacknowledged) if detail else ():
                assert ledger.adopt(again(unacknowledged[packet_id], epoch=epoch)) is unacknowledged[packet_id]
            for publish in ledger.release():
                del unacknowledged[publish.packet_id]
        assert ledger.held >= ledger.unsettled >= 0
    ledger.settle(everything)
    assert (ledger.unsettled, ledger.held, ledger.held_bytes) == (0, 0, 0)


def test_settling_twice_counts_once() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    only = entry(1)
    ledger.add(only)
    assert ids(ledger.settle([only])) == [1]
    assert ledger.settle([only]) == []
    assert ledger.unsettled == 0


def test_a_redelivery_of_a_message_under_way_is_adopted_and_acknowledged_under_the_new_connection() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, resumed=True)
    assert ledger.adopt(again(first, epoch=2)) is first
    assert ledger.unsettled == 1
    released = ledger.settle([first])
    assert [(publish.packet_id, publish.epoch) for publish in released] == [(7, 2)]


def test_a_redelivery_of_a_message_that_is_through_is_released_at_once() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    head, behind = entry(1), entry(2)
    ledger.add(head)
    ledger.add(behind)
    ledger.settle([behind])  # held back by head, so its acknowledgement was never written
    ledger.turn(2, resumed=True)
    assert ledger.adopt(again(behind, epoch=2)) is behind
    assert ids(ledger.release()) == [2]


def test_another_payload_under_the_same_identifier_is_a_new_message() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, resumed=True)
    assert ledger.adopt(again(first, epoch=2, payload=b"other")) is None


def test_without_the_session_nothing_is_a_redelivery() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, resumed=False)
    assert ledger.adopt(again(first, epoch=2)) is None
    assert ledger.unsettled == 1, "the copy in hand may be the only one: it is still forwarded"
    assert ledger.settle([first]) == []


def test_an_identifier_that_names_a_new_message_is_forgotten() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, resumed=True)
    ledger.add(entry(7, epoch=2))
    ledger.turn(3, resumed=True)
    newest = entry(7, epoch=2)
    adopted = ledger.adopt(again(newest, epoch=3))
    assert adopted is not None
    assert adopted is not first


def test_messages_of_an_old_connection_do_not_hold_back_the_new_one() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    ledger.add(entry(1))
    ledger.turn(2, resumed=True)
    fresh = entry(2, epoch=2)
    ledger.add(fresh)
    assert ids(ledger.settle([fresh])) == [2]


def test_the_oldest_unsettled_message_tells_the_age() -> None:
    ledger = AckLedger()
    ledger.turn(1, resumed=False)
    assert ledger.oldest_ns() is None
    first, second = entry(1, received_ns=5), entry(2, received_ns=9)
    ledger.add(first)
    ledger.add(second)
    assert ledger.oldest_ns() == 5
    ledger.settle([first])
    assert ledger.oldest_ns() == 9
