"""Where messages go that a broker handed out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from spanbridge.core.errors import SinkError
from spanbridge.core.message import Message
from spanbridge.rocketmq.remoting.pop import Popped


class RemotingInbox(Protocol):
    """Takes messages, and says whether more may come. None of this raises."""

    open: asyncio.Event
    """Set while messages are wanted."""

    def take(self, broker: str, messages: Sequence[Popped], began_ns: int) -> list[Message]:
        """Take messages asked for at a moment (monotonic, ns)."""

    def works(self, broker: str) -> None:
        """A request ended as it should, or waits for messages."""

    def fails(self, broker: str, error: SinkError, retry_in: float) -> None:
        """A request failed."""
