"""RocketMQ asked about downlinks: their topics, consumer groups, filters and rights. Nothing is received.

Proxies say what a consumer would find. Where ``[lag]`` names name servers, each broker is asked as well: a proxy asks
one of them for a group, and a group has to be on all. Without a proxy, name servers and brokers say all that is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from spanbridge.app.convert import DownlinkPlan
from spanbridge.app.findings import PeerFinding, Silent, State, milliseconds
from spanbridge.core.errors import OffsetsError, SinkError
from spanbridge.rocketmq import ConsumerOptions, create_inquiry
from spanbridge.rocketmq.offsets import OffsetsOptions, RemotingOffsets
from spanbridge.rocketmq.options import Spoken
from spanbridge.rocketmq.remoting.admin import ConsumerGroup, FilterVerdict, all_groups, sql_filter

if TYPE_CHECKING:
    from spanbridge.rocketmq.grpc.inquiry import GroupAnswer, GroupInquiry, ReadableTopic

_AT_ONCE = 8
"""Downlinks that are asked about side by side."""
_ORDERLY = "mqadmin updateSubGroup -o true"


class DownlinkQuestions:
    """Asks about the downlinks of a configuration, on the connection of a cluster."""

    def __init__(self, plans: Mapping[str, DownlinkPlan], name: str, brokers: OffsetsOptions | None) -> None:
        self._consumers = {downlink: plan.consumer for downlink, plan in plans.items()}
        self._name = name
        self._brokers = brokers

    def by(self, protocol: Spoken, name_servers: OffsetsOptions) -> None:
        """Ask by this one; without a proxy, the name servers are those of the cluster."""
        if protocol == "remoting":
            self._brokers = self._brokers or name_servers
        self._consumers = {
            downlink: replace(one, cluster=one.cluster.speaking(protocol)) for downlink, one in self._consumers.items()
        }

    def skipped(self, cause: str) -> list[PeerFinding]:
        """All of them, when the cluster does not answer."""
        topics = dict.fromkeys(one.topic for one in self._consumers.values())
        subjects = [
            *(f"topic {topic}" for topic in topics),
            *(f"consumer group {one.group}" for one in self._consumers.values()),
        ]
        return [self._finding(subject, "skipped", cause) for subject in subjects]

    async def ask(self) -> list[PeerFinding]:
        """Everything, downlink by downlink."""
        brokers = None if self._brokers is None else RemotingOffsets(self._brokers)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(downlink: str) -> list[PeerFinding]:
            async with gate:
                return await self._downlink(downlink, brokers)

        try:
            found = await asyncio.gather(*map(ask, self._consumers))
        finally:
            if brokers is not None:
                await brokers.close()
        # Downlinks may share a topic: it is told of once.
        return list({(one.subject, one.state): one for findings in found for one in findings}.values())

    def _finding(self, subject: str, state: State, text: str, took: float | None = None) -> PeerFinding:
        return PeerFinding(self._name, subject, state, text, took)

    async def _downlink(self, downlink: str, brokers: RemotingOffsets | None) -> list[PeerFinding]:
        options = self._consumers[downlink]
        if options.cluster.protocol == "remoting":
            found = [] if brokers is None else [finding async for finding in self._by_name_server(brokers, options)]
        else:
            found = await self._by_proxies(options)
        if brokers is not None:
            found += [finding async for finding in self._by_brokers(brokers, options)]
        if options.sql:
            found.append(await self._filter(brokers, downlink))
        return found

    # -- proxies ----------------------------------------------------------------------------------------------------

    async def _by_proxies(self, options: ConsumerOptions) -> list[PeerFinding]:
        inquiry: GroupInquiry | None = None
        try:
            inquiry = create_inquiry(options, Silent())
            await inquiry.start()
            return [finding async for finding in self._by_proxy(inquiry, options)]
        except SinkError as error:
            return [self._finding(f"consumer group {options.group}", "failed", str(error))]
        finally:
            if inquiry is not None:
                await inquiry.close()

    async def _by_proxy(self, inquiry: GroupInquiry, options: ConsumerOptions) -> AsyncIterator[PeerFinding]:
        topic: ReadableTopic | None = None
        began = monotonic()
        try:
            topic = await inquiry.topic()
            text = f"{topic.queues} queue(s) to receive from, on {', '.join(topic.brokers)}"
            yield self._finding(f"topic {options.topic}", "ok", text, milliseconds(began))
        except SinkError as error:
            yield self._finding(f"topic {options.topic}", "failed", str(error))
        subject = f"consumer group {options.group}"
        try:
            group = await inquiry.group()
            if topic is not None:
                await inquiry.rights()
        except SinkError as error:
            yield self._finding(subject, "failed", str(error))
            return
        state, text = _of_group(group, topic)
        yield self._finding(subject, state, text)

    # -- name servers and brokers -----------------------------------------------------------------------------------

    async def _by_name_server(self, brokers: RemotingOffsets, options: ConsumerOptions) -> AsyncIterator[PeerFinding]:
        subject, began = f"topic {options.topic}", monotonic()
        try:
            queues = await brokers.queues(options.topic)
        except OffsetsError as error:
            yield self._finding(subject, "failed", str(error))
            return
        if not queues:
            yield self._finding(subject, "failed", "no broker has a queue of it to receive from")
            return
        names = dict.fromkeys(queue.broker for queue in queues)
        text = f"{len(queues)} queue(s) to receive from, on {', '.join(names)}"
        yield self._finding(subject, "ok", text, milliseconds(began))

    async def _by_brokers(self, brokers: RemotingOffsets, options: ConsumerOptions) -> AsyncIterator[PeerFinding]:
        """What only the brokers know: whether each of them has the group, and has it alike."""
        subject = f"consumer group {options.group} on each broker"
        try:
            names = dict.fromkeys(queue.broker for queue in await brokers.queues(options.topic))
            tables = {name: await brokers.ask_broker(name, all_groups()) for name in names}
        except OffsetsError as error:
            yield self._finding(subject, "warning", f"not known: {error}")
            return
        problems = list(problems_of(options.group, tables))
        for problem in problems:
            yield self._finding(subject, "failed", problem)
        if tables and not problems:
            yield self._finding(subject, "ok", f"alike on {', '.join(tables)}")

    async def _filter(self, brokers: RemotingOffsets | None, downlink: str) -> PeerFinding:
        """Proxies look at an SQL92 filter when they receive, brokers when they are asked and may."""
        options, subject = self._consumers[downlink], f"filter of downlink {downlink}"
        if brokers is None:
            text = "whether it parses shows when the gateway receives; with `lag.name_servers` brokers are asked here"
            return self._finding(subject, "warning", text)
        try:
            names = dict.fromkeys(queue.broker for queue in await brokers.queues(options.topic))
            call = sql_filter(options.group, options.topic, options.filter)
            answers = {name: await brokers.ask_broker(name, call) for name in names}
        except OffsetsError as error:
            return self._finding(subject, "warning", f"not known: {error}")
        for name, (verdict, said) in answers.items():
            if verdict is FilterVerdict.REFUSED:
                return self._finding(subject, "failed", f"{name} cannot parse it: {said}")
            if verdict is FilterVerdict.UNSEEN:
                text = f"{name} looks at none before (enablePropertyFilter=false), which changes nothing else"
                return self._finding(subject, "warning", f"whether it parses shows when the gateway receives: {text}")
        if not answers:
            return self._finding(subject, "warning", "not known: no broker has the topic")
        return self._finding(subject, "ok", f"parsed by {', '.join(answers)}")


def _of_group(group: GroupAnswer, topic: ReadableTopic | None) -> tuple[State, str]:
    """How the gateway will treat the group, and whether that fits the topic."""
    order = "in order, queue by queue" if group.ordered else "not in order"
    text = f"receives {order}; dead letters after {group.attempts} deliveries"
    if topic is not None and topic.types == {"FIFO"} and not group.ordered:
        return "warning", f"{text}. The topic is FIFO, and its order is lost: {_ORDERLY}"
    return "ok", text


def problems_of(group: str, tables: Mapping[str, Mapping[str, ConsumerGroup]]) -> Iterator[str]:
    """What is wrong with a group, from the groups of each broker: it has to be on all of them, and alike."""
    known = {broker: table[group] for broker, table in tables.items() if group in table}
    missing = [broker for broker in tables if broker not in known]
    if missing:
        yield f"{', '.join(missing)} does not have it: create it on every broker (mqadmin updateSubGroup -c CLUSTER)"
    off = [broker for broker, one in known.items() if not one.consumes]
    if off:
        yield f"may not receive on {', '.join(off)} (consumeEnable=false)"
    ordered = [broker for broker, one in known.items() if one.ordered]
    if 0 < len(ordered) < len(known):
        yield f"receives in order on {', '.join(ordered)} only: make it alike on every broker (mqadmin updateSubGroup)"
