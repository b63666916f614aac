"""Fixtures that put real brokers under tests. Load with ``pytest_plugins = ["spanbridge.devstack.pytest_plugin"]``.

``devstack`` is shared by the whole session and must stay healthy: give every test topics, groups and client ids of its
own (:meth:`SharedStack.topic`, :meth:`SharedStack.group`, :meth:`SharedStack.unique`). To restart or crash a broker,
take one of the disposables: ``mqtt_broker`` (one for each test) or ``rocketmq_broker`` (running, for each test).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.mqtt_setup import Capability, MqttSetup, mosquitto_path
from spanbridge.devstack.progress import for_terminal
from spanbridge.devstack.rocketmq import MessageType, RocketmqBroker
from spanbridge.devstack.stack import Devstack

MqttFactory = Callable[..., MqttBroker]
"""``make(version="5", mqtt=None, **fields of MqttSetup)`` starts one more broker for this test."""

_FORGETS = {"subscriptionExpiredTimeout": "5000"}
"""A broker's exporter shows a group for ten minutes after its last receive. Nothing else is decided by it."""


@dataclass(frozen=True, slots=True)
class SharedStack:
    """The session's brokers, with names that no other test uses."""

    stack: Devstack

    @property
    def rocketmq(self) -> RocketmqBroker:
        """The shared RocketMQ. Do not stop it."""
        return self.stack.rocketmq

    @property
    def mqtt_v5(self) -> MqttBroker:
        """The shared MQTT v5 broker. Do not stop it."""
        return self.stack.mqtt_v5

    @property
    def mqtt_v311(self) -> MqttBroker:
        """The shared MQTT v3.1.1 broker. Do not stop it."""
        return self.stack.mqtt_v311

    def topic(self, message_type: MessageType = "NORMAL", *, queues: int = 4) -> str:
        """A fresh RocketMQ topic."""
        return self.rocketmq.create_topic(None, message_type, queues=queues)

    def group(self, *, fifo: bool = False, max_attempts: int = 16) -> str:
        """A fresh RocketMQ consumer group."""
        return self.rocketmq.create_group(None, fifo=fifo, max_attempts=max_attempts)

    def unique(self, prefix: str = "test") -> str:
        """A name for MQTT topics and client ids: ``prefix-`` and twelve hexadecimal digits."""
        return f"{prefix}-{uuid.uuid4().hex[:12]}"


def requires_mosquitto() -> None:
    """Skip the running test, by name, where there is no mosquitto; marked ``mosquitto``, a test is skipped as well."""
    if mosquitto_path() is None:
        pytest.skip("needs mosquitto (persistent sessions): apt-get install mosquitto")


def requires(broker: MqttBroker, *capabilities: Capability) -> None:
    """Skip the running test, by name, where the broker lacks one of the capabilities."""
    if missing := sorted(set(capabilities) - broker.capabilities):
        pytest.skip(f"needs mosquitto: {broker.kind} lacks {', '.join(missing)}")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, so that other projects may use this plugin with ``--strict-markers``."""
    config.addinivalue_line("markers", "brokers: runs on the real brokers that the devstack starts")
    config.addinivalue_line("markers", "mosquitto: needs a mosquitto with persistence on the PATH")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``mosquitto`` where it is missing."""
    if item.get_closest_marker("mosquitto") is not None:
        requires_mosquitto()


@pytest.fixture(scope="session")
def devstack() -> Iterator[SharedStack]:
    """RocketMQ and MQTT brokers for both versions, started when first asked for and shared by the session."""
    with Devstack.up(progress=for_terminal()) as stack:
        yield SharedStack(stack)


@pytest.fixture(scope="session")
def mqtt_devstack() -> Iterator[SharedStack]:
    """The same without RocketMQ: up in half a second."""
    with Devstack.up(rocketmq=False) as stack:
        yield SharedStack(stack)


@pytest.fixture(scope="session")
def amqtt_broker() -> Iterator[MqttBroker]:
    """A shared MQTT v3.1.1 broker of the kind amqtt: a second implementation, independent of the one used elsewhere."""
    with Devstack.up(rocketmq=False, mqtt_v5=False, mqtt="amqtt") as stack:
        yield stack.mqtt_v311


@pytest.fixture
def mqtt_brokers() -> Iterator[MqttFactory]:
    """Makes MQTT brokers that live as long as the test, e.g. ``mqtt_brokers(version="3.1.1", tls=True)``."""
    stacks: list[Devstack] = []

    def make(version: str = "5", mqtt: str | None = None, **setup: object) -> MqttBroker:
        wanted = MqttSetup(**setup)  # type: ignore[arg-type]
        is_v5 = version == "5"
        stack = Devstack.up(
            rocketmq=False, mqtt_v5=wanted if is_v5 else False, mqtt_v311=False if is_v5 else wanted, mqtt=mqtt
        )
        stacks.append(stack)
        return stack.mqtt_v5 if is_v5 else stack.mqtt_v311

    yield make
    for stack in stacks:
        stack.down()


@pytest.fixture
def mqtt_broker(mqtt_brokers: MqttFactory) -> MqttBroker:
    """One MQTT v5 broker for this test alone: stop it, kill it, freeze it."""
    return mqtt_brokers()


@pytest.fixture(scope="session")
def _disposable_rocketmq() -> Iterator[RocketmqBroker]:
    with Devstack.up(
        mqtt_v5=False, mqtt_v311=False, exporter=True, broker_config=_FORGETS, progress=for_terminal()
    ) as stack:
        yield stack.rocketmq


@pytest.fixture
def rocketmq_broker(_disposable_rocketmq: RocketmqBroker) -> Iterator[RocketmqBroker]:
    """A second RocketMQ, to be stopped, killed and frozen. A start costs seconds, so it is shared: each test finds it
    running, but with the topics and messages of others."""
    if not _disposable_rocketmq.running:
        _disposable_rocketmq.start()
    yield _disposable_rocketmq
    _disposable_rocketmq.resume()
