"""From nothing to an accepted MQTT connection, with every way that fails told apart."""

from __future__ import annotations

import asyncio
import socket
import ssl

from spanbridge.core.errors import SourceError
from spanbridge.mqtt.connection import Connection
from spanbridge.mqtt.errors import ConnectError
from spanbridge.mqtt.options import MqttOptions
from spanbridge.mqtt.tls import client_context, tls_cause
from spanbridge.mqtt.version import Accepted

_DATES = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (x509_vfy.h)."""


async def dial(connection: Connection, *, turn: int = 0) -> Accepted:
    """Connect, shake TLS hands and wait for CONNACK, all within ``connect_timeout``.

    ``turn`` says which of the host's addresses comes first, counted round and round: an address that swallows
    packets (a broken IPv6 path, a node that is down) uses up the time of its own turn only.

    :raises ConnectError: a TLS file cannot be used, nobody answered, or TLS failed.
    :raises SourceError: the broker refused, or sent what it must not.
    """
    options = connection.options
    tls = await _read_tls(options)
    stage = "did not accept a connection" if tls is None else "did not take a connection and finish a TLS handshake"
    try:
        async with asyncio.timeout(options.connect_timeout):
            await _connect(connection, tls, turn)
            stage = "accepted the connection and did not answer CONNECT"
            return await asyncio.shield(connection.accepted)
    except TimeoutError:
        text = f"{connection.peer} {stage} within {options.connect_timeout:g} s"
        raise ConnectError(text, reason="timeout") from None
    except OSError as error:
        raise _connect_error(connection.peer, error, secure=tls is not None) from None
    finally:
        if not connection.accepted.done() or connection.accepted.exception() is not None:
            await connection.abort()


async def _read_tls(options: MqttOptions) -> ssl.SSLContext | None:
    """The TLS context from the files as they are now, so that renewed certificates are taken up.

    :raises ConnectError: a file cannot be used.
    """
    if options.tls is None:
        return None
    try:
        return await asyncio.to_thread(client_context, options.tls)
    except SourceError as error:
        raise ConnectError(str(error), reason=error.reason) from None


async def _addresses(options: MqttOptions) -> list[str]:
    """What the host's name stands for, in the system's order of preference.

    Resolved here and not by ``create_connection``: uvloop's leaves an unretrieved exception behind when it is cancelled
    while it resolves.

    :raises OSError: it does not resolve.
    """
    found = await asyncio.get_running_loop().getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def _connect(connection: Connection, tls: ssl.SSLContext | None, turn: int) -> None:
    """Try the addresses of the host in turn.

    :raises OSError: of the last address.
    """
    options = connection.options
    loop = asyncio.get_running_loop()
    server_name = None if tls is None else ((options.tls and options.tls.server_name) or options.host)
    found = await _addresses(options)
    first = turn % len(found) if found else 0
    last: OSError | None = None
    for address in found[first:] + found[:first]:
        try:
            await loop.create_connection(
                lambda: connection, address, options.port, ssl=tls, server_hostname=server_name
            )
        except OSError as error:
            last = error
        else:
            return
    raise last or OSError("no address")


def _connect_error(peer: str, error: OSError, *, secure: bool) -> ConnectError:
    """Say what went wrong without the numbers and addresses that libraries put around it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        hint = "see tls.ca_file, tls.server_name"
        if error.verify_code in _DATES:
            hint = "the broker's certificate is to be renewed, or this machine's clock is wrong"
        return ConnectError(f"TLS with {peer} failed: {said}; {hint}", reason="tls_certificate")
    if isinstance(error, ssl.SSLError):
        said = "there is no TLS on this port" if error.reason == "WRONG_VERSION_NUMBER" else tls_cause(error)
        return ConnectError(f"TLS with {peer} failed: {said}", reason="tls")
    if isinstance(error, socket.gaierror):
        return ConnectError(f"the name of {peer} does not resolve: {error.strerror}", reason="name_resolution")
    if isinstance(error, ConnectionRefusedError):
        return ConnectError(f"{peer} refused the TCP connection: nothing listens there", reason="connection_refused")
    if isinstance(error, ConnectionError):
        during = (
            "during the TLS handshake: it may be that this port has no TLS" if secure else "while it was being made"
        )
        return ConnectError(f"{peer} closed the connection {during}", reason="connection_reset")
    return ConnectError(f"{peer} cannot be reached: {error.strerror or error}", reason="unreachable")
