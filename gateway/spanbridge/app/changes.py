"""What a configuration that was read again changes in a running gateway, and what takes a restart. It only decides."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from spanbridge.app import convert
from spanbridge.config import Config, DownlinkSection, Mqtt
from spanbridge.config.models import Section, SpoolSection
from spanbridge.mqtt import MqttOptions, PublisherOptions
from spanbridge.rocketmq import RocketmqOptions

if TYPE_CHECKING:
    from spanbridge.app.worker import Worker

# Changed while it runs, each of these would cost more than a restart: the identity that sessions and loop prevention go
# by, the order of message groups, sockets that others have been told of, exporters.
_ADMIN = ("enabled", "host", "port", "allow_remote", "token")
_MQTT = ("version", "clean_start")
_ROCKETMQ = ("ordered_partitions",)
_SPOOL = ("path", "max_bytes", "reserve", "segment_bytes", "rejected_max_bytes")

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, what adapters make of it, and a digest of each TLS file as it was when it was loaded.

    ``mqtt`` are the connections that subscribe, ``publishers`` those that publish, both by the names of their brokers.
    """

    config: Config
    mqtt: Mapping[str, MqttOptions]
    rocketmq: RocketmqOptions
    files: Mapping[str, str]
    publishers: Mapping[str, PublisherOptions] = field(default_factory=dict)
    downlinks: Mapping[str, convert.DownlinkPlan] = field(default_factory=dict)


def loaded(config: Config, worker: Worker | None = None) -> Loaded:
    """A configuration with what belongs to it; of the subscriptions, the worker's. Blocking: it reads TLS files."""
    options = {one.name: convert.mqtt_options(config, one) for one in config.mqtt if config.subscribes(one)}
    if worker is not None:
        options = {
            one.name: worker.portion(config, one, options[one.name]) for one in config.mqtt if one.name in options
        }
    publishers = {one.name: convert.publisher_options(config, one) for one in config.mqtt if config.downlinks_to(one)}
    cluster = convert.rocketmq_options(config)
    connections: list[MqttOptions | RocketmqOptions] = [*options.values(), *publishers.values(), cluster]
    files = {path: _digest(path) for path in {path for one in connections for path in _tls_files(one)}}
    return Loaded(config, options, cluster, files, publishers, convert.downlink_plans(config, publishers))


@dataclass(frozen=True, slots=True)
class DownlinkChanges:
    """The difference between two configurations' downlinks, by their names; each is in one of the tuples at most.

    ``renewed`` are those whose consumer or publisher is another one now, ``changed`` those that only treat their
    messages differently. ``publishers`` are the brokers for which a publisher is to be made, ``reconnected`` those
    whose publisher connects anew, ``publishers_gone`` those whose former publisher is left.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()
    reconnected: tuple[str, ...] = ()
    publishers_gone: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """For the log."""
        kinds = ("added", self.added), ("removed", self.removed), ("renewed", self.renewed), ("changed", self.changed)
        told = [f"downlink {name} {what}" for what, names in kinds for name in names]
        return told + [f"connection that publishes to {name} renewed" for name in self.reconnected]


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between two configurations. MQTT connections are named; each is in one of the tuples at most.

    ``renewed`` are those with options that a living connection depends on, or TLS files with other content,
    ``subscribed`` those with other subscriptions or pauses only. ``cluster`` is any change of RocketMQ's connection.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    subscribed: tuple[str, ...] = ()
    cluster: bool = False
    routes: bool = False
    uplink: bool = False
    health: bool = False
    bounds: bool = False
    downlinks: DownlinkChanges = DownlinkChanges()

    def words(self) -> str:
        """For the log."""
        found = [part for part, changed in (("routes", self.routes), ("uplink", self.uplink)) if changed]
        connections = (
            ("added", self.added), ("removed", self.removed), ("renewed", self.renewed),
            ("with other subscriptions", self.subscribed),
        )  # fmt: skip
        found += [f"connection {name} {what}" for what, names in connections for name in names]
        found += ["connection to RocketMQ renewed"] if self.cluster else []
        found += self.downlinks.words()
        found += ["limits of downlinks"] if self.bounds else []
        found += ["limits of health"] if self.health else []
        return ", ".join(found) or "nothing has changed"


def compare(before: Loaded, after: Loaded) -> Changes:
    """What to change so that ``after`` is in force where ``before`` was."""
    both = [name for name in after.mqtt if name in before.mqtt]
    renewed = [name for name in both if _has_changed(name, before, after)]
    old, new = before.config, after.config
    return Changes(
        added=tuple(name for name in after.mqtt if name not in before.mqtt),
        removed=tuple(name for name in before.mqtt if name not in after.mqtt),
        renewed=tuple(renewed),
        subscribed=tuple(name for name in both if name not in renewed and before.mqtt[name] != after.mqtt[name]),
        cluster=_without_topics(before.rocketmq) != _without_topics(after.rocketmq)
        or _other_files(before, after, before.rocketmq),
        routes=old.routes != new.routes,
        uplink=old.uplink != new.uplink or old.spool != new.spool,
        health=old.admin != new.admin,
        bounds=old.downlink != new.downlink,
        downlinks=_downlinks(before, after),
    )


def _downlinks(before: Loaded, after: Loaded) -> DownlinkChanges:
    old, new = before.downlinks, after.downlinks
    made = [name for name, options in after.publishers.items() if _is_another(before.publishers.get(name), options)]
    kept = [name for name in after.publishers if name not in made]
    cluster = _other_files(before, after, after.rocketmq)
    both = [name for name in new if name in old]
    renewed = [
        name
        for name in both
        if cluster
        or old[name].consumer != new[name].consumer
        or old[name].downlink.broker != new[name].downlink.broker
        or new[name].downlink.broker in made
    ]
    return DownlinkChanges(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        renewed=tuple(renewed),
        changed=tuple(name for name in both if name not in renewed and old[name] != new[name]),
        publishers=tuple(made),
        reconnected=tuple(
            name
            for name in kept
            if before.publishers[name] != after.publishers[name] or _other_files(before, after, after.publishers[name])
        ),
        publishers_gone=tuple(name for name in before.publishers if name not in kept),
    )


def _is_another(before: PublisherOptions | None, after: PublisherOptions) -> bool:
    """Whether a publisher cannot become the other one: sessions go by the client id, and are of one version."""
    return before is None or (before.client_id, before.version) != (after.client_id, after.version)


def hold(running: Config, read: Config, busy: Collection[MqttOptions] = ()) -> tuple[Config, tuple[str, ...]]:
    """What of ``read`` can be in force without a restart, and the settings for which it takes one.

    ``busy`` are connections that were removed and still send what they brought: while they do, no other can have their
    names or client ids.
    """
    needed = [] if read.name == running.name else ["name"]
    admin = _held(running.admin, read.admin, _ADMIN, "admin", needed)
    telemetry = _held(running.telemetry, read.telemetry, type(read.telemetry).model_fields, "telemetry", needed)
    profiling = _held(running.profiling, read.profiling, type(read.profiling).model_fields, "profiling", needed)
    # Messages on their way are in the form of one protocol, and endpoints are those of one: all or nothing changes.
    other = read.rocketmq.protocol != running.rocketmq.protocol
    held = type(read.rocketmq).model_fields if other else _ROCKETMQ
    rocketmq = _held(running.rocketmq, read.rocketmq, held, "rocketmq", needed)
    gateway = _held(running.gateway, read.gateway, type(read.gateway).model_fields, "gateway", needed)
    needed += [] if read.lag == running.lag else ["lag"]
    spool = _spool(running, read, needed)
    brokers, renamed = _brokers(running, read, busy, needed)
    update = {
        "name": running.name,
        "gateway": gateway,
        "admin": admin,
        "telemetry": telemetry,
        "profiling": profiling,
        "rocketmq": rocketmq,
        "lag": running.lag,
        "spool": spool,
        "mqtt": brokers,
        "routes": [_renamed(route, "source", renamed) for route in read.routes],
        "downlinks": _held_downlinks(read, brokers, renamed, needed),
    }
    return read.model_copy(update=update), tuple(needed)


def _spool(running: Config, read: Config, needed: list[str]) -> SpoolSection | None:
    if running.spool is None or read.spool is None:
        needed += ["spool"] if running.spool != read.spool else []
        return running.spool
    return _held(running.spool, read.spool, _SPOOL, "spool", needed)


def _held(running: S, read: S, names: Iterable[str], path: str, needed: list[str]) -> S:
    """``read`` with those settings as they are in ``running``; what differs is added to ``needed``."""
    differing = [name for name in names if getattr(running, name) != getattr(read, name)]
    needed += [f"{path}.{name}" for name in differing]
    return read.model_copy(update={name: getattr(running, name) for name in differing})


def _brokers(
    running: Config, read: Config, busy: Collection[MqttOptions], needed: list[str]
) -> tuple[list[Mqtt], dict[str, str]]:
    """The brokers that can be in force, and the former names of those that were renamed."""
    former = {broker.name: broker for broker in running.mqtt}
    removed = {running.client_id(one): one for one in running.mqtt if one.name not in {new.name for new in read.mqtt}}
    taken = {text for one in busy for text in (f"name {one.name}", f"id {one.client_id}")}
    brokers: list[Mqtt] = []
    renamed: dict[str, str] = {}
    for index, broker in enumerate(read.mqtt):
        path = f"mqtt[{index}]" if len(read.mqtt) > 1 else "mqtt"
        client_id = broker.client_id or running.name
        before = former.get(broker.name)
        if before is None and client_id in removed:  # renamed: under its client id, there is one session
            before = removed.pop(client_id)
            needed.append(f"{path}.name")
            renamed[broker.name] = before.name
        if before is None:
            if taken & {f"name {broker.name}", f"id {client_id}"}:
                needed.append(f"{path} (its former connection still sends what it holds)")
            else:
                brokers.append(broker)
            continue
        if client_id != running.client_id(before):
            needed.append(f"{path}.client_id")
        held = _held(before, broker, _MQTT, path, needed)
        brokers.append(held.model_copy(update={"name": before.name, "client_id": before.client_id}))
    return brokers, renamed


def _held_downlinks(
    read: Config, brokers: Collection[Mqtt], renamed: Mapping[str, str], needed: list[str]
) -> list[DownlinkSection]:
    """The downlinks whose brokers can be in force."""
    names = {None, *(broker.name for broker in brokers)} if brokers else set()
    held = []
    for index, one in enumerate(read.downlinks):
        downlink = _renamed(one, "broker", renamed)
        if downlink.broker in names:
            held.append(downlink)
        else:
            needed.append(f"downlinks[{index}] (its broker)")
    return held


def _renamed(section: S, setting: str, renamed: Mapping[str, str]) -> S:
    former = renamed.get(getattr(section, setting))
    return section if former is None else section.model_copy(update={setting: former})


def _has_changed(name: str, before: Loaded, after: Loaded) -> bool:
    old, new = before.mqtt[name], after.mqtt[name]
    return old.as_connected() != new.as_connected() or _other_files(before, after, new)


def _without_topics(options: RocketmqOptions) -> RocketmqOptions:
    return options.expecting((), ())


def _other_files(before: Loaded, after: Loaded, options: MqttOptions | RocketmqOptions) -> bool:
    return any(before.files.get(path) != after.files.get(path) for path in _tls_files(options))


def _tls_files(options: MqttOptions | RocketmqOptions) -> list[str]:
    tls = options.tls
    return [] if tls is None else [path for path in (tls.ca_file, tls.cert_file, tls.key_file) if path is not None]


def _digest(path: str) -> str:
    """Of the file's content; "" where it cannot be read, which whoever uses it tells."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
