"""RocketMQ with authorization (ACL 2.0): rights that are missing, come, and are taken away while messages flow."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from spanbridge.app.connect import ask_both_sides
from spanbridge.config import examine_text
from spanbridge.core.events import Event
from spanbridge.core.message import Destination
from spanbridge.devstack import Devstack, RocketmqBroker
from spanbridge.rocketmq import RocketmqOptions
from spanbridge.rocketmq.grpc.producer import GrpcProducer

from .commands import Receiver
from .harness import Device, Gateway, bodies, wait_until

pytestmark = pytest.mark.brokers

MakeGateway = Callable[..., Gateway]
MakeDevice = Callable[..., Device]
MakeReceiver = Callable[..., Receiver]
SUPER, PASSWORD = ("admin", "the-admins-secret"), "tr0ub4dor-and-3"


@pytest.fixture(scope="module")
def strict() -> Iterator[Devstack]:
    """RocketMQ that wants rights; MQTT brokers that do not."""
    with Devstack.up(mqtt_v311=False, credentials=SUPER, authorization=True) as stack:
        yield stack


class Account:
    """A user of RocketMQ for one test, without any right."""

    def __init__(self, stack: Devstack) -> None:
        self.name = f"user-{uuid.uuid4().hex[:8]}"
        self._accounts = stack.rocketmq.accounts
        self._accounts.create(self.name, PASSWORD, {})

    def grant(self, resource: str, *actions: str) -> None:
        self._accounts.grant(self.name, {resource: actions})

    def revoke(self, resource: str) -> None:
        self._accounts.revoke(self.name, resource)

    def change_password(self, password: str) -> None:
        self._accounts.set_password(self.name, password)


def config(stack: Devstack, account: Account, *tables: str) -> str:
    return "\n".join([
        f'name = "gw-{account.name}"',
        f'[mqtt]\nurl = "{stack.mqtt_v5.url}"\nversion = "5"',
        f'[rocketmq]\nendpoints = "{stack.rocketmq.endpoints}"\naccess_key = "{account.name}"',
        f'secret_key = "{PASSWORD}"\nbackoff_maximum = 1',
        *tables,
    ])  # fmt: skip


def route(filter_: str, topic: str) -> str:
    return f'[[routes]]\nfilter = "{filter_}"\ntopic = "{topic}"'


def downlink(topic: str, group: str, mqtt_topic: str) -> str:
    return f'[[downlinks]]\ntopic = "{topic}"\nconsumer_group = "{group}"\nmqtt_topic = "{mqtt_topic}"'


class Deaf:
    def report(self, event: Event) -> None:
        """Nobody looks at what the sender of commands meets."""


def send(broker: RocketmqBroker, topic: str, *commands: bytes) -> None:
    """As the super user."""

    async def sent() -> None:
        options = RocketmqOptions(endpoints=broker.endpoints, access_key=SUPER[0], secret_key=SUPER[1])
        sink = GrpcProducer(options, Deaf())
        await sink.start()
        head = sink.head(Destination(topic))
        await sink.send(topic, head.partition, [head.encode(body, "", (), time.time_ns()) for body in commands])
        await sink.close()

    anyio.run(sent)


def tells_no_secret(gateway: Gateway) -> None:
    pages = "".join(gateway.text(path) for path in ("/", "/status", "/metrics"))
    told = f"{gateway.log}{pages}{gateway.get('/readyz')}"
    assert PASSWORD not in told
    assert SUPER[1] not in told
    assert "Traceback" not in gateway.log


def is_subscribed(gateway: Gateway) -> bool:
    (source,) = gateway.status["mqtt"]
    return bool(source["subscriptions"]) and all(one["granted_qos"] == 1 for one in source["subscriptions"])


def test_the_right_to_publish_is_missing_then_given_then_taken_then_given_back(
    strict: Devstack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    rocketmq, account, base = strict.rocketmq, Account(strict), uuid.uuid4().hex[:8]
    good, bad = (rocketmq.create_topic(queues=1) for _ in range(2))
    account.grant(f"Topic:{good}", "Pub")
    gateway = gateways(config(strict, account, route(f"{base}/good", good), route(f"{base}/bad", bad)))
    gateway.start(ready=False)
    device = devices(strict.mqtt_v5.host, strict.mqtt_v5.port)

    def publish(kind: str, *names: str) -> None:
        for name in names:
            device.publish(f"{base}/{kind}", name)

    def arrived(topic: str, *names: str) -> None:
        wait_until(lambda: set(names) <= set(bodies(rocketmq, topic, 1)), f"{names} in {topic}", gateway=gateway)

    def told(*words: str) -> None:
        wait_until(lambda: all(word in gateway.log for word in words), f"a line with {words}", gateway=gateway)

    wait_until(lambda: is_subscribed(gateway), "the subscriptions", gateway=gateway)
    publish("bad", "b-1")
    told(f"Topic:{bad}", "The account needs PUB on the topic")
    publish("good", "g-1", "g-2")
    arrived(good, "g-1", "g-2")  # the others go on
    assert "needs PUB" in str(gateway.get("/readyz")[1])

    account.grant(f"Topic:{bad}", "Pub")
    arrived(bad, "b-1")
    wait_until(gateway.is_ready, "it to be ready", gateway=gateway)

    numbered = [f"n-{number}" for number in range(120)]
    stream = device.stream(f"{base}/good", len(numbered), rate=40, prefix="n")
    arrived(good, "n-5")
    account.revoke(f"Topic:{good}")
    told(f"Topic:{good}")
    publish("bad", "b-2")
    arrived(bad, "b-2")
    account.grant(f"Topic:{good}", "Pub")
    stream.join()
    arrived(good, *numbered)

    account.change_password("another-one")
    publish("good", "p-1", "p-2")
    told("check signature failed")
    account.change_password(PASSWORD)
    arrived(good, "p-1", "p-2")
    wait_until(gateway.is_ready, "it to be ready", gateway=gateway)
    assert sorted(bodies(rocketmq, good, 1)) == sorted(["g-1", "g-2", *numbered, "p-1", "p-2"])
    assert sorted(bodies(rocketmq, bad, 1)) == ["b-1", "b-2"]
    tells_no_secret(gateway)


def test_the_right_to_receive_is_given_in_parts_then_taken_then_given_back(
    strict: Devstack, gateways: MakeGateway, receivers: MakeReceiver
) -> None:
    rocketmq, account, base = strict.rocketmq, Account(strict), uuid.uuid4().hex[:8]
    topic, group = rocketmq.create_topic(queues=1), rocketmq.create_group()
    lag = f'[lag]\nname_servers = "{rocketmq.namesrv}"\nperiod = 1'
    gateway = gateways(config(strict, account, downlink(topic, group, f"{base}/down"), lag))
    gateway.start(ready=False)
    device = receivers(strict.mqtt_v5, f"{base}/#")

    def shown(*words: str) -> None:
        """On /readyz: of a cause that follows another, the log tells within a minute."""
        wait_until(lambda: all(word in str(gateway.get("/readyz")) for word in words), f"{words}", gateway=gateway)

    def arrived(*names: str) -> None:
        found = {one.body for one in list(device.arrived)}
        wait_until(lambda: set(names) <= {one.body for one in list(device.arrived)}, f"{names}, not {found}",
                   timeout=120, gateway=gateway)  # fmt: skip

    def last_lag_error() -> str:
        return str(gateway.status["services"]["lag"]["last_error"])

    shown(f"Group:{group}", "The account needs SUB on the consumer group")
    wait_until(lambda: "needs GET on the topic" in last_lag_error(), "the lag's error", gateway=gateway)
    account.grant(f"Group:{group}", "Sub")
    shown(f"Topic:{topic}", "The account needs SUB on the topic")
    account.grant(f"Topic:{topic}", "Sub")
    send(rocketmq, topic, b"1", b"2")
    arrived("1", "2")
    wait_until(gateway.is_ready, "it to be ready", gateway=gateway)

    account.revoke(f"Group:{group}")
    send(rocketmq, topic, b"3", b"4")
    shown(f"Group:{group}", "The account needs SUB on the consumer group")
    account.grant(f"Group:{group}", "Sub")
    send(rocketmq, topic, b"5")
    arrived("1", "2", "3", "4", "5")

    account.grant(f"Topic:{topic}", "Sub", "Get")
    account.grant(f"Group:{group}", "Sub", "Get")
    wait_until(lambda: last_lag_error() == "None", "the lag to be read", gateway=gateway)
    tells_no_secret(gateway)


def test_check_tells_each_right_that_is_missing(strict: Devstack) -> None:
    rocketmq, account = strict.rocketmq, Account(strict)
    may, reads, nothing, down = (rocketmq.create_topic(queues=1) for _ in range(4))
    group = rocketmq.create_group()
    for topic, action in ((may, "Pub"), (reads, "Sub"), (down, "Sub")):
        account.grant(f"Topic:{topic}", action)
    tables = [route(f"check/{topic}", topic) for topic in (may, reads, nothing)]
    lag = f'[lag]\nname_servers = "{rocketmq.namesrv}"'
    report = examine_text(config(strict, account, *tables, downlink(down, group, "d"), lag), {}, base=Path())
    assert report.config is not None, [problem.text() for problem in report.problems]
    findings = ask_both_sides(report.config)
    found: dict[str, Any] = {finding.subject: (finding.state, finding.text) for finding in findings}
    assert found[f"topic {may}"][0] == "ok"
    for topic in (reads, nothing):
        state, text = found[f"topic {topic}"]
        assert (state, f"Topic:{topic}" in text, "needs PUB on the topic" in text) == ("failed", True, True), text
    state, text = found[f"consumer group {group}"]
    assert (state, f"Group:{group}" in text, "needs SUB on the consumer group" in text) == ("failed", True, True), text
    state, text = found["lag"]
    assert (state, "needs GET on" in text) == ("warning", True), text
    assert PASSWORD not in f"{findings}"
