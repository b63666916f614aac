"""How a client stands with its cluster, as /status shows it. Both protocols' clusters are this, and more."""

from __future__ import annotations

import time
from collections.abc import Iterable

from spanbridge.ports import Link


class ClusterLink:
    """The state of the link, since when, and what went wrong last."""

    def __init__(self) -> None:
        self.link = Link.IDLE
        self.since_ns = time.time_ns()
        self.last_error: str | None = None
        self.last_error_ns = 0

    def note_error(self, error: str) -> None:
        """Keep what went wrong last, in one line, and when."""
        self.last_error, self.last_error_ns = error, time.time_ns()

    def change(self, link: Link) -> None:
        """Enter a state."""
        if (link is Link.UP) is not (self.link is Link.UP):
            self.since_ns = time.time_ns()
        self.link = link

    def judge(self, ups: Iterable[bool | None]) -> None:
        """Enter the state that follows from which endpoints answer; None stands for one that is not known yet."""
        if self.link is not Link.CLOSED:
            known = set(ups)
            self.change(Link.UP if True in known else Link.CONNECTING if None in known else Link.BACKOFF)
