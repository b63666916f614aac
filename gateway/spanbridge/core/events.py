"""Internal events: one type each, from which the log line and the counter both follow.

The idea is Vector's: an event that is logged is also counted, under the same name, and cannot drift from it. Adapters
and pipelines define their own sub-classes beside the code that emits them and hand them to the ``Reporter`` port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import ClassVar


class Severity(IntEnum):
    """Levels with the numeric values of the standard logging module."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Phase(StrEnum):
    """What an event says of the outage that it belongs to."""

    AWAY = "away"
    """A peer does not work: the outage begins, or goes on."""
    BACK = "back"
    """It works again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened. ``count`` is how many messages (or connections, ...) it concerns.

    ``name`` is dotted and stable; the counter is ``spanbridge.<name>`` unless ``counted`` is false. ``labelled`` names
    the fields that are the counter's attributes, ``attributes`` those of them that are called otherwise there: low
    cardinality, never a raw topic, payload or secret. ``text()`` is the log line: cause first, then what happens next.

    A peer that is away makes many events, and they make few log lines: one when it goes, one a minute, one when it is
    back. Such events name the peer in ``outage``, a format string over ``event`` (``"rocketmq"``,
    ``"mqtt:{event.source}"``), and say in ``phase`` whether it is away or back. ``part`` names the field that tells the
    peer's parts apart (topics, endpoints): the peer is back once each part that failed is. Without a ``part``, an event
    is about the whole peer.
    """

    name: ClassVar[str] = "event"
    severity: ClassVar[Severity] = Severity.INFO
    counted: ClassVar[bool] = True
    labelled: ClassVar[tuple[str, ...]] = ()
    attributes: ClassVar[Mapping[str, str]] = {}
    outage: ClassVar[str] = ""
    phase: ClassVar[Phase] = Phase.AWAY
    part: ClassVar[str] = ""

    count: int = 1

    def labels(self) -> dict[str, str]:
        """Attributes of the counter, and the key by which log lines are rate-limited."""
        return {self.attributes.get(field, field): str(getattr(self, field)) for field in self.labelled}

    def text(self) -> str:
        """One line for the log."""
        return self.name

    def outage_key(self) -> str:
        """Which outage this event belongs to; "" for none."""
        return self.outage.format(event=self)

    def outage_part(self) -> str:
        """The part of the peer that it is about; "" for all of it."""
        return f"{self.part} {getattr(self, self.part)}" if self.part else ""
