"""Reads back what a topic holds, over the stubs: every message with its queue and offset."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from grpc import aio

from spanbridge.rocketmq.grpc.session import access_point
from spanbridge.rocketmq.grpc.stubs import SERVICE, definition, service


async def ended(call: Any) -> None:
    """Cancel a call and wait until gRPC is through with it: its last word comes from a thread of its own."""
    call.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await call.code()


class Reader:
    """A simple consumer that receives from every queue until it has what is expected, and acknowledges it."""

    def __init__(self, endpoints: str, topic: str, group: str) -> None:
        self._address = endpoints
        self._topic = definition.Resource(name=topic)
        self._group = definition.Resource(name=group)
        self._distinct = False
        self._headers = (
            ("x-mq-language", "PYTHON"),
            ("x-mq-protocol", "v2"),
            ("x-mq-client-version", "5.0.0"),
            ("x-mq-client-id", f"reader@{group}"),
        )

    async def read(self, expected: int, timeout: float = 30.0, *, distinct: bool = False) -> list[Any]:
        """``Message``s, sorted by queue and offset. Fails the test when fewer come in time.

        ``distinct``: bodies are expected, some of which may be stored twice.
        """
        self._distinct = distinct
        got: dict[tuple[int, int], Any] = {}
        enough = asyncio.Event()
        async with aio.insecure_channel(self._address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            stream = await self._subscribe(channel)
            loop = asyncio.get_running_loop()
            tasks = [
                loop.create_task(self._drain(channel, queue, got, expected, enough))
                for queue in await self._queues(channel)
            ]
            await asyncio.wait(
                [*tasks, waiter := loop.create_task(enough.wait())], timeout=timeout, return_when="FIRST_COMPLETED"
            )
            for task in (*tasks, waiter):
                task.cancel()
            await asyncio.gather(*tasks, waiter, return_exceptions=True)
            await ended(stream)
        await asyncio.sleep(0.05)  # gRPC's thread still hands over what was cancelled; the test's loop closes next
        assert self._count(got) >= expected, f"{self._count(got)} of {expected} messages read back"
        return [got[key] for key in sorted(got)]

    async def _drain(
        self, channel: Any, queue: Any, got: dict[tuple[int, int], Any], expected: int, enough: asyncio.Event
    ) -> None:
        # Ends by cancellation: an empty queue is held open by the server for seconds.
        while True:
            for message in await self._receive(channel, queue):
                at = message.system_properties
                got[at.queue_id, at.queue_offset] = message
            if self._count(got) >= expected:
                enough.set()

    def _count(self, got: dict[tuple[int, int], Any]) -> int:
        return len({message.body for message in got.values()}) if self._distinct else len(got)

    async def _subscribe(self, channel: Any) -> Any:
        stream = channel.stream_stream(
            SERVICE + "Telemetry",
            request_serializer=service.TelemetryCommand.SerializeToString,
            response_deserializer=service.TelemetryCommand.FromString,
        )(metadata=self._headers)
        command = service.TelemetryCommand()
        command.settings.client_type = definition.ClientType.SIMPLE_CONSUMER
        command.settings.access_point.CopyFrom(access_point([self._address]))
        command.settings.subscription.group.CopyFrom(self._group)
        entry = command.settings.subscription.subscriptions.add()
        entry.topic.CopyFrom(self._topic)
        entry.expression.type = definition.FilterType.TAG
        entry.expression.expression = "*"
        await stream.write(command)
        await stream.read()
        return stream

    async def _call(self, channel: Any, method: str, request: Any, response: Any) -> Any:
        call = channel.unary_unary(
            SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await call(request, timeout=5, metadata=self._headers)

    async def _queues(self, channel: Any) -> list[Any]:
        request = service.QueryRouteRequest(topic=self._topic, endpoints=access_point([self._address]))
        response = await self._call(channel, "QueryRoute", request, service.QueryRouteResponse)
        assert response.message_queues, response.status
        return list(response.message_queues)

    async def _receive(self, channel: Any, queue: Any) -> list[Any]:
        request = service.ReceiveMessageRequest(group=self._group, message_queue=queue, batch_size=32)
        request.filter_expression.type = definition.FilterType.TAG
        request.filter_expression.expression = "*"
        request.invisible_duration.FromSeconds(30)
        request.long_polling_timeout.FromMilliseconds(1500)
        call = channel.unary_stream(
            SERVICE + "ReceiveMessage",
            request_serializer=service.ReceiveMessageRequest.SerializeToString,
            response_deserializer=service.ReceiveMessageResponse.FromString,
        )
        parts = call(request, timeout=10, metadata=self._headers)
        try:
            messages = [part.message async for part in parts if part.WhichOneof("content") == "message"]
        except asyncio.CancelledError:
            await ended(parts)
            raise
        if messages:
            await self._ack(channel, messages)
        return messages

    async def _ack(self, channel: Any, messages: list[Any]) -> None:
        request = service.AckMessageRequest(group=self._group, topic=self._topic)
        for message in messages:
            request.entries.add(
                message_id=message.system_properties.message_id,
                receipt_handle=message.system_properties.receipt_handle,
            )
        await self._call(channel, "AckMessage", request, service.AckMessageResponse)
