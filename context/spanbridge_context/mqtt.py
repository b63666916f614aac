"""MQTT v5 user properties (MQTT 5.0 section 3.3.2.3.7) as a carrier."""

from collections import namedtuple

from . import compact, traceparent
from .baggage import cap_baggage
from .context import TraceContext, make
from .errors import BAGGAGE, DUPLICATE, TRACESTATE, ZERO_ID, TraceContextError
from .tracestate import normalise_tracestate

TYPE_CHECKING = False  # the name is enough for a type checker, and ``typing`` is neither small nor on MicroPython
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple

    class Extracted(NamedTuple):
        """What a carrier held. ``problem`` is one of ``PROBLEMS`` or None; a context may come with a problem."""

        context: TraceContext | None
        problem: str | None

else:
    Extracted = namedtuple("Extracted", ("context", "problem"))

COMPACT = "compact"
W3C = "w3c"

_NAMES = frozenset(("tp", "traceparent", "tracestate", "baggage"))


def inject_user_properties(
    properties: "Iterable[tuple[str, str]]", context: TraceContext, form: str = COMPACT
) -> list[tuple[str, str]]:
    """The properties with the context in them. The list given is not changed; a context already there is replaced.

    :param form: ``"compact"`` (``tp``) or ``"w3c"`` (``traceparent``).
    :raises TraceContextError: another form.
    """
    if form == COMPACT:
        parent = ("tp", context.compact)
    elif form == W3C:
        parent = ("traceparent", context.traceparent)
    else:
        raise TraceContextError("form: neither 'compact' nor 'w3c'")
    result = [item for item in properties if item[0] not in _NAMES or (item[0] == "tp" and not _is_compact(item[1]))]
    result.append(parent)
    if context.tracestate:
        result.append(("tracestate", context.tracestate))
    if context.baggage:
        result.append(("baggage", context.baggage))
    return result


def extract_user_properties(properties: "Iterable[tuple[str, str]]") -> Extracted:
    """The context among user properties: ``traceparent``, else ``tp``. Never raises."""
    context, problem, _ = split_user_properties(properties)
    return Extracted(context, problem)


def split_user_properties(
    properties: "Iterable[tuple[str, str]]",
) -> tuple["TraceContext | None", "str | None", list[tuple[str, str]]]:
    """The context, the problem if there was one, and the properties that belong to the application. Never raises.

    A ``tp`` that does not decode is the application's. ``tracestate`` and ``baggage`` without any parent are too.
    """
    rest = []
    found = None
    try:
        for item in properties:
            if item[0] in _NAMES:
                if found is None:
                    found = []
                found.append(item)
            else:
                rest.append(item)
    except (TypeError, IndexError, KeyError):
        return None, None, rest
    if found is None:
        return None, None, rest
    return _read(found, rest)


def _read(
    found: list[tuple[str, str]], rest: list[tuple[str, str]]
) -> tuple["TraceContext | None", "str | None", list[tuple[str, str]]]:
    parents = []
    compacts = []
    states = []
    baggages = []
    problem = None
    for item in found:
        name, value = item
        if name == "tp":
            try:
                compacts.append(compact.decode(value))
            except TraceContextError as error:
                if error.problem == ZERO_ID:
                    problem = ZERO_ID
                else:
                    rest.append(item)
        elif name == "traceparent":
            parents.append(value)
        elif name == "tracestate":
            states.append(item)
        else:
            baggages.append(item)
    raw = None
    if parents:
        try:
            raw = traceparent.decode(parents[0])
            problem = None
        except TraceContextError as error:
            problem = error.problem
        if len(parents) > 1:
            raw, problem = None, DUPLICATE
    elif compacts:
        raw, problem = compacts[0], None
        if len(compacts) > 1:
            raw, problem = None, DUPLICATE
    elif problem is None:
        rest.extend(states)
    if raw is None:
        rest.extend(baggages)
        return None, problem, rest
    if states or baggages:
        context, problem = with_state(raw, ",".join([v for _, v in states]), ",".join([v for _, v in baggages]))
        return context, problem, rest
    return make(raw, "", ""), None, rest


def with_state(raw: bytes, state: str, baggage: str) -> tuple[TraceContext, "str | None"]:
    """A context of a checked parent and the values of tracestate and baggage as they arrived. Never raises."""
    problem = None
    whole = True
    if baggage:
        baggage, whole = cap_baggage(baggage)
        if not whole:
            problem = BAGGAGE
    try:
        state = normalise_tracestate(state)
    except TraceContextError:
        state, problem = "", TRACESTATE
    return make(raw, state, baggage), problem


def _is_compact(value: str) -> bool:
    try:
        compact.decode(value)
    except TraceContextError as error:
        return error.problem == ZERO_ID
    return True
