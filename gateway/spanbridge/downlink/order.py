"""Order within message groups: one message of a group at a time, the later ones wait behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from spanbridge.downlink.outbound import Outbound


class MessageGroups:
    """The message groups that have a message on its way. What has no group is none of its business."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Outbound]] = {}

    def admit(self, group: str, outbound: Outbound) -> bool:
        """Whether a message may go now. If not, it waits until :meth:`leave` gives it out."""
        waiting = self._waiting.get(group)
        if waiting is None:
            self._waiting[group] = deque()
            return True
        waiting.append(outbound)
        return False

    def leave(self, group: str) -> Outbound | None:
        """The message on its way is done with: the next one of its group may go, if there is one."""
        waiting = self._waiting.get(group)
        if waiting:
            return waiting.popleft()
        self._waiting.pop(group, None)
        return None

    def behind(self, group: str) -> list[Outbound]:
        """The message on its way goes back: take out those that waited behind it, in their order."""
        return list(self._waiting.pop(group, ()))

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()

    def waiting(self) -> Iterator[Outbound]:
        """Those that wait behind another."""
        for waiting in self._waiting.values():
            yield from waiting

    def __len__(self) -> int:
        """Groups with a message on its way."""
        return len(self._waiting)
