"""The fault proxy against a plain echo server."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from spanbridge.devstack.faults import FaultProxy


@pytest.fixture
def echo() -> Iterator[int]:
    """Port of a server that answers every byte with itself."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo) as made:
        yield made


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=5)


def ask(connection: socket.socket, data: bytes = b"hello") -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        chunk = connection.recv(65536)
        if not chunk:
            break
        answer += chunk
    return answer


def test_passes_everything_both_ways(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 4096
    with connect(proxy) as client:
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        answer = b""
        while len(answer) < len(data):
            answer += client.recv(65536)
    assert answer == data
    assert proxy.accepted == 1


def test_half_close_reaches_the_other_side(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_hangs_then_goes_on_with_nothing_lost(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        proxy.hang()
        client.sendall(b"kept")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(10)
        with connect(proxy) as late:
            late.settimeout(0.2)
            late.sendall(b"late")
            with pytest.raises(TimeoutError):
                late.recv(10)
            proxy.resume()
            client.settimeout(5)
            late.settimeout(5)
            assert client.recv(10) == b"kept"
            assert late.recv(10) == b"late"


def test_blackhole_reads_but_never_answers(proxy: FaultProxy) -> None:
    proxy.blackhole()
    with connect(proxy) as client:
        client.sendall(b"x" * 10_000_000)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_refuses_resets_what_is_open_and_listens_again_on_the_same_port(proxy: FaultProxy) -> None:
    port = proxy.port
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.resume()
    assert proxy.port == port
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_reset_and_drop(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert ask(client) == b"hello"
    proxy.reset()
    with pytest.raises(ConnectionResetError), connect(proxy) as client:  # connecting may see it already
        client.recv(1)


def test_truncates_once(proxy: FaultProxy) -> None:
    proxy.truncate("down", after=3)
    with connect(proxy) as client:
        assert ask(client) == b"hel"
    with connect(proxy) as client:
        assert ask(client) == b"hello"


@pytest.mark.parametrize("side", ["up", "down"])
def test_corrupts_one_byte_wherever_the_stream_is_cut(proxy: FaultProxy, side: str) -> None:
    proxy.corrupt(side, after=6, flip=0x20)
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"hello"
        assert ask(client, b"hello") == b"hEllo"
        assert ask(client, b"hello") == b"hello"


def test_delay_holds_back(proxy: FaultProxy) -> None:
    proxy.delay(30)
    with connect(proxy) as client:
        client.sendall(b"x")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_an_upstream_that_is_away_resets(echo: int) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with FaultProxy(f"127.0.0.1:{port}") as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)


@pytest.mark.parametrize("mode", ["pass", "hang", "blackhole"])
def test_closing_amid_connections_is_silent(echo: int, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        with FaultProxy("127.0.0.1", echo) as proxy:
            if mode != "pass":
                getattr(proxy, mode)()
            clients = [connect(proxy) for _ in range(20)]
            for client in clients[:10]:
                client.sendall(b"hello")
        for client in clients:
            client.close()
        assert proxy.connections == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_throttled_data_arrives_whole(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.throttle(200_000)
        assert ask(connection, b"x" * 20_000) == b"x" * 20_000
        proxy.resume()
        assert ask(connection) == b"hello"


def test_a_half_closed_client_hears_the_end_and_may_still_write(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"
        before = proxy.forwarded["up"]
        proxy.half_close()
        assert connection.recv(1) == b""
        connection.sendall(b"still here")
        while proxy.forwarded["up"] == before:
            time.sleep(0.01)
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"


def test_a_share_of_the_pieces_is_corrupted(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.corrupt_share(1.0, random.Random(1))
        answer = ask(connection)
        assert sum(a != b for a, b in zip(answer, b"hello", strict=True)) == 1
        proxy.resume()
        assert ask(connection) == b"hello"
