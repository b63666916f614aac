"""PUBACK, PUBREC and PUBCOMP without properties: one for every message published, so read in one loop.

Brokers write them as four bytes (a remaining length of 2 means reason code 0x00: MQTT 5.0 section 3.4.2.1), as five
with a reason code, or as six with an empty property length as well. In 3.1.1 four bytes is all there is.
"""

from __future__ import annotations

_PUBACK, _PUBREC, _PUBCOMP = 0x40, 0x50, 0x70
KINDS = frozenset((_PUBACK, _PUBREC, _PUBCOMP))
"""First bytes of the packets that are read here."""


class Answers:
    """Answers that came in a row. Each of ``words`` is ``kind << 24 | code << 16 | packet identifier``.

    ``kind`` is the first byte of the packet: 0x40 PUBACK, 0x50 PUBREC, 0x70 PUBCOMP.
    """

    __slots__ = ("words",)

    def __init__(self, words: list[int]) -> None:
        self.words = words


def read_answers(data: bytes, position: int, words: list[int], *, v5: bool) -> int:
    """Append the answers at ``position`` to ``words``; return where a packet begins that is other, odd or not whole."""
    end = len(data)
    append = words.append
    longest = 4 if v5 else 2
    while position + 4 <= end:
        kind = data[position]
        if kind not in KINDS:
            break
        length = data[position + 1]
        packet_id = data[position + 2] << 8 | data[position + 3]
        if not packet_id:
            break
        if length == 2:
            append(kind << 24 | packet_id)
            position += 4
            continue
        stop = position + 2 + length
        if not 2 < length <= longest or stop > end or (length == 4 and data[position + 5]):
            break
        append(kind << 24 | data[position + 4] << 16 | packet_id)
        position = stop
    return position
