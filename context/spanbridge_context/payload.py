"""Members of a JSON payload's outermost object as a carrier, for MQTT 3.1.1, which has no user properties.

The payload is never parsed and written again: members are put into its bytes and cut out of them, so that the
application at the other end has the bytes that were sent. docs/wire-format.md has the rules.
"""

from . import traceparent
from .context import TraceContext, make_of
from .errors import DUPLICATE, TRACESTATE, TraceContextError, wrong_type
from .extracted import Extracted
from .tracestate import normalise_tracestate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Member = tuple[bytes, int, int, int]  # name with its quotes, start, start of the value, end

_PARENT = b'"traceparent"'
_STATE = b'"tracestate"'
_HEAD = b'{"traceparent":"'
_HEAD_END = len(_HEAD) + traceparent.LENGTH
_SPACE = b" \t\n\r"
_QUOTE = 0x22
_COMMA = 0x2C

MAX_WRITTEN = 65536
"""Bytes of a payload that a context is written into."""

MAX_READ = 131072
"""Bytes of a payload that is searched for one: no payload may keep an event loop busy for long."""


def inject_json(payload: "bytes | str", context: TraceContext) -> bytes:
    """The payload with the context as the first members of its outermost object, in place of one that is there.

    What is not one JSON object in UTF-8 of at most 65536 bytes comes back as it is; text, what ``json.dumps`` gives, as
    UTF-8.

    :raises UnicodeEncodeError: text with a lone surrogate, which UTF-8 cannot hold.
    :raises TypeError: the payload is neither bytes nor text.
    """
    if isinstance(payload, str):
        payload = payload.encode()
    elif not isinstance(payload, (bytes, bytearray)):
        raise wrong_type("payload", "bytes or text", payload)
    try:
        if len(payload) > MAX_WRITTEN or not _is_object(payload):
            return payload
        payload = _without(payload, _members(payload))
    except (IndexError, ValueError):
        return payload
    text = f'"traceparent":"{context.traceparent}"'
    if context.tracestate:
        text += ',"tracestate":"' + context.tracestate.replace("\\", "\\\\").replace('"', '\\"') + '"'
    start = payload.find(b"{") + 1
    is_empty = payload[_skip_space(payload, start)] == 0x7D
    return payload[:start] + text.encode() + (b"" if is_empty else b",") + payload[start:]


def split_json(payload: bytes) -> tuple[bytes, "TraceContext | None", "str | None"]:
    """The payload that the application sent, the context, and the problem. No payload makes it raise.

    A payload without a context, with several, or with one that is not valid comes back as it is.

    :raises TypeError: the payload is not bytes.
    """
    if not isinstance(payload, (bytes, bytearray)):
        raise wrong_type("payload", "bytes", payload)
    try:
        if _PARENT not in payload or len(payload) > MAX_READ or not _is_object(payload):
            return payload, None, None
        return _read_first(payload) or _read(payload, _members(payload))
    except TraceContextError as error:
        return payload, None, error.problem
    except (IndexError, ValueError):
        return payload, None, None


def extract_json(payload: bytes) -> Extracted:
    """The context, and the problem, of a JSON payload. :func:`split_json` takes the context off as well.

    :raises TypeError: the payload is not bytes.
    """
    _, context, problem = split_json(payload)
    return Extracted(context, problem)


def _read_first(payload: bytes) -> "tuple[bytes, TraceContext | None, str | None] | None":
    # A parent that is the first member, without a blank, and the only one of its name: as most senders write it.
    if payload[: len(_HEAD)] != _HEAD or payload[_HEAD_END : _HEAD_END + 2] != b'",':
        return None
    if payload.count(_PARENT) != 1 or _STATE in payload:
        return None
    raw = traceparent.decode(payload[len(_HEAD) : _HEAD_END].decode())
    return b"{" + payload[_HEAD_END + 2 :], make_of(raw), None


def _read(payload: bytes, members: "list[Member]") -> tuple[bytes, "TraceContext | None", "str | None"]:
    parents = [_string(payload, member) for member in members if member[0] == _PARENT]
    states = [_string(payload, member) for member in members if member[0] == _STATE]
    if not parents:
        return payload, None, None
    if len(parents) > 1:
        return payload, None, DUPLICATE
    raw = traceparent.decode(parents[0])
    state, problem = "", None
    if states:
        try:
            state = normalise_tracestate(states[0])
        except TraceContextError:
            problem = TRACESTATE
    if len(states) > 1:
        state, problem = "", TRACESTATE
    return _without(payload, members), make_of(raw, state), problem


def _without(payload: bytes, members: "list[Member]") -> bytes:
    kept = []
    rest = len(payload)  # what follows is dealt with
    for _, start, _, end in reversed(members):
        after = _skip_space(payload, end)
        if after < rest and payload[after] == _COMMA:  # the comma after it goes with it
            kept.append(payload[after + 1 : rest])
            rest = start
        else:  # the last member that is left: the comma before it goes with it, if there is one
            kept.append(payload[end:rest])
            before = start - 1
            while payload[before] in _SPACE:
                before -= 1
            rest = before if payload[before] == _COMMA else start
    kept.append(payload[:rest])
    kept.reverse()
    return b"".join(kept)


def _members(payload: bytes) -> "list[Member]":
    """The context's members of the outermost object: those of its names, written without escapes, with string values.

    Walks from string to string and counts the brackets between them, which is right because the payload is valid, and
    only as far as there are such names: no further than the first member of what :func:`inject_json` made.
    """
    found: list[Member] = []
    depth = 0
    end = 0
    ahead = payload.count(_PARENT) + payload.count(_STATE)
    while ahead:
        start = payload.find(b'"', end)
        if start < 0:
            break
        between = payload[end:start]
        depth += between.count(b"{") + between.count(b"[") - between.count(b"}") - between.count(b"]")
        end = _string_end(payload, start)
        name = payload[start:end]
        if name not in (_PARENT, _STATE):
            continue
        ahead -= 1
        if depth == 1:
            colon = _skip_space(payload, end)
            value = _skip_space(payload, colon + 1)
            if payload[colon] == 0x3A and payload[value] == _QUOTE:
                end = _string_end(payload, value)
                found.append((name, start, value, end))
    return found


def _string_end(payload: bytes, start: int) -> int:
    at = start + 1
    while True:
        at = payload.find(b'"', at)
        if at < 0:
            raise IndexError
        first = at
        while payload[first - 1] == 0x5C:
            first -= 1
        at += 1
        if (at - first) & 1:  # an even number of backslashes before it: it ends the string
            return at


def _skip_space(payload: bytes, at: int) -> int:
    while payload[at] in _SPACE:
        at += 1
    return at


def _string(payload: bytes, member: "Member") -> str:
    text = payload[member[2] : member[3]].decode()
    if "\\" not in text:
        return text[1:-1]
    import json  # noqa: PLC0415 - most devices and gateways never need it

    unescaped = json.loads(text)
    return unescaped if isinstance(unescaped, str) else ""


_decode: "Callable[[str], tuple[object, int]] | None" = None


def _is_object(payload: bytes) -> bool:
    global _decode  # noqa: PLW0603 - made once, when first needed
    if _decode is None:
        _decode = _make_decoder()
    try:
        text = payload.decode().strip(" \t\n\r")
        value, end = _decode(text)
        return end == len(text) and isinstance(value, dict)
    except (ValueError, RuntimeError, AttributeError):  # RuntimeError: nested deeper than the interpreter can follow
        return False


def _make_decoder() -> "Callable[[str], tuple[object, int]]":
    import json  # noqa: PLC0415

    if not hasattr(json, "JSONDecoder"):  # MicroPython
        return lambda text: (json.loads(text), len(text))
    # int() refuses numbers of thousands of digits, and NaN is not JSON (RFC 8259 section 6).
    return json.JSONDecoder(parse_int=float, parse_constant=_refuse).raw_decode


def _refuse(name: str) -> object:
    raise ValueError(name)
