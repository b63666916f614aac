"""Consumer lag: from the configuration to the service, and to one reading for the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from spanbridge.app import convert
from spanbridge.app.clock import SystemClock
from spanbridge.config import Config
from spanbridge.lag import LagOptions, LagReader, LagService, WatchedGroup
from spanbridge.lag.gauges import register
from spanbridge.ports import Clock
from spanbridge.rocketmq.offsets import OffsetsOptions, RemotingOffsets
from spanbridge.telemetry import Telemetry


def own_groups(config: Config) -> tuple[WatchedGroup, ...]:
    """The consumer groups by which the gateway itself receives, which are always watched."""
    return tuple(WatchedGroup(one.consumer_group, (one.topic,)) for one in config.downlinks)


def lag_service(config: Config, telemetry: Telemetry, clock: Clock) -> LagService | None:
    """The service that ``[lag]`` describes, with its gauges; None without that table."""
    if config.lag is None:
        return None
    offsets = RemotingOffsets(offsets_options(config, config.lag.name_servers, config.lag.timeout))
    service = LagService(offsets, lag_options(config), clock, telemetry.reporter)
    register(telemetry.gauge, lambda: service.reading)
    return service


def lag_options(config: Config) -> LagOptions:
    """What ``[lag]`` says, and the gateway's own groups. Where it names none, those of the routes' topics are found."""
    section, topics, own = config.lag, convert.known_topics(config), own_groups(config)
    if section is None:
        return LagOptions(groups=own, topics=topics)
    groups = [
        WatchedGroup(one.name, tuple(one.topics) or topics, pops=one.protocol == "grpc", ordered=one.ordered)
        for one in section.groups
    ]
    return LagOptions(
        groups=_joined(groups, own),
        topics=() if groups else topics,
        period=section.period,
        retries=section.retries,
        max_requests=section.max_requests,
    )


def _joined(groups: Iterable[WatchedGroup], own: Iterable[WatchedGroup]) -> tuple[WatchedGroup, ...]:
    """All of them, each once with all its topics."""
    found = {group.name: group for group in groups}
    for group in own:
        known = found.get(group.name)
        topics = () if known is None else known.topics
        found[group.name] = replace(group, topics=tuple(dict.fromkeys((*topics, *group.topics))))
    return tuple(found.values())


def offsets_options(config: Config | None, name_servers: str, timeout: float) -> OffsetsOptions:
    """How name servers and brokers are asked: with the cluster's keys, where it has some."""
    keys = {} if config is None else convert.access_keys(config)
    return OffsetsOptions(name_servers=tuple(name_servers.split(";")), timeout=timeout, **keys)


@dataclass(frozen=True, slots=True)
class LagQuery:
    """What `spanbridge lag` asks, and of whom."""

    offsets: OffsetsOptions
    options: LagOptions


def lag_query(
    config: Config | None, name_server: str | None, groups: Sequence[str], topics: Sequence[str]
) -> LagQuery | str:
    """What to ask for these arguments, which go over those of the file; or what is missing, as one line."""
    section = None if config is None else config.lag
    if section is None and name_server is None:
        return "no name server: say --name-server HOST:PORT, or `lag.name_servers` in the file"
    known = LagOptions() if config is None else lag_options(config)
    if not topics and not known.topics and not known.groups:
        return "no topic: say --topic TOPIC, or name a file whose routes have some"
    offsets = offsets_options(
        config,
        name_server or ("" if section is None else section.name_servers),
        3.0 if section is None else section.timeout,
    )
    return LagQuery(
        offsets, _narrowed(known, groups, tuple(topics), () if config is None else convert.known_topics(config))
    )


def _narrowed(
    known: LagOptions, groups: Sequence[str], topics: tuple[str, ...], of_routes: tuple[str, ...]
) -> LagOptions:
    """``known`` with only these groups and topics, where some are given."""
    by_name = {group.name: group for group in known.groups}
    if groups:
        wanted = [by_name.get(name) or WatchedGroup(name, topics or of_routes) for name in groups]
        chosen = tuple(replace(group, topics=topics or group.topics) for group in wanted)
        return replace(known, groups=chosen, topics=())
    return replace(known, groups=(), topics=topics) if topics else known


def lag_reader(query: LagQuery) -> tuple[RemotingOffsets, LagReader]:
    """The connections, which the caller closes, and what reads by them."""
    offsets = RemotingOffsets(query.offsets)
    return offsets, LagReader(offsets, query.options, SystemClock())
