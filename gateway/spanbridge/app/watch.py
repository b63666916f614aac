"""The watch: what health and /status are made from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from spanbridge import __version__
from spanbridge.app.rates import Rates
from spanbridge.core.health import Observation, Probe, Readiness, SourceLink, Thresholds, readiness
from spanbridge.downlink import Downlinks
from spanbridge.ports import Clock, Link, PeerStatus, Publisher, Sink, Source
from spanbridge.telemetry import Recent
from spanbridge.uplink import Uplink


class Watch:
    """Looks at sources, sink and uplink, and knows what the last probe of RocketMQ said."""

    def __init__(
        self,
        sources: Sequence[Source[Any]],
        sink: Sink[Any],
        uplink: Uplink,
        clock: Clock,
        *,
        thresholds: Thresholds,
        name: str = "",
        recent: Iterable[Recent] = (),
        downlinks: Downlinks | None = None,
        publishers: Mapping[str, Publisher[Any]] = MappingProxyType({}),
        consumers: Mapping[str, Source[Any]] = MappingProxyType({}),
    ) -> None:
        """Watch those. ``sources`` and ``recent`` (the last warnings and errors, oldest first) are live views.

        So are ``publishers`` by the names of their brokers and ``consumers`` by those of their downlinks.
        """
        self.draining = False
        self.thresholds = thresholds
        self.probe_error: str | None = None
        self._more: dict[str, Callable[[], Mapping[str, Any]]] = {}
        self._name = name
        self._sources = sources
        self._sink = sink
        self._uplink = uplink
        self._clock = clock
        # Monotonic, as the ages that readiness rests on are: Unix time may be set.
        self._started_ns = clock.monotonic_ns()
        self._good_ns: int | None = None
        self._recent = recent
        self._rates = Rates(self._started_ns)
        self._downlinks = downlinks
        self._publishers = publishers
        self._consumers = consumers

    def show(self, name: str, read: Callable[[], Mapping[str, Any]]) -> None:
        """Show one more thing on /status."""
        self._more[name] = read

    def probed(self, error: str | None) -> None:
        """A probe of RocketMQ went well, or failed for this cause."""
        self.probe_error = error
        if error is None:
            self._good_ns = self._clock.monotonic_ns()

    def read_rates(self) -> None:
        """Take one reading."""
        status = self._uplink.status()
        counters: dict[Hashable, float] = {"received": status["received"], "sent": status["sent"]}
        for row in self._uplink.routes():
            counters[row["source"], row["filter"]] = row["received"]
        for row in self._downlinks.rows() if self._downlinks is not None else ():
            counters["down", row["name"]] = row["published"]
        self._rates.read(self._clock.monotonic_ns(), counters | self._uplink.batches())

    def liveness(self) -> str | None:
        """Why the gateway is stuck, for /livez; None while it is not. Waiting for a peer is no reason."""
        return self._uplink.stuck() or (self._downlinks.stuck() if self._downlinks is not None else None)

    def readiness(self) -> Readiness:
        """The verdict for /readyz."""
        oldest = self._uplink.oldest_age()
        good_age = None if self._good_ns is None else (self._clock.monotonic_ns() - self._good_ns) / 1e9
        seen = Observation(
            probe=Probe(good_age, self.probe_error),
            sources=[self._link(status.name, status) for status in (source.status for source in self._sources)],
            oldest_unacknowledged_age=oldest or None,
            draining=self.draining,
            publishers=[self._link(name, one.status) for name, one in self._publishers.items()],
            consumers=[self._link(name, one.status) for name, one in self._consumers.items()],
            oldest_undelivered_age=self._downlinks.oldest_age() or None if self._downlinks is not None else None,
        )
        return readiness(seen, self.thresholds)

    def status(self) -> dict[str, Any]:
        """The content of /status."""
        return {
            "name": self._name,
            "version": __version__,
            "uptime_s": round((self._clock.monotonic_ns() - self._started_ns) / 1e9, 1),
            "ready": self.readiness().ready,
            "draining": self.draining,
            "uplink": {
                **self._uplink.status(),
                "received_per_s": self._rates.per_second("received"),
                "sent_per_s": self._rates.per_second("sent"),
            },
            "routes": [
                {**row, "received_per_s": self._rates.per_second((row["source"], row["filter"]))}
                for row in self._uplink.routes()
            ],
            "batches": self._batches(),
            **self._down(),
            "mqtt": [self._peer(source.status) for source in self._sources],
            "rocketmq": {**self._peer(self._sink.status), "probe_error": self.probe_error},
            **{name: read() for name, read in self._more.items()},
            "last_errors": [self._line(one) for one in reversed(list(self._recent))],
        }

    def _down(self) -> dict[str, Any]:
        """The way down, where there is one: totals, each downlink, and the connections that are its own."""
        if self._downlinks is None or not self._consumers:
            return {}
        rows = self._downlinks.rows()
        rates = [self._rates.per_second(("down", row["name"])) for row in rows]
        return {
            "downlink": {**self._downlinks.status(), "published_per_s": round(sum(rates), 1)},
            "downlinks": [{**row, "published_per_s": rate} for row, rate in zip(rows, rates, strict=True)],
            "publishers": [self._peer(one.status) for one in self._publishers.values()],
            "consumers": [{**self._peer(one.status), "name": name} for name, one in self._consumers.items()],
        }

    def _batches(self) -> dict[str, Any]:
        """Requests to RocketMQ: so far, and what they were like over the last few seconds."""
        totals, grown = self._uplink.batches(), self._rates.grown
        requests = grown("stored")
        return {
            "stored": totals["stored"],
            "failed": totals["failed"],
            "stored_per_s": self._rates.per_second("stored"),
            "messages_per_request": round(grown("messages") / requests, 1) if requests else None,
            "request_ms": round(grown("stored_ns") / requests / 1e6, 1) if requests else None,
        }

    def _line(self, one: Recent) -> dict[str, Any]:
        moment = datetime.fromtimestamp(one.at_ns / 1e9, UTC).isoformat(timespec="seconds")
        level = one.severity.name.lower()
        return {
            "time": moment,
            "age_s": round(self._age(one.at_ns), 1),
            "level": level,
            "event": one.name,
            "message": one.text,
        }

    def _link(self, name: str, status: PeerStatus) -> SourceLink:
        return SourceLink(name, status.link is Link.UP, self._age(status.since_ns), status.last_error)

    def _peer(self, status: PeerStatus) -> dict[str, Any]:
        error_ns = status.last_error_ns
        return {
            "name": status.name,
            "link": str(status.link),
            "since_s": round(self._age(status.since_ns), 1),
            "last_error": status.last_error,
            "last_error_age_s": round(self._age(error_ns), 1) if error_ns else None,
            **status.detail,
        }

    def _age(self, since_ns: int) -> float:
        return max(0.0, (self._clock.now_ns() - since_ns) / 1e9)
