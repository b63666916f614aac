"""The publisher: a connection of its own, on which messages go to the broker. The same for both protocol versions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic

from spanbridge.core.errors import SinkUnavailable
from spanbridge.mqtt import events, publisher_events
from spanbridge.mqtt.client import MqttClient
from spanbridge.mqtt.errors import LostError, StaleSessionError
from spanbridge.mqtt.options import MqttOptions, PublisherOptions
from spanbridge.mqtt.outbound import OutboundSession
from spanbridge.mqtt.outgoing import OutgoingConnection
from spanbridge.mqtt.version import Accepted, Version
from spanbridge.ports import Link, P, Published, Reporter

_NOT_OVER_A_MESSAGE = frozenset({
    "keep_alive", "no_answer", "session_taken_over", "server_shutting_down", "server_busy", "server_moved",
    "use_another_server", "max_connect_time", "connection_rate_exceeded", "keep_alive_timeout",
})  # fmt: skip
"""Why connections end that no message of ours can have ended."""


class MqttPublisher(MqttClient[PublisherOptions, OutgoingConnection[P]], Generic[P]):
    """Implements the ``Publisher`` port. Made by :func:`spanbridge.mqtt.create_publisher`."""

    _kept: ClassVar[str] = "unanswered messages are sent again"

    def __init__(self, options: PublisherOptions, reporter: Reporter, version: Version) -> None:
        super().__init__(options, reporter, version)
        self._outbound: OutboundSession[P] = OutboundSession(version)
        self._fresh = True
        self._clean = False
        self._session_present: bool | None = None

    # -- the port ---------------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Publications taken whose outcome is not known yet, those that wait for a connection included."""
        return self._outbound.in_flight

    async def run(self) -> None:
        """Connect and publish until :meth:`close`. One call per publisher.

        :raises RuntimeError: it runs already, or did.
        """
        try:
            await self._run()
        finally:
            if self._ended is not None and self._ended.is_set():
                self._end()

    def publish(self, publications: Sequence[P], published: Published[P]) -> None:
        """Publish these in this order. ``published`` is called once for each, never from in here."""
        self._outbound.put(publications, published, time.monotonic_ns())
        if self._connection is not None:
            self._connection.wake()
        elif self._link is Link.CLOSED:
            asyncio.get_running_loop().call_soon(self._end)

    async def close(self) -> None:
        """Disconnect in order, let the session go, end what is unanswered with ``SinkUnavailable``."""
        await self._close(forget=True)
        self._end()

    def reconfigure(self, options: MqttOptions, *, renew: bool = False) -> None:
        """Take over other options, of a source's as :meth:`PublisherOptions.beside` has them.

        What waits and what is unanswered stays, and is sent on the next connection.
        Where they differ in more than pauses and timeouts, or with ``renew`` (what TLS files hold has changed), the
        connection is made anew. Name, client id and version have to be the same as before. Synchronous; never raises,
        so check options with :func:`spanbridge.mqtt.check_options` first.
        """
        own = PublisherOptions.beside(options)
        if own.broker != self._options.broker:
            self._fresh = True
        self._use(own, renew=renew)
        self._look_again()

    # -- the life of a connection -----------------------------------------------------------------------------------

    def _connect(self) -> OutgoingConnection[P]:
        options = self._options
        if self._clean and not options.clean_start:  # 3.1.1: the flag is the options'
            options = replace(options, clean_start=True)
        return OutgoingConnection(options, self._client_id, self._outbound, self._version, clean_start=self._fresh)

    async def _serve(self, connection: OutgoingConnection[P], accepted: Accepted) -> None:
        """Publish until the connection ends.

        :raises SourceError: why it ended.
        """
        self._client_id = accepted.client_id
        self._leave_stale()
        if not self._version.v5:
            self._leave_stale_session(connection, accepted)
        self._accepted = accepted
        if not connection.ending:
            self._begin(connection, accepted)
        await asyncio.wait({connection.closed})
        cause = connection.closed.result()
        over_a_message = isinstance(cause, LostError) and cause.reason not in _NOT_OVER_A_MESSAGE
        self._outbound.disconnected(by_peer=over_a_message)
        self._outbound.outcomes.tell()
        self._change = asyncio.get_running_loop().create_future()
        if cause is not None:
            raise cause

    def _leave_stale_session(self, connection: OutgoingConnection[P], accepted: Accepted) -> None:
        """Be rid of what a 3.1.1 broker kept for a process that is gone.

        It may take a new QoS 2 message for one that it has received under the same identifier. MQTT 5.0 begins a
        session and keeps it in one CONNECT; 3.1.1 needs a clean session in between, which ends with its connection.
        """
        if self._clean:
            self._clean = self._fresh = False
        elif self._fresh and accepted.session_present:
            self._clean = True
        else:
            return
        connection.leave(StaleSessionError(f"{self._broker}: beginning a session"))

    def _begin(self, connection: OutgoingConnection[P], accepted: Accepted) -> None:
        """The connection is for use."""
        outbound, broker = self._outbound, self._broker
        resumed = accepted.session_present and not self._fresh
        self._fresh, self._session_present = False, resumed
        again = outbound.connected(accepted, resumed=resumed, aliases=self._options.topic_aliases)
        self._last_error = None
        self._set_link(Link.UP)
        if again:
            self._report(publisher_events.SentAnew(source=self.name, broker=broker, count=again))
        if accepted.maximum_qos < 2:
            qos = accepted.maximum_qos
            self._report(publisher_events.QosLimited(source=self.name, broker=broker, maximum_qos=qos))
        if not accepted.retain:
            self._report(publisher_events.RetainUnavailable(source=self.name, broker=broker))
        self._report(
            events.Connected(
                source=self.name,
                broker=broker,
                client_id=accepted.client_id,
                session_present=resumed,
                subscriptions=None,
            )
        )
        connection.start()

    def _end(self) -> None:
        """Nothing is published any more."""
        error = SinkUnavailable(f"the publisher to {self._broker} is closed", reason="closed")
        self._outbound.end(error)
        self._outbound.outcomes.tell()

    def _detail(self) -> dict[str, Any]:
        accepted, outbound, connection = self._accepted, self._outbound, self._connection
        return {
            "version": self._options.version,
            "broker": self._broker,
            "client_id": self._client_id,
            "session_present": self._session_present,
            "in_flight": outbound.unanswered,
            "waiting": outbound.in_flight - outbound.unanswered,
            "clogged": connection is not None and connection.clogged,
            "reconnects": max(outbound.connections - 1, 0),
            "published": outbound.published,
            "qos_lowered": outbound.lowered,
            "stray_answers": outbound.stray,
            "receive_maximum": None if accepted is None else accepted.receive_maximum,
            "maximum_qos": None if accepted is None else accepted.maximum_qos,
            "retain_available": None if accepted is None else accepted.retain,
            "maximum_packet_size": None if accepted is None else accepted.maximum_packet_size,
            "topic_alias_maximum": None if accepted is None else accepted.topic_alias_maximum,
        }
