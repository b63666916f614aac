"""A client's standing with one proxy: the telemetry stream with its settings, and heartbeats.

The proxy keeps a client's settings as long as it runs (``GrpcClientSettingsManager``) and answers heartbeats of
clients it does not know with UNRECOGNIZED_CLIENT_TYPE, as after a restart: then the settings are sent again.
"""

from __future__ import annotations

import asyncio
import platform
import random
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from spanbridge import __version__
from spanbridge.core.errors import SinkError
from spanbridge.core.retry import Backoff
from spanbridge.ports import Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.events import ServerCommandRefused
from spanbridge.rocketmq.grpc.calls import OpenCall
from spanbridge.rocketmq.grpc.endpoint import Endpoint
from spanbridge.rocketmq.grpc.http2.call import CallEnd
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.options import RocketmqOptions

_UNSUPPORTED = definition.Status(code=definition.Code.UNSUPPORTED, message="this gateway does not do this")

_REFUSALS = frozenset({GrpcStatus.INVALID_ARGUMENT, GrpcStatus.PERMISSION_DENIED, GrpcStatus.UNAUTHENTICATED})

_GATHER = 0.1
"""Seconds in which new topics gather before the settings, which hold all of them, are sent again."""
_MOST_UNSENT = 64 * 1024
"""Bytes of our messages that a proxy may leave unread. Beyond them its commands go unanswered."""


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` in two."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def access_point(addresses: Iterable[str]) -> Any:
    """``Endpoints`` of definition.proto for addresses of one kind."""
    endpoints = definition.Endpoints()
    scheme = definition.AddressScheme.DOMAIN_NAME
    for address in addresses:
        host, port = split_address(address)
        endpoints.addresses.add(host=host, port=port)
        scheme = _scheme(host)
    endpoints.scheme = scheme
    return endpoints


def _scheme(host: str) -> Any:
    for family, scheme in ((socket.AF_INET, "IPv4"), (socket.AF_INET6, "IPv6")):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return definition.AddressScheme.Value(scheme)
    return definition.AddressScheme.DOMAIN_NAME


def settings_command(options: RocketmqOptions, addresses: Iterable[str], client_type: int) -> Any:
    """``TelemetryCommand`` with what this client is. What it publishes or subscribes to, the caller adds."""
    command = service.TelemetryCommand()
    settings = command.settings
    settings.client_type = client_type
    settings.access_point.CopyFrom(access_point(addresses))
    settings.request_timeout.FromMilliseconds(int(options.request_timeout * 1000))
    policy = settings.backoff_policy
    policy.max_attempts = options.attempts
    policy.exponential_backoff.initial.FromMilliseconds(int(options.backoff_initial * 1000))
    policy.exponential_backoff.max.FromMilliseconds(int(options.backoff_maximum * 1000))
    policy.exponential_backoff.multiplier = 2.0
    agent = settings.user_agent
    agent.language = definition.Language.PYTHON
    agent.version = __version__
    agent.platform = f"{platform.system()} {platform.machine()}"
    agent.hostname = socket.gethostname()
    return command


@dataclass(frozen=True, slots=True)
class ClientRole:
    """What a client is to RocketMQ: its ``ClientType``, its settings as of now, and what takes the server's.

    ``group`` is the consumer group, None for a producer.
    """

    client_type: int
    settings: Callable[[], Any]
    on_settings: Callable[[Any], None]
    group: Any = None
    """``Resource`` of definition.proto."""
    on_refused: Callable[[SinkError], None] | None = None
    """Takes why a proxy does not want this client, each time that it says so."""


class ClientSession:
    """Keeps one endpoint told who we are."""

    def __init__(
        self,
        endpoint: Endpoint,
        options: RocketmqOptions,
        role: ClientRole,
        reporter: Reporter,
    ) -> None:
        self.endpoint = endpoint
        self.told = asyncio.Event()
        """Set while the telemetry stream is open and the server has answered our settings."""
        self.refusal: SinkError | None = None
        """Why the server did not want us, the last time that it said so and since it took us."""
        self._options = options
        self._role = role
        self._reporter = reporter
        self._announce = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the stream and the heartbeats."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep_stream()), loop.create_task(self._keep_heartbeat())]

    @property
    def stream_up(self) -> bool:
        """Whether the telemetry stream is open and answered."""
        return self.told.is_set()

    def announce(self) -> None:
        """Send the settings again soon: the topics changed."""
        self._announce.set()

    async def _keep_stream(self) -> None:
        backoff = Backoff(initial=0.2, maximum=self._options.heartbeat_interval)
        while True:
            with guarded("telemetry stream", self._reporter):
                await self._stream_once(backoff)
            self.told.clear()
            await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter

    async def _stream_once(self, backoff: Backoff) -> None:
        try:
            end = await self._stream(backoff)
        except SinkError:
            end = None  # there is no connection
        if end is not None and end.code is GrpcStatus.OK:
            return
        if end is not None:
            self._note_refusal(end)
        # A stream may end for many reasons. Whether the endpoint still answers, a heartbeat tells.
        await self._heartbeat_quietly()

    def _note_refusal(self, end: CallEnd) -> None:
        """A proxy ends the stream of a consumer whose group is not there, or whose settings it does not like."""
        if self._role.on_refused is not None and end.code in _REFUSALS:
            self.refusal = self.endpoint.calls.error(end, "settings")
            self._role.on_refused(self.refusal)

    async def _stream(self, backoff: Backoff) -> CallEnd:
        """One telemetry stream, to its end.

        :raises SinkError: there is no connection.
        """
        stream: OpenCall

        def arrived(messages: list[bytes]) -> None:
            for message in messages:
                if not stream.ended.done():
                    try:
                        self._handle(service.TelemetryCommand.FromString(message), stream)
                    except Exception as fault:  # noqa: BLE001 - it is raised where the stream is waited for
                        stream.stop(fault)
                    else:
                        backoff.reset()

        stream = await self.endpoint.calls.open("Telemetry", arrived, "settings", self._options.request_timeout)
        writer = asyncio.get_running_loop().create_task(self._write_settings(stream))
        writer.add_done_callback(lambda _: stream.stop())  # without it nobody would be told of new topics
        try:
            return await stream.ended
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            stream.stop()

    async def _write_settings(self, stream: OpenCall) -> None:
        with guarded("settings", self._reporter):
            while True:
                if not stream.unsent:
                    self._announce.clear()
                    stream.write(self._role.settings().SerializeToString())
                await self._announce.wait()
                await asyncio.sleep(_GATHER)

    def _handle(self, command: Any, stream: OpenCall) -> None:
        """Act on what the server sent."""
        kind = command.WhichOneof("command")
        if kind == "settings":
            self._role.on_settings(command.settings)
            self.refusal = None
            self.told.set()
        elif kind == "reconnect_endpoints_command":
            self.endpoint.replace("asked to reconnect")
            stream.stop()
        elif kind is not None:
            self._reporter.report(ServerCommandRefused(command=kind))
            reply = _refusal(kind, command)
            if reply is not None and stream.unsent < _MOST_UNSENT:
                stream.write(reply.SerializeToString())

    async def _keep_heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._options.heartbeat_interval)
            with guarded("heartbeat", self._reporter):
                await self._heartbeat_quietly()

    async def _heartbeat_quietly(self) -> None:
        with suppress(SinkError):  # the endpoint has reported it
            await self.heartbeat(self._options.request_timeout)

    async def heartbeat(self, timeout: float) -> None:
        """One heartbeat.

        :raises SinkError: the endpoint did not answer, or refuses this client.
        """
        request = service.HeartbeatRequest(client_type=self._role.client_type, group=self._role.group)
        try:
            await self.endpoint.call("Heartbeat", request, service.HeartbeatResponse, "heartbeat", timeout)
        except SinkError as error:
            if error.reason != "unrecognized_client_type":
                raise
            self.announce()  # it answered, and has forgotten us

    async def close(self) -> None:
        """Say goodbye if anybody listens, and end the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.endpoint.leaving = True
        if self.endpoint.up:
            request = service.NotifyClientTerminationRequest(group=self._role.group)
            response = service.NotifyClientTerminationResponse
            try:
                await self.endpoint.call("NotifyClientTermination", request, response, "goodbye", 1.0)
            except SinkError:
                return  # the server notices by itself


def _refusal(kind: str, command: Any) -> Any:
    if kind == "print_thread_stack_trace_command":
        trace = _empty_trace(command.print_thread_stack_trace_command.nonce)
        return service.TelemetryCommand(status=_UNSUPPORTED, thread_stack_trace=trace)
    if kind == "verify_message_command":
        result = service.VerifyMessageResult(nonce=command.verify_message_command.nonce)
        return service.TelemetryCommand(status=_UNSUPPORTED, verify_message_result=result)
    return None


def _empty_trace(nonce: str) -> Any:
    """An empty stack trace under the nonce asked with, so that the server stops waiting."""
    return service.ThreadStackTrace(nonce=nonce, thread_stack_trace="")
