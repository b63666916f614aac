"""From the configuration's models to the options that adapters and pipelines take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from spanbridge import mqtt, rocketmq
from spanbridge.config import Config, Mqtt, RouteSection, Tls
from spanbridge.config.models.mqtt import DEFAULT_PORTS
from spanbridge.core.downlinks import Downlink
from spanbridge.core.partition import BatchLimits
from spanbridge.core.policy import Carrier
from spanbridge.core.rocketmq_rules import sanitise_topic
from spanbridge.core.routes import TopicFilter, minimal_filters
from spanbridge.core.template import Scope, Template
from spanbridge.core.tls import TlsOptions
from spanbridge.downlink import DownlinkEnds, DownlinkSettings
from spanbridge.spool.segments import SpoolOptions
from spanbridge.spool.versions import DEAD_LETTERS
from spanbridge.telemetry import Peer
from spanbridge.uplink import SpillSettings, UplinkSettings
from spanbridge_context import suffix_filter

_SPOOL = ("path", "max_bytes", "reserve", "segment_bytes")
_EXTRA_QOS = 1
"""QoS of subscriptions that no route asks for: nothing that they bring is lost on the way."""


@dataclass(frozen=True, slots=True)
class DownlinkPlan:
    """A downlink, what its consumer is made from, and who is at its ends."""

    downlink: Downlink
    consumer: rocketmq.ConsumerOptions
    ends: DownlinkEnds


def mqtt_options(config: Config, broker: Mqtt) -> mqtt.MqttOptions:
    """One broker's connection, with the subscriptions that its routes need."""
    url = urlsplit(broker.url)
    tls = broker.tls or (Tls() if url.scheme == "mqtts" else None)
    return mqtt.MqttOptions(
        host=url.hostname or "",
        port=url.port or DEFAULT_PORTS[url.scheme],
        client_id=config.client_id(broker),
        tls=TlsOptions(**_tls(tls)) if tls is not None else None,
        subscriptions=subscriptions(broker, config.routes_of(broker)),
        will=_will(broker),
        **_same(
            broker,
            "name version username password keep_alive clean_start session_expiry receive_maximum "
            "topic_alias_maximum maximum_packet_size connect_timeout backoff_initial backoff_maximum",
        ),
    )


def publisher_options(config: Config, broker: Mqtt) -> mqtt.PublisherOptions:
    """The connection that publishes to a broker: one of its own, with a session of its own."""
    beside = mqtt.PublisherOptions.beside(mqtt_options(config, broker))
    return replace(beside, client_id=config.publisher_client_id(broker))


def downlink_plans(config: Config, publishers: Mapping[str, mqtt.PublisherOptions]) -> dict[str, DownlinkPlan]:
    """All downlinks by their names."""
    cluster, bounds = replace(rocketmq_options(config), topics=(), kinds=()), config.downlink
    target = peers(config)[1]
    plans = {}
    for one in config.build_downlinks():
        publisher = publishers[one.broker]
        ends = DownlinkEnds(
            gateway=config.name, cluster=target, broker=mqtt_peer(publisher), v5=publisher.version == "5"
        )
        consumer = rocketmq.ConsumerOptions(
            cluster=cluster,
            group=one.group,
            topic=one.topic,
            filter=one.filter,
            sql=one.sql,
            invisible=bounds.invisible_time,
            max_unacked=bounds.max_in_flight,
        )
        plans[one.name] = DownlinkPlan(one, consumer, ends)
    return plans


def downlink_settings(config: Config) -> DownlinkSettings:
    """Bounds of the way down, and how often it tries."""
    return DownlinkSettings(
        **_same(config.downlink, "max_in_flight max_in_flight_bytes attempts backoff_initial backoff_maximum")
    )


def rocketmq_options(config: Config) -> rocketmq.RocketmqOptions:
    """The cluster's connection."""
    cluster = config.rocketmq
    return rocketmq.RocketmqOptions(
        topics=known_topics(config),
        kinds=known_kinds(config),
        tls=TlsOptions(**_tls(cluster.tls)) if cluster.tls is not None else None,
        ordered_partitions=cluster.effective_partitions,
        **_same(
            cluster,
            "endpoints namespace access_key secret_key security_token name connect_timeout request_timeout attempts "
            "heartbeat_interval route_refresh_interval backoff_initial backoff_maximum single_requests follow_routes "
            "protocol stored_unsafely receive_by delay_levels compress_above",
        ),
    )


def access_keys(config: Config) -> dict[str, Any]:
    """Access key, secret key and session token of the cluster, for the connections that are not the sink's."""
    return _same(config.rocketmq, "access_key secret_key security_token")


def uplink_settings(config: Config) -> UplinkSettings:
    """Bounds and extra destinations of the uplink."""
    uplink = config.uplink
    return UplinkSettings(
        gateway=config.name,
        max_in_flight=uplink.max_in_flight,
        max_in_flight_bytes=uplink.max_in_flight_bytes,
        limits=BatchLimits(uplink.batch.max_messages, uplink.batch.max_bytes, uplink.batch.concurrency),
        unroutable_topic=uplink.unroutable_topic,
        rejected_topic=uplink.rejected_topic,
        rejected_here=uplink.rejected is not None,
        reject_after=uplink.reject_after,
        spill=_spill(config),
    )


def spool_options(config: Config) -> SpoolOptions | None:
    """The directory of the spool, if there is to be one."""
    if config.spool is None:
        return None
    return SpoolOptions(**{name: getattr(config.spool, name) for name in _SPOOL})


def dead_letter_options(config: Config) -> SpoolOptions | None:
    """The directory of dead letters, within the spool's."""
    found = config.spool
    if found is None:
        return None
    size = found.rejected_max_bytes
    segment = min(found.segment_bytes, size // 8)  # space is given back file by file
    return SpoolOptions(
        path=found.path / DEAD_LETTERS, max_bytes=size, reserve=found.reserve, segment_bytes=segment, dead_letters=True
    )


def _spill(config: Config) -> SpillSettings:
    found = config.spool
    if found is None:
        return SpillSettings()
    return SpillSettings(
        after=found.spill_after,
        window=found.drain_window,
        qos0_share=found.qos0_share,
        max_age=found.max_age,
        rejected_max_age=found.rejected_max_age,
    )


def subscriptions(broker: Mqtt, routes: Iterable[RouteSection]) -> tuple[mqtt.Subscription, ...]:
    """The fewest subscriptions that bring what is asked for, each with the highest QoS that a route of it asks for.

    A filter whose devices may append their context to the topic is subscribed to in that form as well.
    """
    wanted = [(TopicFilter.parse(extra), _EXTRA_QOS) for extra in broker.subscribe]
    for route in routes:
        parsed = TopicFilter.parse(route.filter)
        wanted.append((parsed, route.qos))
        suffixed = suffix_filter(parsed.mqtt) if Carrier.TOPIC_SUFFIX in route.carriers else None
        if suffixed is not None:
            wanted.append((TopicFilter.parse(suffixed), route.qos))
    return tuple(
        mqtt.Subscription(
            filter=kept.mqtt,
            qos=max(qos for parsed, qos in wanted if kept.covers(parsed)),
            no_local=broker.no_local if broker.no_local is not None else broker.share is None,
            retain_as_published=broker.retain_as_published,
            retain_handling=broker.retain_handling,
            share=broker.share,
        )
        for kept in minimal_filters(parsed for parsed, _ in wanted)
    )


def peers(config: Config) -> tuple[Peer | None, Peer]:
    """MQTT broker and RocketMQ as spans and metrics name them. With several brokers, none stands for all."""
    brokers = [mqtt_peer(mqtt_options(config, broker)) for broker in config.mqtt]
    host, port = config.rocketmq.addresses[0]
    target = Peer(host, port, namespace=config.rocketmq.namespace)
    return (brokers[0] if len(brokers) == 1 else None), target


def mqtt_peer(options: mqtt.MqttOptions) -> Peer:
    """A broker, and our name there."""
    return Peer(options.host, options.port, options.client_id)


def known_topics(config: Config) -> tuple[str, ...]:
    """RocketMQ topics that the configuration fixes; those that devices name show up with the first message."""
    extra = [config.uplink.unroutable_topic, config.uplink.rejected_topic]
    fixed = [topic for topic, _ in known_kinds(config)]
    return tuple(dict.fromkeys([*fixed, *(topic for topic in extra if topic is not None)]))


def known_kinds(config: Config) -> tuple[tuple[str, str], ...]:
    """Topics that the configuration fixes, with the message type that their routes will send."""
    kinds = [(topic, route.message_type) for route in config.routes for topic in _fixed_topics(config, route)]
    return tuple(dict.fromkeys(kinds))


def _fixed_topics(config: Config, route: RouteSection) -> Iterator[str]:
    """The topics of a route in whose template a device has no say: one, or one to each connection."""
    topic = Template.parse(route.topic)
    if topic.from_device:
        return
    for broker in config.mqtt:
        if route.source in (None, broker.name):
            scope = Scope(levels=(), named={}, client_id=config.client_id(broker), source=broker.name)
            yield sanitise_topic(topic.render(scope)) if topic.fields else topic.text


def _will(broker: Mqtt) -> mqtt.WillMessage | None:
    if broker.will is None:
        return None
    payload = broker.will.payload.encode()
    return mqtt.WillMessage(payload=payload, **_same(broker.will, "topic qos retain delay"))


def _tls(tls: Tls) -> dict[str, Any]:
    return _same(tls, "ca_file cert_file key_file key_password server_name verify")


def _same(model: object, names: str) -> dict[str, Any]:
    """Settings whose names and meaning are the options' own."""
    return {name: plain(getattr(model, name)) for name in names.split()}


def plain(value: Any) -> Any:
    """A setting as adapters take it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value
