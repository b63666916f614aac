"""When to send PINGREQ, and when to call the broker dead. Pure."""

from __future__ import annotations

_PROGRESS = 4
"""Bytes in a tick that may be answers to our pings: PINGRESP has two, and at most one ping leaves in a tick."""


class KeepAlive:
    """Ticks of a quarter of the keep-alive interval.

    A ping leaves when for one tick nothing was sent or nothing was heard, so never later than half the interval after
    the last packet (MQTT-3.1.2-20). A broker that says nothing for three ticks after a ping is dead. While reading is
    paused its answers cannot be seen, and it is not blamed for that; the pings go out all the same.

    A whole packet is a sign of life. A piece of one is when it is more than answers to pings would be: a broker that
    stops in the middle of a packet and still answers pings puts PINGRESP into that packet, where nobody sees it.
    """

    __slots__ = ("_pieces", "_silent", "_waiting", "heard", "sent")

    def __init__(self) -> None:
        self.sent = True
        self.heard = True
        self._pieces = 0
        self._waiting = False
        self._silent = 0

    def piece(self, size: int) -> None:
        """``size`` bytes came that end no packet."""
        self._pieces += size
        if self._pieces > _PROGRESS:
            self.heard = True

    def tick(self, *, paused: bool) -> bool | None:
        """True: send a ping. False: nothing to do. None: the broker is dead."""
        sent, heard = self.sent, self.heard
        self.sent = self.heard = False
        self._pieces = 0
        if heard or paused:
            self._waiting, self._silent = self._waiting and not heard, 0
        elif self._waiting:
            self._silent += 1
            if self._silent >= 3:
                return None
        if sent and heard:
            return False
        self._waiting = True
        return True
