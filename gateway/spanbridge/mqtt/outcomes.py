"""What became of publications, and what the broker's reason codes mean for them."""

from __future__ import annotations

from typing import Generic

from spanbridge.core.errors import (
    NoSubscribers,
    SinkError,
    SinkMisconfigured,
    SinkRejected,
    SinkThrottled,
    SinkUnavailable,
)
from spanbridge.mqtt.codec import v5
from spanbridge.ports import P, Published

_KINDS: dict[int, type[SinkError]] = {
    0x10: NoSubscribers,
    0x87: SinkMisconfigured,
    0x90: SinkRejected,
    0x95: SinkRejected,
    0x97: SinkThrottled,
    0x99: SinkRejected,
}
"""Of PUBACK and PUBREC (MQTT 5.0 sections 3.4.2.1 and 3.5.2.1). All others are ``SinkUnavailable``: try again."""


def error_for(code: int, said: str = "") -> SinkError | None:
    """What a reason code means; None: the broker has the message. ``said`` is the broker's Reason String."""
    if code < 0x80 and code not in _KINDS:
        return None
    reason = v5.REASONS.get(code, "unspecified_error")
    text = f"the broker answers PUBLISH with {reason.replace('_', ' ')} (0x{code:02X})"
    if said:
        text += f", it says {said[:200]!r}"
    return _KINDS.get(code, SinkUnavailable)(text, reason=reason)


class Outcomes(Generic[P]):
    """Outcomes that are not told yet, grouped so that each callback is called once for each kind."""

    __slots__ = ("_errors", "_groups")

    def __init__(self) -> None:
        self._groups: dict[tuple[Published[P], SinkError | None], list[P]] = {}
        self._errors: dict[tuple[int, str], SinkError | None] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def of(self, published: Published[P], error: SinkError | None) -> list[P]:
        """The list to which publications with this outcome are appended."""
        return self._groups.setdefault((published, error), [])

    def answered(self, published: Published[P], code: int, said: str = "") -> list[P]:
        """The same for a reason code of the broker's."""
        if not code:
            return self.of(published, None)
        if (code, said) not in self._errors:
            self._errors[code, said] = error_for(code, said)
        return self.of(published, self._errors[code, said])

    def tell(self) -> None:
        """Call the callbacks. What they bring about is told the next time."""
        groups, self._groups, self._errors = self._groups, {}, {}
        for (published, error), publications in groups.items():
            published(publications, error)
