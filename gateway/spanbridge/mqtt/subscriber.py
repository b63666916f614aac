"""The source: keeps a connection subscribed and accounted for. The same for both protocol versions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Publish
from spanbridge.core.retry import Backoff
from spanbridge.mqtt import events
from spanbridge.mqtt.client import MqttClient
from spanbridge.mqtt.errors import NackError
from spanbridge.mqtt.inbound import Inbound
from spanbridge.mqtt.incoming import IncomingConnection
from spanbridge.mqtt.options import MqttOptions
from spanbridge.mqtt.subscriptions import Subscriptions
from spanbridge.mqtt.version import Accepted, Version
from spanbridge.ports import Deliver, Link, Released, Reporter


class MqttSubscriber(MqttClient[MqttOptions, IncomingConnection]):
    """Implements the ``Source`` port. Made by :func:`spanbridge.mqtt.create_source`."""

    def __init__(self, options: MqttOptions, reporter: Reporter, version: Version) -> None:
        super().__init__(options, reporter, version)
        self._inbound = Inbound(self, self._discarded, self._redelivered)
        self._session = self._inbound.session
        self._subscriptions = Subscriptions(options, reporter)

    # -- the port ---------------------------------------------------------------------------------------------------

    @property
    def unacked(self) -> int:
        """Deliveries answered by neither ack nor nack."""
        return self._session.unacked

    @property
    def held(self) -> int:
        """Deliveries in our hands."""
        return self._session.held

    @property
    def held_bytes(self) -> int:
        """What those take in memory, in bytes."""
        return self._session.held_bytes

    def oldest_ns(self) -> int | None:
        """When the oldest unacked delivery arrived (monotonic, ns)."""
        return self._session.oldest_ns()

    def unrepeatable(self) -> list[Delivery[Publish]]:
        """Unacked deliveries that the broker will not send again."""
        return list(self._session.unrepeatable())

    async def run(self, deliver: Deliver[Publish], released: Released) -> None:
        """Connect, subscribe and deliver until :meth:`close`. One call per source.

        :raises RuntimeError: it runs already, or did.
        """
        self._inbound.deliver, self._inbound.released = deliver, released
        await self._run()

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        """Acknowledge each as soon as order allows, in one write."""
        if self._connection is not None:
            self._connection.ack(deliveries)
        else:
            self._session.ack(deliveries)

    def nack(self, deliveries: Sequence[Delivery[Publish]], cause: str) -> None:
        """Have the broker send these again: on a new connection. Without a session it cannot, and they are lost."""
        if not self._options.persistent:
            before = self._session.unacked
            self.ack(deliveries)
            self._lost(before - self._session.unacked, cause)
            return
        error = NackError(f"{self._broker}: renewing the connection, since messages were not handled: {cause}")
        if self._connection is not None:
            nacked = self._connection.nack(deliveries, error)
        else:
            nacked = self._session.nack(deliveries)
        if nacked.again:
            self._report(events.MessagesNacked(source=self.name, broker=self._broker, cause=cause, count=nacked.again))
        self._lost(nacked.lost, cause)

    def pause(self) -> None:
        """Stop reading the socket."""
        self._pause(paused=True)

    def resume(self) -> None:
        """Read again."""
        self._pause(paused=False)

    def _pause(self, *, paused: bool) -> None:
        self._inbound.pauses += paused and not self._inbound.paused
        self._inbound.paused = paused
        if self._connection is not None:
            self._connection.apply_pause()

    async def stop_intake(self) -> None:
        """Deliver nothing more; acknowledgements, QoS 2 handshakes and keep-alive go on."""
        self._inbound.delivering = False

    async def close(self) -> None:
        """Flush, disconnect in order, keep the session."""
        self._inbound.delivering = False
        await self._close()

    def reconfigure(self, options: MqttOptions, *, renew: bool = False) -> None:
        """Take over other options. The session stays, and so do the deliveries in hand.

        Subscriptions are changed on the living connection: new ones are asked for, those that are not wanted any more
        are given up, since the broker's session would keep them. Where more differs, or with ``renew`` (what TLS files
        hold has changed), the connection is made anew. Name, client id and version have to be the same as before.
        Synchronous; never raises, so check options with :func:`spanbridge.mqtt.check_options` first.
        """
        self._subscriptions.use(options)
        self._use(options, renew=renew)
        self._look_again()

    @property
    def granted(self) -> bool:
        """Whether the session has all subscriptions."""
        return not self._subscriptions.missing()

    def release(self) -> None:
        """Give up the filters that another client takes (``foreign``): it has them now. Synchronous."""
        self._subscriptions.release()
        self._look_again()

    # -- the life of a connection -----------------------------------------------------------------------------------

    def _connect(self) -> IncomingConnection:
        return IncomingConnection(self._options, self._client_id, self._inbound, self._version)

    async def _serve(self, connection: IncomingConnection, accepted: Accepted) -> None:
        """Subscribe, then wait for the end of the connection.

        :raises SourceError: why it ended.
        """
        self._note_session(accepted)
        # What came before is over. With reading paused, the answer may wait behind messages for long.
        self._last_error = f"{self._broker} accepted the connection, its answer to SUBSCRIBE has not been read yet"
        subscriptions = self._subscriptions
        subscriptions.connected(session_present=accepted.session_present)
        self._leave_stale()
        fresh = not accepted.session_present
        retry = Backoff(self._options.backoff_initial, self._options.backoff_maximum)
        while not connection.closed.done():
            change = self._change = asyncio.get_running_loop().create_future()
            delay: float | None = None
            wanted = subscriptions.missing()
            if wanted:
                answers = await connection.subscribe(wanted, fresh=fresh)
                pause = retry.next_delay(random.random())  # noqa: S311 - jitter, not a secret
                refusal = subscriptions.answered(wanted, answers, pause)
                if refusal is not None:
                    delay = pause
                    self._note_error(refusal)
            if delay is None:
                self._last_error = None
            for name in subscriptions.unwanted:  # after new ones were granted, which may take in what these bring
                connection.unsubscribe(name, partial(subscriptions.gone, name))
            fresh = False
            if self._link is not Link.UP:
                self._note_up(accepted)
            await asyncio.wait({connection.closed, change}, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        cause = connection.closed.result()
        if cause is not None:
            raise cause

    # -- notes ------------------------------------------------------------------------------------------------------

    def _note_session(self, accepted: Accepted) -> None:
        accepted_before = self._accepted is not None
        self._accepted = accepted
        self._client_id = accepted.client_id
        asked, granted = self._options.session_expiry, accepted.session_expiry
        if granted is not None and granted < asked:
            self._report(events.SessionShortened(source=self.name, broker=self._broker, asked=asked, granted=granted))
        if not accepted.session_present and accepted_before and self._options.persistent:
            self._report(events.SessionLost(source=self.name, broker=self._broker))
        self._lost(accepted.lost, "they were nacked, and the broker lost the session that held them")

    def _note_up(self, accepted: Accepted) -> None:
        self._set_link(Link.UP)
        self._report(
            events.Connected(
                source=self.name,
                broker=self._broker,
                client_id=accepted.client_id,
                session_present=accepted.session_present,
                subscriptions=self._subscriptions.granted,
            )
        )

    def _discarded(self, count: int) -> None:
        self._report(events.Discarded(source=self.name, broker=self._broker, count=count))

    def _redelivered(self, count: int) -> None:
        self._report(events.MessagesRedelivered(source=self.name, broker=self._broker, count=count))

    def _lost(self, count: int, cause: str) -> None:
        if count:
            self._report(events.MessagesLost(source=self.name, broker=self._broker, cause=cause, count=count))

    def _detail(self) -> dict[str, Any]:
        accepted = self._accepted
        return {
            "version": self._options.version,
            "broker": self._broker,
            "client_id": self._client_id,
            "session_present": self._session.resumed if self._session.connections else None,
            "session_expiry": None if accepted is None else accepted.session_expiry,
            "in_flight": self._session.in_flight,
            "paused": self._inbound.paused,
            "delivering": self._inbound.delivering,
            "reconnects": max(self._session.connections - 1, 0),
            "messages": self._inbound.messages,
            "subscriptions": self._subscriptions.detail(),
        }
