"""Checks of downlinks against brokers, and against each other."""

from __future__ import annotations

from collections.abc import Iterator

from spanbridge.config.models import DownlinkSection, Mqtt
from spanbridge.config.models.downlinks import USER_PROPERTY_CARRIERS
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, Loc, did_you_mean, warning
from spanbridge.core.downlinks import Away
from spanbridge.core.policy import ContextPolicy


def check_downlinks(parts: Parts) -> Iterator[Finding]:
    """Errors, then warnings."""
    yield from _brokers(parts)
    yield from _names(parts)
    yield from _groups(parts)
    for index, (downlink, broker) in with_brokers(parts).items():
        if broker.version == "3.1.1":
            yield from _without_v5(("downlinks", index), downlink)
    for index, downlink in enumerate(parts.config.downlinks):
        yield from parts.known(_advice(("downlinks", index), downlink, parts))


def with_brokers(parts: Parts) -> dict[int, tuple[DownlinkSection, Mqtt]]:
    """The downlinks whose broker is known, by position, each with that broker."""
    config = parts.config
    brokers = parts.brokers("name", "version")
    if len(brokers) < len(config.mqtt):
        return {}
    by_name = {broker.name: broker for broker in brokers.values()}
    found = {}
    for index, downlink in parts.downlinks("broker").items():
        broker = by_name.get(config.broker_of(downlink))
        if broker is not None and (downlink.broker is not None or len(config.mqtt) == 1):
            found[index] = (downlink, broker)
    return found


def _brokers(parts: Parts) -> Iterator[Finding]:
    names = [broker.name for broker in parts.config.mqtt]
    if len(parts.brokers("name")) < len(names):
        return  # one that is not known may be the one meant
    known = "known: " + ", ".join(f"`{name}`" for name in names)
    for index, downlink in parts.downlinks("broker").items():
        loc: Loc = ("downlinks", index, "broker")
        if downlink.broker is None and len(names) > 1:
            yield Finding(loc=loc, message="is missing: there are several `[[mqtt]]` to publish to", hint=known)
        elif downlink.broker is not None and downlink.broker not in names:
            yield Finding(
                loc=loc, message="no `[[mqtt]]` has this name", hint=did_you_mean(downlink.broker, names) or known
            )


def _names(parts: Parts) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, downlink in parts.downlinks("name", "topic").items():
        other = seen.setdefault(downlink.effective_name, index)
        if other != index:
            yield Finding(
                loc=("downlinks", index, "name" if downlink.name is not None else "topic"),
                message=f"downlinks[{other}] is named `{downlink.effective_name}` too",
                hint="give it a `name` of its own: metrics of the two could not be told apart",
            )


def _groups(parts: Parts) -> Iterator[Finding]:
    """RocketMQ keeps one subscription to a group: with two, the broker goes by the one that came last."""
    seen: dict[str, tuple[int, DownlinkSection]] = {}
    for index, downlink in parts.downlinks("consumer_group", "topic", "filter", "filter_type").items():
        other, earlier = seen.setdefault(downlink.consumer_group, (index, downlink))
        if other == index:
            continue
        same = _subscription(downlink) == _subscription(earlier)
        yield Finding(
            loc=("downlinks", index, "consumer_group"),
            message=f"is the group of downlinks[{other}] too, "
            + (
                "so that each message would go to one of the two only"
                if same
                else "which subscribes to something else: RocketMQ keeps one subscription to a group, and each would "
                "miss messages"
            ),
            hint="give each downlink a consumer group of its own",
        )


def _subscription(downlink: DownlinkSection) -> tuple[str, str, frozenset[str]]:
    if downlink.filter_type == "sql92":
        return downlink.topic, downlink.filter_type, frozenset({downlink.filter})
    return downlink.topic, downlink.filter_type, frozenset(tag.strip() for tag in downlink.filter.split("||"))


def _without_v5(loc: Loc, downlink: DownlinkSection) -> Iterator[Finding]:
    """What MQTT 3.1.1 has no field for."""
    if downlink.carrier in USER_PROPERTY_CARRIERS:
        yield Finding(
            loc=(*loc, "carrier"),
            message="is a user property, which MQTT 3.1.1 does not have",
            hint='use "topic-suffix" or "json-payload"',
        )
    if downlink.away is Away.RETRY:
        yield Finding(
            loc=(*loc, "away"),
            message="needs MQTT 5: with 3.1.1, a broker does not say that nobody subscribes",
            hint='use "wait", or `version = "5"` in [mqtt]',
        )
    if downlink.expiry is not None:
        yield warning(
            (*loc, "expiry"),
            "is not known to MQTT 3.1.1: the gateway drops what expires before it is published, and what the broker "
            "holds for a device then waits for ever",
        )


def _advice(loc: Loc, downlink: DownlinkSection, parts: Parts) -> Iterator[Finding]:
    if downlink.qos == 0:
        yield warning((*loc, "qos"), "is 0: at most once, and brokers seldom keep such a message for a device away")
    if downlink.context is ContextPolicy.PASSTHROUGH and not downlink.trust and parts.knows(*loc, "trust"):
        yield warning((*loc, "context"), "has nothing to pass through, since `trust` is off", show_value=True)
    if downlink.mqtt_topic.startswith("$"):
        yield warning(
            (*loc, "mqtt_topic"), "begins with `$`, where brokers rarely let clients publish", show_value=True
        )
