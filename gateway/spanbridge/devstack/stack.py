"""The devstack: one object for a whole set of real brokers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from spanbridge.devstack.errors import DevstackError
from spanbridge.devstack.jars import DEFAULT_VERSION
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.mqtt_setup import MqttSetup, Version, choose_kind
from spanbridge.devstack.ports import PortLease
from spanbridge.devstack.process import KeeperClient, ServerProcess
from spanbridge.devstack.progress import Progress, silent
from spanbridge.devstack.rocketmq import RocketmqBroker
from spanbridge.devstack.rocketmq_setup import RocketmqSetup


class Devstack:
    """Real brokers on free loopback ports, which end with this process however it ends.

    Make one with :meth:`up`; it is a context manager. Parts that were not asked for are ``None`` behind the property of
    the same name, which then raises :class:`DevstackError`.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="spanbridge-devstack-"))
        self._ports = PortLease()
        self._keeper = KeeperClient(self.directory)
        self._rocketmq: RocketmqBroker | None = None
        self._mqtt: dict[Version, MqttBroker] = {}

    @classmethod
    def up(
        cls,
        *,
        rocketmq: bool = True,
        mqtt_v5: bool | MqttSetup = True,
        mqtt_v311: bool | MqttSetup = True,
        mqtt: str | None = None,
        heap_mb: int = 512,
        broker_config: Mapping[str, str] | None = None,
        proxy_config: Mapping[str, object] | None = None,
        credentials: tuple[str, str] | None = None,
        authorization: bool = False,
        cluster_mode: bool = False,
        full_speed: bool = False,
        exporter: bool = False,
        rocketmq_version: str = DEFAULT_VERSION,
        progress: Progress = silent,
    ) -> Devstack:
        """Start the parts asked for, all at once, and wait until a message has gone round in each.

        Args:
            rocketmq: start RocketMQ (about 7 s; the first time on a machine it downloads about 100 MB).
            mqtt_v5: start an MQTT v5 broker; a :class:`MqttSetup` says what it is to demand.
            mqtt_v311: the same for MQTT v3.1.1. Where both are mosquitto with the same setup, they are the same broker.
            mqtt: ``mosquitto``, ``iotcore``, ``amqtt`` or ``auto``; by default what ``SPANBRIDGE_MQTT`` says.
            heap_mb: Java heap of RocketMQ, MiB.
            broker_config: further settings of RocketMQ's broker (``broker.conf``).
            proxy_config: further settings of RocketMQ's proxy (``rmq-proxy.json``).
            credentials: access key and secret key that RocketMQ's proxy is to ask for, on 4.x the broker (ACL 1.0, six
                characters each at least); without, everybody may connect.
            authorization: want rights as well (ACL 2.0) of all but the user of ``credentials``, at proxy and broker;
                :attr:`RocketmqBroker.accounts` makes users.
            cluster_mode: run RocketMQ's broker and its proxy in a process each, as large installations do, not in one.
            full_speed: let the JVM optimise what runs often, for measurements. Without, it is ready for less CPU.
            exporter: let RocketMQ's broker export its own metrics for Prometheus, on loopback.
            rocketmq_version: one of :data:`~spanbridge.devstack.rocketmq_setup.VERSIONS`. 4.x has no proxy, so none of
                the settings that concern it; :attr:`RocketmqBroker.endpoints` is then the name server's.
            progress: how to show a download; see :mod:`spanbridge.devstack.progress`.

        Raises:
            DownloadError: RocketMQ's jars could not be fetched.
            ServiceError: a broker did not become ready; the error holds the end of its log.
        """
        stack = cls()
        try:
            stack._add_mqtt({"5": mqtt_v5, "3.1.1": mqtt_v311}, mqtt)
            for broker in stack._brokers:
                broker.launch()
            if rocketmq:
                setup = RocketmqSetup(
                    version=rocketmq_version,
                    heap_mb=heap_mb,
                    broker_config=broker_config or {},
                    proxy_config=proxy_config or {},
                    credentials=credentials,
                    authorization=authorization,
                    cluster_mode=cluster_mode,
                    full_speed=full_speed,
                    exporter=exporter,
                )
                directory = stack.directory / "rocketmq"
                stack._rocketmq = RocketmqBroker(stack._keeper, stack._ports, directory, setup, progress=progress)
                stack._rocketmq.launch()
            for broker in stack._brokers:
                broker.wait_ready()
        except BaseException:
            stack.down()
            raise
        return stack

    @property
    def rocketmq(self) -> RocketmqBroker:
        """RocketMQ; raises :class:`DevstackError` when the stack was started without."""
        if self._rocketmq is None:
            raise DevstackError("this stack has no RocketMQ", hint="start it with rocketmq=True")
        return self._rocketmq

    @property
    def rocketmq_or_none(self) -> RocketmqBroker | None:
        """RocketMQ, or ``None`` when the stack was started without."""
        return self._rocketmq

    @property
    def mqtt_brokers(self) -> Mapping[Version, MqttBroker]:
        """The MQTT brokers by the version that they are for; one broker may be there for both."""
        return self._mqtt

    @property
    def mqtt_v5(self) -> MqttBroker:
        """The broker for MQTT v5; raises :class:`DevstackError` when the stack was started without."""
        return self._mqtt_of("5")

    @property
    def mqtt_v311(self) -> MqttBroker:
        """The broker for MQTT v3.1.1; raises :class:`DevstackError` when the stack was started without."""
        return self._mqtt_of("3.1.1")

    @property
    def keeper_pid(self) -> int:
        """Process id of the process that owns the brokers."""
        return self._keeper.pid

    @property
    def services(self) -> list[ServerProcess]:
        """Every process of the stack."""
        return [service for broker in self._brokers for service in broker.services]

    def env(self) -> dict[str, str]:
        """Settings of a gateway between these brokers, as the environment variables that override them.

        They fit the file that ``spanbridge init`` writes, which has one MQTT broker in a table ``[mqtt]``. That is the
        one for v5 where this stack has two.
        """
        values: dict[str, str] = {}
        if self._rocketmq is not None:
            values["SPANBRIDGE__ROCKETMQ__ENDPOINTS"] = self._rocketmq.endpoints
            if not self._rocketmq.setup.has_proxy:
                values["SPANBRIDGE__ROCKETMQ__PROTOCOL"] = "remoting"
        version: Version = "5" if "5" in self._mqtt else "3.1.1"
        if broker := self._mqtt.get(version):
            values |= {"SPANBRIDGE__MQTT__URL": broker.url, "SPANBRIDGE__MQTT__VERSION": version}
        return values

    def down(self) -> None:
        """End every process and remove every file of the stack. Idempotent."""
        self._keeper.close()
        shutil.rmtree(self.directory, ignore_errors=True)  # the keeper's work, if it has not been killed
        self._ports.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def _brokers(self) -> list[MqttBroker | RocketmqBroker]:
        mqtt: list[MqttBroker | RocketmqBroker] = list(dict.fromkeys(self._mqtt.values()))
        return mqtt if self._rocketmq is None else [*mqtt, self._rocketmq]

    def _mqtt_of(self, version: Version) -> MqttBroker:
        try:
            return self._mqtt[version]
        except KeyError:
            name = "mqtt_v5" if version == "5" else "mqtt_v311"
            raise DevstackError(f"this stack has no {name}", hint=f"start it with {name}=True") from None

    def _add_mqtt(self, wanted: Mapping[Version, bool | MqttSetup], mqtt: str | None) -> None:
        for version, setup in wanted.items():
            if setup is not False:
                self._mqtt[version] = self._mqtt_for(version, MqttSetup() if setup is True else setup, mqtt)

    def _mqtt_for(self, version: Version, setup: MqttSetup, mqtt: str | None) -> MqttBroker:
        kind = choose_kind(mqtt, version)
        for other in self._mqtt.values():
            if kind == other.kind == "mosquitto" and other.setup == setup:
                return other  # it speaks both versions on one port
        directory = self.directory / f"mqtt-v{version.replace('.', '')}"
        return MqttBroker(self._keeper, self._ports, directory, version=version, setup=setup, kind=kind)
