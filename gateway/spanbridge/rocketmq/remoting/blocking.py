"""A connection for tools that have no event loop. The gateway uses :mod:`~spanbridge.rocketmq.remoting.client`."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self, TypeVar

from spanbridge.rocketmq.remoting.call import Call, CallWriter, answer, split_address
from spanbridge.rocketmq.remoting.errors import RemotingUnavailable
from spanbridge.rocketmq.remoting.frame import AclKeys, Frame, FrameDecoder, HeaderFormat

T = TypeVar("T")

_CHUNK = 256 * 1024


class BlockingClient:
    """One connection to a name server, broker or proxy, made at once; closed by ``with``. Not thread-safe.

    Args:
        address: ``host:port``.
        timeout: seconds for connecting, and for all responses of one :meth:`ask` or :meth:`ask_all`.
        tls: for a server that wants TLS.
        keys: for a server that asks who one is.
        header_format: of the requests; the server chooses that of its responses.

    Raises:
        RemotingUnavailable: nobody accepted the connection.
        ValueError: ``address`` is none.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        keys: AclKeys | None = None,
        header_format: HeaderFormat = HeaderFormat.BINARY,
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._writer = CallWriter(keys, header_format)
        self._decoder = FrameDecoder()
        try:
            self._socket = _connect(split_address(address), timeout, tls)
        except OSError as error:
            raise RemotingUnavailable(f"no connection to RocketMQ at {address}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, call: Call[T]) -> T:
        """Send one request and return what its response says.

        Raises:
            RemotingError: there was no response in time, or another than wanted.
        """
        return self.ask_all([call])[0]

    def ask_all(self, calls: Iterable[Call[T]]) -> list[T]:
        """Send requests in one write; the answers in the order of the requests, whatever order they come in.

        Raises:
            RemotingError: as with :meth:`ask`; the first one that failed.
        """
        wanted = {}
        data = []
        for call in calls:
            opaque, request = self._writer.write(call)
            wanted[opaque] = call
            data.append(request)
        responses = self._exchange(b"".join(data), set(wanted))
        return [answer(call, responses[opaque], self.address) for opaque, call in wanted.items()]

    def _exchange(self, data: bytes, missing: set[int]) -> dict[int, Frame]:
        responses: dict[int, Frame] = {}
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(data)
            while missing:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                for frame in self._decoder.feed(self._received()):
                    if frame.is_response and frame.opaque in missing:  # else one that came too late, or a request
                        missing.discard(frame.opaque)
                        responses[frame.opaque] = frame
        except TimeoutError:
            raise RemotingUnavailable(
                f"no answer from RocketMQ at {self.address} within {self._timeout:g} s", reason="timeout"
            ) from None
        except OSError as error:
            raise RemotingUnavailable(f"the connection to RocketMQ at {self.address} failed: {error}") from error
        return responses

    def _received(self) -> bytes:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("closed by the peer")
        return data


def ask_once(address: str, call: Call[T], *, timeout: float = 5.0, keys: AclKeys | None = None) -> T:
    """Ask on a connection of its own.

    Raises:
        RemotingError: nobody answered within ``timeout`` seconds, or with another response than wanted.
    """
    with BlockingClient(address, timeout=timeout, keys=keys) as client:
        return client.ask(call)


def _connect(place: tuple[str, int], timeout: float, tls: ssl.SSLContext | None) -> socket.socket:
    plain = socket.create_connection(place, timeout)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return plain
    try:
        return tls.wrap_socket(plain, server_hostname=place[0])
    except BaseException:
        plain.close()
        raise
