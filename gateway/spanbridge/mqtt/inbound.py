"""What the connections of a source share."""

from __future__ import annotations

from collections.abc import Callable

from spanbridge.core.delivery import Acknowledger
from spanbridge.core.message import Publish
from spanbridge.mqtt.session import MqttSession
from spanbridge.ports import Deliver, Released


class Inbound:
    """Where a source's messages go: shared by its connections, one after the other."""

    __slots__ = (
        "deliver", "delivering", "discarded", "messages", "paused", "pauses", "redelivered", "released", "session",
        "source",
    )  # fmt: skip

    def __init__(
        self,
        source: Acknowledger[Publish],
        discarded: Callable[[int], None],
        redelivered: Callable[[int], None],
    ) -> None:
        self.source = source
        self.session = MqttSession()
        self.deliver: Deliver[Publish] | None = None
        self.released: Released = lambda: None
        self.delivering = True
        self.paused = False
        self.pauses = 0
        """How often reading was paused: tells whether it was between two moments."""
        self.messages = 0
        self.discarded = discarded
        self.redelivered = redelivered
