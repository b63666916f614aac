"""A real MQTT broker on loopback: mosquitto, or rumqttd and amqtt, which come as Python packages."""

from __future__ import annotations

import signal
from pathlib import Path

from spanbridge.devstack.certificates import Certificates
from spanbridge.devstack.errors import DevstackError, ServiceError
from spanbridge.devstack.mqtt_setup import (
    CAPABILITIES,
    PASSWORD_FILE,
    BrokerCommand,
    Capability,
    Kind,
    MqttSetup,
    Version,
    choose_kind,
    password_entry,
)
from spanbridge.devstack.ports import LOOPBACK, PortLease
from spanbridge.devstack.probe import MqttTarget, mqtt_round, until
from spanbridge.devstack.process import KeeperClient, ServerProcess

_START_SECONDS = 15.0


class MqttBroker:
    """One MQTT broker on loopback, and the means to trouble it."""

    host = LOOPBACK

    def __init__(
        self,
        keeper: KeeperClient,
        ports: PortLease,
        directory: Path,
        *,
        version: Version = "5",
        setup: MqttSetup | None = None,
        kind: Kind | None = None,
    ) -> None:
        self.version = version
        self.setup = setup or MqttSetup()
        self.kind: Kind = kind or choose_kind(version=version)
        if (self.kind, version) not in CAPABILITIES:
            raise DevstackError(f"{self.kind} does not speak MQTT {version}", hint="use mosquitto or iotcore")
        if self.setup.client_certificates and not self.can("mutual-tls"):
            raise DevstackError(f"{self.kind} does not check clients' certificates", hint="install mosquitto")
        self.port = ports.take()
        self._directory = directory
        self.certificates: Certificates | None = None
        directory.mkdir(parents=True, exist_ok=True)
        if self.setup.tls or self.setup.client_certificates:
            self.certificates = Certificates.make(directory / "tls")
        command = BrokerCommand(
            version=version, port=self.port, setup=self.setup, certificates=self.certificates, directory=directory
        )
        self._service = ServerProcess(
            keeper=keeper, name=directory.name, argv=command.of(self.kind), directory=directory
        )

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this broker does as MQTT says; see :data:`spanbridge.devstack.mqtt_setup.Capability`."""
        return CAPABILITIES[self.kind, self.version]

    def can(self, *wanted: Capability) -> bool:
        """Whether it has every one of these capabilities."""
        return self.capabilities.issuperset(wanted)

    @property
    def persistent(self) -> bool:
        """Whether sessions and messages outlive :meth:`restart`."""
        return self.can("persistence")

    @property
    def url(self) -> str:
        """``mqtt://`` or ``mqtts://`` with host and port, without credentials."""
        return f"{'mqtts' if self.certificates else 'mqtt'}://{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the broker."""
        return self._service.pid

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._service.running

    @property
    def services(self) -> tuple[ServerProcess, ...]:
        """The process."""
        return (self._service,)

    def launch(self) -> None:
        """Start the process without waiting for it."""
        if not self._service.running:
            self._service.start()

    def wait_ready(self, timeout: float = _START_SECONDS) -> None:
        """Wait until a message has gone round.

        Raises:
            ServiceError: it did not within ``timeout`` seconds; holds the end of the log.
        """
        target = self._target()
        try:
            until(lambda: mqtt_round(target), timeout=timeout, alive=lambda: self._service.running)
        except DevstackError as error:
            raise ServiceError(
                f"{self._service.name} ({self.kind}): {error.message}",
                hint="SPANBRIDGE_MQTT=iotcore, =amqtt or =mosquitto chooses another broker",
                log=self._service.log_tail(),
            ) from error

    def start(self) -> None:
        """Start it on the same port, and wait until it is ready."""
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        """End it the friendly way; a persistent one saves its sessions and messages."""
        self._service.stop()

    def kill(self) -> None:
        """Crash it (SIGKILL). Even a persistent broker loses what came after its last save."""
        self._service.kill()

    def restart(self) -> None:
        """Stop, then start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: the kernel accepts connections, nothing answers."""
        self._service.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._service.resume()

    def save(self) -> None:
        """Have a persistent broker write its sessions and messages to disk: soon, not before this returns."""
        if self.persistent:
            self._service.signal(signal.SIGUSR1)

    def change_password(self, password: str) -> None:
        """Let the user in with another password only, from the next connection on: mosquitto 2.0.11 ends none for it.

        Raises:
            DevstackError: it is another broker, or asks for no password.
        """
        if self.kind != "mosquitto" or self.setup.username is None:
            raise DevstackError("only a mosquitto that asks for a password can change it", hint="give it a username")
        (self._directory / PASSWORD_FILE).write_text(password_entry(self.setup.username, password))
        self._service.signal(signal.SIGHUP)

    def _target(self) -> MqttTarget:
        context = None
        if self.certificates is not None:
            context = self.certificates.client_context(with_certificate=self.setup.client_certificates)
        return MqttTarget(
            host=self.host,
            port=self.port,
            version=self.version,
            username=self.setup.username,
            password=self.setup.password,
            tls=context,
        )
