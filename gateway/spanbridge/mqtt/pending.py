"""One publication on its way, and the search for the one that ends connections. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from spanbridge.core.message import Publish
from spanbridge.ports import P, Published

_SUSPECTED, _GIVEN_UP = 3, 5
"""Connections that end over messages before these are suspected, and over one of them before it is given up."""
_SECOND = 1_000_000_000


class Pending(Generic[P]):
    """One publication. ``packet_id`` is 0 until it has one; ``received`` says that its PUBREC came, with ``code``."""

    __slots__ = ("code", "expires_ns", "message", "packet_id", "publication", "published", "qos", "received", "strikes")

    def __init__(self, publication: P, message: Publish, published: Published[P], now_ns: int) -> None:
        self.publication = publication
        self.message = message
        self.published = published
        self.expires_ns = None if message.expiry is None else now_ns + message.expiry * _SECOND
        self.qos = message.qos
        self.packet_id = 0
        self.received = False
        self.code = 0
        self.strikes = 0

    def left(self, now_ns: int) -> int | None:
        """Seconds until it expires, a begun one counted whole, 0 once it has; None: never."""
        return None if self.expires_ns is None else max(-((now_ns - self.expires_ns) // _SECOND), 0)


class Suspects(Generic[P]):
    """Finds a message over which the broker closes the connection.

    After three connections in a row that the broker ended with nothing answered, what was sent on the last one is
    suspected: from then on messages go one by one (``careful``), until each suspect is answered. One that is alone on
    its way when five more connections end is the culprit.
    """

    __slots__ = ("_alone", "_sent", "_strikes", "_suspected", "watching")

    def __init__(self) -> None:
        self.watching = True
        """Whether :meth:`sent` and :meth:`answered` are to be told: otherwise that would cost every message."""
        self._sent: list[Pending[P]] = []
        self._alone: Pending[P] | None = None
        self._strikes = 0
        self._suspected: set[Pending[P]] = set()

    @property
    def careful(self) -> bool:
        """Whether messages are to go one by one."""
        return bool(self._suspected)

    def connected(self) -> None:
        """A connection begins."""
        self.watching = True
        self._sent = []
        self._alone = None

    def sent(self, pending: Pending[P]) -> None:
        """A PUBLISH is being written."""
        self._sent.append(pending)
        self._alone = pending

    def answered(self, pending: Pending[P]) -> None:
        """It was answered, or it is through otherwise."""
        self._strikes = 0
        self._sent = []
        self._alone = None
        self._suspected.discard(pending)
        self.watching = self.careful

    def disconnected(self, is_open: Callable[[Pending[P]], bool], *, by_peer: bool) -> Pending[P] | None:
        """The connection ended; return the culprit, once it is found. ``is_open`` says whether one is unanswered."""
        alone, sent = self._alone, [pending for pending in self._sent if is_open(pending)]
        self.connected()
        if not by_peer or not sent:
            self._strikes = 0
            return None
        if self.careful:
            if alone is None or not is_open(alone):
                return None
            alone.strikes += 1
            if alone.strikes < _GIVEN_UP:
                return None
            self.answered(alone)
            return alone
        self._strikes += 1
        if self._strikes >= _SUSPECTED:
            self._suspected = set(sent)
        return None
