"""Warnings about connections and the gateway itself: what is legal and seldom meant."""

from __future__ import annotations

from collections.abc import Iterator

from spanbridge.config.models import Admin, Mqtt, Rocketmq
from spanbridge.config.models.rocketmq import NAME_SERVER_PORT, PROXY_PORT
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, Loc, warning
from spanbridge.core.hosts import is_loopback

# These have no counterpart in MQTT 3.1.1's CONNECT and SUBSCRIBE packets (MQTT 3.1.1 sections 3.1 and 3.8).
_V5_ONLY = (
    "session_expiry",
    "receive_maximum",
    "topic_alias_maximum",
    "no_local",
    "retain_as_published",
    "retain_handling",
)


def advise_on_peers(parts: Parts) -> Iterator[Finding]:
    """All warnings about single connections, and about settings that make each other pointless."""
    for index, broker in enumerate(parts.config.mqtt):
        for advise in (_session, _security, _sharing):
            yield from parts.known(advise(("mqtt", index), broker, parts))
    yield from parts.known(_cluster(parts.config.rocketmq, parts))
    yield from _runtime(parts)


def _session(loc: Loc, broker: Mqtt, parts: Parts) -> Iterator[Finding]:
    knows_version = parts.knows(*loc, "version")
    if broker.version == "5" and broker.session_expiry == 0 and knows_version:
        yield warning(
            (*loc, "session_expiry"),
            "is 0: the broker drops the session at every disconnect, and messages published meanwhile are lost",
            "use at least the longest outage to survive",
        )
    if broker.clean_start:
        yield warning(
            (*loc, "clean_start"), "is on: messages that waited at the broker while the gateway was stopped are lost"
        )
    if broker.keep_alive == 0:
        yield warning((*loc, "keep_alive"), "is 0: a broker that hangs is not noticed")
    if broker.version == "3.1.1" and knows_version:
        for name in _V5_ONLY:
            if name in broker.model_fields_set and parts.knows(*loc, name):
                yield warning((*loc, name), "has no effect with MQTT 3.1.1")


def _security(loc: Loc, broker: Mqtt, parts: Parts) -> Iterator[Finding]:
    if broker.tls is not None and not broker.tls.verify:
        yield warning((*loc, "tls", "verify"), "is off: anybody on the way can pose as the broker")
    in_the_clear = broker.password is not None and broker.tls_options is None and not is_loopback(broker.host)
    if in_the_clear and parts.knows(*loc, "url"):
        yield warning((*loc, "url"), "sends the password in the clear", "use `mqtts://`", show_value=True)


def _sharing(loc: Loc, broker: Mqtt, parts: Parts) -> Iterator[Finding]:
    if broker.share is None:
        return
    if broker.version == "3.1.1" and parts.knows(*loc, "version"):
        yield warning((*loc, "share"), "is not part of MQTT 3.1.1; the broker has to support it as an extension")
    routes = parts.routes("message_group", "source")
    grouped = [index for index, route in routes.items() if route.message_group and route.source in (None, broker.name)]
    if grouped and parts.knows(*loc, "name"):
        yield warning(
            (*loc, "share"),
            f"spreads a device over gateways, so routes[{grouped[0]}].message_group keeps order per gateway only",
        )


def _cluster(cluster: Rocketmq, parts: Parts) -> Iterator[Finding]:
    if parts.knows_all(("rocketmq",), "endpoints", "protocol"):
        yield from _ports(cluster)
    for setting in ("stored_unsafely", "receive_by", "delay_levels", "compress_above"):
        ours = setting in cluster.model_fields_set and parts.knows_all(("rocketmq",), setting, "protocol")
        if cluster.protocol == "grpc" and ours:
            yield warning(("rocketmq", setting), 'has no effect without `protocol = "remoting"`')
    if cluster.tls is not None and not cluster.tls.verify:
        yield warning(("rocketmq", "tls", "verify"), "is off: anybody on the way can pose as RocketMQ")


def _ports(cluster: Rocketmq) -> Iterator[Finding]:
    ports = {port for _, port in cluster.addresses}
    if cluster.protocol == "grpc" and NAME_SERVER_PORT in ports:
        yield warning(
            ("rocketmq", "endpoints"),
            f"names port {NAME_SERVER_PORT}, where name servers listen, which do not speak gRPC",
            'the gRPC proxy listens on 8081 by default; without one, set `protocol = "remoting"` or `"auto"`',
            show_value=True,
        )
    if cluster.protocol == "remoting" and PROXY_PORT in ports:
        yield warning(
            ("rocketmq", "endpoints"),
            f"names port {PROXY_PORT}, where gRPC proxies listen, which are no name servers",
            f"name servers listen on {NAME_SERVER_PORT} by default",
            show_value=True,
        )


def _runtime(parts: Parts) -> Iterator[Finding]:
    uplink, admin = parts.config.uplink, parts.config.admin
    bounds = parts.knows("uplink", "max_in_flight") and parts.knows("uplink", "batch", "max_messages")
    if bounds and uplink.max_in_flight < uplink.batch.max_messages:
        yield warning(
            ("uplink", "max_in_flight"), "is smaller than `batch.max_messages`, so no batch can fill", show_value=True
        )
    if parts.knows_all(("admin",), "enabled", "host", "token") and admin.enabled and not is_loopback(admin.host):
        yield from _exposed(admin)


def _exposed(admin: Admin) -> Iterator[Finding]:
    if admin.token is None:
        yield warning(
            ("admin", "host"),
            "other machines can read health and metrics, and nobody any other page, since there is no token",
            "set `token` in [admin]",
            show_value=True,
        )
    else:
        yield warning(
            ("admin", "host"),
            "other machines can read health and metrics, and who listens on the way can read the token",
            "keep it inside a trusted network, or put a proxy with TLS before it",
            show_value=True,
        )
