"""One HTTP/1.1 connection at a time to one server, for POST requests. h11 says what the bytes mean."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import h11

from spanbridge.core.hosts import is_host

_LONGEST_ANSWER = 64 * 1024
"""Bytes that are read of an answer: whoever answers must not decide on our memory."""
_READ = 64 * 1024
_PORTS = {"http": 80, "https": 443}
_NO_HOST = frozenset('\\<>"^`{|}')
"""What no host has in it (RFC 3986 section 3.2.2)."""
_LEGAL = "/%:@!$&'()*+,;=-._~?"

Headers = list[tuple[str, str]]


class NoAnswerError(Exception):
    """What came is no HTTP, or nothing came at all."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What the server said. Names of ``headers`` are in lower case; ``body`` is its beginning, or empty."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpServer:
    """Where to connect. ``authorization`` is basic authentication by the URL's user name and password, or ""."""

    host: str
    port: int
    secure: bool
    authorization: str

    @property
    def address(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode()
        return f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """As in a Host header: without the port that everybody would assume."""
        return self.address.removesuffix(":443" if self.secure else ":80")


def server(url: SplitResult) -> HttpServer:
    """The server of a URL.

    :raises ValueError: it has none, or a port that is no number.
    """
    if not url.hostname or url.scheme not in _PORTS:
        raise ValueError("neither http:// nor https:// and a host")
    if not is_host(url.hostname) or not _NO_HOST.isdisjoint(url.hostname):
        raise ValueError("a host that is none")
    authorization = ""
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    found = HttpServer(url.hostname, url.port or _PORTS[url.scheme], url.scheme == "https", authorization)
    found.name  # noqa: B018 - a host that has no name in DNS is found now
    return found


def proxy_for(target: HttpServer) -> HttpServer | None:
    """The proxy that ``http_proxy``, ``https_proxy`` and ``no_proxy`` in the environment name for a server.

    :raises ValueError: what they hold is no URL.
    """
    if proxy_bypass(target.host):
        return None
    url = getproxies().get("https" if target.secure else "http")
    return server(urlsplit(url if "://" in url else f"http://{url}")) if url else None


class _Counted:
    """Stands for a body that h11 does not see: it only counts (h11's documentation, "Support for sendfile()")."""

    def __init__(self, body: Sequence[bytes]) -> None:
        self._size = sum(map(len, body))

    def __len__(self) -> int:
        return self._size


class HttpClient:
    """Posts to one URL, and keeps the connection as long as the server does. Not for two requests at a time.

    ``tls`` is for https. A proxy is taken from the environment, once; redirects are not followed.

    :raises ValueError: the URL, or the proxy's, cannot be used.
    """

    def __init__(self, url: str, headers: Headers, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._server = server(parts)
        self._proxy = proxy_for(self._server)
        self._tls = tls
        path = quote(parts.path or "/", safe=_LEGAL) + (f"?{quote(parts.query, safe=_LEGAL)}" if parts.query else "")
        names = {name.lower() for name, _ in headers}
        fixed = [("host", self._server.name)] if "host" not in names else []
        if self._server.authorization and "authorization" not in names:
            fixed.append(("authorization", self._server.authorization))
        if self._proxy is not None and not self._server.secure:
            path = f"http://{self._server.name}{path}"
            fixed += _proxy_headers(self._proxy)
        self._path = path
        self._headers = fixed + headers
        self._protocol: h11.Connection | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, body: Sequence[bytes]) -> HttpAnswer:
        """Send a request, its body in pieces, and read its answer. Nothing is sent a second time.

        :raises OSError: no connection, or it broke; also where TLS fails.
        :raises NoAnswerError: what came is no HTTP.
        """
        if self._writer is None or self._writer.is_closing() or self._reader.at_eof():
            await self.close()
            await self._connect()
        whole = False
        try:
            headers = [*self._headers, ("content-length", str(sum(map(len, body))))]
            self._send(h11.Request(method="POST", target=self._path, headers=headers), body)
            answer, whole = await self._answer()
        except h11.RemoteProtocolError as error:
            raise NoAnswerError(str(error)) from None
        finally:
            if not whole:
                self._abort()
        return answer

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            return  # it is closed then

    def _abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.transport.abort()

    def _send(self, request: h11.Request, body: Sequence[bytes] = ()) -> None:
        """Send a request, without waiting until it is sent: the server may answer before it has read all of it."""
        protocol, writer = self._protocol, self._writer
        assert protocol is not None
        assert writer is not None
        head = protocol.send(request)
        assert head is not None
        if body:
            protocol.send_with_data_passthrough(h11.Data(data=cast("bytes", _Counted(body))))
        protocol.send(h11.EndOfMessage())  # nothing to be written: the length of the body is in the head
        writer.writelines([head, *body])

    async def _connect(self) -> None:
        via = self._proxy or self._server
        tls = self._tls if via is self._server else ssl.create_default_context()
        self._reader, self._writer = await asyncio.open_connection(
            via.host, via.port, ssl=tls if via.secure else None, limit=_READ
        )
        self._protocol = h11.Connection(h11.CLIENT)
        if self._proxy is not None and self._server.secure:
            try:
                await self._tunnel(self._proxy)
            except BaseException:
                self._abort()
                raise

    async def _tunnel(self, proxy: HttpServer) -> None:
        """Have the proxy connect us to the server (RFC 9110 section 9.3.6), and speak TLS through it.

        :raises OSError: the proxy refuses.
        """
        assert self._writer is not None
        name = self._server.address
        self._send(h11.Request(method="CONNECT", target=name, headers=[("host", name), *_proxy_headers(proxy)]))
        try:
            answer, _ = await self._answer()
        except h11.RemoteProtocolError as error:
            raise NoAnswerError(str(error)) from None
        if not 200 <= answer.status < 300:
            raise OSError(f"the proxy {proxy.name} answered {answer.status} to CONNECT")
        assert self._tls is not None
        await self._writer.start_tls(self._tls, server_hostname=self._server.host)
        self._protocol = h11.Connection(h11.CLIENT)

    async def _answer(self) -> tuple[HttpAnswer, bool]:
        """Read an answer; and whether the connection can be used again.

        :raises h11.RemoteProtocolError: what comes is no HTTP.
        """
        protocol = self._protocol
        assert protocol is not None
        status, headers, body = 0, dict[str, str](), bytearray()
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(_READ)
                if not data and not status:
                    raise ConnectionResetError("the server closed the connection without an answer")
                protocol.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                if headers.get("content-encoding", "identity").lower() != "identity":
                    return HttpAnswer(status, headers, b""), False  # compressed, which nobody asked for
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) >= _LONGEST_ANSWER:
                    return HttpAnswer(status, headers, bytes(body[:_LONGEST_ANSWER])), False
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                again = protocol.our_state is h11.DONE and protocol.their_state is h11.DONE
                if again:
                    protocol.start_next_cycle()
                return HttpAnswer(status, headers, bytes(body)), again


def _proxy_headers(proxy: HttpServer) -> Headers:
    return [("proxy-authorization", proxy.authorization)] if proxy.authorization else []
