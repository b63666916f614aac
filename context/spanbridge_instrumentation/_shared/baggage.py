"""Baggage between OpenTelemetry's contexts and messages, in the codec's form.

OpenTelemetry's own propagator reads and writes the form of HTML forms: a space leaves as ``+``, a ``+`` that came in is
read as a space, and members lose their properties. W3C Baggage section 3.3.1 is percent-encoding alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from opentelemetry import propagate
from opentelemetry.baggage import clear, get_all, set_baggage
from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.propagators.textmap import CarrierT, Getter, default_getter

from spanbridge_context import cap_baggage, parse_baggage

_ARRIVED: Final = create_key("spanbridge-baggage")
# What a value and a key may hold as it is. Letters, digits and ``_.-~`` are never encoded.
_IN_VALUE: Final = "!#$&'()*+/:<=>?@[]^`{|}"
_IN_KEY: Final = "!#$%&'*+^`|"


class _Arrived(NamedTuple):
    """Baggage as a message brought it: its header, all entries it left current, and each member's value and text."""

    header: str
    entries: dict[str, object]
    members: dict[str, tuple[str, str]]


def with_baggage(header: str, base: Context) -> Context:
    """``base`` with a message's baggage as current entries. ``header`` is what the codec gives: no member malformed."""
    members: dict[str, tuple[str, str]] = {}
    context = base
    for key, value, properties in parse_baggage(header):
        text = unquote(value)
        members[key] = text, f"{key}={value};{properties}" if properties else f"{key}={value}"
        context = set_baggage(key, text, context)
    return set_value(_ARRIVED, _Arrived(header, dict(get_all(context)), members), context)


def baggage_of(context: Context | None) -> str:
    """The header of the entries of ``context`` (the current one by default), ``""`` when there are none.

    What came in and was not changed goes out as it came, properties included.
    """
    if context is not None and not context:
        return ""
    entries = get_all(context)
    if not entries:
        return ""
    found = get_value(_ARRIVED, context)
    arrived = found if isinstance(found, _Arrived) else None
    if arrived is not None and len(arrived.members) == len(entries) and arrived.entries == entries:
        return arrived.header
    known = {} if arrived is None else arrived.members
    return cap_baggage(",".join(_member(key, str(value), known) for key, value in entries.items()))[0]


def inject_global(context: Context) -> dict[str, str]:
    """What the global propagators write, with baggage in the codec's form where they write it."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    if "baggage" in carrier:
        carrier["baggage"] = baggage_of(context)
    return carrier


def extract_global(carrier: CarrierT, base: Context, getter: Getter[CarrierT] = default_getter) -> Context:
    """What the global propagators read, with baggage read as the codec does where they read it."""
    propagator = propagate.get_global_textmap()
    context = propagator.extract(carrier, base, getter)
    if context is base or "baggage" not in propagator.fields:
        return context
    context = clear(context)
    for key, value in get_all(base).items():
        context = set_baggage(key, value, context)
    values = getter.get(carrier, "baggage")
    return with_baggage(cap_baggage(",".join(values))[0], context) if values else context


def _member(key: str, value: str, known: Mapping[str, tuple[str, str]]) -> str:
    found = known.get(key)
    if found is not None and found[0] == value:
        return found[1]
    return f"{quote(key, _IN_KEY, errors='replace')}={quote(value, _IN_VALUE, errors='replace')}"
