"""Both sides asked what a start of the gateway would find: ``spanbridge check --connect``.

Nothing of the gateway's own is touched, which may be running meanwhile. Each MQTT connection has a client id of its
own, a session that ends with it, and a share group of its own (in the gateway's, it would take messages that the
gateway never sees). RocketMQ is asked for routes and consumer groups; nothing is sent, published or received.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Protocol

from spanbridge.app import convert
from spanbridge.app.connect_groups import DownlinkQuestions
from spanbridge.app.connect_lag import ask_lag
from spanbridge.app.findings import PeerFinding, Silent, milliseconds
from spanbridge.app.lag import offsets_options
from spanbridge.config import Config, DownlinkSection, Mqtt
from spanbridge.core.downlinks import Away
from spanbridge.core.errors import SinkError, SpanbridgeError
from spanbridge.core.message import Destination, Publish
from spanbridge.mqtt import MqttOptions, MqttPublisher, Subscription, create_publisher, create_source
from spanbridge.ports import Link, PeerStatus, Sink, Source
from spanbridge.rocketmq import RocketmqOptions, ask_protocol, create_sink
from spanbridge.rocketmq.offsets import OffsetsOptions

_LOOK_EVERY = 0.02
"""Seconds between two looks at a connection's status."""
_GRACE = 5.0
"""Seconds for answers beyond the deadline of the connection itself."""
_NEVER_AGAIN = 3600.0
"""Seconds of pause after a failed attempt: one is all that is looked at."""
_AT_ONCE = 8
"""Topics that are asked for side by side."""


class _Client(Protocol):
    """A connection that tells how it is."""

    @property
    def status(self) -> PeerStatus:
        """As of now."""

    async def close(self) -> None:
        """End it."""


def ask_both_sides(config: Config) -> list[PeerFinding]:
    """Ask every MQTT broker and RocketMQ, side by side. Call it outside an event loop: TLS files are read."""
    sources = [_mqtt_check(convert.mqtt_options(config, one)) for one in config.mqtt if config.subscribes(one)]
    publishers = [_publisher_check(config, broker) for broker in config.mqtt if config.downlinks_to(broker)]
    cluster = _rocketmq_check(config)
    return asyncio.run(_together([*sources, *publishers, cluster, lambda: ask_lag(config)]))


_Check = Callable[[], Coroutine[Any, Any, list[PeerFinding]]]


async def _together(checks: Iterable[_Check]) -> list[PeerFinding]:
    results = await asyncio.gather(*(check() for check in checks))
    return [finding for result in results for finding in result]


async def _nothing(finding: PeerFinding) -> list[PeerFinding]:
    return [finding]


# -- MQTT --------------------------------------------------------------------------------------------------------------


def _mqtt_check(options: MqttOptions) -> _Check:
    harmless = replace(
        options,
        client_id=f"{options.client_id}-check-{secrets.token_hex(2)}",
        clean_start=True,
        session_expiry=0,
        receive_maximum=1,
        will=None,
        subscriptions=tuple(map(_harmless, options.subscriptions)),
        backoff_initial=_NEVER_AGAIN,
        backoff_maximum=_NEVER_AGAIN,
    )
    try:
        source = create_source(harmless, Silent())
    except SpanbridgeError as error:
        failed = PeerFinding(options.name, "connection", "failed", str(error))
        return lambda: _nothing(failed)
    return lambda: _ask_broker(source, harmless)


def _harmless(subscription: Subscription) -> Subscription:
    share = None if subscription.share is None else f"{subscription.share}-check"
    return replace(subscription, share=share, retain_handling=2)


async def _ask_broker(source: Source[Publish], options: MqttOptions) -> list[PeerFinding]:
    status, took = await _connected(source, source.run(_ignore, _ignore), options)
    return _of_broker(status, options, took)


async def _connected(client: _Client, run: Coroutine[Any, Any, None], options: MqttOptions) -> tuple[PeerStatus, float]:
    """How a connection is once that is decided, and how many milliseconds that took. It is closed."""
    began = monotonic()
    running = asyncio.create_task(run)
    try:
        while not _is_decided(client.status) and not running.done():
            if monotonic() - began > options.connect_timeout + _GRACE:
                break
            await asyncio.sleep(_LOOK_EVERY)
        return client.status, milliseconds(began)
    finally:
        await client.close()
        await asyncio.gather(running, return_exceptions=True)


def _publisher_check(config: Config, broker: Mqtt) -> _Check:
    options = convert.publisher_options(config, broker)
    harmless = replace(
        options,
        client_id=f"{options.client_id}-check-{secrets.token_hex(2)}",
        session_expiry=0,
        clean_start=True,
        backoff_initial=_NEVER_AGAIN,
        backoff_maximum=_NEVER_AGAIN,
    )
    try:
        publisher = create_publisher(harmless, Silent())
    except SpanbridgeError as error:
        failed = PeerFinding(broker.name, "publishing", "failed", str(error))
        return lambda: _nothing(failed)
    return lambda: _ask_publisher(publisher, harmless, broker.name, config.downlinks_to(broker))


async def _ask_publisher(
    publisher: MqttPublisher[Any], options: MqttOptions, name: str, downlinks: Sequence[DownlinkSection]
) -> list[PeerFinding]:
    status, took = await _connected(publisher, publisher.run(), options)
    if status.link is not Link.UP:
        cause = status.last_error or f"{options.broker} did not answer within {options.connect_timeout + _GRACE:g} s"
        return [PeerFinding(name, "publishing", "failed", cause)]
    text = f"{options.broker} took MQTT {options.version}, as client {options.client_id!r}; rights show with a message"
    return [
        PeerFinding(name, "publishing", "ok", text, took),
        *(finding for one in downlinks for finding in _of_limits(name, one, status.detail)),
    ]


def _of_limits(name: str, downlink: DownlinkSection, told: dict[str, Any]) -> Iterator[PeerFinding]:
    """Where the broker does less than a downlink asks for (MQTT 5.0 sections 3.2.2.3.4 and 3.2.2.3.5)."""
    subject, most = f"downlink {downlink.effective_name}", told.get("maximum_qos")
    if most is not None and most < downlink.qos:
        yield PeerFinding(name, subject, "warning", f"the broker takes QoS {most} at most, asked for {downlink.qos}")
    if told.get("retain_available") is False and (downlink.retain or downlink.away is Away.RETAIN):
        yield PeerFinding(name, subject, "failed", "the broker retains no messages (Retain Available)")


def _ignore(*_: object) -> None:
    """Messages that come meanwhile are no concern of a check, and are not acknowledged."""


def _is_decided(status: PeerStatus) -> bool:
    return status.link in (Link.UP, Link.BACKOFF)


def _of_broker(status: PeerStatus, options: MqttOptions, took: float) -> list[PeerFinding]:
    address = f"{options.host}:{options.port}"
    if status.link is not Link.UP:
        cause = status.last_error or f"{address} did not answer within {options.connect_timeout + _GRACE:g} s"
        return [PeerFinding(options.name, "connection", "failed", cause)]
    text = f"{address} took MQTT {options.version}, as client {options.client_id!r}"
    answers = {answer["filter"]: answer for answer in status.detail.get("subscriptions", ())}
    return [
        PeerFinding(options.name, "connection", "ok", text, took),
        *(_of_subscription(options.name, one, answers.get(one.wire_filter, {})) for one in options.subscriptions),
    ]


def _of_subscription(name: str, asked: Subscription, answer: dict[str, Any]) -> PeerFinding:
    subject, granted = f"subscription {asked.filter}", answer.get("granted_qos")
    if granted is None:
        return PeerFinding(name, subject, "failed", f"refused: {answer.get('error') or 'no answer came'}")
    if granted < asked.qos:
        return PeerFinding(name, subject, "warning", f"granted with QoS {granted}, asked for {asked.qos}")
    return PeerFinding(name, subject, "ok", f"granted with QoS {granted}")


# -- RocketMQ ----------------------------------------------------------------------------------------------------------


def _rocketmq_check(config: Config) -> _Check:
    publishers = {one.name: convert.publisher_options(config, one) for one in config.mqtt if config.downlinks_to(one)}
    options, plans = convert.rocketmq_options(config), convert.downlink_plans(config, publishers)
    brokers = None if config.lag is None else offsets_options(config, config.lag.name_servers, config.lag.timeout)
    questions = DownlinkQuestions(plans, options.name, brokers)
    name_servers = offsets_options(config, config.rocketmq.endpoints, config.rocketmq.request_timeout)
    if options.protocol == "auto":
        return lambda: _ask_either(options, questions, name_servers)
    questions.by(options.protocol, name_servers)
    return lambda: _ask_cluster(options, questions)


async def _ask_either(
    options: RocketmqOptions, downlinks: DownlinkQuestions, name_servers: OffsetsOptions
) -> list[PeerFinding]:
    """Ask which protocol the endpoints speak, then by it."""
    try:
        spoken, address = await ask_protocol(options)
    except SinkError as error:
        return _unreachable(options, downlinks, PeerFinding(options.name, "connection", "failed", str(error)))
    downlinks.by(spoken, name_servers)
    found = PeerFinding(options.name, "protocol", "ok", f"{address} speaks {spoken}")
    return [found, *await _ask_cluster(options.speaking(spoken), downlinks)]


async def _ask_cluster(options: RocketmqOptions, downlinks: DownlinkQuestions) -> list[PeerFinding]:
    """The cluster by itself first: what does not answer need not be asked for topics."""
    reachable = await _probe(replace(options, topics=(), kinds=()), "connection", options.endpoints)
    if not reachable.ok:
        reachable = replace(reachable, text=reachable.text + await _other_protocol(options))
        return _unreachable(options, downlinks, reachable)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(topic: str) -> PeerFinding:
        kinds = tuple(pair for pair in options.kinds if pair[0] == topic)
        async with gate:
            return await _probe(replace(options, topics=(topic,), kinds=kinds), f"topic {topic}", topic)

    sent = await asyncio.gather(*map(ask, options.topics))
    return [reachable, *sent, *await downlinks.ask()]


def _unreachable(options: RocketmqOptions, downlinks: DownlinkQuestions, why: PeerFinding) -> list[PeerFinding]:
    skipped = "not asked: the cluster did not answer"
    sent = [PeerFinding(options.name, f"topic {one}", "skipped", skipped) for one in options.topics]
    return list(dict.fromkeys([why, *sent, *downlinks.skipped(skipped)]))


async def _other_protocol(options: RocketmqOptions) -> str:
    """What to do where the endpoints are those of the other protocol, "" where they are not."""
    try:
        spoken, address = await ask_protocol(options)
    except SinkError:
        return ""
    return f' {address} speaks {spoken}: set `protocol = "{spoken}"`.' if spoken != options.protocol else ""


async def _probe(options: RocketmqOptions, subject: str, name: str) -> PeerFinding:
    """The sink's own probe, twice: the first connects, the second shows how long a round trip takes."""
    sink: Sink[Destination] | None = None
    try:
        sink = create_sink(options, Silent())
        await sink.start()
        await sink.probe()
        began = monotonic()
        await sink.probe()
        took = milliseconds(began)
        return PeerFinding(options.name, subject, "ok", _found(sink.status, name), took)
    except SinkError as error:
        return PeerFinding(options.name, subject, "failed", str(error))
    finally:
        if sink is not None:
            await sink.close()


def _found(status: PeerStatus, name: str) -> str:
    topic = status.detail.get("topics", {}).get(name)
    if topic is None:
        return f"{name} answers"
    return f"{topic['queues']} queue(s) for {', '.join(topic['types']) or 'messages of any type'}"
