"""UTF-8 strings that we send, encoded once: applications use the same topics and property names again and again."""

from __future__ import annotations

import re

from spanbridge.core.errors import SinkRejected

LIMIT = 16_384
"""Entries. Between this and twice as many are kept, those that were used last."""
LONGEST = 256
"""Bytes of a string that is kept."""

_REFUSED = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]|[" + "".join(
    chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)
) + "]")  # fmt: skip
"""NUL must not be sent (MQTT-1.5.4-2). The rest should not: a broker may end the connection over it (section 1.5.4), as
mosquitto does, and over the same message again on the next connection."""


def fault(value: str) -> str:
    """Why a string cannot be sent; "" when it can."""
    if value.isascii() and value.isprintable():
        return ""
    found = _REFUSED.search(value)
    return f"character U+{ord(found.group()):04X}" if found else ""


def encoded(value: str, reason: str, what: str) -> bytes:
    """A string with its length in front (MQTT 5.0 section 1.5.4).

    :raises SinkRejected: with this reason: it is longer than 65535 bytes, or has a character that brokers refuse.
    """
    wrong = fault(value)
    data = b"" if wrong else value.encode()
    if len(data) > 0xFFFF:
        wrong = f"{len(data)} bytes, allowed are 65535"
    if wrong:
        raise SinkRejected(f"{what} cannot be sent over MQTT: {wrong}", reason=reason)
    return len(data).to_bytes(2, "big") + data


class _Strings(dict[str, bytes]):
    """Encodings by string. ``strings[value]`` raises SinkRejected where there is none."""

    __slots__ = ("_older",)

    def __init__(self) -> None:
        super().__init__()
        self._older: dict[str, bytes] = {}

    def __missing__(self, value: str) -> bytes:
        data = self._older.get(value)
        if data is None:
            data = self.encode(value)
        if len(data) <= LONGEST:
            if len(self) >= LIMIT:
                self._older = dict(self)
                self.clear()
            self[value] = data
        return data

    @staticmethod
    def encode(value: str) -> bytes:
        raise NotImplementedError


class TopicNames(_Strings):
    """Topic names with their length in front (section 4.7): not empty, no wildcards (MQTT-3.3.2-2)."""

    __slots__ = ()

    @staticmethod
    def encode(value: str) -> bytes:
        if not value or "+" in value or "#" in value:
            wrong = "it has a wildcard" if value else "it is empty"
            raise SinkRejected(f"topic {value[:100]!r} is no topic name of MQTT: {wrong}", reason="bad_topic")
        return encoded(value, "bad_topic", f"topic {value[:100]!r}")


class PropertyNames(_Strings):
    """Names of user properties, with the property's code and their length in front (section 2.2.2.2)."""

    __slots__ = ()

    @staticmethod
    def encode(value: str) -> bytes:
        return b"\x26" + encoded(value, "bad_property", f"user property {value[:100]!r}")
