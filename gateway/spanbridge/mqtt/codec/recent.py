"""What repeats from PUBLISH to PUBLISH, decoded once: topics and user properties."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from spanbridge.mqtt.errors import malformed

V = TypeVar("V")


class _Recent(dict[bytes, V]):
    """Values by their bytes. Between ``limit`` and twice as many are kept, those that were used last.

    ``limit`` counts entries. What takes more than ``longest`` bytes is decoded each time.
    """

    __slots__ = ("_older",)
    limit: ClassVar[int]
    longest: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self._older: dict[bytes, V] = {}

    def __missing__(self, raw: bytes) -> V:
        value = self._older.get(raw)
        if value is None:
            value = self.decode(raw)
        if len(raw) <= self.longest:
            if len(self) >= self.limit:
                self._older = dict(self)
                self.clear()
            self[raw] = value
        return value

    def decode(self, raw: bytes) -> V:
        """The value.

        :raises PacketError: the specification forbids it.
        :raises UnicodeDecodeError: it is not UTF-8.
        """
        raise NotImplementedError


class Topics(_Recent[str]):
    """Topic names. All messages of a topic share one string, so that its hash is computed once."""

    __slots__ = ()
    limit = 16_384
    longest = 256

    def decode(self, raw: bytes) -> str:
        """Without NUL (MQTT-1.5.4-2) and wildcards (MQTT-3.3.2-2)."""
        topic = raw.decode()
        if "\0" in topic or "+" in topic or "#" in topic:
            raise malformed("PUBLISH: topic contains a NUL or a wildcard")
        return topic


class Pairs(_Recent[tuple[str, str]]):
    """User properties: name and value, each behind its length. A trace context takes 41 bytes or more, and no two are
    alike, so it is not kept."""

    __slots__ = ()
    limit = 4096
    longest = 40

    def decode(self, raw: bytes) -> tuple[str, str]:
        """NUL is let through: a property that RocketMQ cannot carry costs the property and not the message."""
        middle = 2 + (raw[0] << 8 | raw[1])
        return raw[2:middle].decode(), raw[middle + 2 :].decode()
