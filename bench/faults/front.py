"""RocketMQ as a gateway sees it: behind fault proxies that break as one."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Literal

from spanbridge.devstack import FaultProxy
from spanbridge.devstack.rocketmq import RocketmqBroker
from spanbridge.rocketmq.remoting.errors import FrameError
from spanbridge.rocketmq.remoting.frame import Frame, FrameDecoder, encode

Protocol = Literal["grpc", "remoting"]

_CHUNK = 65536
_TIMEOUT = 10.0


class Front:
    """An address of RocketMQ's for a gateway, and the ways in which it fails; see :class:`FaultProxy`.

    Over gRPC that is one fault proxy. Over remoting there is one before the name server and one before the broker, and
    routes name the second: whatever is done is done to both.
    """

    def __init__(self, rocketmq: RocketmqBroker, protocol: Protocol, exits: ExitStack) -> None:
        if protocol == "grpc":
            first = exits.enter_context(FaultProxy(rocketmq.endpoints))
            self._proxies = [first]
        else:
            broker = f"{rocketmq.host}:{rocketmq.broker_port}"
            second = exits.enter_context(FaultProxy(broker))
            named = exits.enter_context(name_server(rocketmq.namesrv, {broker: second.endpoints}))
            first = exits.enter_context(FaultProxy(named))
            self._proxies = [first, second]
        self.endpoints = first.endpoints
        """``host:port`` for the gateway's configuration."""

    def resume(self) -> None:
        """Forward again, fast and unchanged."""
        for proxy in self._proxies:
            proxy.resume()

    def refuse(self) -> None:
        """Reset what is open, and listen no more."""
        for proxy in self._proxies:
            proxy.refuse()

    def blackhole(self) -> None:
        """Read, and answer nothing."""
        for proxy in self._proxies:
            proxy.blackhole()

    def drop(self) -> None:
        """Reset what is open now."""
        for proxy in self._proxies:
            proxy.drop()

    def delay(self, seconds: float) -> None:
        """Hold back every piece of data, both ways, for this long."""
        for proxy in self._proxies:
            proxy.delay(seconds)

    def throttle(self, bytes_per_second: float) -> None:
        """Forward no faster than this, each way of each connection."""
        for proxy in self._proxies:
            proxy.throttle(bytes_per_second)

    def corrupt_share(self, share: float, rng: random.Random) -> None:
        """Invert one byte in this share of the pieces of data that are answered."""
        for proxy in self._proxies:
            proxy.corrupt_share(share, rng)


@contextmanager
def name_server(upstream: str, moved: dict[str, str]) -> Iterator[str]:
    """A name server that asks ``upstream``, and gives other addresses for brokers than that does; its ``host:port``."""
    host, _, port = upstream.rpartition(":")

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, FrameError, EOFError), socket.create_connection((host, int(port)), _TIMEOUT) as peer:
                answers = _frames(peer)
                for request in _frames(self.request):
                    peer.sendall(encode(request))
                    self.request.sendall(encode(_moved(next(answers), moved)))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, name="name-server", daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def _frames(connection: socket.socket) -> Iterator[Frame]:
    """What comes, frame by frame, until the end of the stream.

    :raises EOFError: that is now.
    """
    decoder = FrameDecoder()
    while data := connection.recv(_CHUNK):
        yield from decoder.feed(data)
    raise EOFError


def _moved(answer: Frame, moved: dict[str, str]) -> Frame:
    body = answer.body
    for address, other in moved.items():
        body = body.replace(f'"{address}"'.encode(), f'"{other}"'.encode())
    return replace(answer, body=body)
