"""MQTT v5 user properties (MQTT 5.0 section 3.3.2.3.7) as a carrier."""

from . import compact, traceparent
from .baggage import cap_baggage
from .context import TraceContext, context_from_compact, make_of
from .errors import BAGGAGE, DUPLICATE, MALFORMED, TRACESTATE, TraceContextError, wrong_type
from .extracted import Extracted
from .tracestate import normalise_tracestate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Properties = Sequence[tuple[str, str]]
    Split = tuple[TraceContext | None, str | None, list[tuple[str, str]]]

COMPACT = "compact"
W3C = "w3c"

_DECODERS = {"tp": compact.decode, "traceparent": traceparent.decode}
_SEQUENCES = frozenset((list, tuple))
_NAMES = frozenset(("tp", "traceparent", "tracestate", "baggage"))


def inject_user_properties(
    properties: "Properties", context: TraceContext, form: str = COMPACT
) -> list[tuple[str, str]]:
    """The properties with the context in them. The list given is not changed; a context already there is replaced.

    So is ``baggage`` that came without a parent: what is to travel goes in as ``context.replace(baggage=...)``.

    :param form: ``"compact"`` (``tp``) or ``"w3c"`` (``traceparent``).
    :raises TraceContextError: another form.
    :raises TypeError: the properties are not a list of pairs.
    """
    if type(properties) is not list:
        properties = _pairs(properties)
    if form == COMPACT:
        parent = ("tp", context.compact)
    elif form == W3C:
        parent = ("traceparent", context.traceparent)
    else:
        raise TraceContextError("form: neither 'compact' nor 'w3c'")
    result = [item for item in properties if item[0] not in _NAMES or is_ordinary(item)]
    result.append(parent)
    if context.tracestate:
        result.append(("tracestate", context.tracestate))
    if context.baggage:
        result.append(("baggage", context.baggage))
    return result


def extract_user_properties(properties: "Properties") -> Extracted:
    """The context among user properties: ``traceparent``, else ``tp``. No properties make it raise.

    :raises TypeError: the properties are not a list of pairs.
    """
    context, problem, _ = split_user_properties(properties)
    return Extracted(context, problem)


def split_user_properties(
    properties: "Properties",
) -> tuple["TraceContext | None", "str | None", list[tuple[str, str]]]:
    """The context, the problem, and the application's own properties in their order. No properties make it raise.

    A ``tp`` that does not decode is the application's own. Without a parent ``tracestate`` is too, and ``baggage`` is
    without a valid one: it has a meaning of its own.

    :raises TypeError: the properties are not a list of pairs.
    """
    if type(properties) in _SEQUENCES and len(properties) == 1:  # as most messages have it
        item = properties[0]
        if type(item) is tuple and len(item) == 2 and item[0] == "tp":
            context = context_from_compact(item[1])
            if context is not None:
                return context, None, []
    return _split(properties if type(properties) in _SEQUENCES else _pairs(properties))


def _split(properties: "Properties") -> "Split":
    rest: list[tuple[str, str]] = []
    found: list[tuple[str, str]] = []
    try:
        for item in properties:
            name, value = item
            if name in _NAMES:
                found.append(item)
            else:
                rest.append(item)
    except (TypeError, ValueError):
        raise wrong_type("properties", "pairs of a name and a value", item) from None
    if not found:
        return None, None, rest
    if len(found) == 1:  # what almost every message has
        name, value = found[0]
        context = context_from_compact(value) if name == "tp" else _context_from_text(name, value)
        if context is not None:
            return context, None, rest
    try:
        return _read_each_once(found, rest) or _read(properties, found)
    except (TypeError, AttributeError):  # values that are not text
        return None, None, list(properties)


def _pairs(properties: "Properties | None") -> "Properties":
    # A client gives None, or nothing, for a message without properties. A dict would be read as a list of its names.
    if properties is None:
        return []
    if isinstance(properties, (str, bytes, bytearray)) or hasattr(properties, "keys"):
        raise wrong_type("properties", "a list of pairs", properties)
    try:
        return list(properties)
    except TypeError:
        raise wrong_type("properties", "a list of pairs", properties) from None


def _context_from_text(name: str, value: str) -> "TraceContext | None":
    raw = _attempt(traceparent.decode, value)[0] if name == "traceparent" else None
    return None if raw is None else make_of(raw)


def _read_each_once(found: "Properties", rest: list[tuple[str, str]]) -> "Split | None":
    # A valid parent, and each name once: all that was found is the context's.
    values = dict(found)
    if len(values) != len(found) or ("tp" in values) == ("traceparent" in values):
        return None
    name = "tp" if "tp" in values else "traceparent"
    raw = _attempt(_DECODERS[name], values[name])[0]
    if raw is None:
        return None
    context, problem = complete(raw, values.get("tracestate", ""), values.get("baggage", ""))
    return context, problem, rest


def _read(properties: "Properties", found: "Properties") -> "Split":
    name = "traceparent"
    parents = [item[1] for item in found if item[0] == name]
    if not parents:
        name = "tp"
        parents = [item[1] for item in found if item[0] == name and not is_ordinary(item)]
    if not parents:
        return None, None, list(properties)
    raw, problem = _attempt(_DECODERS[name], parents[0]) if len(parents) == 1 else (None, DUPLICATE)
    if raw is None:
        kept = [item for item in properties if item[0] not in _NAMES or item[0] == "baggage" or is_ordinary(item)]
        return None, problem, kept
    context, problem = complete(
        raw,
        ",".join([value for name, value in found if name == "tracestate"]),
        ",".join([value for name, value in found if name == "baggage"]),
    )
    return context, problem, [item for item in properties if item[0] not in _NAMES or is_ordinary(item)]


def complete(raw: bytes, tracestate: str, baggage: str) -> tuple[TraceContext, "str | None"]:
    """The context of a checked parent and of the values that came with it, and the problem. Never raises."""
    problem = None
    if baggage:
        baggage, whole = cap_baggage(baggage)
        if not whole:
            problem = BAGGAGE
    if tracestate:
        try:
            tracestate = normalise_tracestate(tracestate)
        except TraceContextError:
            tracestate = ""
            problem = TRACESTATE
    return make_of(raw, tracestate, baggage), problem


def _attempt(decode: "Callable[[str], bytes]", value: str) -> tuple["bytes | None", "str | None"]:
    try:
        return decode(value), None
    except TraceContextError as error:
        return None, error.problem


def is_ordinary(item: tuple[str, str]) -> bool:
    """Whether it is a ``tp`` of the application's own: one that does not decode."""
    name, value = item
    if name != "tp":
        return False
    # The length first: a packet has room for a million of them, and an exception is dear.
    return not isinstance(value, str) or len(value) != compact.LENGTH or _attempt(compact.decode, value)[1] == MALFORMED
