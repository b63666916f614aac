"""Configuration to options."""

from __future__ import annotations

import pytest

from spanbridge.app import convert
from spanbridge.config import Config, Mqtt
from spanbridge.mqtt import Subscription

CONFIG = """
name = "edge-1"
[mqtt]
url = "mqtts://broker.example"
username = "gw"
password = "hush"
{mqtt}
[rocketmq]
endpoints = "cluster.example:8081"
access_key = "ak"
secret_key = "sk"
[uplink]
rejected_topic = "dead"
{routes}
"""


def load(routes: str, mqtt: str = "") -> Config:
    import tomllib

    raw = tomllib.loads(CONFIG.format(routes=routes, mqtt=mqtt))
    raw["mqtt"] = [raw["mqtt"]]
    return Config.model_validate(raw)


def route(filter_: str, qos: int = 1, topic: str = "t", extra: str = "") -> str:
    return f'[[routes]]\nfilter = "{filter_}"\ntopic = "{topic}"\nqos = {qos}\n{extra}\n'


def filters(config: Config) -> dict[str, int]:
    broker: Mqtt = config.mqtt[0]
    return {item.filter: item.qos for item in convert.subscriptions(broker, config.routes)}


def test_a_connection_takes_its_fields_and_secrets_from_the_model() -> None:
    config = load(route("a/b"))
    options = convert.mqtt_options(config, config.mqtt[0])
    assert (options.host, options.port, options.client_id) == ("broker.example", 8883, "edge-1")
    assert (options.username, options.password) == ("gw", "hush")
    assert options.tls is not None
    assert options.tls.verify
    assert options.subscriptions == (Subscription(filter="a/b", qos=1, no_local=True),)
    assert "hush" not in repr(options)
    cluster = convert.rocketmq_options(config)
    assert (cluster.endpoints, cluster.access_key, cluster.secret_key) == ("cluster.example:8081", "ak", "sk")
    assert cluster.topics == ("t", "dead")


def test_covered_filters_are_not_subscribed_but_lend_their_qos() -> None:
    config = load(route("a/+", qos=0) + route("a/b", qos=2) + route("c/{x}", qos=1))
    assert filters(config) == {"a/+": 2, "c/+": 1}


def test_topic_suffixes_are_subscribed_where_a_route_asks_for_them() -> None:
    extra = 'carriers = ["topic-suffix"]'
    config = load(route("a/{x}", extra=extra) + route("b/#", extra=extra) + route("c"))
    assert set(filters(config)) == {"a/+", "a/+/~tp/+", "b/#", "c"}


@pytest.mark.parametrize(("share", "no_local"), [("", True), ('share = "group"', False)])
def test_shared_subscriptions_are_never_no_local(share: str, no_local: bool) -> None:
    config = load(route("a"), mqtt=share)
    subscription = convert.subscriptions(config.mqtt[0], config.routes)[0]
    assert subscription.no_local is no_local
    assert subscription.wire_filter == ("a" if no_local else "$share/group/a")


def test_only_topics_without_fields_are_known_in_advance() -> None:
    config = load(route("a/{x}", topic="t-{x}") + route("b", topic="plain"))
    assert convert.known_topics(config) == ("plain", "dead")


def test_extra_subscriptions_stand_beside_those_of_the_routes() -> None:
    routes = route("a/+", qos=0) + route("b/#", qos=2)
    assert filters(load(routes, mqtt='subscribe = ["c/+", "b/c"]')) == {"a/+": 0, "b/#": 2, "c/+": 1}
    assert filters(load(routes, mqtt='subscribe = ["#"]')) == {"#": 2}
    suffixed = route("a/{x}", extra='carriers = ["topic-suffix"]')
    assert filters(load(suffixed, mqtt='subscribe = ["#"]')) == {"#": 1}


def test_topics_that_connections_name_are_known_in_advance() -> None:
    text = route("a/{x}", topic="t.{source}", extra='message_group = "g"') + route("b", topic="{client_id}-{topic}")
    config = load(text, mqtt='name = "plant-a"')
    assert convert.known_topics(config) == ("t_plant-a", "dead")
    assert convert.known_kinds(config) == (("t_plant-a", "FIFO"),)


def test_an_ipv6_endpoint_is_named_without_brackets() -> None:
    config = load(route("a"))
    cluster = config.rocketmq.model_copy(update={"endpoints": "[::1]:8081;other:1"})
    _, target = convert.peers(config.model_copy(update={"rocketmq": cluster}))
    assert (target.address, target.port) == ("::1", 8081)
