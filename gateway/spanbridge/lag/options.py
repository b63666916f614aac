"""What is watched, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WatchedGroup:
    """A consumer group and its topics.

    ``pops`` is true for a group whose consumers receive by POP, as gRPC clients do: unless it receives in order, what
    it commits is what was delivered. Consumers of the older remoting protocol commit what they have acknowledged.
    ``ordered`` says whether the group receives in order; None asks the brokers.
    """

    name: str
    topics: tuple[str, ...]
    pops: bool = True
    ordered: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LagOptions:
    """``period`` is the pause between two readings, in seconds.

    Beside ``groups``, all groups that consume one of ``topics`` are looked up at each reading. ``retries`` also watches
    the retry topics of each group and counts its dead letters. ``max_requests`` bounds the requests of one reading.
    """

    groups: tuple[WatchedGroup, ...] = ()
    topics: tuple[str, ...] = ()
    period: float = 30.0
    retries: bool = True
    max_requests: int = 2000
