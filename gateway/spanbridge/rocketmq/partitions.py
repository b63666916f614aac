"""Partitions that are not a number of their own, as :class:`spanbridge.ports.Head` has them."""

from __future__ import annotations

from typing import Final

UNORDERED: Final = -1
"""The partition of messages without a group."""
DELAYED: Final = -2
"""The partition of messages with a delivery timestamp."""
