"""What follows when a connection fails or ends: what it is called, and how long to wait."""

from __future__ import annotations

import random
from collections.abc import Callable

from spanbridge.core.errors import SourceError
from spanbridge.core.events import Event
from spanbridge.core.retry import Backoff
from spanbridge.mqtt import events
from spanbridge.mqtt.errors import LostError, PacketError, RefusedError
from spanbridge.mqtt.options import MqttOptions

_STABLE_AFTER = 5.0
"""Seconds that a connection has to last for its end not to count as one more failure in a row: a broker that
accepts and then throws us out, or a client id that two clients fight over, must not be met with a busy loop."""
_SHORT_LIVED = 60.0
"""Seconds. Connections that the broker closes again and again sooner than this may be another client's doing."""


class Failures:
    """The failures of a source's connections in a row. ``turn`` counts attempts that led to no connection: see
    :func:`spanbridge.mqtt.dial.dial`.
    """

    def __init__(self, options: MqttOptions) -> None:
        self.turn = 0
        self._options = options
        self._backoff = Backoff(options.backoff_initial, options.backoff_maximum)
        self._closed_early = 0

    def use(self, options: MqttOptions) -> None:
        """Wait as these say from now on, beginning with the shortest pause."""
        before, self._options = self._options, options
        if (before.host, before.port) != (options.host, options.port):
            self.turn = 0
        self._backoff = Backoff(options.backoff_initial, options.backoff_maximum)

    def failed(self, error: SourceError, lasted: float | None, client_id: str) -> tuple[str, float]:
        """Count one; return its cause in one line, and the seconds to wait.

        ``lasted`` is how long there was a connection, in seconds; None: there was none.
        """
        if lasted is None:
            self.turn += 1
        elif lasted >= _STABLE_AFTER:
            self._backoff.reset()
        cause = str(error) + self._takeover_hint(error, lasted, client_id)
        return cause, self._backoff.next_delay(random.random())  # noqa: S311 - jitter, not a secret

    def _takeover_hint(self, error: SourceError, lasted: float | None, client_id: str) -> str:
        """A 3.1.1 broker just closes when another client takes the client id; some do so in MQTT 5.0 as well."""
        closed = isinstance(error, LostError) and error.reason == LostError.reason
        if not closed or lasted is None or lasted >= _SHORT_LIVED:
            self._closed_early = 0
            return ""
        self._closed_early += 1
        if self._closed_early < 2:
            return ""
        return f", again and again: it may be that another client connects with the client id {client_id!r}"


def event_for(error: SourceError, *, established: bool) -> Callable[..., Event]:
    """The event that reports this error. ``established``: there was a connection."""
    if isinstance(error, RefusedError):
        return events.ConnectRefused
    if isinstance(error, PacketError):
        return events.BadPacket
    return events.Disconnected if established else events.ConnectFailed
