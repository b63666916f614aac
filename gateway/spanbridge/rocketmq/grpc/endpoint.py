"""One proxy address: its gRPC channel, its calls with deadlines, and whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from spanbridge.core.errors import SinkError, SinkUnavailable
from spanbridge.ports import Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.errors import Judgement, build, clean, which_part
from spanbridge.rocketmq.events import ChannelReplaced, EndpointDown, EndpointUp
from spanbridge.rocketmq.grpc.answers import OK, UNDECODABLE, judge_code, judge_grpc, plain, unresolved
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.grpc.calls import Calls, cancelled_from_outside
from spanbridge.rocketmq.grpc.stubs import SERVICE, code_name, service
from spanbridge.rocketmq.grpc.tls import TlsFiles
from spanbridge.rocketmq.options import RocketmqOptions

_SILENT = 2
"""Deadlines in a row on one connection, without an answer, after which it is taken for dead."""

_NO_ENTRIES = Judgement(SinkUnavailable, "empty_answer")
_RESOLVE_AGAIN = 1.0
"""Seconds between look-ups of a name that does not resolve."""


def channel_options(options: RocketmqOptions) -> list[tuple[str, Any]]:
    """Channel arguments: come back within a second of the peer, and leave retries to us."""
    arguments: list[tuple[str, Any]] = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # In gRPC this is also how long one connection attempt may take.
        ("grpc.min_reconnect_backoff_ms", int(options.connect_timeout * 1000)),
        # Names move with containers. By default gRPC asks for one again after 30 s at the earliest.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # A replaced channel must not be handed the connection it replaces.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        # No grpc.keepalive_time_ms: the proxy keeps Netty's default of five minutes between pings and answers more
        # with GOAWAY. Heartbeats with a deadline find a silent peer instead.
    ]
    if options.tls is not None and options.tls.server_name:
        arguments.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return arguments


async def ended(call: Any) -> None:
    """Cancel a call and wait until gRPC is through with it.

    Its last word comes from gRPC's own thread, and may otherwise come after the loop has closed.
    """
    call.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await call.code()


class Endpoint:
    """A channel to one ``host:port``. ``up`` is None until the first answer or failure.

    ``right`` is what the client needs on topic and group: ``PUB`` or ``SUB``.
    """

    def __init__(
        self,
        address: str,
        *,
        options: RocketmqOptions,
        headers: Credentials,
        certificates: TlsFiles,
        reporter: Reporter,
        on_change: Callable[[Endpoint], None],
        right: str = "PUB",
    ) -> None:
        self.address = address
        self.up: bool | None = None
        self.last_error: str | None = None
        self.leaving = False
        """Whether we are saying goodbye: whether anybody answers that is no news to an operator."""
        self._options = options
        self._headers = headers
        self._certificates = certificates
        self._reporter = reporter
        self._on_change = on_change
        self._right = right
        self._silent = 0
        self._retired: dict[asyncio.Task[None], Any] = {}
        self._made = 0.0
        self._channel, self._send = self._connect()
        self.calls = Calls(address, options, headers, certificates.fresh)
        """For what a consumer does with messages, past gRPC's own channel."""

    def _connect(self) -> tuple[Any, Any]:
        self._made = asyncio.get_running_loop().time()
        arguments = channel_options(self._options)
        credentials = self._certificates.credentials
        channel = (
            aio.insecure_channel(self.address, options=arguments)
            if credentials is None
            else aio.secure_channel(self.address, credentials, options=arguments)
        )
        return channel, channel.unary_unary(SERVICE + "SendMessage")

    async def send(self, request: bytes, topic: str, count: int) -> None:
        """Send the bytes of a ``SendMessageRequest`` of ``count`` messages; return once all of them are stored.

        A message is stored when its entry says so, whatever the status of the whole says, as for the Java client.

        :raises SinkError: mapped from the answer, or from there being none. ``stored`` holds the messages stored.
        """
        what = f"topic {topic!r}"
        response = await self._answered(
            self._send, request, service.SendMessageResponse, what, self._options.request_timeout
        )
        statuses = [entry.status for entry in response.entries]
        failed = next((status for status in statuses if status.code != OK), None)
        if failed is None:
            if response.status.code == OK and statuses:
                return
            failed = response.status
        stored = frozenset(index for index, status in enumerate(statuses) if status.code == OK)
        raise self._not_stored(failed, what, request, stored if len(statuses) == count else frozenset())

    def _not_stored(self, status: Any, what: str, request: bytes, stored: frozenset[int]) -> SinkError:
        if status.code == OK:
            return build(_NO_ENTRIES, what, self.address, "OK, and no word on any message")
        judgement = judge_code(status.code, status.message, self._right)
        if judgement.reason == "message_illegal":
            messages = service.SendMessageRequest.FromString(request).messages
            if len(messages) == 1:
                judgement = which_part(judgement, status.message, len(messages[0].body))
        error = self._refused(status, what, judgement)
        error.stored = stored
        return error

    async def call(self, method: str, request: Any, response_type: Any, what: str, timeout: float) -> Any:
        """A unary call whose response carries a status.

        :raises SinkError: mapped from the answer, or from there being none.
        """
        handle = self._channel.unary_unary(SERVICE + method)
        response = await self._answered(handle, request.SerializeToString(), response_type, what, timeout)
        if response.status.code != OK:
            raise self.refused(response.status, what)
        return response

    def _decoded(self, raw: bytes | None, response_type: Any, what: str) -> Any:
        # Not by gRPC: it logs a traceback, and hands out None. That is also what it gives for OK without a message.
        with contextlib.suppress(DecodeError):
            if raw is not None:
                return response_type.FromString(raw)
        cause = "OK without an answer" if raw is None else "an answer that does not decode"
        error = build(UNDECODABLE, what, self.address, cause)
        self._set(False, str(error), error.reason)
        try:
            raise error
        finally:
            del error  # an error that its own frame holds is a cycle, with the request in it

    def telemetry(self) -> Any:
        """Open the telemetry stream: bytes of ``TelemetryCommand`` both ways.

        No deadline: it lives as long as the connection.
        """
        return self._channel.stream_stream(SERVICE + "Telemetry")(metadata=self._headers.metadata())

    async def _answered(self, handle: Any, request: bytes, response_type: Any, what: str, timeout: float) -> Any:
        channel = self._channel
        try:
            call = handle(request, timeout=timeout, metadata=self._headers.metadata())
            raw: bytes | None = await call
        except aio.AioRpcError as error:
            raise self._failed(error, what, channel) from None
        except aio.BaseError as error:  # the call did not begin: its channel is closed, or gRPC takes no more
            cause = f"gRPC refused the call, {type(error).__name__}"
            raise build(judge_grpc(grpc.StatusCode.INTERNAL, ""), what, self.address, cause) from None
        except asyncio.CancelledError:
            if cancelled_from_outside():
                await ended(call)
                raise
            cause = "the connection was replaced while a request was under way"
            raise build(judge_grpc(grpc.StatusCode.CANCELLED, ""), what, self.address, cause) from None
        self._silent = 0
        response = self._decoded(raw, response_type, what)
        if self.up is not True:
            self._set(True, None, "")
        return response

    def judged(self, error: aio.AioRpcError, what: str) -> SinkError:
        """What a call that ended without an answer means."""
        code, details = error.code(), error.details() or ""
        said = plain(details or "no details", greeting=self._options.tls is not None and self.up is not True)
        cause = self._headers.redact(f"{code.name} ({said})")
        return build(judge_grpc(code, details), what, self.address, cause)

    def _failed(self, error: aio.AioRpcError, what: str, channel: Any) -> SinkError:
        """Take note of a call on ``channel`` that ended without an answer, and say what it means."""
        code = error.code()
        mapped = self.judged(error, what)
        if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            self._set(False, str(mapped), mapped.reason)
        # Many requests may hang at once: those of a connection that is replaced already say nothing of the new one.
        if channel is self._channel:
            self._doubt_channel(code, error.details() or "")
        return mapped

    def _doubt_channel(self, code: grpc.StatusCode, details: str) -> None:
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._silent += 1
            if self._silent >= _SILENT:
                self.replace("silent")
        # gRPC's resolver backs off up to two minutes, whatever the options say. Only a new channel asks at once.
        elif unresolved(details) and asyncio.get_running_loop().time() - self._made >= _RESOLVE_AGAIN:
            self._reconnect()

    def refused(self, status: Any, what: str) -> SinkError:
        """The error that a ``Status`` other than OK is."""
        return self._refused(status, what, judge_code(status.code, status.message, self._right))

    def _refused(self, status: Any, what: str, judgement: Judgement) -> SinkError:
        text = self._headers.redact(clean(status.message))
        name = code_name(status.code)
        cause = f"{name} ({text})" if text and text != name else name
        return build(judgement, what, self.address, cause)

    def _set(self, up: bool, error: str | None, reason: str) -> None:
        changed, self.up = self.up is not up, up
        another, self.last_error = error not in {None, self.last_error}, error if error is not None else self.last_error
        if self.leaving:
            return
        if not changed:
            if another:  # a proxy that comes back with another certificate is down for another cause
                self._on_change(self)
            return
        if up:
            self._reporter.report(EndpointUp(endpoint=self.address))
        else:
            self._reporter.report(EndpointDown(endpoint=self.address, reason=reason, cause=error or ""))
        self._on_change(self)

    def replace(self, reason: str) -> None:
        """Use a new connection from now on; calls on the old one may still finish."""
        self._reconnect()
        self._reporter.report(ChannelReplaced(endpoint=self.address, reason=reason))

    def _reconnect(self) -> None:
        self._silent = 0
        old = self._channel
        self._channel, self._send = self._connect()
        self.calls.renew()
        task = asyncio.get_running_loop().create_task(self._retire(old))
        self._retired[task] = old
        task.add_done_callback(lambda done: self._retired.pop(done, None))

    async def _retire(self, channel: Any) -> None:
        with guarded("closing a connection", self._reporter):
            await channel.close(grace=self._options.request_timeout)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel and those it replaced; calls under way have ``grace`` seconds to finish."""
        await self.calls.close()
        retired = dict(self._retired)
        for task in retired:
            task.cancel()
        await asyncio.gather(*retired, return_exceptions=True)
        for channel in (self._channel, *retired.values()):
            await channel.close(grace)
