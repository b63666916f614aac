"""The watch: what health and /status are made from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from spanbridge import __version__
from spanbridge.core.errors import SinkError
from spanbridge.core.health import Observation, Probe, Readiness, SourceLink, Thresholds, readiness
from spanbridge.ports import Clock, Link, PeerStatus, Sink, Source
from spanbridge.uplink import Uplink

_RATE_PERIOD = 5.0
"""Seconds between the readings that rates are worked out from."""


class Watch:
    """Looks at sources, sink and uplink; probes RocketMQ so that an idle gateway knows as well."""

    def __init__(
        self, sources: Sequence[Source], sink: Sink, uplink: Uplink, clock: Clock, thresholds: Thresholds
    ) -> None:
        self.draining = False
        self._sources = sources
        self._sink = sink
        self._uplink = uplink
        self._clock = clock
        self._thresholds = thresholds
        self._started_ns = clock.now_ns()
        self._good_ns: int | None = None
        self._probe_error: str | None = None
        self._reading = (self._started_ns, 0, 0)
        self._rates = (0.0, 0.0)

    async def probe_forever(self, interval: float) -> None:
        """Probe RocketMQ every ``interval`` seconds, and at once. An adapter bounds a probe's time itself."""
        while True:
            try:
                await self._sink.probe()
            except SinkError as error:
                self._probe_error = str(error)
            else:
                self._good_ns = self._clock.now_ns()
                self._probe_error = None
            await self._clock.sleep(interval if self._probe_error is None else min(interval, 1.0))

    async def read_rates_forever(self) -> None:
        """Keep messages per second, in and out, over the last few seconds."""
        while True:
            await asyncio.sleep(_RATE_PERIOD)
            status = self._uplink.status()
            now, received, sent = self._clock.now_ns(), status["received"], status["sent"]
            then, received_then, sent_then = self._reading
            seconds = max(1e-9, (now - then) / 1e9)
            self._rates = ((received - received_then) / seconds, (sent - sent_then) / seconds)
            self._reading = (now, received, sent)

    def readiness(self) -> Readiness:
        """The verdict for /readyz."""
        oldest = self._uplink.oldest_age()
        good_age = None if self._good_ns is None else self._age(self._good_ns)
        seen = Observation(
            probe=Probe(good_age, self._probe_error),
            sources=[self._source_link(source.status) for source in self._sources],
            oldest_unacknowledged_age=oldest or None,
            draining=self.draining,
        )
        return readiness(seen, self._thresholds)

    def status(self) -> dict[str, Any]:
        """The content of /status."""
        return {
            "version": __version__,
            "uptime_s": round(self._age(self._started_ns), 1),
            "ready": self.readiness().ready,
            "draining": self.draining,
            "uplink": {
                **self._uplink.status(),
                "received_per_s": round(self._rates[0], 1),
                "sent_per_s": round(self._rates[1], 1),
            },
            "routes": self._uplink.routes(),
            "mqtt": [self._peer(source.status) for source in self._sources],
            "rocketmq": {**self._peer(self._sink.status), "probe_error": self._probe_error},
        }

    def _source_link(self, status: PeerStatus) -> SourceLink:
        return SourceLink(status.name, status.link is Link.UP, self._age(status.since_ns), status.last_error)

    def _peer(self, status: PeerStatus) -> dict[str, Any]:
        return {
            "name": status.name,
            "link": str(status.link),
            "since_s": round(self._age(status.since_ns), 1),
            "last_error": status.last_error,
            **status.detail,
        }

    def _age(self, since_ns: int) -> float:
        return max(0.0, (self._clock.now_ns() - since_ns) / 1e9)
