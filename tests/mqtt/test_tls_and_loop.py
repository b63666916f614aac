"""TLS, mutual TLS, and that nothing blocks the event loop."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from spanbridge.core.errors import SourceError
from spanbridge.core.tls import TlsOptions
from spanbridge.devstack import FaultProxy
from spanbridge.mqtt import MqttOptions, Subscription, WillMessage, create_source
from spanbridge.ports import Link

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


@pytest.fixture
def secured(version: str, mqtt_brokers: Any) -> Any:
    return mqtt_brokers(version=version, mqtt=None, tls=True)


async def test_tls_with_the_right_authority(secured: Any, watch: Any) -> None:
    made = secured.certificates
    watched = watch(secured.host, secured.port, "t", tls=TlsOptions(ca_file=str(made.ca_file)))
    await watched.up()


async def test_tls_with_an_authority_that_is_not_trusted(secured: Any, watch: Any) -> None:
    watched = watch(secured.host, secured.port, "t", tls=TlsOptions())
    event = await watched.event("mqtt.connect.failed")
    assert event.reason == "tls_certificate"
    assert "TLS with 127.0.0.1" in event.text()
    unchecked = watch(secured.host, secured.port, "t", tls=TlsOptions(verify=False))
    await unchecked.up()


async def test_tls_with_another_name(secured: Any, watch: Any) -> None:
    made = secured.certificates
    tls = TlsOptions(ca_file=str(made.ca_file), server_name="broker.example")
    watched = watch(secured.host, secured.port, "t", tls=tls)
    event = await watched.event("mqtt.connect.failed")
    assert event.reason == "tls_certificate"
    assert "broker.example" in event.text()


@pytest.mark.mosquitto
async def test_mutual_tls(version: str, mqtt_brokers: Any, watch: Any) -> None:
    mutual = mqtt_brokers(version=version, mqtt="mosquitto", tls=True, client_certificates=True)
    made = mutual.certificates
    own = TlsOptions(ca_file=str(made.ca_file), cert_file=str(made.client_cert), key_file=str(made.client_key))
    with_one = watch(mutual.host, mutual.port, "t", tls=own)
    without = watch(mutual.host, mutual.port, "t", tls=TlsOptions(ca_file=str(made.ca_file)))
    await with_one.up()
    event = await without.event("mqtt.connect.failed")
    assert event.reason == "tls"
    assert "ended TLS: " in event.text()
    assert "certificate required; see tls.cert_file, tls.key_file" in event.text()


async def test_plain_mqtt_to_a_tls_port_and_back(secured: Any, broker: Any, watch: Any) -> None:
    plain = watch(secured.host, secured.port, "t", connect_timeout=1.0)
    wrapped = watch(broker.host, broker.port, "t", tls=TlsOptions(verify=False), connect_timeout=1.0)
    await plain.event("mqtt.connect.failed")
    event = await wrapped.event("mqtt.connect.failed")
    assert event.reason in {"tls", "connection_reset", "timeout"}


@pytest.fixture
def detector() -> Iterator[BlockBuster]:
    """Any call that blocks the event loop raises."""
    with blockbuster_ctx() as found:
        yield found


async def test_nothing_blocks_the_event_loop(
    secured: Any, broker: Any, watch: Any, publish: Any, unique: Any, detector: BlockBuster
) -> None:
    topic = unique("t")
    tls = TlsOptions(ca_file=str(secured.certificates.ca_file))
    encrypted = watch(secured.host, secured.port, topic, tls=tls)
    plain = watch("localhost", broker.port, topic)
    nobody = watch("no-such-host.invalid", 1883)
    plain.ack_at_once = True
    await encrypted.up()
    await plain.up()
    await publish([(topic, str(n).encode(), 1) for n in range(20)])
    await plain.count(20)
    assert (await nobody.event("mqtt.connect.failed")).reason == "name_resolution"
    await encrypted.stop()
    await plain.stop()
    with pytest.raises(Exception, match="Blocking call"):
        time.sleep(0.001)  # noqa: ASYNC251 - the detector does detect


def options(**fields: Any) -> MqttOptions:
    return MqttOptions(**({"name": "n", "host": "127.0.0.1", "client_id": "c"} | fields))


class Nowhere:
    def report(self, event: object) -> None:
        raise AssertionError(event)


BAD = [
    (options(tls=TlsOptions(ca_file="/no/such/ca.pem")), "tls.ca_file '/no/such/ca.pem': No such file or directory"),
    (options(tls=TlsOptions(ca_file=__file__)), "no certificate or crl found"),
    (options(tls=TlsOptions(cert_file="/no/c.pem", key_file="/no/k.pem")), "tls.cert_file '/no/c.pem'"),
    (options(tls=TlsOptions(key_file="/no/k.pem")), "tls.key_file is set without tls.cert_file"),
    (options(version="3.1.1", client_id=""), "client_id is empty"),
    (options(receive_maximum=0), "receive_maximum is 0, allowed are 1 to 65535"),
    (options(subscriptions=(Subscription(filter="a/#/b"),)), "a/#/b"),
    (options(version="3.1.1", subscriptions=(Subscription(filter="a+"),)), "a+"),
    (options(subscriptions=(Subscription(filter=""),)), "not a topic filter"),
    (options(subscriptions=(Subscription(filter="a", share="x/y"),)), "not a topic filter"),
    (options(subscriptions=(Subscription(filter="a", share="x\0"),)), "not a topic filter"),
    (options(version="3.1.1", subscriptions=(Subscription(filter="a" * 65_530, share="x"),)), "not a topic filter"),
    (options(subscriptions=(Subscription(filter="a", qos=3),)), "qos and retain_handling are 0, 1 or 2"),
    (options(version="3.1.1", will=WillMessage(topic="a/#")), "n: "),
    (options(host="a..b"), "n: host 'a..b' is no host name"),
    (options(tls=TlsOptions(server_name=".example")), "n: tls.server_name '.example' is no host name"),
    (options(version="3.1.1", client_id="a\0b"), "n: client_id contains a NUL"),
    (options(version="3.1.1", username="u" * 65_536), "n: username has 65536 bytes, allowed are 65535"),
    (options(version="3.1.1", username="u", password="p" * 65_536), "n: password has 65536 bytes"),
    (options(version="3.1.1", will=WillMessage(topic="a", payload=bytes(65_536))), "n: will payload has 65536 bytes"),
]


@pytest.mark.parametrize(("bad", "text"), BAD)
def test_what_cannot_work_is_said_at_once(bad: MqttOptions, text: str) -> None:
    with pytest.raises(SourceError) as caught:
        create_source(bad, Nowhere())
    assert text in str(caught.value)
    assert caught.value.reason in {"config", "tls_config"}


def test_no_secret_shows() -> None:
    made = options(username="u", password="hunter2", tls=TlsOptions(key_password="hunter3"))
    shown = f"{made!r}{made}{create_source(made, Nowhere()).status}"
    assert "hunter" not in shown


async def test_the_socket_is_closed_when_tls_never_answers(watch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watched = watch(*listener.getsockname(), "t", tls=TlsOptions(), connect_timeout=0.2)
        event = await watched.event("mqtt.connect.failed")
        assert event.reason == "timeout"
        await watched.stop()


async def test_renewed_files_are_taken_up_by_the_next_connection(secured: Any, watch: Any, tmp_path: Path) -> None:
    """Certificates are renewed while the gateway runs; a file that is being written is read again."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(secured.certificates.ca_file.read_bytes())
    with FaultProxy(secured.host, secured.port) as proxy:
        watched = watch(proxy.host, proxy.port, "t", tls=TlsOptions(ca_file=str(ca_file)))
        await watched.up()
        ca_file.write_bytes(b"-----BEGIN CERT")
        await anyio.to_thread.run_sync(proxy.drop)
        event = await watched.event("mqtt.connect.failed")
        assert event.reason == "tls_config"
        assert f"tls.ca_file {str(ca_file)!r}" in event.text()
        ca_file.write_bytes(secured.certificates.ca_file.read_bytes())
        await watched.event("mqtt.connected", 2)
        await watched.stop()


async def test_what_is_nacked_without_a_session_is_lost_and_said_to_be(
    version: str, broker: Any, watch: Any, publish: Any, unique: Any
) -> None:
    """A new connection would only lose the others as well."""
    lasting = {"clean_start": True} if version == "3.1.1" else {"session_expiry": 0}
    topic = unique("t")
    watched = watch(broker.host, broker.port, topic, **lasting)
    await watched.up()
    await publish([(topic, b"1", 1)])
    await watched.count(1)
    watched.source.nack(watched.deliveries, "no room")
    (event,) = watched.reporter.of("messages.lost")
    assert (event.count, event.cause) == (1, "no room")
    assert (watched.source.unacked, watched.source.held, watched.detail["in_flight"]) == (0, 0, 0)
    assert watched.link is Link.UP
    watched.ack_at_once = True
    await publish([(topic, b"2", 1)])
    await watched.count(2)
    assert watched.payloads == [b"1", b"2"]
    await watched.stop()
