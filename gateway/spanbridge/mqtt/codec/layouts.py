"""Properties of messages that look alike, decoded by their places.

Devices send the same properties with every message: the same names in the same order, values of the same length, few
of which change. Reading them one by one costs half a microsecond each. So the places of the values are remembered by
the length of all properties together. A message whose bytes outside the changing values are the remembered ones has the
same properties, since all names and lengths are among those bytes; only its changing values are decoded.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from spanbridge.mqtt.codec.fields import Fields, decode_fields

_LENGTHS = 512
_LONGEST = 1024
_CORRELATION, _EXPIRY = 3, 4
_FORMS = {0x01: 1, 0x02: 4}


class _Value(NamedTuple):
    """Where a value lies in the properties. ``place`` is its place among user properties, or in the fields."""

    start: int
    end: int
    name: str | None
    place: int


class Layout:
    """One form of properties. ``changing`` are the values that differ from message to message."""

    __slots__ = ("_changing", "_fields", "_user", "conflicts", "fixed", "hits", "raw", "unpack", "values")

    def __init__(self, raw: bytes, fields: Fields, values: list[_Value], changing: list[_Value]) -> None:
        self.raw = raw
        self.values = values
        self.hits = self.conflicts = 0
        self._fields = fields
        self._user = list(fields[0])
        self._changing = [(value.name, value.place) for value in changing]
        sizes, at = [], 0
        for value in changing:
            sizes += [value.start - at, value.end - value.start]
            at = value.end
        sizes.append(len(raw) - at)
        unpack = struct.Struct("".join(f"{size}s" for size in sizes))
        self.unpack = unpack.unpack_from
        self.fixed = self.unpack(raw)[::2]

    def changing(self, other: bytes) -> list[_Value] | None:
        """The values in which properties of this very form differ, or did before; None: the form is another."""
        known = set(self._changing)
        found, at = [], 0
        for value in self.values:
            if self.raw[at : value.start] != other[at : value.start]:
                return None
            at = value.end
            if (value.name, value.place) in known or self.raw[value.start : at] != other[value.start : at]:
                found.append(value)
        return found if self.raw[at:] == other[at:] else None

    def fill(self, found: tuple[bytes, ...]) -> Fields:
        """The fields, given the changing values.

        :raises UnicodeDecodeError: one is not UTF-8.
        """
        self.hits += 1
        if not found:
            return self._fields
        user = self._user.copy()
        _, content_type, response_topic, correlation_data, expiry, payload_format, alias = self._fields
        for (name, place), raw in zip(self._changing, found, strict=True):
            if name is not None:
                user[place] = (name, raw.decode())
            elif place == _CORRELATION:
                correlation_data = raw
            else:
                expiry = int.from_bytes(raw, "big")
        return tuple(user), content_type, response_topic, correlation_data, expiry, payload_format, alias


class Layouts:
    """The forms that one connection has seen lately. See the module's text."""

    __slots__ = ("_given_up", "_known")

    def __init__(self) -> None:
        self._known: dict[int, Layout] = {}
        self._given_up: set[int] = set()

    def decode(self, data: bytes, start: int, length: int) -> Fields:
        """The properties of ``length`` bytes at ``start``.

        :raises PacketError: as :func:`decode_fields`; so for UnicodeDecodeError and IndexError.
        """
        layout = self._known.get(length)
        if layout is not None:
            parts = layout.unpack(data, start)
            if parts[::2] == layout.fixed:
                return layout.fill(parts[1::2])
        fields = decode_fields(data, start, start + length)
        if length not in self._given_up and length <= _LONGEST:
            self._learn(data[start : start + length], fields, layout)
        return fields

    def _learn(self, raw: bytes, fields: Fields, layout: Layout | None) -> None:
        length = len(raw)
        if layout is None:
            values = _values(raw)
            if values is None or len(self._known) >= _LENGTHS:
                self._give_up(length)
            else:
                self._known[length] = Layout(raw, fields, values, [])
            return
        changing = layout.changing(raw)
        if changing is not None:
            known = layout
            self._known[length] = layout = Layout(raw, fields, known.values, changing)
            layout.hits, layout.conflicts = known.hits, known.conflicts
            return
        layout.conflicts += 1
        if layout.conflicts * 4 > layout.hits + 32:  # several forms of one length: reading costs less than guessing
            self._give_up(length)

    def _give_up(self, length: int) -> None:
        self._known.pop(length, None)
        if len(self._given_up) < 2 * _LENGTHS:
            self._given_up.add(length)


def _values(raw: bytes) -> list[_Value] | None:
    """Where the values lie in properties that are sound; None when there are some that are better read each time."""
    found: list[_Value] = []
    position = users = 0
    while position < len(raw):
        code, start = raw[position], position + 3
        position = start + (raw[position + 1] << 8 | raw[position + 2]) if position + 2 < len(raw) else start
        if code == 0x26:
            middle = position + 2
            position = middle + (raw[position] << 8 | raw[position + 1])
            found.append(_Value(middle, position, raw[start : middle - 2].decode(), users))
            users += 1
        elif code == 0x09:
            found.append(_Value(start, position, None, _CORRELATION))
        elif code in _FORMS:
            position = start - 2 + _FORMS[code]
            if code == 0x02:
                found.append(_Value(start - 2, position, None, _EXPIRY))
        elif code not in (0x03, 0x08):
            return None
    return found
