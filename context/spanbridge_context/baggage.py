"""baggage: W3C Baggage, section 3.3. Carried as it is, but for what is malformed or over the limits."""

from .errors import BAGGAGE, TraceContextError
from .tracestate import OWS

MAX_BYTES = 8192
MAX_MEMBERS = 180

_TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_OCTET = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\')


def parse_baggage(text: str) -> list[tuple[str, str, str]]:
    """The members in order: key, value (percent-encoded as on the wire) and properties (``""`` when none).

    :raises TraceContextError: a member does not follow the grammar, or the value is over 8192 bytes or 180 members
        (problem ``baggage``).
    """
    if not isinstance(text, str):
        raise TraceContextError("baggage: not a string", BAGGAGE)
    members = [_parse_member(part) for part in _split(text)]
    if len(members) > MAX_MEMBERS or len(text) > MAX_BYTES:
        raise TraceContextError("baggage: over 8192 bytes or 180 members", BAGGAGE)
    return members


def cap_baggage(text: str) -> tuple[str, bool]:
    """What may be sent on, and whether that is everything.

    Malformed members are left out; of the others the first that fit into 8192 bytes and 180 members are kept whole.
    Never raises.
    """
    try:
        parse_baggage(text)
        if " " not in text and "\t" not in text and ",," not in text and text[:1] != "," and text[-1:] != ",":
            return text, True
    except TraceContextError:
        if not isinstance(text, str):
            return "", False
    kept: list[str] = []
    size = -1
    whole = True
    for part in _split(text):
        try:
            member = _format_member(_parse_member(part))
        except TraceContextError:
            whole = False
            continue
        if len(kept) == MAX_MEMBERS or size + 1 + len(member) > MAX_BYTES:
            whole = False
            break
        size += 1 + len(member)
        kept.append(member)
    return ",".join(kept), whole


def _split(text: str) -> list[str]:
    return [part for part in [part.strip(OWS) for part in text.split(",")] if part]


def _format_member(member: tuple[str, str, str]) -> str:
    key, value, properties = member
    return key + "=" + value + (";" + properties if properties else "")


def _parse_member(part: str) -> tuple[str, str, str]:
    pieces = [piece.strip(OWS) for piece in part.split(";")]
    key, value = _parse_pair(pieces[0], True)
    properties = []
    for piece in pieces[1:]:
        name, content = _parse_pair(piece, False)
        properties.append(name if content is None else name + "=" + content)
    return key, value or "", ";".join(properties)


def _parse_pair(piece: str, needs_value: bool) -> tuple[str, "str | None"]:
    at = piece.find("=")
    if at < 0:
        key, value = piece, None
    else:
        key, value = piece[:at].strip(OWS), piece[at + 1 :].strip(OWS)
    # As in tracestate: what is left after stripping the allowed characters is not allowed.
    if not key or key.strip(_TOKEN) or (value and value.strip(_OCTET)) or (needs_value and value is None):
        raise TraceContextError("baggage: a member does not follow the grammar", BAGGAGE)
    return key, value
