"""The session: acknowledged once, in receive order, across reconnects. Without any I/O."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Publishes
from spanbridge.mqtt.delivery import REPEATED, MqttDelivery
from spanbridge.mqtt.session import MqttSession


def delivery(packet_id: int, *, qos: int = 1, dup: bool = False, arrived_ns: int = 0, **fields: Any) -> MqttDelivery:
    message = Publish("t", fields.pop("payload", b"x"), qos, **fields)
    source: Any = None
    return MqttDelivery(message, source, 4, arrived_ns, packet_id=packet_id, state=REPEATED if dup else 0)


def again(of: MqttDelivery) -> MqttDelivery:
    """The same message as the broker sends it on the next connection."""
    return delivery(of.packet_id, qos=of.message.qos, dup=True, payload=of.message.payload, arrived_ns=99)


def run_of(*deliveries: MqttDelivery) -> Publishes:
    run = Publishes()
    run.deliveries = list(deliveries)
    run.size = sum(item.size for item in deliveries)
    run.plain = all(item.message.qos == 1 and item.state == 0 for item in deliveries)
    return run


def begun(*deliveries: MqttDelivery) -> MqttSession:
    """A session on its first connection, which brought these."""
    session = MqttSession()
    session.connected(session_present=False)
    if deliveries:
        assert session.take(run_of(*deliveries)) == (list(deliveries), b"", 0)
    return session


def reconnect(session: MqttSession, *, session_present: bool = True) -> int:
    session.disconnected()
    return session.connected(session_present=session_present)


def took(session: MqttSession, *deliveries: MqttDelivery) -> tuple[list[MqttDelivery], str, int]:
    fresh, answer, adopted = session.take(run_of(*deliveries))
    return fresh, answer.hex(" ", 4), adopted


def counts(session: MqttSession) -> tuple[int, int, int]:
    return session.unacked, session.held, session.held_bytes


@given(st.permutations(range(1, 9)), st.booleans())
def test_acknowledgements_leave_in_receive_order_whatever_order_they_are_acked_in(
    order: list[int], mixed: bool
) -> None:
    made = {number: delivery(number, qos=1 + (mixed and number % 2)) for number in range(1, 9)}
    session = begun(*made.values())
    answer = b"".join(session.ack([made[number]]) for number in order)
    assert [int.from_bytes(answer[at + 2 : at + 4], "big") for at in range(0, len(answer), 4)] == list(range(1, 9))
    assert counts(session) == (0, 0, 0)


def test_acknowledgements_are_joined() -> None:
    made = [delivery(7), delivery(9, qos=2), delivery(0, qos=0), delivery(0xFFFF)]
    session = begun(*made)
    assert session.in_flight == 3
    assert session.ack(made).hex(" ", 4) == "40020007 50020009 4002ffff"
    assert session.in_flight == 0


def test_an_unacked_message_holds_back_those_behind_it() -> None:
    first, second = delivery(1), delivery(2)
    session = begun(first, second)
    assert session.ack([second]) == b""
    assert counts(session) == (1, 2, 8)
    assert session.ack([first]).hex(" ", 4) == "40020001 40020002"


def test_what_is_acked_while_the_connection_is_gone_is_remembered() -> None:
    first = delivery(7)
    session = begun(first)
    session.disconnected()
    assert session.ack([first]) == b"", "nobody there to take it"
    assert counts(session) == (0, 0, 0)
    session.connected(session_present=True)
    assert took(session, again(first)) == ([], "40020007", 1)
    assert counts(session) == (0, 0, 0)


def test_messages_of_a_connection_that_is_gone_still_tell_the_age() -> None:
    first = delivery(7, arrived_ns=5)
    session = begun(first)
    session.disconnected()
    assert session.oldest_ns() == 5
    session.connected(session_present=True)
    took(session, delivery(8, arrived_ns=9))
    assert session.oldest_ns() == 5
    assert took(session, again(first)) == ([], "", 1)
    assert session.oldest_ns() == 5, "a redelivery does not make a message younger"
    session.ack([first])
    assert session.oldest_ns() == 9


def test_acking_twice_counts_once() -> None:
    only = delivery(1)
    session = begun(only)
    assert session.ack([only, only]).hex() == "40020001"
    assert session.ack([only]) == b""
    assert session.nack([only]) == (0, 0, False)
    assert counts(session) == (0, 0, 0)


def test_a_redelivery_of_a_message_in_hand_is_acknowledged_in_its_new_place() -> None:
    first, second = delivery(7), delivery(8)
    session = begun(first, second)
    reconnect(session)
    assert took(session, again(second), again(first)) == ([], "", 2)
    assert session.unacked == 2
    assert session.ack([first]) == b""
    assert session.ack([second]).hex(" ", 4) == "40020008 40020007"


def test_a_redelivery_of_a_message_that_is_through_is_answered_at_once() -> None:
    head, behind = delivery(1), delivery(2)
    session = begun(head, behind)
    session.ack([behind])  # held back by head, so its acknowledgement was never written
    assert counts(session) == (1, 2, 8)
    reconnect(session)
    assert counts(session) == (1, 1, 4), "what is through and waits for nobody takes no room"
    assert took(session, again(behind)) == ([], "40020002", 1)
    assert counts(session) == (1, 1, 4)


def test_qos_0_is_held_until_it_is_answered() -> None:
    loose = delivery(0, qos=0, arrived_ns=3)
    session = begun(loose)
    assert session.unrepeatable() == [loose]
    assert session.oldest_ns() == 3
    assert counts(session) == (1, 1, 4)
    assert session.in_flight == 0
    assert session.ack([loose]) == b""
    assert (session.unrepeatable(), session.oldest_ns()) == ([], None)
    assert counts(session) == (0, 0, 0)


def test_without_the_session_nothing_is_a_redelivery() -> None:
    first = delivery(7)
    session = begun(first)
    reconnect(session, session_present=False)
    other = again(first)
    assert took(session, other) == ([other], "", 0)
    assert session.unacked == 2, "the copy in hand may be the only one: it is still forwarded"
    assert session.unrepeatable() == [first]
    assert session.ack([first]) == b""


def test_another_session_is_noticed_also_when_it_brought_nothing() -> None:
    """The broker forgot us, began a session, sent a message that we never saw, and resumes: it numbers anew."""
    first = delivery(1)
    session = begun(first)
    reconnect(session, session_present=False)
    reconnect(session)
    other = again(first)
    assert took(session, other) == ([other], "", 0), "a message of the second session"
    assert session.number == 2


def test_what_does_not_come_again_before_news_is_forgotten_with_the_next_connection() -> None:
    first, second = delivery(1, arrived_ns=5), delivery(2)
    session = begun(first, second)
    reconnect(session)  # cut at once: nothing came
    reconnect(session)
    assert took(session, again(second)) == ([], "", 1)
    took(session, delivery(3, arrived_ns=9))
    reconnect(session)
    assert took(session, again(first))[2] == 0, "redeliveries come first: by now it names another message"
    assert session.unrepeatable() == [first]
    assert session.oldest_ns() == 0, "adopted, and not acked"
    session.ack([second])
    assert session.oldest_ns() == 5, "what is forgotten still tells the age until it is answered"
    session.ack([first])
    assert session.oldest_ns() == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [("topic", "u"), ("payload", b"y"), ("qos", 2), ("user_properties", (("tp", "b"),)), ("correlation_data", b"2")],
)
def test_messages_that_differ_in_one_part_are_different(name: str, value: object) -> None:
    first = delivery(7, user_properties=(("tp", "a"),), correlation_data=b"1")
    session = begun(first)
    reconnect(session)
    other = delivery(7, dup=True, user_properties=(("tp", "a"),), correlation_data=b"1")
    setattr(other.message, name, value)
    assert took(session, other)[2] == 0
    session = begun(first := delivery(7, user_properties=(("tp", "a"),), correlation_data=b"1"))
    reconnect(session)
    same = delivery(7, dup=True, user_properties=(("tp", "a"),), correlation_data=b"1", retain=True, expiry=9)
    assert took(session, same) == ([], "", 1), "brokers may change RETAIN and the expiry"
    assert not first.message.retain


def test_a_redelivery_of_a_message_that_we_never_had_is_no_news() -> None:
    """Sent to a gateway that was killed, say. Those that we have may come after it, or with the next connection."""
    first = delivery(7)
    session = begun(first)
    reconnect(session)
    unknown = delivery(6, dup=True)
    assert took(session, unknown) == ([unknown], "", 0)
    reconnect(session)
    assert took(session, again(first), again(unknown)) == ([], "", 2)


def test_a_message_whose_identifier_another_redelivery_took_is_not_lost_sight_of() -> None:
    first = delivery(7, arrived_ns=5)
    session = begun(first)
    reconnect(session)
    other = delivery(7, dup=True, payload=b"other", arrived_ns=9)
    took(session, other)
    reconnect(session)
    assert session.unrepeatable() == [first]
    assert session.oldest_ns() == 5
    assert took(session, again(other)) == ([], "", 1)


def test_an_identifier_that_names_a_new_message_is_forgotten() -> None:
    first = delivery(7)
    session = begun(first)
    reconnect(session)
    newest = delivery(7)
    took(session, newest)
    assert session.unrepeatable() == [first]
    reconnect(session)
    assert took(session, again(newest)) == ([], "", 1)
    assert session.ack([newest]).hex() == "40020007"


def test_messages_of_an_old_connection_do_not_hold_back_the_new_one() -> None:
    session = begun(delivery(1))
    reconnect(session)
    fresh = delivery(2)
    took(session, fresh)
    assert session.ack([fresh]).hex() == "40020002"


def test_a_copy_of_an_open_qos1_message_is_held_back() -> None:
    first = delivery(5)
    session = begun(first)
    assert took(session, again(first), again(first)) == ([], "", 0)
    assert session.in_flight == 1
    assert session.ack([first]).hex() == "40020005"
    new = again(first)
    assert took(session, new) == ([new], "", 0), "acknowledged: whatever comes now is new to us"
    other = delivery(5)
    assert took(session, other) == ([other], "", 0), "without DUP it is another message"


# -- nack -------------------------------------------------------------------------------------------------------------


def test_what_is_nacked_is_handed_over_again_and_the_rest_is_adopted() -> None:
    first, second, third = delivery(1), delivery(2), delivery(3)
    session = begun(first, second, third)
    session.ack([third])
    assert session.nack([second]) == (1, 0, True)
    session.disconnected()
    assert counts(session) == (1, 1, 4)
    assert session.ack([second]) == b"", "answered already"
    session.connected(session_present=True)
    new = again(second)
    assert took(session, again(first), new, again(third)) == ([new], "", 2)
    assert session.ack([first, new]).hex(" ", 4) == "40020001 40020002 40020003"
    assert counts(session) == (0, 0, 0)


def test_nacked_after_its_connection_went_needs_no_other() -> None:
    first = delivery(1, qos=2)
    session = begun(first)
    reconnect(session)
    assert session.nack([first]) == (1, 0, False)
    new = again(first)
    assert took(session, new) == ([new], "", 0)
    assert session.ack([new]).hex() == "50020001"


def test_what_nobody_has_a_copy_of_is_lost() -> None:
    loose, kept = delivery(0, qos=0), delivery(1)
    session = begun(loose, kept)
    assert session.nack([loose]) == (0, 1, False)
    assert session.nack([kept]) == (1, 0, True)
    assert reconnect(session, session_present=False) == 1, "the session that held it is gone"
    assert reconnect(session, session_present=False) == 0
    assert counts(session) == (0, 0, 0)


# -- QoS 2 ------------------------------------------------------------------------------------------------------------


def test_qos2_runs_through_its_states() -> None:
    first = delivery(5, qos=2)
    session = begun(first)
    assert took(session, again(first)) == ([], "", 0), "open: held back, and no PUBREC before it is acked"
    assert session.ack([first]).hex() == "50020005"
    assert took(session, again(first)) == ([], "50020005", 0), "received: answered again"
    assert session.pubrel(5)
    assert not session.pubrel(5)
    new = delivery(5, qos=2)
    assert took(session, new) == ([new], "", 0), "the identifier is free for the next message"


def test_an_answer_to_a_duplicate_keeps_its_place() -> None:
    first, second = delivery(1, qos=2), delivery(2, qos=2)
    session = begun(first)
    session.ack([first])
    took(session, second)
    assert took(session, again(first)) == ([], "", 0), "message 2 came before it and is not acked"
    assert session.ack([second]).hex(" ", 4) == "50020002 50020001"


def test_received_survives_a_reconnect_for_a_duplicate_only() -> None:
    first, second = delivery(1, qos=2), delivery(2, qos=2)
    session = begun(first, second)
    session.ack([first, second])
    reconnect(session)
    assert took(session, again(first)) == ([], "50020001", 0)
    new = delivery(2, qos=2)
    assert took(session, new) == ([new], "", 0), "without DUP it is a new message under the old identifier"


@pytest.mark.parametrize("connections", [1, 2])
def test_qos2_acked_after_the_connection_went_is_remembered(connections: int) -> None:
    first = delivery(1, qos=2)
    session = begun(first)
    for _ in range(connections):
        reconnect(session)
        took(session, delivery(50))  # news: it is no longer matched by its content
    assert session.ack([first]) == b""
    assert took(session, again(first)) == ([], "", 0)
    assert session.in_flight == 1


def test_qos2_acked_after_it_was_sent_again_is_answered_in_its_new_place() -> None:
    first = delivery(1, qos=2)
    session = begun(first)
    reconnect(session)
    assert took(session, again(first)) == ([], "", 1)
    assert session.ack([first]).hex() == "50020001"
    session.pubrel(1)
    reconnect(session)
    new = again(first)
    assert took(session, new) == ([new], "", 0), "a later message under the same identifier is not lost"


def test_an_equal_message_under_an_identifier_that_was_answered_late_is_another() -> None:
    first = delivery(1, qos=2)
    session = begun(first)
    session.disconnected()
    session.ack([first])
    session.connected(session_present=True)
    assert took(session, again(first)) == ([], "50020001", 0)
    session.pubrel(1)
    reconnect(session)
    other = again(first)  # first sent on the last connection, and lost on the wire
    assert took(session, other) == ([other], "", 0)


def test_a_lost_session_forgets_everything() -> None:
    first, second = delivery(1, qos=2), delivery(2, qos=2)
    session = begun(first, second)
    session.ack([first])
    reconnect(session, session_present=False)
    assert session.ack([second]) == b""
    new = [again(first), again(second)]
    assert took(session, *new) == (new, "", 0)
    assert session.number == 2


def test_the_oldest_unacked_message_tells_the_age() -> None:
    session = begun()
    assert session.oldest_ns() is None
    first, second = delivery(1, arrived_ns=5), delivery(2, arrived_ns=9)
    took(session, first, second)
    assert session.oldest_ns() == 5
    session.ack([first])
    assert session.oldest_ns() == 9
