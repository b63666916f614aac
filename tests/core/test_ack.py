"""The ledger: settle once, in receive order, across reconnects."""

from __future__ import annotations

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
    entries = {number: entry(number) for number in range(1, 9)}
    for item in entries.values():
        ledger.add(item)
    released: list[int] = []
    for number in order:
        released += ids(ledger.settle([entries[number]]))
    assert released == list(range(1, 9))
    assert ledger.unsettled == 0
    assert ledger.unsettled_bytes == 0


def test_an_unsettled_message_holds_back_those_behind_it() -> None:
    ledger = AckLedger()
    first, second = entry(1), entry(2)
    ledger.add(first)
    ledger.add(second)
    assert ledger.settle([second]) == []
    assert ids(ledger.settle([first])) == [1, 2]


def test_settling_twice_counts_once() -> None:
    ledger = AckLedger()
    only = entry(1)
    ledger.add(only)
    assert ids(ledger.settle([only])) == [1]
    assert ledger.settle([only]) == []
    assert ledger.unsettled == 0


def test_a_redelivery_of_a_message_under_way_is_adopted_and_acknowledged_under_the_new_connection() -> None:
    ledger = AckLedger()
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, resumed=True)
    assert ledger.adopt(again(first, epoch=2)) is first
    assert ledger.unsettled == 1
    released = ledger.settle([first])
    assert [(publish.packet_id, publish.epoch) for publish in released] == [(7, 2)]


def test_a_redelivery_of_a_message_that_is_through_is_released_at_once() -> None:
    ledger = AckLedger()
    head, behind = entry(1), entry(2)
    ledger.add(head)
    ledger.add(behind)
    ledger.settle([behind])  # held back by head, so its acknowledgement was never written
    ledger.turn(2, resumed=True)
    assert ledger.adopt(again(behind, epoch=2)) is behind
    assert ids(ledger.release()) == [2]


def test_another_payload_under_the_same_identifier_is_a_new_message() -> None:
    ledger = AckLedger()
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, resumed=True)
    assert ledger.adopt(again(first, epoch=2, payload=b"other")) is None


def test_without_the_session_nothing_is_a_redelivery() -> None:
    ledger = AckLedger()
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, resumed=False)
    assert ledger.adopt(again(first, epoch=2)) is None
    assert ledger.unsettled == 1, "the copy in hand may be the only one: it is still forwarded"
    assert ledger.settle([first]) == []


def test_an_identifier_that_names_a_new_message_is_forgotten() -> None:
    ledger = AckLedger()
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
    ledger.add(entry(1))
    ledger.turn(2, resumed=True)
    fresh = entry(2, epoch=2)
    ledger.add(fresh)
    assert ids(ledger.settle([fresh])) == [2]


def test_the_oldest_unsettled_message_tells_the_age() -> None:
    ledger = AckLedger()
    assert ledger.oldest_ns() is None
    first, second = entry(1, received_ns=5), entry(2, received_ns=9)
    ledger.add(first)
    ledger.add(second)
    assert ledger.oldest_ns() == 5
    ledger.settle([first])
    assert ledger.oldest_ns() == 9
