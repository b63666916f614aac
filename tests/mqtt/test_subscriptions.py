"""What a source asks its broker for, as its options change and connections come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spanbridge.mqtt import MqttOptions, Subscription
from spanbridge.mqtt.subscriptions import Subscriptions
from spanbridge.mqtt.version import Granted
from tests.fakes import FakeReporter

A, B = Subscription(filter="a", qos=1), Subscription(filter="b", qos=1)
NO = Granted(None, "not_authorized", "no")


def wanting(*subscriptions: Subscription, version: Any = "5") -> MqttOptions:
    return MqttOptions(name="plant", host="broker", version=version, subscriptions=subscriptions)


def subscribed(*granted: Subscription, version: Any = "5") -> Subscriptions:
    made = Subscriptions(wanting(*granted, version=version), FakeReporter())
    made.connected(session_present=False)
    missing = made.missing()
    assert made.answered(missing, [Granted(one.qos) for one in missing], 1.0) is None
    return made


def test_what_is_not_wanted_any_more_is_given_up_until_the_broker_says_so() -> None:
    made = subscribed(A, B, version="3.1.1")
    made.use(wanting(B, version="3.1.1"))
    assert (made.missing(), made.unwanted, made.granted) == ([], ["a"], 1)
    made.connected(session_present=True)
    assert (made.missing(), made.unwanted) == ([], ["a"])
    made.gone("a")
    assert made.unwanted == []


def test_a_kept_session_is_asked_again_where_that_is_harmless() -> None:
    """A 3.1.1 broker would send its retained messages again (MQTT-3.8.4-3)."""
    for version, missing in (("5", [A]), ("3.1.1", [])):
        made = subscribed(A, version=version)
        made.connected(session_present=True)
        assert (made.missing(), made.granted) == (missing, 1)


def test_what_is_wanted_again_is_asked_for_again() -> None:
    """The UNSUBSCRIBE may be on its way, and comes before the SUBSCRIBE."""
    made = subscribed(A, B)
    made.use(wanting(B))
    made.use(wanting(A, B))
    assert (made.missing(), made.unwanted) == ([A], [])


def test_an_answer_that_comes_too_late_counts_for_nothing() -> None:
    for answer in (Granted(1), NO):
        made = subscribed(B)
        made.use(wanting(A, B))
        assert made.missing() == [A]
        made.use(wanting(B))
        assert made.answered([A], [answer], 1.0) is None
        assert (made.unwanted, made.detail()) == (["a"], [{"filter": "b", "granted_qos": 1}])


def test_a_session_that_was_lost_has_nothing_to_give_up() -> None:
    for version in ("5", "3.1.1"):
        made = subscribed(A, B, version=version)
        made.use(wanting(B, version=version))
        made.connected(session_present=False)
        assert (made.missing(), made.unwanted, made.granted) == ([B], [], 0)


def test_a_refused_one_is_told_and_asked_for_again() -> None:
    recorder = FakeReporter()
    made = Subscriptions(wanting(A), recorder)
    made.connected(session_present=False)
    assert made.answered([A], [NO], 1.0) == "subscription 'a' refused: no"
    assert (made.missing(), made.granted) == ([A], 0)
    assert made.detail() == [{"filter": "a", "granted_qos": None, "error": "no"}]
    (event,) = recorder.of("mqtt.subscription.refused")
    assert (event.source, event.broker, event.reason, event.retry_in) == ("plant", "broker:1883", NO.reason, 1.0)


def test_a_lower_qos_than_asked_for_is_reported() -> None:
    recorder = FakeReporter()
    made = Subscriptions(wanting(A), recorder)
    made.connected(session_present=False)
    assert made.answered([A], [Granted(0)], 1.0) is None
    assert (made.missing(), made.granted) == ([], 1)
    (event,) = recorder.of("mqtt.subscription.downgraded")
    assert (event.asked, event.granted) == (1, 0)


def test_what_another_client_takes_is_kept_until_that_one_has_it() -> None:
    made = subscribed(A, B)
    made.use(replace(wanting(B), foreign=("a", "$share/g/b")))
    assert (made.missing(), made.unwanted, made.granted) == ([], [], 1), "nobody else may have it yet"
    made.release()
    assert made.unwanted == ["a", "$share/g/b"], "a session from before may have either"
    made.gone("$share/g/b")
    made.use(wanting(A, B))
    assert (made.missing(), made.unwanted) == ([A], []), "it came back, and the UNSUBSCRIBE may be on its way"


def test_a_late_answer_does_not_make_a_foreign_filter_ours() -> None:
    made = subscribed(B)
    made.use(wanting(A, B))
    made.use(replace(wanting(B), foreign=("a",)))
    made.answered([A], [Granted(1)], 1.0)
    made.release()
    made.use(wanting(A, B))
    assert made.missing() == [A]


def test_a_new_session_has_nothing_of_others() -> None:
    made = subscribed(B)
    made.use(replace(wanting(B), foreign=("a",)))
    made.release()
    made.connected(session_present=False)
    assert made.unwanted == []
