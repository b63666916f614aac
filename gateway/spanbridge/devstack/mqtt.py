"""Real MQTT brokers: mosquitto when it is on the PATH, else the rumqttd inside the Python package iotcore."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spanbridge.devstack.certificates import Certificates
from spanbridge.devstack.errors import DevstackError, ServiceError
from spanbridge.devstack.ports import LOOPBACK, PortLease
from spanbridge.devstack.probe import MqttTarget, mqtt_round, until
from spanbridge.devstack.process import KeeperClient, Service

Version = Literal["5", "3.1.1"]
Kind = Literal["mosquitto", "rumqttd"]

_START_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSetup:
    """What a broker is to demand and to keep.

    Attributes:
        username: ask for this name and ``password``; without it everybody may connect.
        tls: serve TLS with a certificate for localhost and 127.0.0.1 from an authority made on the fly.
        client_certificates: demand a certificate of that authority from clients as well (mutual TLS).
        max_packet_size: the largest packet accepted, in bytes.
        max_inflight: QoS 1 and 2 messages on the way to one client.
        autosave: seconds between two saves of sessions and messages; ``stop`` always saves them (mosquitto only).
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    client_certificates: bool = False
    max_packet_size: int = 16 * 1024 * 1024
    max_inflight: int = 1000
    autosave: int = 30


def mosquitto_path() -> str | None:
    """Where mosquitto is, also when its directory (``/usr/sbin`` on Debian) is not on this user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def choose_kind(wanted: str | None = None) -> Kind:
    """Which broker to run.

    Args:
        wanted: ``mosquitto``, ``iotcore`` (rumqttd) or ``auto``; by default what ``SPANBRIDGE_MQTT`` says.

    Raises:
        DevstackError: the one that is wanted is not there, or there is none of that name.
    """
    wanted = wanted or os.environ.get("SPANBRIDGE_MQTT") or "auto"
    if wanted not in ("mosquitto", "iotcore", "auto"):
        raise DevstackError(f"SPANBRIDGE_MQTT is {wanted!r}", hint="use mosquitto, iotcore or auto")
    if wanted != "iotcore" and mosquitto_path():
        return "mosquitto"
    if wanted == "mosquitto":
        raise DevstackError("mosquitto is not on the PATH", hint="apt-get install mosquitto, or brew install mosquitto")
    return "rumqttd"


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
        self.kind: Kind = kind or choose_kind()
        self.port = ports.take()
        self.certificates: Certificates | None = None
        if self.setup.client_certificates and self.kind == "rumqttd":
            raise DevstackError("rumqttd does not check clients' certificates", hint="install mosquitto for mutual TLS")
        directory.mkdir(parents=True, exist_ok=True)
        if self.setup.tls or self.setup.client_certificates:
            self.certificates = Certificates.make(directory / "tls")
        self._directory = directory
        self._service = Service(keeper=keeper, name=directory.name, argv=self._command(), directory=directory)

    @property
    def persistent(self) -> bool:
        """Whether sessions and messages outlive :meth:`restart`."""
        return self.kind == "mosquitto"

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
    def services(self) -> tuple[Service, ...]:
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
                hint="SPANBRIDGE_MQTT=iotcore or =mosquitto chooses the other broker",
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

    def _command(self) -> list[str]:
        if self.kind == "mosquitto":
            config = self._write("mosquitto.conf", self._mosquitto_config())
            return [mosquitto_path() or "mosquitto", "-c", config]
        config = self._write("rumqttd.toml", self._rumqttd_config())
        return [sys.executable, "-P", "-m", "spanbridge.devstack.rumqttd", config]

    def _write(self, name: str, content: str) -> str:
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_text(content)
        return str(path)

    def _mosquitto_config(self) -> str:
        setup = self.setup
        lines = [
            f"listener {self.port} {self.host}",
            "persistence true",
            f"persistence_location {self._directory}/",
            f"autosave_interval {setup.autosave}",
            f"max_inflight_messages {setup.max_inflight}",
            "max_queued_messages 0",
            f"max_packet_size {setup.max_packet_size}",
            "set_tcp_nodelay true",
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # else it gives up the rights to its own data directory
        if setup.username is None:
            lines.append("allow_anonymous true")
        else:
            entry = f"{setup.username}:{_mosquitto_hash(setup.password or '')}\n"
            lines += ["allow_anonymous false", f"password_file {self._write('passwords', entry)}"]
        if made := self.certificates:
            lines += [f"certfile {made.server_cert}", f"keyfile {made.server_key}", f"cafile {made.ca_file}"]
            lines.append(f"require_certificate {str(setup.client_certificates).lower()}")
        return "\n".join(lines) + "\n"

    def _rumqttd_config(self) -> str:
        name = "v5" if self.version == "5" else "v4"
        lines = [
            "id = 0",
            "[router]",
            "id = 0",
            "max_connections = 1000",
            "max_outgoing_packet_count = 200",
            "max_segment_size = 104857600",
            "max_segment_count = 10",
            f"[{name}.1]",
            f'name = "{name}-1"',
            f'listen = "{self.host}:{self.port}"',
            "next_connection_delay_ms = 1",
            f"[{name}.1.connections]",
            "connection_timeout_ms = 60000",
            f"max_payload_size = {self.setup.max_packet_size}",
            f"max_inflight_count = {self.setup.max_inflight}",
            "dynamic_filters = true",
        ]
        if self.setup.username is not None:
            user, password = json.dumps(self.setup.username), json.dumps(self.setup.password or "")
            lines += [f"[{name}.1.connections.auth]", f"{user} = {password}"]
        if made := self.certificates:
            lines += [f"[{name}.1.tls]", f'certpath = "{made.server_cert}"', f'keypath = "{made.server_key}"']
        return "\n".join(lines) + "\n"


def _mosquitto_hash(password: str) -> str:
    """An entry of mosquitto's password file: PBKDF2 with SHA-512, 101 rounds (mosquitto_passwd(1))."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
