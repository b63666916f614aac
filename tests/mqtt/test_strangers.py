"""Brokers that refuse: certificates that are wrong, and access control that says no. Source and publisher alike."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from spanbridge.core.tls import TlsOptions
from spanbridge.devstack import FaultProxy
from spanbridge.mqtt import PublisherOptions
from spanbridge.ports import Link

from .conftest import until
from .publishing import Publishing, command

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]

SECRET = "tr0ub4dor-and-3"
LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
CASES = {
    "another authority": ("tls_certificate", "unable to get local issuer certificate"),
    "expired": ("tls_certificate", "certificate has expired"),
    "another host": ("tls_certificate", "mismatch"),
}
REFUSALS = {"not_authorized", "bad_user_name_or_password"}


class Files:
    """An authority's file, rewritten in place when it is renewed."""

    def __init__(self, folder: Path) -> None:
        self.ca_file = folder / "ca.pem"
        self.renew()

    def renew(self) -> None:
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def server(self, case: str = "") -> ssl.SSLContext:
        signed_by = trustme.CA() if case == "another authority" else self.authority
        until = LONG_AGO + dt.timedelta(days=9) if case == "expired" else None
        name = "elsewhere.example" if case == "another host" else "127.0.0.1"
        cert = signed_by.issue_cert(name, not_before=LONG_AGO if until else None, not_after=until)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def in_front_of(broker: Any, context: ssl.SSLContext, port: int = 0) -> AsyncIterator[tuple[int, list[int]]]:
    """TLS before a broker: its port, and one entry for each TCP connection that got through the handshake."""
    through: list[int] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        through.append(1)
        theirs, ours = await asyncio.open_connection(broker.host, broker.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
            except OSError:
                pass
            sink.close()

        await asyncio.gather(pump(reader, ours), pump(theirs, writer))

    server = await asyncio.start_server(carry, "127.0.0.1", port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], through
    finally:
        server.close()


@asynccontextmanager
async def publishing(version: str, host: str, port: int, client_id: str, **options: Any) -> AsyncIterator[Publishing]:
    settings: dict[str, Any] = {"version": version, "backoff_initial": 0.2, "backoff_maximum": 1.0}
    made = Publishing(PublisherOptions(name="p", host=host, port=port, client_id=client_id, **settings | options))
    made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.mark.parametrize("case", CASES)
async def test_a_wrong_certificate_is_told_in_one_line_and_causes_no_storm(
    case: str, version: str, broker: Any, watch: Any, unique: Any, files: Files
) -> None:
    reason, words = CASES[case]
    options: dict[str, Any] = {"tls": TlsOptions(ca_file=str(files.ca_file)), "username": "u", "password": SECRET}
    slow = {"backoff_initial": 0.2, "backoff_maximum": 1.0}
    async with in_front_of(broker, files.server(case)) as (port, through):
        watched = watch("127.0.0.1", port, "t", **options | slow)
        async with publishing(version, "127.0.0.1", port, unique("p"), **options) as publisher:
            began = time.monotonic()
            await asyncio.sleep(2)
            for one, reporter in ((watched.source, watched.reporter), (publisher.publisher, publisher.reporter)):
                failures = reporter.of("mqtt.connect.failed")
                assert 1 <= len(failures) <= 8 + 2 * (time.monotonic() - began), "0.2, 0.4, 0.8, 1 s apart, less jitter"
                text = failures[0].text()
                assert (failures[0].reason, "\n" in text, SECRET in f"{text}{one.status!r}") == (reason, False, False)
                assert words in text
                assert "see tls.ca_file, tls.server_name" in text or "renew" in text
        await watched.stop()
    assert not through


async def test_revoked_in_mid_flight_and_renewed_on_disk(
    version: str, broker: Any, watch: Any, unique: Any, files: Files
) -> None:
    tls = TlsOptions(ca_file=str(files.ca_file))
    async with in_front_of(broker, files.server()) as (port, _):
        watched = watch("127.0.0.1", port, "t", tls=tls)
        await watched.up()
    files_now = files.ca_file.read_bytes()
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("127.0.0.1").configure_cert(context)
    async with in_front_of(broker, context, port):
        async with publishing(version, "127.0.0.1", port, unique("p"), tls=tls) as publisher:
            await publisher.event("mqtt.connect.failed")
            assert publisher.link is not Link.UP
            other.cert_pem.write_to_path(str(files.ca_file))
            assert files.ca_file.read_bytes() != files_now
            await publisher.up()
        await watched.stop()


@pytest.mark.mosquitto
async def test_access_control_says_no(version: str, mqtt_brokers: Any, watch: Any, unique: Any) -> None:
    """To a subscription with a code; to a message with a code in MQTT 5.0, in 3.1.1 not at all."""
    acl = ("user gateway", "topic open/#", "topic spanbridge/ready/#")
    broker = mqtt_brokers(version=version, mqtt="mosquitto", username="gateway", password=SECRET, acl=acl)
    login = {"username": "gateway", "password": SECRET}
    watched = watch(broker.host, broker.port, "open/t", **login)
    await watched.up()
    watched.ack_at_once = True
    async with publishing(version, broker.host, broker.port, unique("p"), **login) as publisher:
        await publisher.up()
        allowed, denied = command("open/t", "1"), command("closed/t", "2")
        publisher.send(allowed, denied)
        await publisher.done([allowed, denied])
        await watched.count(1)
        assert allowed.outcomes == [None]
        if version == "5":
            assert denied.error.reason == "not_authorized"
            assert SECRET not in str(denied.error)
        else:
            assert denied.outcomes == [None]  # a PUBACK like any other (MQTT-3.3.5-2)
        await publisher.up()
    assert watched.payloads == [b"1"]


@pytest.fixture
def mosquitto(version: str, mqtt_brokers: Any) -> Any:
    return mqtt_brokers(version=version, mqtt="mosquitto", username="gateway", password=SECRET)


@pytest.mark.mosquitto
async def test_a_password_changed_in_mid_flight_is_told_and_nothing_is_lost(
    version: str, mosquitto: Any, watch: Any, unique: Any
) -> None:
    login = {"username": "gateway", "password": SECRET}
    kept = {"session_expiry": 600, "clean_start": False} if version == "5" else {"clean_start": False}
    with FaultProxy(mosquitto.host, mosquitto.port) as front:
        watched = watch(front.host, front.port, "t", **login, **kept, backoff_initial=0.2, backoff_maximum=1.0)
        await watched.up()
        watched.ack_at_once = True
        async with publishing(version, front.host, front.port, unique("p"), **login) as publisher:
            await publisher.up()
            both = ((watched.source, watched.reporter), (publisher.publisher, publisher.reporter))
            sent = publisher.send(*(command("t", str(number)) for number in range(50)))
            mosquitto.change_password("another-one")
            sent += publisher.send(*(command("t", str(number)) for number in range(50, 100)))
            began = time.monotonic()
            while not all(reporter.of("mqtt.connect.refused") for _, reporter in both):
                assert time.monotonic() - began < 60, [[event.text() for event in one.events] for _, one in both]
                if any(one.status.link is Link.UP for one, _ in both):
                    front.drop()  # mosquitto 2.0 looks at a password once for each connection
                await asyncio.sleep(0.3)
            await asyncio.sleep(1)
            for one, reporter in both:
                failures = reporter.of("mqtt.connect.refused")
                assert len(failures) <= 8 + 2 * (time.monotonic() - began), "0.2, 0.4, 0.8, 1 s apart, less jitter"
                assert {failure.reason for failure in failures} <= REFUSALS
                assert one.status.link is not Link.UP
            mosquitto.change_password(SECRET)
            await watched.up()
            await publisher.up()
            await publisher.done(sent)
            again = [command("t", one.publish.payload) for one in sent if one.outcomes != [None]]
            await publisher.through(publisher.send(*again))
            await until(lambda: {int(one) for one in watched.payloads} == set(range(100)), "every message")
            for one, reporter in both:
                assert SECRET not in f"{[event.text() for event in reporter.events]}{one.status!r}"
        await watched.stop()
