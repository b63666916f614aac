"""MQTT adapters: sources and publishers for v5 and v3.1.1."""

from __future__ import annotations

from typing import Any

from spanbridge.core.errors import SourceError
from spanbridge.core.hosts import is_host
from spanbridge.mqtt.options import MAX_PACKET_SIZE, MqttOptions, PublisherOptions, Subscription, WillMessage
from spanbridge.mqtt.publisher import MqttPublisher
from spanbridge.mqtt.subscriber import MqttSubscriber
from spanbridge.mqtt.tls import client_context
from spanbridge.mqtt.version import Version, Version5, Version311
from spanbridge.ports import Reporter

__all__ = [
    "MqttOptions",
    "MqttPublisher",
    "MqttSubscriber",
    "PublisherOptions",
    "Subscription",
    "WillMessage",
    "check_options",
    "create_publisher",
    "create_source",
]


def create_source(options: MqttOptions, reporter: Reporter) -> MqttSubscriber:
    """Make a source; nothing is connected before ``run``. Reads the TLS files, so call it where blocking is allowed.

    :raises SourceError: an option cannot work, or a TLS file cannot be used.
    """
    check_options(options)
    return MqttSubscriber(options, reporter, _version(options))


def create_publisher(options: MqttOptions, reporter: Reporter) -> MqttPublisher[Any]:
    """Make a publisher; nothing is connected before ``run``. Reads the TLS files, so call it where blocking is allowed.

    Of a source's options it makes its own: see :meth:`PublisherOptions.beside`.

    :raises SourceError: an option cannot work, or a TLS file cannot be used.
    """
    own = PublisherOptions.beside(options)
    check_options(own)
    return MqttPublisher(own, reporter, _version(own))


def check_options(options: MqttOptions) -> None:
    """See that a connection can be made with these options. Blocking: it reads the TLS files.

    :raises SourceError: an option cannot work, or a TLS file cannot be used.
    """
    _check(options)
    if options.tls is not None:
        client_context(options.tls)
    _check_encodable(options, _version(options))


def _version(options: MqttOptions) -> Version:
    return Version5() if options.version == "5" else Version311()


def _check_encodable(options: MqttOptions, version: Version) -> None:
    """Encode once what will be sent, so that a value that MQTT cannot carry is found at the start.

    :raises SourceError: it cannot be encoded.
    """
    if not version.v5 and not options.client_id and not options.clean_start:
        raise SourceError(
            f"{options.name}: client_id is empty, and MQTT 3.1.1 keeps sessions for named clients only "
            "(set client_id, or clean_start = true)",
            reason="config",
        )
    if not version.v5 and options.password is not None and options.username is None:
        raise SourceError(f"{options.name}: password without username (MQTT-3.1.2-22)", reason="config")
    try:
        version.connect(options, options.client_id, clean_start=options.clean_start)
        for subscription in options.subscriptions:
            version.subscribe(subscription, 1, fresh=True)
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{options.name}: {error}", reason="config") from None


def _check(options: MqttOptions) -> None:
    """What neither version can carry.

    :raises SourceError: naming the option.
    """
    limits = {
        "keep_alive": (options.keep_alive, 0, 0xFFFF),
        "session_expiry": (options.session_expiry, 0, 0xFFFF_FFFF),
        "receive_maximum": (options.receive_maximum, 1, 0xFFFF),
        "topic_alias_maximum": (options.topic_alias_maximum, 0, 0xFFFF),
        "maximum_packet_size": (options.maximum_packet_size, 128, MAX_PACKET_SIZE),
    }
    if isinstance(options, PublisherOptions):
        limits["topic_aliases"] = (options.topic_aliases, 0, 0xFFFF)
        if options.answer_timeout <= 0:
            raise SourceError(f"{options.name}: answer_timeout is {options.answer_timeout}", reason="config")
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise SourceError(f"{options.name}: {name} is {value}, allowed are {low} to {high}", reason="config")
    _check_texts(options)
    for subscription in options.subscriptions:
        _check_subscription(options.name, subscription)
    will = options.will
    if will is not None and (not _is_filter(will.topic) or set(will.topic) & set("+#") or will.qos not in (0, 1, 2)):
        raise SourceError(f"{options.name}: will topic {will.topic!r} or its qos is not legal", reason="config")


def _check_texts(options: MqttOptions) -> None:
    """Hosts that can be looked up, and CONNECT's fields as section 1.5 has them: 65535 bytes, strings without NUL.

    :raises SourceError: naming the option.
    """
    server_name = None if options.tls is None else options.tls.server_name
    for name, host in (("host", options.host), ("tls.server_name", server_name)):
        if host is not None and not is_host(host):
            raise SourceError(f"{options.name}: {name} {host!r} is no host name", reason="config")
    will = options.will
    fields: dict[str, str | bytes | None] = {
        "client_id": options.client_id,
        "username": options.username,
        "password": options.password,
        "will payload": None if will is None else will.payload,
    }
    for name, value in fields.items():
        data = value.encode(errors="replace") if isinstance(value, str) else value or b""
        if len(data) > 0xFFFF:
            raise SourceError(f"{options.name}: {name} has {len(data)} bytes, allowed are 65535", reason="config")
        if name in ("client_id", "username") and b"\0" in data:
            raise SourceError(f"{options.name}: {name} contains a NUL (MQTT-1.5.4-2)", reason="config")


def _is_filter(text: str) -> bool:
    """MQTT 5.0 section 4.7: wildcards fill a level, ``#`` is the last one; one character or more, no NUL."""
    levels = text.split("/")
    return (
        0 < len(text.encode()) <= 0xFFFF
        and "\0" not in text
        and all(level in ("+", "#") or not set(level) & set("+#") for level in levels)
        and "#" not in levels[:-1]
    )


def _check_subscription(name: str, subscription: Subscription) -> None:
    share = subscription.share
    legal = _is_filter(subscription.filter) and _is_filter(subscription.wire_filter)
    if not legal or (share is not None and (not share or set(share) & set("/+#"))):
        raise SourceError(f"{name}: subscription {subscription.wire_filter!r} is not a topic filter", reason="config")
    if subscription.qos not in (0, 1, 2) or subscription.retain_handling not in (0, 1, 2):
        raise SourceError(
            f"{name}: subscription {subscription.wire_filter!r}: qos and retain_handling are 0, 1 or 2", reason="config"
        )
