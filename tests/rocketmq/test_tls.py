"""Certificates: the server's, ours, and files that are none."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import pytest
import trustme

from spanbridge.core.errors import SinkMisconfigured, SinkUnavailable
from spanbridge.core.tls import TlsOptions
from spanbridge.rocketmq.tls import load_context

from .fake_proxy import FakeProxy
from .test_peers import failing, make, sink_to

pytestmark = pytest.mark.anyio


class Files:
    """PEM files of one authority."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = self._write(folder / "ca.pem", self.authority.cert_pem)
        client = self.authority.issue_cert("gateway")
        self.cert = self._write(folder / "client.pem", *client.cert_chain_pems)
        self.key = self._write(folder / "client.key", client.private_key_pem)
        self.other_key = self._write(folder / "other.key", self.authority.issue_cert("x").private_key_pem)
        self.none = str(folder / "none.pem")
        Path(self.none).write_text("not a certificate")

    @staticmethod
    def _write(path: Path, *blobs: trustme.Blob) -> str:
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return str(path)

    def server(self, *, mutual: bool = False) -> grpc.ServerCredentials:
        cert = self.authority.issue_cert("localhost")
        chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
        pairs = [(cert.private_key_pem.bytes(), chain)]
        return grpc.ssl_server_credentials(pairs, self.authority.cert_pem.bytes(), mutual)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_a_client_certificate_opens_what_asks_for_one(files: Files) -> None:
    async with FakeProxy(tls=files.server(mutual=True)) as proxy:
        mine = TlsOptions(ca_file=files.ca, server_name="localhost", cert_file=files.cert, key_file=files.key)
        async with sink_to(proxy, tls=mine) as sink:
            await sink.send("t", *make(sink))
        async with sink_to(proxy, tls=TlsOptions(ca_file=files.ca, server_name="localhost"), attempts=1) as sink:
            assert isinstance(await failing(sink), (SinkUnavailable, SinkMisconfigured))
        assert len(proxy.bodies) == 1


async def test_a_certificate_for_another_name_is_told_as_that(files: Files) -> None:
    async with FakeProxy(tls=files.server()) as proxy, sink_to(proxy, tls=TlsOptions(ca_file=files.ca)) as sink:
        error = await failing(sink)
    assert error.reason == "tls"
    assert "its certificate was issued for another name" in str(error)
    assert "server_name" in str(error)


async def test_the_servers_own_certificate_may_stand_for_its_authority(files: Files, tmp_path: Path) -> None:
    async with FakeProxy(tls=files.server()) as proxy:
        own = tmp_path / "own.pem"
        own.write_text(await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", proxy.port)))
        async with sink_to(proxy, tls=TlsOptions(ca_file=str(own), server_name="localhost")) as sink:
            await sink.send("t", *make(sink))
    assert proxy.bodies == [b"0"]


def test_files_that_cannot_be_used_are_named(files: Files) -> None:
    for tls, named in (
        (TlsOptions(ca_file=files.none), files.none),
        (TlsOptions(ca_file=files.ca, cert_file=files.none, key_file=files.key), files.none),
        (TlsOptions(ca_file=files.ca, cert_file=files.cert, key_file=files.other_key), files.other_key),
    ):
        with pytest.raises(SinkMisconfigured, match="cannot be used") as caught:
            load_context(tls)
        assert named in str(caught.value)
    load_context(TlsOptions(ca_file=files.ca, cert_file=files.cert, key_file=files.key))
