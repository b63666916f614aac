"""Producer and consumer against proxies whose certificates are wrong, and certificates that change while they run."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from spanbridge.core.errors import SinkError
from spanbridge.core.tls import TlsOptions
from spanbridge.devstack import FaultProxy
from spanbridge.rocketmq import RocketmqOptions
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.grpc.calls import Calls
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.tls import TlsFiles

from .consuming import consuming
from .fake_proxy import FakeProxy
from .test_peers import failing, sink_to

pytestmark = pytest.mark.anyio

SECRET = "tr0ub4dor-and-3"
LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
BAD = {
    "another authority": "its certificate is not accepted",
    "expired": "its certificate is not accepted, certificate has expired",
    "another host": "issued for another name",
    "no client certificate": "want a certificate of ours|wants a certificate of ours",
}
"""Cases, and what an operator reads of each."""


class Authority:
    """PEM files of an authority, rewritten in place when it is renewed."""

    def __init__(self, folder: Path) -> None:
        self.ca_file, self.cert_file, self.key_file = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self.renew()

    def renew(self) -> None:
        """Another authority, in the same files."""
        self.authority = trustme.CA()
        client = self.authority.issue_cert("gateway")
        self.ca_file.write_bytes(self.authority.cert_pem.bytes())
        self.cert_file.write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
        self.key_file.write_bytes(client.private_key_pem.bytes())

    def options(self, *, own: bool = True) -> TlsOptions:
        files: dict[str, Any] = {"cert_file": str(self.cert_file), "key_file": str(self.key_file)} if own else {}
        return TlsOptions(ca_file=str(self.ca_file), server_name="localhost", **files)

    def server(self, case: str = "") -> grpc.ServerCredentials:
        signed_by = trustme.CA() if case == "another authority" else self.authority
        dates: dict[str, Any] = (
            {"not_before": LONG_AGO, "not_after": LONG_AGO + dt.timedelta(days=9)} if case == "expired" else {}
        )
        cert = signed_by.issue_cert("elsewhere.example" if case == "another host" else "localhost", **dates)
        chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
        return grpc.ssl_server_credentials(
            [(cert.private_key_pem.bytes(), chain)], self.authority.cert_pem.bytes(), require_client_auth=True
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=BAD)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def counted() -> Iterator[Any]:
    """``counted(proxy)``: what passes on connections and counts them."""
    made: list[FaultProxy] = []

    def before(proxy: FakeProxy) -> FaultProxy:
        made.append(FaultProxy("127.0.0.1", proxy.port))
        return made[-1].__enter__()

    yield before
    for one in made:
        one.close()


def checked(text: str, case: str) -> None:
    """One line, which says what is wrong, and no secret."""
    assert any(words in text for words in BAD[case].split("|")), text
    assert "\n" not in text
    assert SECRET not in text


KEYS: dict[str, Any] = {"access_key": "gateway", "secret_key": SECRET}


async def test_a_producer_tells_what_is_wrong_and_does_not_storm(case: str, authority: Authority, counted: Any) -> None:
    async with FakeProxy(tls=authority.server(case)) as proxy:
        front = counted(proxy)
        tls = authority.options(own=case != "no client certificate")
        async with sink_to(front.endpoints, tls=tls, attempts=1, **KEYS) as sink:
            error = await failing(sink)
            checked(str(error), case)
            began = time.monotonic()
            await asyncio.sleep(2)
            # 0.1, 0.2, 0.4, 0.8, 1 s apart, less jitter of a fifth
            assert front.accepted <= 8 + 2 * (time.monotonic() - began)
            checked(f"{sink.status.last_error}", case)
            assert SECRET not in f"{sink.status!r}"
        assert proxy.calls == []


async def test_a_consumer_tells_what_is_wrong_and_does_not_storm(case: str, authority: Authority, counted: Any) -> None:
    async with FakeProxy(tls=authority.server(case)) as proxy:
        front = counted(proxy)
        tls = authority.options(own=case != "no client certificate")
        async with consuming(front.endpoints, "g", "t", tls=tls, **KEYS) as taker:
            await taker.until(
                lambda: "rocketmq.receive.failing" in taker.recorder.names() or taker.source.status.last_error
            )
            checked(f"{taker.source.status.last_error}", case)
            began = time.monotonic()
            await asyncio.sleep(2)
            assert front.accepted <= 8 + 2 * (time.monotonic() - began)
            told = [event.text() for event in taker.recorder.events]
            assert SECRET not in f"{told}{taker.source.status!r}"
        assert proxy.calls == []


async def test_the_consumers_own_connection_tells_the_same(case: str, authority: Authority) -> None:
    tls = authority.options(own=case != "no client certificate")
    files = TlsFiles(tls, ["h2"])
    files.load()
    async with FakeProxy(tls=authority.server(case)) as proxy:
        options = RocketmqOptions(endpoints=proxy.address, tls=tls, **KEYS)
        calls = Calls(proxy.address, options, Credentials(options, "client"), files.fresh)
        request = service.QueryRouteRequest(topic=definition.Resource(name="t")).SerializeToString()
        with pytest.raises(SinkError) as caught:
            await calls.call("QueryRoute", request, lambda _: None, "route of topic 't'", 5.0)
        await calls.close()
    checked(str(caught.value), case)
    assert caught.value.reason in {"tls", "unavailable"}


async def test_the_consumers_next_connection_reads_renewed_files(authority: Authority) -> None:
    """Also while the last refresh is long ago, and past a file that is being written."""
    tls = authority.options()
    files = TlsFiles(tls, ["h2"])
    files.load()
    first = files.fresh()
    assert files.fresh() is first
    authority.cert_file.write_bytes(b"-----BEGIN CERT")
    assert files.fresh() is first
    authority.cert_file.unlink()
    assert files.fresh() is first
    authority.renew()
    assert files.fresh() is not first
    assert files.load(), "gRPC's connections are told of it as well"
    async with FakeProxy(tls=authority.server()) as proxy:
        options = RocketmqOptions(endpoints=proxy.address, tls=tls)
        calls = Calls(proxy.address, options, Credentials(options, "client"), files.fresh)
        got: list[Any] = []
        request = service.QueryRouteRequest(topic=definition.Resource(name="t")).SerializeToString()
        await calls.call("QueryRoute", request, got.extend, "route of topic 't'", 5.0)
        await calls.close()
    assert got
