"""What a source asks its broker for, as its options change and connections come and go."""

from __future__ import annotations

from spanbridge.mqtt import Subscription
from spanbridge.mqtt.subscriptions import Subscriptions
from spanbridge.mqtt.version import Granted

A, B = Subscription(filter="a", qos=1), Subscription(filter="b", qos=1)


def subscribed(*granted: Subscription) -> Subscriptions:
    made = Subscriptions(granted)
    made.connected(session_present=False, ask_again=True)
    assert all(made.answered(one, Granted(one.qos)) for one in made.missing())
    return made


def test_what_is_not_wanted_any_more_is_given_up_until_the_broker_says_so() -> None:
    made = subscribed(A, B)
    made.use((B,))
    assert (made.missing(), made.unwanted, made.count) == ([], ["a"], 1)
    made.connected(session_present=True, ask_again=False)
    assert (made.missing(), made.unwanted) == ([], ["a"])
    made.gone("a")
    assert made.unwanted == []


def test_what_is_wanted_again_is_asked_for_again() -> None:
    """The UNSUBSCRIBE may be on its way, and comes before the SUBSCRIBE."""
    made = subscribed(A, B)
    made.use((B,))
    made.use((A, B))
    assert (made.missing(), made.unwanted) == ([A], [])


def test_an_answer_that_comes_too_late_counts_for_nothing() -> None:
    made = subscribed(B)
    made.use((A, B))
    assert made.missing() == [A]
    made.use((B,))
    assert not made.answered(A, Granted(1))
    assert (made.unwanted, made.detail()) == (["a"], [{"filter": "b", "granted_qos": 1}])


def test_a_session_that_was_lost_has_nothing_to_give_up() -> None:
    made = subscribed(A, B)
    made.use((B,))
    made.connected(session_present=False, ask_again=False)
    assert (made.missing(), made.unwanted, made.count) == ([B], [], 0)


def test_a_refused_one_is_told_and_asked_for_again() -> None:
    made = Subscriptions((A,))
    made.connected(session_present=False, ask_again=True)
    assert made.answered(A, Granted(None, "not_authorized", "no"))
    assert (made.missing(), made.refused) == ([A], True)
    assert made.detail() == [{"filter": "a", "granted_qos": None, "error": "no"}]
