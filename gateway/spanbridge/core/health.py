"""Whether the gateway can do its work: decided from what messages and probes show, not from open sockets alone.

A socket stays open while the peer behind it hangs, so "connected" says little. What counts is how long messages have
been waiting for RocketMQ, and whether a real round trip worked lately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Ages in seconds above which the gateway is not ready."""

    max_unacknowledged_age: float = 30.0
    max_probe_age: float = 30.0


@dataclass(frozen=True, slots=True)
class Probe:
    """The probes of RocketMQ so far. ``good_age`` is seconds since the last good one, None when there was none.

    ``error`` is what the latest probe failed with, one line without secrets; None when it was good or none has
    finished.
    """

    good_age: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SourceLink:
    """A connection to a peer: whether it works, for how many seconds it has been so, and the last error."""

    name: str
    up: bool
    age: float = 0.0
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is known at one moment. Ages are seconds, None when nothing waits.

    ``sources`` are the MQTT connections that subscribe, ``publishers`` those that publish, ``consumers`` what receives
    from RocketMQ, by the names of the downlinks. ``oldest_undelivered_age`` is that of a message on its way down.
    """

    probe: Probe
    sources: Sequence[SourceLink]
    oldest_unacknowledged_age: float | None = None
    publishers: Sequence[SourceLink] = ()
    consumers: Sequence[SourceLink] = ()
    oldest_undelivered_age: float | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the gateway is not ready. ``code`` is stable, for alerts; ``message`` is for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """The verdict: ready when there is no reason not to be."""

    reasons: tuple[Reason, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether messages flow as they should."""
        return not self.reasons


def readiness(seen: Observation, limits: Thresholds) -> Readiness:
    """All reasons why the gateway is not ready, the most telling first."""
    reasons: list[Reason] = []
    if seen.draining:
        reasons.append(Reason("draining", "the gateway is stopping: it takes no new messages"))
    age = seen.oldest_unacknowledged_age
    if age is not None and age > limits.max_unacknowledged_age:
        text = (
            f"a message has been waiting for RocketMQ for {age:.1f} s, longer than {limits.max_unacknowledged_age:g} s"
        )
        reasons.append(Reason("unacknowledged", text))
    age = seen.oldest_undelivered_age
    if age is not None and age > limits.max_unacknowledged_age:
        text = f"a message has been waiting for MQTT for {age:.1f} s, longer than {limits.max_unacknowledged_age:g} s"
        reasons.append(Reason("undelivered", text))
    reasons += _probe_reasons(seen.probe, limits)
    reasons += [_down("source_down", "MQTT connection", source) for source in seen.sources if not source.up]
    reasons += [_down("publisher_down", "publishing to", one) for one in seen.publishers if not one.up]
    reasons += [_down("consumer_down", "receiving for downlink", one) for one in seen.consumers if not one.up]
    return Readiness(tuple(reasons))


def _probe_reasons(probe: Probe, limits: Thresholds) -> list[Reason]:
    if probe.error is not None:
        return [Reason("probe_failed", f"the last probe of RocketMQ failed: {probe.error}")]
    if probe.good_age is None:
        return [Reason("starting", "no probe of RocketMQ has finished yet")]
    if probe.good_age > limits.max_probe_age:
        text = f"the last good probe of RocketMQ is {probe.good_age:.1f} s old, more than {limits.max_probe_age:g} s"
        return [Reason("probe_stale", text)]
    return []


def _down(code: str, what: str, link: SourceLink) -> Reason:
    cause = f": {link.last_error}" if link.last_error else ""
    return Reason(code, f"{what} {link.name!r} has been down for {link.age:.1f} s{cause}")
