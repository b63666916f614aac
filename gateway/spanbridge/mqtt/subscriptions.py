"""Which subscriptions a source wants, and which its broker's session has. It outlives connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spanbridge.mqtt import events
from spanbridge.mqtt.options import MqttOptions, Subscription
from spanbridge.mqtt.version import Granted
from spanbridge.ports import Reporter


class Subscriptions:
    """Use: :meth:`connected` with each connection; then ask for :meth:`missing`, give up ``unwanted``, and tell what
    the broker answers.
    """

    def __init__(self, options: MqttOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._granted: dict[str, Granted] = {}
        self._subscribed: dict[str, Subscription] = {}
        self._unwanted: dict[str, None] = {}

    def use(self, options: MqttOptions) -> None:
        """Want these options' from now on. The session has the others until the broker says that they are gone."""
        before, self._options = self._options, options
        wanted = {subscription.wire_filter for subscription in options.subscriptions}
        for name in [subscription.wire_filter for subscription in before.subscriptions]:
            if name not in wanted:
                self._subscribed.pop(name, None)
                self._granted.pop(name, None)
                if name not in options.foreign:  # another client may not have it yet, and nobody would
                    self._unwanted[name] = None
        for name in wanted:
            self._unwanted.pop(name, None)

    def release(self) -> None:
        """Give up the filters that another client takes: it has them now."""
        for name in self._options.foreign:
            self._unwanted[name] = None
            self._subscribed.pop(name, None)  # by an answer that came late
            self._granted.pop(name, None)

    def connected(self, *, session_present: bool) -> None:
        """A connection began: forget what is not known to be so any more.

        All are asked for again, since that is harmless in MQTT 5.0 (with retain handling 1) and mends what was lost.
        A 3.1.1 broker sends its retained messages again with every SUBSCRIBE (MQTT-3.8.4-3): there, what this very
        session was granted before is left alone.
        """
        if not session_present:
            self._granted, self._unwanted = {}, {}
        if not session_present or self._options.version == "5":
            self._subscribed = {}

    def missing(self) -> list[Subscription]:
        """Those to be asked for."""
        return [one for one in self._options.subscriptions if self._subscribed.get(one.wire_filter) != one]

    @property
    def unwanted(self) -> list[str]:
        """Filters, as they were sent to the broker, that the session is to lose."""
        return list(self._unwanted)

    def gone(self, wire_filter: str) -> None:
        """The broker gave it up."""
        self._unwanted.pop(wire_filter, None)

    def answered(self, asked: Sequence[Subscription], answers: Sequence[Granted], retry_in: float) -> str | None:
        """Note and report what the broker granted; return one line about the last refusal, None: all are granted.

        ``retry_in`` says when those refused are asked for again, in seconds.
        """
        error = None
        for subscription, answer in zip(asked, answers, strict=True):
            name = subscription.wire_filter
            if name in self._unwanted:  # the options changed meanwhile
                continue
            self._granted[name] = answer
            if answer.qos is None:
                error = f"subscription {name!r} refused: {answer.cause}"
                self._report_refused(name, answer, retry_in)
                continue
            self._subscribed[name] = subscription
            if answer.qos < subscription.qos:
                self._report_downgraded(subscription, answer.qos)
        return error

    def _report_refused(self, name: str, answer: Granted, retry_in: float) -> None:
        self._reporter.report(
            events.SubscriptionRefused(
                source=self._options.name,
                broker=self._options.broker,
                filter=name,
                reason=answer.reason,
                cause=answer.cause,
                retry_in=retry_in,
            )
        )

    def _report_downgraded(self, subscription: Subscription, granted: int) -> None:
        self._reporter.report(
            events.SubscriptionDowngraded(
                source=self._options.name,
                broker=self._options.broker,
                filter=subscription.wire_filter,
                asked=subscription.qos,
                granted=granted,
            )
        )

    @property
    def granted(self) -> int:
        """How many are granted."""
        return sum(answer.qos is not None for answer in self._granted.values())

    def detail(self) -> list[dict[str, Any]]:
        """For /status: each with the QoS that was granted, or why it was not."""
        return [self._row(subscription.wire_filter) for subscription in self._options.subscriptions]

    def _row(self, name: str) -> dict[str, Any]:
        answer = self._granted.get(name)
        row: dict[str, Any] = {"filter": name, "granted_qos": None if answer is None else answer.qos}
        if answer is not None and answer.qos is None:
            row["error"] = answer.cause
        return row
