"""One proxy address: its calls with deadlines, and whether it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from spanbridge.core.errors import SinkError, SinkUnavailable
from spanbridge.ports import Reporter
from spanbridge.rocketmq.errors import Judgement, build, clean, which_part
from spanbridge.rocketmq.events import ChannelReplaced, EndpointDown, EndpointUp
from spanbridge.rocketmq.grpc.answers import OK, UNDECODABLE, judge_code
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.grpc.calls import Calls
from spanbridge.rocketmq.grpc.stubs import code_name, service
from spanbridge.rocketmq.options import RocketmqOptions
from spanbridge.rocketmq.tls import TlsFiles

_AWAY = frozenset({"unavailable", "deadline_exceeded", "tls"})
"""Reasons of calls that nobody answered."""

_NO_ENTRIES = Judgement(SinkUnavailable, "empty_answer")


class Endpoint:
    """One ``host:port``. ``up`` is None until the first answer or failure."""

    def __init__(
        self,
        address: str,
        *,
        options: RocketmqOptions,
        headers: Credentials,
        certificates: TlsFiles,
        reporter: Reporter,
        on_change: Callable[[Endpoint], None],
    ) -> None:
        self.address = address
        self.up: bool | None = None
        self.last_error: str | None = None
        self.leaving = False
        """Whether we are saying goodbye: whether anybody answers that is no news to an operator."""
        self._options = options
        self._headers = headers
        self._reporter = reporter
        self._on_change = on_change
        self.calls = Calls(address, options, headers, certificates.fresh, self._went_silent)
        """For what a consumer does with messages."""

    async def send(self, request: bytes, topic: str, count: int) -> None:
        """Send the bytes of a ``SendMessageRequest`` of ``count`` messages; return once all of them are stored.

        A message is stored when its entry says so, whatever the status of the whole says, as for the Java client.

        :raises SinkError: mapped from the answer, or from there being none. ``stored`` holds the messages stored.
        """
        what = f"topic {topic!r}"
        response = await self._answered(
            "SendMessage", request, service.SendMessageResponse, what, self._options.request_timeout
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
        judgement = judge_code(status.code, status.message)
        if judgement.reason == "message_illegal":
            messages = service.SendMessageRequest.FromString(request).messages
            if len(messages) == 1:
                judgement = which_part(judgement, status.message, len(messages[0].body))
        error = self._refused(status, what, judgement)
        error.stored = stored
        return error

    async def call(self, method: str, request: Any, response_type: Any, what: str, timeout: float) -> Any:
        """A unary call whose response carries a status: OK.

        :raises SinkError: mapped from the answer, or from there being none.
        """
        return await self.call_encoded(method, request.SerializeToString(), response_type, what, timeout)

    async def call_encoded(
        self, method: str, request: bytes, response_type: Any, what: str, timeout: float, *, also: int = OK
    ) -> Any:
        """The same with a request that is encoded; ``also`` is another status that is no error.

        :raises SinkError: mapped from the answer, or from there being none.
        """
        response = await self._answered(method, request, response_type, what, timeout)
        if response.status.code not in {OK, also}:
            raise self.refused(response.status, what)
        return response

    async def _answered(self, method: str, request: bytes, response_type: Any, what: str, timeout: float) -> Any:
        try:
            raw = await self.calls.unary(method, request, what, timeout)
            response = self._decoded(raw, response_type, what)
        except SinkError as error:
            if error.reason in _AWAY or error.reason == UNDECODABLE.reason:
                self._set(False, str(error), error.reason)
            raise
        if self.up is not True:
            self._set(True, None, "")
        return response

    def _decoded(self, raw: bytes | None, response_type: Any, what: str) -> Any:
        cause = "OK without an answer"
        if raw is not None:
            try:
                return response_type.FromString(raw)
            except DecodeError:
                cause = "an answer that does not decode"
        raise build(UNDECODABLE, what, self.address, cause)

    def refused(self, status: Any, what: str) -> SinkError:
        """The error that a ``Status`` other than OK is."""
        return self._refused(status, what, judge_code(status.code, status.message))

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
        self._replace(reason, None)

    def _went_silent(self) -> None:
        self._replace("silent", self._options.request_timeout)

    def _replace(self, reason: str, grace: float | None) -> None:
        self.calls.renew(grace)
        self._reporter.report(ChannelReplaced(endpoint=self.address, reason=reason))

    async def close(self, grace: float = 0.0) -> None:
        """Close its connections; calls under way have ``grace`` seconds to finish."""
        await self.calls.close(grace)
