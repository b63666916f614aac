"""baggage: W3C Baggage, section 3.3. Carried as it is, but for what is malformed or over the limits."""

from .errors import BAGGAGE, TraceContextError
from .tracestate import MAX_READ, OWS, is_printable_ascii

MAX_BYTES = 8192
MAX_MEMBERS = 180

# RFC 9110 section 5.6.2, and baggage-octet.
_KEY_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE_CHARACTERS = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\')


def parse_baggage(text: str) -> list[tuple[str, str, str]]:
    """The members in order: key, value (percent-encoded as on the wire) and properties (``""`` when none).

    :raises TraceContextError: a member does not follow the grammar, or there is more than 8192 bytes or 180 members
        (problem ``baggage``).
    """
    if not isinstance(text, str):
        raise TraceContextError("baggage: not a string", BAGGAGE)
    if len(text) > MAX_BYTES:
        raise TraceContextError("baggage: over 8192 bytes", BAGGAGE)
    parts = _split(text)
    if len(parts) > MAX_MEMBERS:
        raise TraceContextError("baggage: over 180 members", BAGGAGE)
    return [_parse_member(part) for part in parts]


def cap_baggage(text: str) -> tuple[str, bool]:
    """What is sent on, and whether that is everything. Never raises.

    Malformed members are left out, and then, in order, those with which it would be over 8192 bytes or 180 members.
    Members stay whole; optional white space goes. Of more than 32768 characters nothing is kept.
    """
    if not isinstance(text, str) or len(text) > MAX_READ:
        return "", False
    if _is_tidy(text):
        return text, True
    kept: list[str] = []
    size = 0
    whole = True
    for part in _split(text):
        try:
            member = _format_member(_parse_member(part))
        except TraceContextError:
            whole = False
            continue
        if len(kept) == MAX_MEMBERS or size + len(member) > MAX_BYTES:
            whole = False
            continue
        size += len(member) + 1  # the comma
        kept.append(member)
    return ",".join(kept), whole


def _is_tidy(text: str) -> bool:
    """Whether it is within the limits and nothing but plain members: what almost every sender writes, known fast."""
    if len(text) > MAX_BYTES or not is_printable_ascii(text) or " " in text or ";" in text:
        return False
    if '"' in text or "\\" in text or text.count(",") >= MAX_MEMBERS:
        return False
    for part in text.split(","):
        key, equals, _ = part.partition("=")
        if not equals or not key or key.strip(_KEY_CHARACTERS):
            return False
    return True


def _split(text: str) -> list[str]:
    return [part for part in [part.strip(OWS) for part in text.split(",")] if part]


def _format_member(member: tuple[str, str, str]) -> str:
    key, value, properties = member
    return f"{key}={value};{properties}" if properties else f"{key}={value}"


def _parse_member(part: str) -> tuple[str, str, str]:
    if ";" not in part:
        key, value = _parse_pair(part)
        return key, value, ""
    pieces = part.split(";")
    key, value = _parse_pair(pieces[0])
    return key, value, ";".join([_parse_property(piece) for piece in pieces[1:]])


def _parse_property(piece: str) -> str:
    if "=" in piece:
        key, value = _parse_pair(piece)
        return f"{key}={value}"
    key, _ = _parse_pair(piece + "=")
    return key


def _parse_pair(piece: str) -> tuple[str, str]:
    at = piece.find("=")
    key = piece[:at].strip(OWS)
    value = piece[at + 1 :].strip(OWS)
    # ``x.strip(allowed)`` is empty exactly when every character is allowed.
    if at < 0 or not key or key.strip(_KEY_CHARACTERS) or value.strip(_VALUE_CHARACTERS):
        raise TraceContextError("baggage: a member does not follow the grammar", BAGGAGE)
    return key, value
