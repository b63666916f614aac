"""The receiver's session state: what is answered when, without any I/O."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.message import Publish
from spanbridge.mqtt.errors import PacketError
from spanbridge.mqtt.framing import Remainder, packet_size
from spanbridge.mqtt.session import KeepAlive, ReceiverSession, TopicAliases


def connected() -> ReceiverSession:
    session = ReceiverSession()
    session.connected(session_present=False)
    return session


def message(session: ReceiverSession, packet_id: int, qos: int = 1) -> Publish:
    return Publish("t", b"", qos, epoch=session.epoch, packet_id=packet_id)


def reconnect(session: ReceiverSession, *, session_present: bool = True) -> None:
    session.disconnected()
    session.connected(session_present=session_present)


def test_acknowledgements_are_joined_in_the_order_given() -> None:
    session = connected()
    for packet_id in (7, 0xFFFF):
        assert session.accept_qos1(packet_id, dup=False)
    assert session.accept_qos2(9, dup=False) == (True, b"")
    batch = [message(session, 7), Publish("t", b""), message(session, 9, 2), message(session, 0xFFFF)]
    assert session.settle(batch).hex(" ", 4) == "40020007 50020009 4002ffff"
    assert session.in_flight == 0


def test_a_copy_of_an_open_qos1_message_is_held_back() -> None:
    session = connected()
    assert session.accept_qos1(5, dup=False)
    assert not session.accept_qos1(5, dup=True)
    assert session.in_flight == 1
    assert session.settle([message(session, 5)]).hex() == "40020005"
    assert session.accept_qos1(5, dup=True), "settled: whatever comes now is new to us"
    reconnect(session)
    assert session.accept_qos1(5, dup=True), "a re-delivery on the next connection is answered there"
    assert session.accept_qos1(5, dup=False), "without DUP it is another message"


def test_sessions_are_numbered() -> None:
    session = connected()
    assert session.number == 1
    reconnect(session)
    assert session.number == 1
    reconnect(session, session_present=False)
    assert session.number == 2


def test_qos2_runs_through_its_states() -> None:
    session = connected()
    assert session.accept_qos2(5, dup=False) == (True, b"")
    assert session.accept_qos2(5, dup=True) == (False, b""), "open: held back, and no PUBREC before it is settled"
    assert session.settle([message(session, 5, 2)]).hex() == "50020005"
    fresh, answer = session.accept_qos2(5, dup=True)
    assert (fresh, answer.hex()) == (False, "50020005"), "received: answered again"
    assert session.release(5)
    assert not session.release(5)
    assert session.accept_qos2(5, dup=False) == (True, b""), "the identifier is free for the next message"


def test_an_answer_to_a_duplicate_keeps_its_place() -> None:
    session = connected()
    session.accept_qos2(1, dup=False)
    session.settle([message(session, 1, 2)])
    session.accept_qos2(2, dup=False)
    assert session.accept_qos2(1, dup=True) == (False, b""), "message 2 came before it and is not settled"
    assert session.settle([message(session, 2, 2)]).hex(" ", 4) == "50020002 50020001"


def test_received_survives_a_reconnect_for_a_duplicate_only() -> None:
    session = connected()
    for packet_id in (1, 2):
        session.accept_qos2(packet_id, dup=False)
        session.settle([message(session, packet_id, 2)])
    reconnect(session)
    assert session.accept_qos2(1, dup=True)[0] is False
    assert session.accept_qos2(2, dup=False)[0] is True, "without DUP it is a new message under the old identifier"


def test_settled_after_the_connection_went_is_remembered() -> None:
    session = connected()
    session.accept_qos2(1, dup=False)
    old = message(session, 1, 2)
    session.disconnected()
    assert session.settle([old]) == b""
    session.connected(session_present=True)
    fresh, answer = session.accept_qos2(1, dup=True)
    assert (fresh, answer.hex()) == (False, "50020001")


def test_settled_after_it_was_sent_again_changes_nothing() -> None:
    session = connected()
    session.accept_qos2(1, dup=False)
    old = message(session, 1, 2)
    reconnect(session)
    assert session.accept_qos2(1, dup=True) == (True, b"")
    assert session.settle([old]) == b""
    assert session.in_flight == 1
    assert session.settle([old, message(session, 1, 2)]).hex() == "50020001", "an old one hides no other"
    session.release(1)
    assert session.settle([old]) == b""
    reconnect(session)
    assert session.accept_qos2(1, dup=True)[0] is True, "a later message under the same identifier is not lost"


def test_a_lost_session_forgets_everything() -> None:
    session = connected()
    session.accept_qos2(1, dup=False)
    session.settle([message(session, 1, 2)])
    session.accept_qos2(2, dup=False)
    old = message(session, 2, 2)
    reconnect(session, session_present=False)
    assert session.settle([old]) == b""
    assert session.accept_qos2(1, dup=True)[0] is True
    assert session.accept_qos2(2, dup=True)[0] is True


@given(st.lists(st.tuples(st.sampled_from(["publish", "dup", "settle", "release", "reconnect"]), st.integers(1, 3))))
def test_no_sequence_loses_a_message_that_was_not_settled(steps: list[tuple[str, int]]) -> None:
    """What is held back was settled before, or is open on this very connection."""
    session = connected()
    open_now: dict[int, Publish] = {}
    settled: set[int] = set()
    for step, packet_id in steps:
        if step in ("publish", "dup"):
            fresh, _ = session.accept_qos2(packet_id, dup=step == "dup")
            if fresh:
                open_now[packet_id] = message(session, packet_id, 2)
                settled.discard(packet_id)
            else:
                assert packet_id in open_now or packet_id in settled
        elif step == "settle" and packet_id in open_now:
            assert session.settle([open_now.pop(packet_id)])
            settled.add(packet_id)
        elif step == "release" and packet_id not in open_now:
            assert session.release(packet_id) == (packet_id in settled)
            settled.discard(packet_id)
        elif step == "reconnect":
            reconnect(session)
            open_now.clear()
        assert session.in_flight == len(open_now)


def test_topic_aliases() -> None:
    aliases = TopicAliases(2)
    assert aliases.resolve(1, "") is None
    assert aliases.resolve(1, "a") == "a"
    assert aliases.resolve(1, "") == "a"
    assert aliases.resolve(1, "b") == "b"
    assert aliases.resolve(1, "") == "b"
    for alias in (0, 3):
        with pytest.raises(ValueError, match=f"topic alias {alias} where 2 is the maximum"):
            aliases.resolve(alias, "a")


def ticks(keep_alive: KeepAlive, count: int, *, answers: bool, paused: bool = False) -> list[bool | None]:
    verdicts: list[bool | None] = []
    for _ in range(count):
        verdict = keep_alive.tick(paused=paused)
        verdicts.append(verdict)
        if verdict:
            keep_alive.sent = True
            keep_alive.heard = answers
    return verdicts


def test_keep_alive_pings_an_idle_connection_every_half_interval() -> None:
    assert ticks(KeepAlive(), 7, answers=True) == [False, True, False, True, False, True, False]


def test_keep_alive_gives_up_on_a_silent_broker_after_a_full_interval() -> None:
    assert ticks(KeepAlive(), 5, answers=False) == [False, True, True, True, None]


def test_keep_alive_does_not_blame_the_broker_while_paused() -> None:
    keep_alive = KeepAlive()
    assert ticks(keep_alive, 50, answers=False, paused=True) == [False, *[True] * 49]
    assert ticks(keep_alive, 2, answers=False) == [True, True], "time starts anew"


def test_packet_size() -> None:
    assert packet_size(b"\x30") == 0
    assert packet_size(b"\x30\xff") == 0
    assert packet_size(b"\xd0\x00") == 2
    assert packet_size(b"\x30\x7f") == 129
    assert packet_size(b"xx\x30\x80\x01", 2) == 131
    assert packet_size(b"\x30\xff\xff\xff\x7f") == 268_435_460
    with pytest.raises(PacketError, match="remaining length of more than four bytes"):
        packet_size(b"\x30\xff\xff\xff\xff\x01")


@given(st.binary(min_size=0, max_size=500), st.lists(st.integers(1, 50), min_size=1))
def test_a_packet_in_any_pieces_comes_out_whole(payload: bytes, cuts: list[int]) -> None:
    size = len(payload)
    packet = b"\x30" + (bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])) + payload
    rest, position, index, whole = Remainder(1000), 0, 0, None
    while whole is None:
        piece = packet[position : position + cuts[index % len(cuts)]]
        assert piece
        if len(rest):
            whole = rest.add(piece)
        elif packet_size(piece) == len(piece):
            whole = piece
        else:
            rest.keep(piece)
        position += len(piece)
        index += 1
    assert whole == packet
    assert len(rest) == 0
