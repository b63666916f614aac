"""The small pure parts of a connection: keep-alive, and when unread bytes arrived."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.mqtt.arrivals import Arrivals
from spanbridge.mqtt.events import again
from spanbridge.mqtt.keepalive import KeepAlive


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


def test_answers_to_pings_inside_a_packet_are_no_sign_of_life_and_the_packet_itself_is() -> None:
    for size, last in ((2, None), (500, True)):
        keep_alive = KeepAlive()
        verdicts = []
        for _ in range(6):
            verdicts.append(keep_alive.tick(paused=False))
            keep_alive.sent = True
            keep_alive.piece(size)
        assert verdicts[4] in (last, False)


def test_what_waited_unread_is_dated_by_the_looks_at_the_socket() -> None:
    arrivals = Arrivals()
    assert arrivals.read(b"ab", 1) == [(b"ab", 1)]
    arrivals.look(0, 100)
    assert not arrivals
    arrivals.look(3, 200)
    arrivals.look(3, 300)
    arrivals.look(5, 400)
    assert arrivals.read(b"cd", 900) == [(b"cd", 200)]
    assert arrivals.read(b"efghi", 901) == [(b"e", 200), (b"fg", 400), (b"hi", 901)]
    assert not arrivals
    assert arrivals.read(b"j", 902) == [(b"j", 902)]


@given(st.lists(st.tuples(st.sampled_from(["arrive", "look", "read"]), st.integers(0, 9)), max_size=40))
def test_nothing_is_dated_before_it_arrived(steps: list[tuple[str, int]]) -> None:
    """Each byte's value is the time at which it arrived."""
    arrivals, unread, looked = Arrivals(), bytearray(), 0
    for now, (what, number) in enumerate(steps):
        if what == "arrive":
            unread += bytes([now]) * number
        elif what == "look":
            arrivals.look(len(unread), now)
            looked = now
        else:
            data, unread = bytes(unread[:number]), unread[number:]
            pieces = arrivals.read(data, now)
            assert b"".join(piece for piece, _ in pieces) == data
            assert all(byte <= when <= now for piece, when in pieces for byte in piece)
            assert all(when <= looked or byte > looked or when == now for piece, when in pieces for byte in piece)


def test_no_event_says_that_something_happens_in_0_0_seconds() -> None:
    assert [again(seconds) for seconds in (0.0, 0.004, 0.04, 0.96, 1.04, 30.0)] == [
        "at once", "at once", "in 0.04 s", "in 0.96 s", "in 1.0 s", "in 30.0 s",
    ]  # fmt: skip
