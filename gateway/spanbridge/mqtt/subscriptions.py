"""Which subscriptions a source wants, and which its broker's session has. Pure; it outlives connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spanbridge.mqtt.options import Subscription
from spanbridge.mqtt.version import Granted


class Subscriptions:
    """Use: :meth:`connected` with each connection; then ask for :meth:`missing`, give up ``unwanted``, and tell what
    the broker answers.
    """

    def __init__(self, configured: Sequence[Subscription]) -> None:
        self._configured = tuple(configured)
        self._granted: dict[str, Granted] = {}
        self._subscribed: dict[str, Subscription] = {}
        self._unwanted: dict[str, None] = {}

    def use(self, configured: Sequence[Subscription]) -> None:
        """Want these from now on. The session has the others until the broker says that they are gone."""
        before, self._configured = self._configured, tuple(configured)
        wanted = {subscription.wire_filter for subscription in configured}
        for name in [subscription.wire_filter for subscription in before]:
            if name not in wanted:
                self._unwanted[name] = None
                self._subscribed.pop(name, None)
                self._granted.pop(name, None)
        for name in wanted:
            self._unwanted.pop(name, None)

    def connected(self, *, session_present: bool, ask_again: bool) -> None:
        """A connection began. ``ask_again`` for what the session has already."""
        if not session_present:
            self._granted, self._unwanted = {}, {}
        if ask_again or not session_present:
            self._subscribed = {}

    def missing(self) -> list[Subscription]:
        """Those to be asked for."""
        return [one for one in self._configured if self._subscribed.get(one.wire_filter) != one]

    @property
    def unwanted(self) -> list[str]:
        """Filters, as they were sent to the broker, that the session is to lose."""
        return list(self._unwanted)

    def gone(self, wire_filter: str) -> None:
        """The broker gave it up."""
        self._unwanted.pop(wire_filter, None)

    def answered(self, subscription: Subscription, answer: Granted) -> bool:
        """Note the broker's answer to one that was asked for; False when it is not wanted any more."""
        name = subscription.wire_filter
        if name in self._unwanted:
            return False
        self._granted[name] = answer
        if answer.qos is not None:
            self._subscribed[name] = subscription
        return True

    @property
    def count(self) -> int:
        """How many are granted."""
        return sum(answer.qos is not None for answer in self._granted.values())

    @property
    def refused(self) -> bool:
        """Whether the broker refuses any."""
        return any(answer.qos is None for answer in self._granted.values())

    def detail(self) -> list[dict[str, Any]]:
        """For /status: each with the QoS that was granted, or why it was not."""
        return [self._row(subscription.wire_filter) for subscription in self._configured]

    def _row(self, name: str) -> dict[str, Any]:
        answer = self._granted.get(name)
        row: dict[str, Any] = {"filter": name, "granted_qos": None if answer is None else answer.qos}
        if answer is not None and answer.qos is None:
            row["error"] = answer.cause
        return row
