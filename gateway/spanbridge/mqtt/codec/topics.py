"""Topic names, decoded once: devices publish under the same few again and again."""

from __future__ import annotations

from spanbridge.mqtt.errors import malformed

LIMIT = 16_384
"""Entries. Between this and twice as many are kept, those that were used last."""
LONGEST = 256
"""Bytes of a name that is kept."""


class Topics(dict[bytes, str]):
    """Names by their bytes. All messages of a topic share one string, so that its hash is computed once.

    ``topics[raw]`` raises PacketError when the name has a NUL (MQTT-1.5.4-2) or a wildcard (MQTT-3.3.2-2), and
    UnicodeDecodeError when it is not UTF-8.
    """

    __slots__ = ("_older",)

    def __init__(self) -> None:
        super().__init__()
        self._older: dict[bytes, str] = {}

    def __missing__(self, raw: bytes) -> str:
        topic = self._older.get(raw)
        if topic is None:
            topic = raw.decode()
            if "\0" in topic or "+" in topic or "#" in topic:
                raise malformed("PUBLISH: topic contains a NUL or a wildcard")
        if len(raw) <= LONGEST:
            if len(self) >= LIMIT:
                self._older = dict(self)
                self.clear()
            self[raw] = topic
        return topic
