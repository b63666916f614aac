"""Which protocol a cluster's endpoints speak, found by asking them. Loads no protobuf.

A proxy answers HTTP/2's connection preface with a SETTINGS frame (RFC 9113 section 3.4). A name server takes the
preface for the size of a frame that is too large, and closes; it answers a request of its own protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkUnavailable, bare
from spanbridge.core.hosts import split_endpoint
from spanbridge.ports import Reporter
from spanbridge.rocketmq.events import ProtocolFound
from spanbridge.rocketmq.options import RocketmqOptions, Spoken, parse_endpoints
from spanbridge.rocketmq.remoting.admin import topic_route
from spanbridge.rocketmq.remoting.client import RemotingClient
from spanbridge.rocketmq.remoting.errors import RemotingError, RemotingRefused, one_line
from spanbridge.rocketmq.remoting.frame import AclKeys
from spanbridge.rocketmq.tls import TlsFiles

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""The preface and an empty SETTINGS frame."""
_FRAME_HEAD: Final = 9
_SETTINGS: Final = 4
_ALPN: Final = "h2"


class ClusterProtocol:
    """What the cluster of a gateway speaks, once one of its parts has found out. One for each gateway.

    It never changes: messages on their way are encoded in the form of one protocol.
    """

    def __init__(self) -> None:
        self.found: Spoken | None = None

    async def find(self, options: RocketmqOptions, reporter: Reporter) -> Spoken:
        """What is known, else what the endpoints answer.

        :raises SinkError: none of them says.
        """
        if self.found is None:
            found, address = await ask_protocol(options)
            if self.found is None:  # several may have asked at once
                self.found = found
                reporter.report(ProtocolFound(endpoint=address, protocol=found))
        return self.found


async def ask_protocol(options: RocketmqOptions) -> tuple[Spoken, str]:
    """What the first endpoint that says so speaks, and its address.

    :raises SinkMisconfigured: the TLS options cannot be used, or the peer's certificate is not trusted.
    :raises SinkUnavailable: nobody answers as a proxy or as a name server would.
    """
    failure: SinkError | None = None
    for address in parse_endpoints(options.endpoints):
        try:
            spoken: Spoken = (
                "grpc" if await _takes_preface(address, options) else await _takes_requests(address, options)
            )
        except SinkError as error:
            failure = bare(error)
        else:
            return spoken, address
    assert failure is not None  # there is an endpoint
    raise failure


async def _takes_preface(address: str, options: RocketmqOptions) -> bool:
    """Whether the peer answers as an HTTP/2 server. What is asked next finds out why it does not."""
    host, port = split_endpoint(address)
    tls = TlsFiles(options.tls, [_ALPN])
    await asyncio.to_thread(tls.load)
    name = None if tls.context is None else tls.server_name or host
    try:
        async with asyncio.timeout(options.connect_timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls.context, server_hostname=name)
    except TimeoutError:
        raise _away(address, f"no connection within {options.connect_timeout:g} s") from None
    except ssl.SSLError as error:
        cause = getattr(error, "verify_message", None) or error.reason or "the handshake failed"
        advice = "Check that the port speaks TLS, that ca_file holds its issuer, and server_name."
        raise SinkMisconfigured(f"RocketMQ at {address}: TLS: {one_line(cause)}. {advice}", reason="tls") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be looked up
        raise _away(address, one_line(str(error)) or type(error).__name__) from None
    try:
        writer.write(_PREFACE)
        async with asyncio.timeout(options.request_timeout):
            head = await reader.readexactly(_FRAME_HEAD)
    except (TimeoutError, EOFError, OSError):
        return False
    else:
        return head[3] == _SETTINGS and head[5:] == bytes(4)  # of the connection, not of a stream
    finally:
        writer.transport.abort()


async def _takes_requests(address: str, options: RocketmqOptions) -> Spoken:
    """``remoting`` where the peer answers a request of that protocol, whatever it answers.

    :raises SinkUnavailable: it does not.
    """
    tls = TlsFiles(options.tls)
    await asyncio.to_thread(tls.load)
    client = RemotingClient(
        address,
        timeout=options.connect_timeout,
        tls=tls.context,
        server_name=tls.server_name,
        keys=AclKeys.given(options.access_key, options.secret_key, options.security_token),
    )
    try:
        await client.connect()
        await client.ask(topic_route("SELF_TEST_TOPIC"), timeout=options.request_timeout)
    except RemotingRefused:
        pass
    except RemotingError as error:
        cause = f"answers neither as a gRPC proxy nor as a name server: {error}"
        raise _away(address, cause) from None
    finally:
        await client.close()
    return "remoting"


def _away(address: str, cause: str) -> SinkUnavailable:
    return SinkUnavailable(f"RocketMQ at {address}: {cause}.")
