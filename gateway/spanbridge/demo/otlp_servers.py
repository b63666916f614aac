"""The two servers of an OTLP receiver: gRPC and HTTP/protobuf, in threads of their own, on loopback."""

from __future__ import annotations

import gzip
import ssl
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

from spanbridge.demo.otlp_behaviour import Behaviour

_SIGNALS = {
    "/v1/traces": "traces",
    "/v1/metrics": "metrics",
    "/v1/logs": "logs",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
}
_MAX_REQUEST = 64 * 1024 * 1024
Take = Callable[[str, bytes, dict[str, str]], Behaviour]
"""Takes one request (its signal, body and headers) and says how to answer it. Raises ValueError: no OTLP request."""


@dataclass(frozen=True, slots=True)
class ReceiverTls:
    """PEM files for TLS on both ports; with ``client_ca`` clients must show a certificate of that authority."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def grpc(self) -> grpc.ServerCredentials:
        """For the gRPC server."""
        client_ca = self.client_ca.read_bytes() if self.client_ca else None
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], client_ca, client_ca is not None)

    def http(self) -> ssl.SSLContext:
        """For the HTTP server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca)
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def serve_grpc(take: Take, port: int, tls: ReceiverTls | None) -> tuple[grpc.Server, int]:
    """A running gRPC server, and its port (a free one for 0).

    :raises OSError: the port is taken.
    """
    server = grpc.server(
        ThreadPoolExecutor(8, thread_name_prefix="otlp-grpc"),
        handlers=(_GrpcHandlers(take),),
        options=[("grpc.max_receive_message_length", _MAX_REQUEST), ("grpc.so_reuseport", 0)],
    )
    address = f"127.0.0.1:{port}"
    try:
        bound = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls.grpc())
    except RuntimeError as error:
        server.stop(grace=0)
        raise OSError(f"cannot listen on {address}") from error
    server.start()
    return server, bound


def serve_http(take: Take, port: int, tls: ReceiverTls | None) -> ReceivingServer:
    """A running HTTP server.

    :raises OSError: the port is taken.
    """
    server = ReceivingServer(take, port, None if tls is None else tls.http())
    threading.Thread(target=server.serve_forever, args=(0.02,), name="otlp-http", daemon=True).start()
    return server


class _GrpcHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands raw bytes over: no message class stands between the wire and what takes it."""

    def __init__(self, take: Take) -> None:
        self._take = take

    def service(self, details: Any) -> Any:
        signal = _SIGNALS.get(details.method)
        if signal is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._export(signal, body, context))

    def _export(self, signal: str, body: bytes, context: Any) -> bytes:
        headers = {str(key).lower(): str(value) for key, value in context.invocation_metadata()}
        try:
            behaviour = self._take(signal, body, headers)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if behaviour.grpc_code is not None:
            code = grpc.StatusCode[behaviour.grpc_code]
            context.set_trailing_metadata((("grpc-status-details-bin", behaviour.status(code.value[0])),))
            context.abort(code, behaviour.message)
        return behaviour.answer(signal)


class ReceivingServer(ThreadingHTTPServer):
    """Its port is ``server_address[1]``."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, take: Take, port: int, tls: ssl.SSLContext | None) -> None:
        self.take = take
        self._tls = tls
        self._connections: set[Any] = set()
        super().__init__(("127.0.0.1", port), _HttpHandler)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            # The handshake happens at the first read, in the connection's own thread.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news here."""

    def close(self) -> None:
        """Stop listening and end every connection."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            self.shutdown_request(connection)


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ReceivingServer

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        signal = _SIGNALS.get(self.path)
        if signal is None:
            self._respond(404, b"")
            return
        try:
            behaviour = self.server.take(signal, _plain(body, headers), headers)
        except ValueError as error:
            self._respond(400, str(error).encode())
            return
        if behaviour.http_status != 200:
            self._respond(behaviour.http_status, behaviour.status(0), behaviour.retry_after)
        else:
            self._respond(200, behaviour.answer(signal))

    def _respond(self, status: int, body: bytes, retry_after: float | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(int(retry_after)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing is logged."""


def _plain(body: bytes, headers: dict[str, str]) -> bytes:
    encoding = headers.get("content-encoding", "identity")
    try:
        if encoding == "gzip":
            return gzip.decompress(body)
        if encoding == "deflate":
            return zlib.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"the body is not {encoding}") from error
    return body
