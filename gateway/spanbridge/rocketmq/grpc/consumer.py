"""The consumer: a source that receives from RocketMQ 5 over gRPC, on the caller's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError
from spanbridge.core.message import Message
from spanbridge.ports import Acked, Received, Reporter
from spanbridge.rocketmq.group_source import GroupSource, receiving
from spanbridge.rocketmq.grpc.acks import Acks
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.cluster import Cluster
from spanbridge.rocketmq.grpc.decode import read_message, read_without_body
from spanbridge.rocketmq.grpc.receipts import Receipts
from spanbridge.rocketmq.grpc.receivers import Receivers
from spanbridge.rocketmq.grpc.session import ClientRole
from spanbridge.rocketmq.grpc.subscription import CLIENT_TYPE, GroupSubscription
from spanbridge.rocketmq.held import Arrival, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions

_SETTLE = 1.0
"""Seconds for a proxy to answer a ping."""


class GrpcConsumer(GroupSource[Cluster]):
    """Implements :class:`spanbridge.ports.QueueSource`. Made by :func:`spanbridge.rocketmq.create_consumer`."""

    def __init__(self, options: ConsumerOptions, reporter: Reporter, received: Received, acked: Acked) -> None:
        self._subscription = GroupSubscription(options)
        role = ClientRole(CLIENT_TYPE, self._settings, self._subscription.take, self._subscription.group, self._refused)
        super().__init__(options, Cluster(receiving(options), role, reporter), reporter)
        self._brokers = Brokers(self._cluster, options.cluster.request_timeout)
        brokers, subscription = self._brokers, self._subscription
        self._acks = Acks(options, self._held, reporter, acked, brokers=brokers, subscription=subscription)
        self._receipts = Receipts(options, self._held, self._acks, reporter, brokers=brokers, subscription=subscription)
        self._receivers = Receivers(
            options,
            cluster=self._cluster,
            brokers=self._brokers,
            subscription=self._subscription,
            reporter=reporter,
            received=received,
            take=self.take,
            open=self._open,
        )

    def _settings(self) -> Any:
        return self._subscription.command(self._cluster.addresses)

    def _refused(self, error: SinkError) -> None:
        self._receivers.refused(error)

    # -- receiving --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._receivers.keep()), loop.create_task(self._receipts.keep())]

    def take(self, broker: str, messages: list[Any], began_ns: int, fault: str | None = None) -> list[Message]:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        now, now_ns = time.monotonic_ns(), time.time_ns()
        arrival = Arrival(self, broker, now, began_ns + int(self._options.invisible * 1e9))
        limit = self._options.max_body_bytes
        take = self._held.take
        fresh: list[Delivery[Message]] = []
        taken: list[Message] = []
        for raw in messages:
            message = (
                read_message(raw, broker, now_ns, limit)
                if fault is None
                else read_without_body(raw, broker, now_ns, fault)
            )
            system = raw.system_properties
            delivery = ReceivedMessage(message, arrival, system.receipt_handle, system.queue_offset)
            taken.append(message)
            if take(delivery) is None:
                fresh.append(delivery)
        self._hand_over(fresh, len(taken))
        return taken

    async def stop_intake(self) -> None:
        """See the base class."""
        self._delivering = False
        self._judge_gate()
        if self._tasks:
            self._tasks[0].cancel()
        if await self._receivers.stop():
            # An answer may have been under way when its call was cancelled.
            await self._cluster.settled(_SETTLE)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _conclude(self, deliveries: Sequence[ReceivedMessage]) -> None:
        self._receipts.conclude(deliveries)

    def _concluding(self) -> Collection[asyncio.Task[None]]:
        return self._receipts.tasks

    def _leave(self) -> None:
        self._receipts.leaving = True

    async def _end(self) -> None:
        await self._receipts.close()

    # -- notes ------------------------------------------------------------------------------------------------------

    @property
    def _works(self) -> bool:
        return bool(self._receivers.health.working)

    @property
    def _failing(self) -> str | None:
        return self._receivers.health.failing

    def _detail(self) -> dict[str, Any]:
        return {
            "fifo": self._subscription.fifo,
            "brokers": self._receivers.brokers,
            "telemetry_stream": self._cluster.stream_up,
        }
