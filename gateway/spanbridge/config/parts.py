"""A configuration and how much of it is the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spanbridge.config.models import Config, DownlinkSection, Mqtt, RouteSection
from spanbridge.config.problems import Finding, Loc


@dataclass(frozen=True, slots=True)
class Parts:
    """A configuration to check one section of against another.

    What is at the locations in ``gone`` was put there in place of something invalid: no check may rest on it.
    """

    config: Config
    gone: frozenset[Loc] = frozenset()

    def knows(self, *loc: str | int) -> bool:
        """Whether the setting, or all of the section, at ``loc`` is what the user wrote (or the default)."""
        return not any(_touches(loc, gone) for gone in self.gone)

    def knows_all(self, loc: Loc, *settings: str) -> bool:
        """Whether each of these settings of the section at ``loc`` is."""
        return all(self.knows(*loc, setting) for setting in settings)

    def known(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Those of them that are about what the user wrote."""
        return (finding for finding in findings if self.knows(*finding.loc))

    def brokers(self, *settings: str) -> dict[int, Mqtt]:
        """The brokers of which these settings are known, all of them when none is named, by position."""
        return {i: broker for i, broker in enumerate(self.config.mqtt) if self._all_known("mqtt", i, settings)}

    def routes(self, *settings: str) -> dict[int, RouteSection]:
        """The routes of which these settings are known, all of them when none is named, by position."""
        return {i: route for i, route in enumerate(self.config.routes) if self._all_known("routes", i, settings)}

    def downlinks(self, *settings: str) -> dict[int, DownlinkSection]:
        """The downlinks of which these settings are known, all of them when none is named, by position."""
        return {i: one for i, one in enumerate(self.config.downlinks) if self._all_known("downlinks", i, settings)}

    def _all_known(self, section: str, index: int, settings: tuple[str, ...]) -> bool:
        return self.knows_all((section, index), *settings) if settings else self.knows(section, index)


def _touches(a: Loc, b: Loc) -> bool:
    """Whether one is, holds or lies within the other."""
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]
