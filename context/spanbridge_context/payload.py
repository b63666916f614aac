"""Members of a JSON payload's outermost object as a carrier, for MQTT 3.1.1.

The payload is never parsed and written again: members are put in and cut out of its bytes, so that the application at
the other end has the bytes that were sent.
"""

from . import traceparent
from .context import TraceContext, make
from .errors import DUPLICATE, TRACESTATE, TraceContextError
from .tracestate import normalise_tracestate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMES = (b'"traceparent"', b'"tracestate"')
_SPACE = b" \t\n\r"


def inject_json(payload: bytes, context: TraceContext) -> bytes:
    """The payload with the context as the first members of its outermost object, in place of one that is there.

    What is not a JSON object in UTF-8 comes back as it is.
    """
    if not _is_object(payload):
        return payload
    payload = _cut(payload, _members(payload))
    start = payload.find(b"{") + 1
    members = '"traceparent":"' + context.traceparent + '"'
    if context.tracestate:
        members += ',"tracestate":"' + context.tracestate.replace("\\", "\\\\").replace('"', '\\"') + '"'
    comma = b"" if payload[start:].lstrip(_SPACE)[:1] == b"}" else b","
    return payload[:start] + members.encode() + comma + payload[start:]


def extract_json(payload: bytes) -> tuple[bytes, "TraceContext | None", "str | None"]:
    """The payload that the application sent, the context, and the problem. Never raises.

    A payload without a context, with several or with one that is not valid comes back as it is.
    """
    try:
        if _NAMES[0] not in payload or not _is_object(payload):
            return payload, None, None
    except TypeError:
        return payload, None, None
    members = _members(payload)
    parents = [m for m in members if m[0] == _NAMES[0]]
    if len(parents) != 1:
        return payload, None, DUPLICATE if parents else None
    try:
        raw = traceparent.decode(_loads(payload[parents[0][2] : parents[0][3]]))
    except TraceContextError as error:
        return payload, None, error.problem
    state, problem = "", None
    try:
        states = [_loads(payload[m[2] : m[3]]) for m in members if m[0] == _NAMES[1]]
        if states:
            if len(states) > 1:
                raise TraceContextError("duplicate")
            state = normalise_tracestate(states[0])
    except TraceContextError:
        problem = TRACESTATE
    return _cut(payload, members), make(raw, state, ""), problem


def _cut(payload: bytes, members: list[tuple[bytes, int, int, int]]) -> bytes:
    for _, start, _, end in reversed(members):
        after = end
        while payload[after : after + 1] in (b" ", b"\t", b"\n", b"\r"):
            after += 1
        if payload[after : after + 1] == b",":
            end = after + 1
        else:
            head = payload[:start].rstrip(_SPACE)
            if head[-1:] == b",":
                start = len(head) - 1
        payload = payload[:start] + payload[end:]
    return payload


def _members(payload: bytes) -> list[tuple[bytes, int, int, int]]:
    found = []
    depth = 0
    at = 0
    size = len(payload)
    while at < size:
        char = payload[at]
        if char == 0x22:
            end = _string_end(payload, at)
            if depth == 1 and payload[at:end] in _NAMES:
                value = end
                while payload[value] in _SPACE:
                    value += 1
                if payload[value] == 0x3A:
                    value += 1
                    while payload[value] in _SPACE:
                        value += 1
                    stop = _value_end(payload, value)
                    found.append((payload[at:end], at, value, stop))
                    end = stop
            at = end
            continue
        if char in b"{[":
            depth += 1
        elif char in b"}]":
            depth -= 1
        at += 1
    return found


def _string_end(payload: bytes, at: int) -> int:
    at += 1
    while payload[at] != 0x22:
        at += 2 if payload[at] == 0x5C else 1
    return at + 1


def _value_end(payload: bytes, at: int) -> int:
    depth = 0
    while True:
        char = payload[at]
        if char == 0x22:
            at = _string_end(payload, at)
            if depth == 0:
                return at
            continue
        if char in b"{[":
            depth += 1
        elif char in b"}],":
            if depth == 0:
                return at
            if char != 0x2C:
                depth -= 1
        at += 1


def _loads(text: bytes) -> "Any":
    import json

    return json.loads(text)


def _is_object(payload: bytes) -> bool:
    import json

    try:
        return isinstance(json.loads(payload.decode()), dict)
    except (ValueError, RecursionError, AttributeError):
        return False
