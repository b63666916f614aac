"""The text form of a parent: W3C Trace Context Level 2, section 3.2, to and from its 26 bytes.

The 26 bytes are version, trace id (16), parent id (8) and flags, in the order of the text. What :func:`decode` returns
always has version 0, because a higher version is to be sent on as the highest version that is known (section 3.2.4).
"""

from binascii import unhexlify

from .errors import ZERO_ID, TraceContextError

LENGTH = 55
"""Characters of a version 0 traceparent."""

FLAG_SAMPLED = 0x01
FLAG_RANDOM = 0x02
KNOWN_FLAGS = FLAG_SAMPLED | FLAG_RANDOM
"""Flags of Level 2. The others are reserved, and zero in what we make ourselves (section 3.2.2.5.3)."""

ZERO_TRACE_ID = bytes(16)
ZERO_SPAN_ID = bytes(8)


def decode(text: str) -> bytes:
    """The 26 bytes for a traceparent of any version but ff.

    :raises TraceContextError: not the grammar (problem ``malformed``) or an all-zero id (``zero_id``).
    """
    try:
        if len(text) != LENGTH:
            text = _head_of_a_higher_version(text)
        digits = text.replace("-", "")
        raw = unhexlify(digits)
        # Three dashes in their places, and the digits come out as they went in: lower case, nothing else between.
        well_formed = text[2] == text[35] == text[52] == "-" and raw.hex() == digits and len(raw) == 26
    except (TypeError, ValueError, AttributeError):
        well_formed = False
    if not well_formed:
        raise TraceContextError("traceparent: not the W3C grammar")
    return check(raw)


def check(raw: bytes) -> bytes:
    """Refuse version ff and all-zero ids, and bring a higher version down to 0.

    :raises TraceContextError: with the problem ``malformed`` or ``zero_id``.
    """
    if raw[0] == 0xFF:
        raise TraceContextError("traceparent: version ff")
    if raw[1:17] == ZERO_TRACE_ID or raw[17:25] == ZERO_SPAN_ID:
        raise TraceContextError("traceparent: all-zero id", ZERO_ID)
    if raw[0] != 0:
        return b"\0" + raw[1:25] + bytes((raw[25] & KNOWN_FLAGS,))
    return raw


def _head_of_a_higher_version(text: str) -> str:
    # Section 3.2.4: what a higher version adds comes after one more dash; version 0 ends at its flags.
    if len(text) > LENGTH and text[LENGTH] == "-" and text[:2] != "00":
        return text[:LENGTH]
    raise ValueError
