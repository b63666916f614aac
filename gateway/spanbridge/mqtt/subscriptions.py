"""What a source asks its broker for, and what it was granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spanbridge.mqtt import events
from spanbridge.mqtt.options import MqttOptions, Subscription
from spanbridge.mqtt.version import Granted
from spanbridge.ports import Reporter


class Subscriptions:
    """The subscriptions of one source. ``error`` is one line about the last refusal, None when nothing is refused."""

    def __init__(self, options: MqttOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._broker = f"{options.host}:{options.port}"
        self._granted: dict[str, Granted] = {}
        self.error: str | None = None

    @property
    def granted(self) -> int:
        """How many are granted."""
        return sum(answer.qos is not None for answer in self._granted.values())

    def forget(self) -> None:
        """The broker has lost the session, and the subscriptions with it."""
        self._granted = {}
        self.error = None

    def wanted(self, *, session_present: bool) -> list[Subscription]:
        """All of them, since asking again is harmless in MQTT 5.0 (with retain handling 1) and mends what was lost.

        A 3.1.1 broker sends its retained messages again with every SUBSCRIBE (MQTT-3.8.4-3): there, what this very
        session was granted before is left alone.
        """
        if self._options.version == "3.1.1" and session_present:
            had = self._granted
            return [
                s for s in self._options.subscriptions if s.wire_filter not in had or had[s.wire_filter].qos is None
            ]
        return list(self._options.subscriptions)

    def answered(
        self, asked: Sequence[Subscription], answers: Sequence[Granted], retry_in: float
    ) -> list[Subscription]:
        """Record and report what the broker granted; return what it refused. ``retry_in`` is seconds."""
        refused = []
        self.error = None
        for subscription, answer in zip(asked, answers, strict=True):
            self._granted[subscription.wire_filter] = answer
            if answer.qos is None:
                refused.append(subscription)
                self._refused(subscription.wire_filter, answer, retry_in)
            elif answer.qos < subscription.qos:
                self._reporter.report(
                    events.SubscriptionDowngraded(
                        source=self._options.name,
                        broker=self._broker,
                        filter=subscription.wire_filter,
                        asked=subscription.qos,
                        granted=answer.qos,
                    )
                )
        return refused

    def _refused(self, name: str, answer: Granted, retry_in: float) -> None:
        self.error = f"subscription {name!r} refused: {answer.cause}"
        self._reporter.report(
            events.SubscriptionRefused(
                source=self._options.name,
                broker=self._broker,
                filter=name,
                reason=answer.reason,
                cause=answer.cause,
                retry_in=retry_in,
            )
        )

    def detail(self) -> list[dict[str, Any]]:
        """For /status."""
        return [self._detail(subscription) for subscription in self._options.subscriptions]

    def _detail(self, subscription: Subscription) -> dict[str, Any]:
        answer = self._granted.get(subscription.wire_filter)
        detail: dict[str, Any] = {
            "filter": subscription.wire_filter,
            "granted_qos": None if answer is None else answer.qos,
        }
        if answer is not None and answer.qos is None:
            detail["error"] = answer.cause
        return detail
