"""A RocketMQ proxy that does as it is told: throttles, refuses, hangs, forgets, commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc
from grpc import aio

from spanbridge.rocketmq.grpc.stubs import definition, service

OK = definition.Status(code=definition.Code.OK, message="OK")
METHODS = {
    "QueryRoute": service.QueryRouteRequest,
    "QueryAssignment": service.QueryAssignmentRequest,
    "SendMessage": service.SendMessageRequest,
    "Heartbeat": service.HeartbeatRequest,
    "NotifyClientTermination": service.NotifyClientTerminationRequest,
    "AckMessage": service.AckMessageRequest,
    "ChangeInvisibleDuration": service.ChangeInvisibleDurationRequest,
    "ForwardMessageToDeadLetterQueue": service.ForwardMessageToDeadLetterQueueRequest,
}


def status(name: str, text: str = "") -> Any:
    """A ``Status`` by the name of its code."""
    return definition.Status(code=definition.Code.Value(name), message=text)


def _serialised(response: Any) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


class FakeProxy:
    """Started with ``async with``. ``answers`` is asked first, with method and request: a Status to refuse with, a
    number of seconds to wait, a gRPC status to abort with, bytes to answer with, or None to do what a proxy does."""

    def __init__(
        self,
        port: int = 0,
        *,
        queues: int = 1,
        types: tuple[str, ...] = ("NORMAL", "FIFO", "DELAY"),
        tls: grpc.ServerCredentials | None = None,
    ) -> None:
        self.port = port
        self.tls = tls
        self.queues = queues
        self.types = types
        self.max_body_size = 4 * 1024 * 1024
        self.checks_types = True
        self.answers: Callable[[str, Any], Any] = lambda method, request: None
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.batches: list[list[Any]] = []
        self.settings: list[Any] = []
        self.replies: list[Any] = []
        self.holds: asyncio.Event | None = None
        """Set to an event that messages wait for."""
        self.commands: asyncio.Queue[Any] = asyncio.Queue()
        self.others: list[FakeProxy] = []
        """Brokers that this proxy's routes name besides itself."""
        self.together = False
        """Whether the others are behind the same addresses (a cluster proxy) or stand alone (local proxies)."""
        self.inbox: list[Any] = []
        """Messages to be received: a receive call takes up to its batch size, and waits while there are none."""
        self.receives: list[Any] = []
        self.acks: list[Any] = []
        """Entries of acknowledgements that were taken."""
        self.changes: list[Any] = []
        self.dead: list[Any] = []
        self.breaks_after: int | None = None
        """So many messages of an answer are written, then the call is aborted."""
        self.fifo = False
        self.wordless = False
        """Whether sends are answered with OK and no message, which gRPC lets pass."""
        self.silent = False
        self.refusal: Any = None
        """``Status`` that answers settings, and ends their stream."""
        """Whether settings are left unanswered."""
        self.most_streams: int | None = None
        """Calls on one connection at once, as the proxy announces it."""
        self._server: Any = None

    def put(self, *bodies: bytes, attempt: int = 1, handle: str = "") -> None:
        """Messages to be received; their ids and receipt handles follow from their bodies."""
        for offset, body in enumerate(bodies):
            message = definition.Message(topic=definition.Resource(name="t"), body=body)
            system = message.system_properties
            system.message_id = f"id-{body.decode()}"
            system.receipt_handle = handle or f"handle-{body.decode()}"
            system.queue_offset = offset
            system.delivery_attempt = attempt
            self.inbox.append(message)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for batch in self.batches for message in batch]

    def count(self, method: str) -> int:
        return sum(1 for called, _ in self.calls if called == method)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        options: list[tuple[str, Any]] = [("grpc.so_reuseport", 0)]
        if self.most_streams is not None:
            options.append(("grpc.max_concurrent_streams", self.most_streams))
        self._server = aio.server(options=options)
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._handler(name), request.FromString, _serialised)
            for name, request in METHODS.items()
        }
        if self.wordless:
            handlers["SendMessage"] = grpc.unary_stream_rpc_method_handler(self._say_nothing)
        handlers["Telemetry"] = grpc.stream_stream_rpc_method_handler(
            self._telemetry, service.TelemetryCommand.FromString, _serialised
        )
        handlers["ReceiveMessage"] = grpc.unary_stream_rpc_method_handler(
            self._receive, service.ReceiveMessageRequest.FromString, _serialised
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("apache.rocketmq.v2.MessagingService", handlers),)
        )
        self.port = (
            self._server.add_insecure_port(self.address)
            if self.tls is None
            else self._server.add_secure_port(self.address, self.tls)
        )
        await self._server.start()

    async def stop(self, grace: float | None = None) -> None:
        await self._server.stop(grace)
        await self._server.wait_for_termination()
        await asyncio.sleep(0.01)  # what gRPC's threads still have to tell of cancelled calls goes to this loop

    async def _say_nothing(self, _request: bytes, _context: Any) -> None:
        self.calls.append(("SendMessage", {}))

    def _handler(self, method: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            self.calls.append((method, dict(context.invocation_metadata())))
            answer = self.answers(method, request)
            if self.holds is not None and method == "SendMessage":
                await self.holds.wait()
            if isinstance(answer, (int, float)):
                await asyncio.sleep(answer)
                answer = None
            if isinstance(answer, grpc.StatusCode):
                await context.abort(answer, "told to")
            if answer is not None and not isinstance(answer, definition.Status):
                return answer
            return getattr(self, f"_{method}")(request, answer)

        return handle

    def _QueryRoute(self, request: Any, refusal: Any) -> Any:
        response = service.QueryRouteResponse(status=refusal or OK)
        members = [self, *self.others]
        for number, member in enumerate(members):
            shown = members if self.together else [member]
            for index in range(member.queues):
                queue = response.message_queues.add(id=index, permission=definition.Permission.READ_WRITE)
                queue.topic.CopyFrom(request.topic)
                queue.broker.name = f"broker-{number}"
                for one in shown:
                    queue.broker.endpoints.addresses.add(host="127.0.0.1", port=one.port)
                queue.accept_message_types.extend(definition.MessageType.Value(name) for name in member.types)
        return response

    def _QueryAssignment(self, request: Any, refusal: Any) -> Any:
        return service.QueryAssignmentResponse(status=refusal or OK)

    def _SendMessage(self, request: Any, refusal: Any) -> Any:
        if refusal is not None:
            return service.SendMessageResponse(status=refusal)
        self.batches.append(list(request.messages))
        return service.SendMessageResponse(status=OK, entries=[service.SendResultEntry(status=OK)])

    def _Heartbeat(self, request: Any, refusal: Any) -> Any:
        return service.HeartbeatResponse(status=refusal or OK)

    def _NotifyClientTermination(self, request: Any, refusal: Any) -> Any:
        return service.NotifyClientTerminationResponse(status=refusal or OK)

    def _AckMessage(self, request: Any, refusal: Any) -> Any:
        if refusal is not None:
            return service.AckMessageResponse(status=refusal)
        self.acks += request.entries
        entries = [
            service.AckMessageResultEntry(message_id=one.message_id, receipt_handle=one.receipt_handle, status=OK)
            for one in request.entries
        ]
        return service.AckMessageResponse(status=OK, entries=entries)

    def _ChangeInvisibleDuration(self, request: Any, refusal: Any) -> Any:
        if refusal is not None:
            return service.ChangeInvisibleDurationResponse(status=refusal)
        self.changes.append(request)
        handle = f"{request.receipt_handle}+"
        return service.ChangeInvisibleDurationResponse(status=OK, receipt_handle=handle)

    def _ForwardMessageToDeadLetterQueue(self, request: Any, refusal: Any) -> Any:
        if refusal is None:
            self.dead.append(request)
        return service.ForwardMessageToDeadLetterQueueResponse(status=refusal or OK)

    async def _receive(self, request: Any, context: Any) -> None:
        self.calls.append(("ReceiveMessage", dict(context.invocation_metadata())))
        self.receives.append(request)
        answer = self.answers("ReceiveMessage", request)
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "told to")
        if answer is not None:
            await context.write(service.ReceiveMessageResponse(status=answer))
            return
        while not self.inbox:
            await asyncio.sleep(0.005)
        batch, self.inbox[: request.batch_size] = self.inbox[: request.batch_size], []
        await context.write(service.ReceiveMessageResponse(status=OK))
        for number, message in enumerate(batch):
            if number == self.breaks_after:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "told to")
            await context.write(service.ReceiveMessageResponse(message=message))

    async def _telemetry(self, requests: Any, context: Any) -> None:
        self.calls.append(("Telemetry", dict(context.invocation_metadata())))

        async def speak() -> None:
            while True:
                await context.write(await self.commands.get())

        speaker = asyncio.get_running_loop().create_task(speak())
        try:
            async for command in requests:
                if command.WhichOneof("command") != "settings":
                    self.replies.append(command)
                    continue
                self.settings.append(command.settings)
                if self.silent:
                    continue
                if self.refusal is not None:
                    await context.write(service.TelemetryCommand(status=self.refusal))
                    return
                answer = service.TelemetryCommand(status=OK, settings=command.settings)
                answer.settings.publishing.max_body_size = self.max_body_size
                answer.settings.publishing.validate_message_type = self.checks_types
                if command.settings.HasField("subscription"):
                    answer.settings.ClearField("publishing")
                    answer.settings.subscription.fifo = self.fifo
                    answer.settings.backoff_policy.customized_backoff.next.add(seconds=7)
                await context.write(answer)
        finally:
            speaker.cancel()
            await asyncio.gather(speaker, return_exceptions=True)
