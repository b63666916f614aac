"""What a RocketMQ message is called, as span attributes: encoded once for messages that share tag, keys and group."""

from __future__ import annotations

from spanbridge.core.cache import Generations
from spanbridge.core.message import Message
from spanbridge.core.protobuf import field
from spanbridge.telemetry.spans import wire
from spanbridge.telemetry.spans.hop import cut

_KEPT = 2048
_LONGEST_KEPT = 512
_KEY = field(1, b"messaging.message.id")
"""The key of the ``KeyValue``, which stands before its value."""

Named = tuple[str | None, tuple[str, ...], str | None]
"""Tag, keys and message group."""


class Descriptions:
    """Encodes messages' attributes. ``limit`` is the SDK's for the length of a value, in characters."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._heads: dict[int, bytes] = {}
        self._known: Generations[Named, bytes] = Generations(_KEPT)

    def of(self, message: Message) -> bytes:
        """The attributes of one message."""
        named = (message.tag, tuple(message.keys), message.group)
        known = self._known.young.get(named)
        if known is None:
            known = self._named(named)
        identity = message.message_id
        return known + self._identity(identity) if identity else known

    def _named(self, named: Named) -> bytes:
        known = self._known.get(named)
        if known is None:
            tag, keys, group = named
            values: dict[str, object] = {"tag": tag, "keys": keys or None, "group": group}
            found = {f"messaging.rocketmq.message.{name}": value for name, value in values.items() if value is not None}
            known = wire.attributes(9, cut(found, self._limit))
            if len(known) <= _LONGEST_KEPT:
                self._known.put(named, known)
        return known

    def _identity(self, identity: str) -> bytes:
        value = identity[: self._limit].encode("utf-8", "replace")
        length = len(value)
        return (self._heads.get(length) or self._head(length)) + value

    def _head(self, length: int) -> bytes:
        """What stands before a message id of that many bytes."""
        whole = field(9, _KEY + field(2, field(1, bytes(length))))
        head = whole[: len(whole) - length]
        if len(self._heads) < _KEPT:
            self._heads[length] = head
        return head
