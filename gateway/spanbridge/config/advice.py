"""Warnings: what is legal and seldom meant."""

from __future__ import annotations

from collections.abc import Iterator

from spanbridge.config.models import Mqtt, Route
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, Loc
from spanbridge.core.hosts import is_loopback
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.template import Template

# These have no counterpart in MQTT 3.1.1's CONNECT and SUBSCRIBE packets (MQTT 3.1.1 sections 3.1 and 3.8).
_V5_ONLY = (
    "session_expiry",
    "receive_maximum",
    "topic_alias_maximum",
    "no_local",
    "retain_as_published",
    "retain_handling",
)


def advise(parts: Parts) -> Iterator[Finding]:
    """All warnings about single sections, and pairs that make each other pointless."""
    for index, broker in parts.brokers.items():
        yield from _session(("mqtt", index), broker)
        yield from _security(("mqtt", index), broker)
        yield from _sharing(("mqtt", index), broker, parts)
    for index, route in parts.routes.items():
        sources = [broker for broker in parts.brokers.values() if route.source in (None, broker.name)]
        yield from _delivery(("routes", index), route)
        yield from _context(("routes", index), route)
        yield from _user_properties(("routes", index), route, sources)
    yield from _runtime(parts)


def _warning(loc: Loc, message: str, hint: str | None = None, *, show_value: bool = False) -> Finding:
    return Finding(loc=loc, message=message, hint=hint, severity="warning", show_value=show_value)


def _session(loc: Loc, broker: Mqtt) -> Iterator[Finding]:
    if broker.version == "5" and broker.session_expiry == 0:
        yield _warning(
            (*loc, "session_expiry"),
            "is 0: the broker drops the session at every disconnect, and messages published meanwhile are lost",
            "use at least the longest outage to survive",
        )
    if broker.clean_start:
        yield _warning(
            (*loc, "clean_start"), "is on: messages that waited at the broker while the gateway was stopped are lost"
        )
    if broker.keep_alive == 0:
        yield _warning((*loc, "keep_alive"), "is 0: a broker that hangs is not noticed")
    if broker.version == "3.1.1":
        for name in _V5_ONLY:
            if name in broker.model_fields_set:
                yield _warning((*loc, name), "has no effect with MQTT 3.1.1")


def _security(loc: Loc, broker: Mqtt) -> Iterator[Finding]:
    if broker.tls is not None and not broker.tls.verify:
        yield _warning((*loc, "tls", "verify"), "is off: anybody on the way can pose as the broker")
    if broker.password is not None and broker.tls_options is None and not is_loopback(broker.host):
        yield _warning((*loc, "url"), "sends the password in the clear", "use `mqtts://`", show_value=True)


def _sharing(loc: Loc, broker: Mqtt, parts: Parts) -> Iterator[Finding]:
    if broker.share is None:
        return
    if broker.version == "3.1.1":
        yield _warning((*loc, "share"), "is not part of MQTT 3.1.1; the broker has to support it as an extension")
    grouped = [index for index, route in parts.routes.items() if route.message_group and _applies(route, broker)]
    if grouped:
        yield _warning(
            (*loc, "share"),
            f"spreads a device over gateways, so routes[{grouped[0]}].message_group keeps order per gateway only",
        )


def _applies(route: Route, broker: Mqtt) -> bool:
    return route.source in (None, broker.name)


def _delivery(loc: Loc, route: Route) -> Iterator[Finding]:
    if route.qos == 0:
        yield _warning((*loc, "qos"), "is 0: at most once, the broker never sends again what was lost on the way")
    bare = Template.parse(route.topic)
    if bare.fields and all(
        not isinstance(part, str) and part.kind == "user" and not part.default for part in bare.parts
    ):
        yield _warning(
            (*loc, "topic"),
            "is empty for messages without that user property, which makes them unroutable",
            "give a default, as in `{user.site|unknown}`",
            show_value=True,
        )


def _context(loc: Loc, route: Route) -> Iterator[Finding]:
    if route.context is ContextPolicy.PASSTHROUGH and not route.trust:
        yield _warning((*loc, "context"), "has nothing to pass through, since `trust` is off", show_value=True)


def _user_properties(loc: Loc, route: Route, sources: list[Mqtt]) -> Iterator[Finding]:
    if not sources or any(broker.version == "5" for broker in sources):
        return
    templates = {
        (*loc, "topic"): route.topic,
        (*loc, "tag"): route.tag,
        (*loc, "message_group"): route.message_group,
        (*loc, "delivery_timestamp"): route.delivery_timestamp,
        **{(*loc, "keys", index): key for index, key in enumerate(route.keys)},
    }
    for where, text in templates.items():
        if text is not None and Template.parse(text).per_message:
            yield _warning(where, "uses user properties, which MQTT 3.1.1 does not have", show_value=True)


def _runtime(parts: Parts) -> Iterator[Finding]:
    if parts.uplink is not None and parts.uplink.max_in_flight < parts.uplink.batch.max_messages:
        yield _warning(
            ("uplink", "max_in_flight"), "is smaller than `batch.max_messages`, so no batch can fill", show_value=True
        )
    if parts.admin is not None and parts.admin.enabled and not is_loopback(parts.admin.host):
        yield _warning(
            ("admin", "host"), "other machines can read health, metrics and status without a password", show_value=True
        )
