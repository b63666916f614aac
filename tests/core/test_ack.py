"""The ledger: settle once, in receive order, across reconnects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.ack import AckLedger, InFlight
from spanbridge.core.message import Publish


def entry(packet_id: int, *, qos: int = 1, epoch: int = 1, payload: bytes = b"x", since_ns: int = 0) -> InFlight:
    publish = Publish("t", payload, qos, packet_id=packet_id, epoch=epoch)
    made = InFlight(publish, None, "t", None, b"1234")
    made.since_ns = since_ns
    return made


def begun() -> AckLedger:
    """A ledger on its first connection."""
    ledger = AckLedger()
    ledger.turn(1, session=1)
    return ledger


def again(of: InFlight, *, epoch: int) -> Publish:
    return Publish("t", of.publish.payload, of.publish.qos, packet_id=of.publish.packet_id, epoch=epoch, dup=True)


def ids(publishes: list[Publish]) -> list[int]:
    return [publish.packet_id for publish in publishes]


@given(st.permutations(range(1, 9)))
def test_acknowledgements_leave_in_receive_order_whatever_order_they_settle_in(order: list[int]) -> None:
    ledger = begun()
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
    ledger = begun()
    first, second = entry(1), entry(2)
    ledger.add(first)
    ledger.add(second)
    assert ledger.settle([second]) == []
    assert ids(ledger.settle([first])) == [1, 2]


def test_what_is_settled_while_the_connection_is_gone_is_remembered() -> None:
    ledger = begun()
    first = entry(7)
    ledger.add(first)
    ledger.lost()
    assert ledger.settle([first]) == [], "nobody there to take it"
    assert (ledger.unsettled, ledger.held, ledger.held_bytes) == (0, 0, 0)
    ledger.turn(2, session=1)
    assert ledger.adopt(again(first, epoch=2)) is first
    assert ledger.held == 1
    assert ids(ledger.release()) == [7]
    assert (ledger.held, ledger.held_bytes) == (0, 0)


def test_messages_of_a_connection_that_is_gone_still_tell_the_age() -> None:
    ledger = begun()
    first = entry(7, since_ns=5)
    ledger.add(first)
    ledger.lost()
    assert ledger.oldest_ns() == 5
    ledger.turn(2, session=1)
    ledger.add(entry(8, epoch=2, since_ns=9))
    assert ledger.oldest_ns() == 5
    adopted = ledger.adopt(again(first, epoch=2))
    assert adopted is first
    assert ledger.oldest_ns() == 5, "a redelivery does not make a message younger"
    ledger.settle([first])
    assert ledger.oldest_ns() == 9


def test_settling_twice_counts_once() -> None:
    ledger = begun()
    only = entry(1)
    ledger.add(only)
    assert ids(ledger.settle([only])) == [1]
    assert ledger.settle([only]) == []
    assert ledger.unsettled == 0


def test_a_redelivery_of_a_message_under_way_is_adopted_and_acknowledged_under_the_new_connection() -> None:
    ledger = begun()
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, session=1)
    assert ledger.adopt(again(first, epoch=2)) is first
    assert ledger.unsettled == 1
    released = ledger.settle([first])
    assert [(publish.packet_id, publish.epoch) for publish in released] == [(7, 2)]


def test_a_redelivery_of_a_message_that_is_through_is_released_at_once() -> None:
    ledger = begun()
    head, behind = entry(1), entry(2)
    ledger.add(head)
    ledger.add(behind)
    ledger.settle([behind])  # held back by head, so its acknowledgement was never written
    assert (ledger.held, ledger.held_bytes) == (2, 8)
    ledger.turn(2, session=1)
    assert (ledger.held, ledger.held_bytes) == (1, 4), "what is through and owed to nobody takes no room"
    assert ledger.adopt(again(behind, epoch=2)) is behind
    assert (ledger.held, ledger.held_bytes) == (2, 8)
    assert ids(ledger.release()) == [2]
    assert (ledger.held, ledger.held_bytes) == (1, 4)


def test_qos_0_is_owed_nothing_and_forgotten_when_it_is_through() -> None:
    ledger = begun()
    loose = entry(0, qos=0, since_ns=3)
    ledger.add(loose)
    assert ledger.unrepeatable() == [loose]
    assert ledger.oldest_ns() == 3
    assert ledger.settle([loose]) == []
    assert (ledger.unrepeatable(), ledger.oldest_ns()) == ([], None)
    assert (ledger.unsettled, ledger.held, ledger.held_bytes) == (0, 0, 0)


def test_without_the_session_nothing_is_a_redelivery() -> None:
    ledger = begun()
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, session=2)
    assert ledger.adopt(again(first, epoch=2)) is None
    assert ledger.unsettled == 1, "the copy in hand may be the only one: it is still forwarded"
    assert ledger.settle([first]) == []


def test_another_session_is_noticed_also_when_it_brought_nothing() -> None:
    """The broker forgot us, began a session, sent a message that we never saw, and resumes: it numbers anew."""
    ledger = begun()
    first = entry(1)
    ledger.add(first)
    ledger.turn(3, session=2)
    assert ledger.adopt(again(first, epoch=3)) is None, "connection 2 began session 2: this is a message of that"


def test_what_does_not_come_again_before_news_is_forgotten_with_the_next_connection() -> None:
    ledger = begun()
    first, second = entry(1, since_ns=5), entry(2)
    ledger.add(first)
    ledger.add(second)
    ledger.turn(2, session=1)  # cut at once: nothing came
    ledger.turn(3, session=1)
    assert ledger.adopt(again(second, epoch=3)) is second
    ledger.add(entry(3, epoch=3, since_ns=9))
    ledger.turn(4, session=1)
    assert ledger.adopt(again(first, epoch=4)) is None, "redeliveries come first: by now it names another message"
    assert ledger.oldest_ns() == 0, "adopted, and not settled"
    ledger.settle([second])
    assert ledger.oldest_ns() == 5, "what is forgotten still tells the age until it is settled"
    ledger.settle([first])
    assert ledger.oldest_ns() == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [("topic", "u"), ("payload", b"y"), ("qos", 2), ("user_properties", [("tp", "b")]), ("correlation_data", b"2")],
)
def test_messages_that_differ_in_one_part_are_different(name: str, value: object) -> None:
    ledger = begun()
    first = entry(7)
    first.publish.user_properties, first.publish.correlation_data = [("tp", "a")], b"1"
    ledger.add(first)
    ledger.turn(2, session=1)
    other = again(first, epoch=2)
    other.user_properties, other.correlation_data = [("tp", "a")], b"1"
    same = getattr(other, name)
    setattr(other, name, value)
    assert ledger.adopt(other) is None
    setattr(other, name, same)
    other.retain, other.expiry = True, 9  # brokers may change these
    assert ledger.adopt(other) is first


def test_a_redelivery_of_a_message_that_we_never_had_is_no_news() -> None:
    """Sent to a gateway that was killed, say. Those that we have may come after it, or with the next connection."""
    ledger = begun()
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, session=1)
    unknown = entry(6, epoch=2)
    unknown.publish.dup = True
    ledger.add(unknown)
    ledger.turn(3, session=1)
    assert ledger.adopt(again(first, epoch=3)) is first
    assert ledger.adopt(again(unknown, epoch=3)) is unknown


def test_a_message_whose_identifier_another_redelivery_took_is_not_lost_sight_of() -> None:
    ledger = begun()
    first = entry(7, since_ns=5)
    ledger.add(first)
    ledger.turn(2, session=1)
    other = entry(7, epoch=2, payload=b"other", since_ns=9)
    other.publish.dup = True
    ledger.add(other)
    ledger.turn(3, session=1)
    assert ledger.unrepeatable() == [first]
    assert ledger.oldest_ns() == 5
    assert ledger.adopt(again(other, epoch=3)) is other


def test_an_identifier_that_names_a_new_message_is_forgotten() -> None:
    ledger = begun()
    first = entry(7)
    ledger.add(first)
    ledger.turn(2, session=1)
    ledger.add(entry(7, epoch=2))
    ledger.turn(3, session=1)
    newest = entry(7, epoch=2)
    adopted = ledger.adopt(again(newest, epoch=3))
    assert adopted is not None
    assert adopted is not first


def test_messages_of_an_old_connection_do_not_hold_back_the_new_one() -> None:
    ledger = begun()
    ledger.add(entry(1))
    ledger.turn(2, session=1)
    fresh = entry(2, epoch=2)
    ledger.add(fresh)
    assert ids(ledger.settle([fresh])) == [2]


def test_the_oldest_unsettled_message_tells_the_age() -> None:
    ledger = begun()
    assert ledger.oldest_ns() is None
    first, second = entry(1, since_ns=5), entry(2, since_ns=9)
    ledger.add(first)
    ledger.add(second)
    assert ledger.oldest_ns() == 5
    ledger.settle([first])
    assert ledger.oldest_ns() == 9
