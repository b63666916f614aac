"""tracestate: W3C Trace Context Level 2, section 3.3."""

from .errors import TRACESTATE, TraceContextError

MAX_MEMBERS = 32
MAX_KEY = 256
MAX_VALUE = 256

MAX_READ = 32768
"""Characters that are read of a tracestate or of baggage: twice the longest tracestate that is valid. A packet of
megabytes of commas must not keep an event loop busy for seconds."""

OWS = " \t"

_FIRST = "abcdefghijklmnopqrstuvwxyz0123456789"
_KEY = _FIRST + "_-*/@"
_VALUE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in ",=")


def parse_tracestate(text: str) -> list[tuple[str, str]]:
    """The members in order, left (newest) first. Empty members are skipped; equal keys stay as they are.

    :raises TraceContextError: a member does not follow the grammar, there are more than 32, or the text has more than
        32768 characters (problem ``tracestate``).
    """
    return [(key, value) for key, _, value in [member.partition("=") for member in _members(text)]]


def normalise_tracestate(text: str) -> str:
    """The same list without optional white space and empty members; a tidy value comes back as it is.

    :raises TraceContextError: as :func:`parse_tracestate`.
    """
    return ",".join(_members(text))


def format_tracestate(members: list[tuple[str, str]]) -> str:
    """The header value of members that :func:`parse_tracestate` gave."""
    return ",".join([f"{key}={value}" for key, value in members])


def _members(text: str) -> list[str]:
    if not isinstance(text, str):
        raise TraceContextError("tracestate: not a string", TRACESTATE)
    if len(text) > MAX_READ:
        raise TraceContextError("tracestate: more than 32768 characters", TRACESTATE)
    members = [member for member in [part.strip(OWS) for part in text.split(",")] if member]
    if len(members) > MAX_MEMBERS:
        raise TraceContextError("tracestate: more than 32 members", TRACESTATE)
    is_printable = is_printable_ascii(text)
    for member in members:
        key, _, value = member.partition("=")
        # ``x.strip(allowed)`` is empty exactly when every character is allowed: a character class at the speed of C.
        if not key or not value or key[0] not in _FIRST or key.strip(_KEY):
            raise TraceContextError("tracestate: a member does not follow the grammar", TRACESTATE)
        if "=" in value if is_printable else value.strip(_VALUE):
            raise TraceContextError("tracestate: a member does not follow the grammar", TRACESTATE)
        if len(member) > MAX_KEY and (len(key) > MAX_KEY or len(value) > MAX_VALUE):
            raise TraceContextError("tracestate: a key or a value of more than 256 characters", TRACESTATE)
    return members


if hasattr(str, "isascii"):

    def is_printable_ascii(text: str) -> bool:
        """Whether all characters are from 0x20 to 0x7E. False also where that is not cheap to know (MicroPython)."""
        return text.isascii() and text.isprintable()

else:

    def is_printable_ascii(text: str) -> bool:
        return False
