"""The HTTP side, as far as it concerns the gateway: listen, answer, report, stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from spanbridge.admin.access import Access
from spanbridge.admin.pages import (
    Answer,
    Fresh,
    LaterAnswer,
    Liveness,
    Metrics,
    Pages,
    ProfilePage,
    Request,
    alive,
    error,
)
from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.events import Event, Severity
from spanbridge.core.health import Readiness
from spanbridge.core.hosts import is_loopback
from spanbridge.ports import Reporter

if TYPE_CHECKING:
    from spanbridge.admin.protocol import HttpProtocol

_SHUTDOWN_TIMEOUT = 2.0
"""Seconds that answers on their way may take; a reader that is slower is cut off."""


class AdminError(SpanbridgeError):
    """The admin server cannot listen. The message names address and cause."""

    reason = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminListening(Event):
    """The admin server listens."""

    name: ClassVar[str] = "admin.listening"
    counted: ClassVar[bool] = False

    url: str

    def text(self) -> str:
        """The address."""
        return f"admin server listens on {self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminExposed(Event):
    """The admin server can be reached from other machines."""

    name: ClassVar[str] = "admin.exposed"
    severity: ClassVar[Severity] = Severity.WARNING
    counted: ClassVar[bool] = False

    host: str
    token: bool

    def text(self) -> str:
        """What that means."""
        rest = "the other pages want the token" if self.token else "the other pages are refused: set `token` in [admin]"
        return f"admin server on {self.host} is open to other machines without TLS: health and metrics to all, {rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminDenied(Event):
    """Somebody brought a token that is not ours. The request was answered with 401."""

    name: ClassVar[str] = "admin.denied"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    peer: str

    def text(self) -> str:
        """Page and peer."""
        return f"{self.peer} asked for admin page {self.path} with a wrong token; answered 401"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPageFailed(Event):
    """A page could not be made. The request was answered with 500."""

    name: ClassVar[str] = "admin.page_failed"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    cause: str

    def text(self) -> str:
        """Page and cause."""
        return f"admin page {self.path} failed: {self.cause}; answered 500"


class AdminServer:
    """Health, metrics and status over HTTP. A :class:`spanbridge.ports.Service`.

    :param readiness: makes the verdict for ``/readyz``.
    :param status: makes the JSON-able content of ``/status``.
    :param metrics: makes ``/metrics`` from the Accept header; None turns the page off.
    :param liveness: says for ``/livez`` why the gateway is stuck, None while it is not.
    :param profile: answers ``/debug/pprof/profile``; None turns the page off.
    :param fresh: brings what a page shows, where that is to be asked for; the others are called after it.
    :param token: what requests for other pages than health and metrics have to bring. Without it these pages are
        shown on loopback only.

    All of them are called on the event loop and have to be quick.
    """

    name = "admin"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        readiness: Callable[[], Readiness],
        status: Callable[[], Mapping[str, Any]],
        reporter: Reporter,
        metrics: Metrics | None = None,
        liveness: Liveness = alive,
        profile: ProfilePage | None = None,
        token: str | None = None,
        fresh: Fresh | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._reporter = reporter
        self._access = Access(token=token, exposed=not is_loopback(host))
        self._pages = Pages(readiness, status, metrics, liveness, self._access, profile, fresh)
        self._server: asyncio.Server | None = None
        self._connections: dict[HttpProtocol, None] = {}

    @property
    def port(self) -> int:
        """The port in use once started, else the one asked for."""
        if self._server is not None and self._server.sockets:
            return int(self._server.sockets[0].getsockname()[1])
        return self._port

    @property
    def url(self) -> str:
        """Where the server is reached, without a trailing slash."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen.

        :raises AdminError: the address is in use, not ours or not allowed.
        """
        from spanbridge.admin.protocol import HttpProtocol  # noqa: PLC0415 - not loaded where the server is off

        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: HttpProtocol(self._answer, self._connections), self._host, self._port
            )
        except OSError as cause:
            # uvloop puts the address into strerror once more.
            text = (
                os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or str(cause)
            ).lower()
            hint = "set another `port` in [admin], or `enabled = false`"
            raise AdminError(f"cannot listen on {self._host} port {self._port}: {text}; {hint}") from cause
        if self._access.exposed:
            self._reporter.report(AdminExposed(host=self._host, token=self._access.token is not None))
        self._reporter.report(AdminListening(url=self.url))

    async def stop(self) -> None:
        """Close the port and all connections. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self._connections):
            connection.close()
        try:
            await asyncio.wait_for(server.wait_closed(), _SHUTDOWN_TIMEOUT)
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()

    def status(self) -> dict[str, Any]:
        """Where it listens."""
        return {"url": self.url}

    def _answer(self, request: Request) -> Answer | LaterAnswer:
        try:
            answer = self._pages.answer(request)
        except Exception as cause:  # noqa: BLE001 - whatever a page's maker does must not end the connection silently
            return self._failed(request.path, cause)
        if isinstance(answer, LaterAnswer):
            return LaterAnswer(lambda: self._later(request.path, answer))
        if answer.status == HTTPStatus.UNAUTHORIZED and request.authorization:
            self._reporter.report(AdminDenied(path=request.path, peer=request.peer))
        return answer

    async def _later(self, path: str, pending: LaterAnswer) -> Answer:
        try:
            return await pending.make()
        except Exception as cause:  # noqa: BLE001 - as above
            return self._failed(path, cause)

    def _failed(self, path: str, cause: Exception) -> Answer:
        self._reporter.report(AdminPageFailed(path=path, cause=f"{type(cause).__name__}: {cause}"))
        return error(500, "this page could not be made; the gateway's log says why")
