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
    """An MQTT connection: whether its session stands, for how many seconds it has been so, and the last error."""

    name: str
    up: bool
    age: float = 0.0
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is known at one moment. ``oldest_unacknowledged_age`` is seconds, None when nothing waits."""

    probe: Probe
    sources: Sequence[SourceLink]
    oldest_unacknowledged_age: float | None = None
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
    reasons += _probe_reasons(seen.probe, limits)
    reasons += [_source_reason(source) for source in seen.sources if not source.up]
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


def _source_reason(source: SourceLink) -> Reason:
    cause = f": {source.last_error}" if source.last_error else ""
    return Reason("source_down", f"MQTT connection {source.name!r} has been down for {source.age:.1f} s{cause}")
