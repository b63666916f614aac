"""Which MQTT brokers there are, what each can do, and how each is configured."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spanbridge.devstack.certificates import Certificates
from spanbridge.devstack.errors import DevstackError
from spanbridge.devstack.ports import LOOPBACK

PASSWORD_FILE = "passwords"  # noqa: S105 - a name
"""Of mosquitto, in its directory."""
Version = Literal["5", "3.1.1"]
Kind = Literal["mosquitto", "rumqttd", "amqtt"]
Capability = Literal[
    "persistence",
    "sessions",
    "redelivery",
    "duplicate-flag",
    "slow-acknowledgement",
    "published-qos",
    "retained",
    "shared-subscriptions",
    "subscription-options",
    "message-expiry",
    "receive-maximum",
    "mutual-tls",
    "refusal-reason",
]
"""What a test may ask of a broker, see ``docs/devstack.md``:

- ``persistence``: sessions and messages outlive a restart of the broker;
- ``sessions``: messages are queued for a client that is away;
- ``redelivery``: unacknowledged messages are sent again on the next connection;
- ``duplicate-flag``: and then have DUP set, QoS 2 ones as well;
- ``slow-acknowledgement``: an acknowledgement may take as long as it likes;
- ``published-qos``: a message is delivered with the lower of its own and the granted QoS;
- ``retained``: a retained message goes to whom it matches, once for each subscription;
- ``shared-subscriptions``: ``$share`` (MQTT v5, section 4.8.2);
- ``subscription-options``: No Local, Retain As Published, Retain Handling (section 3.8.3.1);
- ``message-expiry``, ``receive-maximum``: sections 3.3.2.3.3 and 3.1.2.11.3;
- ``mutual-tls``: clients' certificates are checked;
- ``refusal-reason``: a wrong password is refused with a CONNACK, not by closing the connection.
"""

_V311: frozenset[Capability] = frozenset(
    (
        "persistence",
        "sessions",
        "redelivery",
        "duplicate-flag",
        "slow-acknowledgement",
        "published-qos",
        "retained",
        "shared-subscriptions",
        "mutual-tls",
        "refusal-reason",
    )
)
_RUMQTTD = _V311 - {"persistence", "duplicate-flag", "published-qos", "mutual-tls", "refusal-reason"}
CAPABILITIES: dict[tuple[Kind, Version], frozenset[Capability]] = {
    ("mosquitto", "3.1.1"): _V311,
    ("mosquitto", "5"): _V311 | {"subscription-options", "message-expiry", "receive-maximum"},
    ("rumqttd", "3.1.1"): _RUMQTTD,
    ("rumqttd", "5"): _RUMQTTD,
    ("amqtt", "3.1.1"): frozenset(("sessions", "refusal-reason")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSetup:
    """What a broker is to demand and to keep.

    Attributes:
        username: ask for this name and ``password``; without it everybody may connect.
        tls: serve TLS with a certificate for localhost and 127.0.0.1 from an authority made on the fly.
        client_certificates: demand a certificate of that authority from clients as well (mutual TLS).
        max_packet_size: the largest packet accepted, in bytes (amqtt has no limit).
        max_inflight: QoS 1 and 2 messages on the way to one client (amqtt has no limit).
        autosave: seconds between two saves of sessions and messages; ``stop`` always saves them (mosquitto only).
        acl: lines of an access control list; without any, all topics are open to all (mosquitto only).
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    client_certificates: bool = False
    max_packet_size: int = 16 * 1024 * 1024
    max_inflight: int = 1000
    autosave: int = 30
    acl: tuple[str, ...] = ()


def mosquitto_path() -> str | None:
    """Where mosquitto is, also when its directory (``/usr/sbin`` on Debian) is not on this user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def choice(*, without_mosquitto: str) -> str:
    """What ``SPANBRIDGE_MQTT`` says; else ``auto``, or ``without_mosquitto`` where mosquitto is missing."""
    named = os.environ.get("SPANBRIDGE_MQTT", "auto") or "auto"
    return without_mosquitto if named == "auto" and mosquitto_path() is None else named


def choose_kind(wanted: str | None = None, version: Version = "5") -> Kind:
    """Which broker to run.

    Args:
        wanted: ``mosquitto``; ``iotcore`` (rumqttd); ``amqtt`` (for v3.1.1, with rumqttd for v5); or ``auto``
            (mosquitto, else rumqttd). By default what ``SPANBRIDGE_MQTT`` says.
        version: the MQTT version that clients will speak.

    Raises:
        DevstackError: the one that is wanted is not there, or there is none of that name.
    """
    wanted = wanted or choice(without_mosquitto="auto")
    if wanted not in ("mosquitto", "iotcore", "amqtt", "auto"):
        raise DevstackError(f"SPANBRIDGE_MQTT is {wanted!r}", hint="use mosquitto, iotcore, amqtt or auto")
    if wanted in ("mosquitto", "auto") and mosquitto_path():
        return "mosquitto"
    if wanted == "mosquitto":
        raise DevstackError("mosquitto is not on the PATH", hint="apt-get install mosquitto, or brew install mosquitto")
    return "amqtt" if wanted == "amqtt" and version == "3.1.1" else "rumqttd"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerCommand:
    """Writes a broker's configuration into ``directory`` and makes the command that starts it."""

    version: Version
    port: int
    setup: MqttSetup
    certificates: Certificates | None
    directory: Path

    def of(self, kind: Kind) -> list[str]:
        """The command for this kind of broker."""
        if kind == "mosquitto":
            return [mosquitto_path() or "mosquitto", "-c", self._write("mosquitto.conf", self._mosquitto())]
        if kind == "rumqttd":
            return _python("rumqttd", self._write("rumqttd.toml", self._rumqttd()))
        return _python("amqttd", self._write("amqtt.json", json.dumps(self._amqtt(), indent=2)))

    def _write(self, name: str, content: str) -> str:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(content)
        return str(path)

    def _mosquitto(self) -> str:
        setup = self.setup
        lines = [
            f"listener {self.port} {LOOPBACK}",
            "persistence true",
            f"persistence_location {self.directory}/",
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
            entry = password_entry(setup.username, setup.password or "")
            lines += ["allow_anonymous false", f"password_file {self._write(PASSWORD_FILE, entry)}"]
        if setup.acl:
            lines.append(f"acl_file {self._write('acl', ''.join(f'{line}{chr(10)}' for line in setup.acl))}")
        if made := self.certificates:
            lines += [f"certfile {made.server_cert}", f"keyfile {made.server_key}", f"cafile {made.ca_file}"]
            lines.append(f"require_certificate {str(setup.client_certificates).lower()}")
        return "\n".join(lines) + "\n"

    def _rumqttd(self) -> str:
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
            f'listen = "{LOOPBACK}:{self.port}"',
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

    def _amqtt(self) -> dict[str, object]:
        listener: dict[str, object] = {"type": "tcp", "bind": f"{LOOPBACK}:{self.port}"}
        if made := self.certificates:
            listener |= {"ssl": True, "certfile": str(made.server_cert), "keyfile": str(made.server_key)}
        account = {"username": self.setup.username, "password": self.setup.password or ""}
        return {
            "listeners": {"default": listener},
            "plugins": {"spanbridge.devstack.amqttd.Authentication": account if self.setup.username else {}},
        }


def _python(module: str, config: str) -> list[str]:
    return [sys.executable, "-P", "-m", f"spanbridge.devstack.{module}", config]


def password_entry(username: str, password: str) -> str:
    """A line of mosquitto's password file: PBKDF2 with SHA-512, 101 rounds (mosquitto_passwd(1))."""
    return f"{username}:{_mosquitto_hash(password)}\n"


def _mosquitto_hash(password: str) -> str:
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
