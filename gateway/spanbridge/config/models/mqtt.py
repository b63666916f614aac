"""``[mqtt]``: a connection to an MQTT broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from spanbridge.config.models.base import (
    Conflict,
    Duration,
    Kind,
    ReadableFile,
    Secret,
    Section,
    Size,
    WholeSeconds,
    invalid,
    one_without_other,
)
from spanbridge.config.models.filters import ExtraFilter
from spanbridge.config.problems import did_you_mean
from spanbridge.core.hosts import is_host

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_IPV6_URL = "write `mqtt://[::1]:1883`"
_OTHER_SCHEMES = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts"}


class Tls(Section):
    """Transport security. The presence of the table turns it on; every setting has a default."""

    ca_file: ReadableFile | None = Field(
        default=None, description="PEM file of the authorities to trust; the system's when absent."
    )
    cert_file: ReadableFile | None = Field(default=None, description="PEM file of the client certificate (mutual TLS).")
    key_file: ReadableFile | None = Field(default=None, description="PEM file of the client certificate's private key.")
    key_password: Secret | None = Field(default=None, description="Password of `key_file`.")
    server_name: str | None = Field(
        default=None, min_length=1, description="Name to check the server's certificate against, when not the host's."
    )
    verify: bool = Field(
        default=True,
        description="Check the server's certificate. Turning this off allows anybody to pose as the server.",
    )

    @field_validator("server_name")
    @classmethod
    def _check_server_name(cls, name: str | None) -> str | None:
        if name is not None and not is_host(name):
            raise invalid("is no host name", "the parts between dots have 1 to 63 characters")
        return name

    def conflicts(self) -> Iterator[Conflict]:
        """A certificate, its key and the key's password go together."""
        both = "a client certificate needs both `cert_file` and `key_file`"
        cert, key = self.cert_file is not None, self.key_file is not None
        yield from one_without_other(both, ("cert_file", cert), ("key_file", key))
        if self.key_password is not None and self.key_file is None:
            yield Conflict(("key_password", "key_file"), "is set without `key_file`")


def tls_switch(value: object) -> object:
    """``tls = true`` is the empty table, ``tls = false`` is none."""
    if value is True:
        return {}
    return None if value is False else value


OptionalTls = Annotated[Tls | None, BeforeValidator(tls_switch), Kind("table")]


def check_topic_name(text: str) -> str:
    """A topic to publish to (MQTT 5.0 section 4.7): not empty, no wildcard, no NUL."""
    if not text:
        raise invalid("a topic is at least one character long")
    if any(character in text for character in "+#\0"):
        raise invalid("a topic to publish to has no `+`, `#` or NUL (MQTT-3.3.2-2)")
    return text


class Will(Section):
    """What the broker publishes when the gateway vanishes without a DISCONNECT (MQTT 5.0 section 3.1.2.5)."""

    topic: Annotated[str, AfterValidator(check_topic_name)] = Field(
        description="Topic of the will.", examples=["gateways/edge-1/state"]
    )
    payload: str = Field(default="", description="Payload, as UTF-8 text.")
    qos: Literal[0, 1, 2] = Field(default=1, description="QoS of the will.")
    retain: bool = Field(default=False, description="Whether the broker retains the will.")
    delay: WholeSeconds = Field(
        default=0, ge=0, le=0xFFFFFFFF, description="Will Delay Interval: a reconnect within it cancels the will (v5)."
    )


class Mqtt(Section):
    """A connection to an MQTT broker. Write `[mqtt]` for one, `[[mqtt]]` with a `name` each for several."""

    url: str = Field(
        description="`mqtt://host:port`, or `mqtts://` for TLS. The port defaults to 1883 or 8883.",
        examples=["mqtt://127.0.0.1:1883"],
    )
    name: str = Field(
        default="mqtt",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Name in logs, metrics, a route's `source`, a downlink's `broker` and the template field "
        "`{source}`. Needed with several brokers.",
    )
    version: Literal["5", "3.1.1"] = Field(default="5", description="MQTT version to speak.")
    client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Client identifier, the name of the session at the broker. Defaults to the gateway's `name`.",
    )
    publisher_client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Client identifier of the second connection, which publishes what downlinks bring. Defaults to the "
        "client identifier with `-down` after it.",
    )
    username: str | None = Field(default=None, description="User name.")
    password: Secret | None = Field(default=None, description="Password; `file:PATH` reads it from a file.")
    tls: OptionalTls = Field(default=None, description="TLS settings; `mqtts://` alone uses the defaults.")
    keep_alive: WholeSeconds = Field(
        default=30,
        ge=0,
        le=0xFFFF,
        description="Keep Alive. 0 turns it off, and with it the detection of a hung broker.",
    )
    clean_start: bool = Field(default=False, description="Drop the broker's session at the first connect.")
    session_expiry: WholeSeconds = Field(
        default=86400,
        ge=0,
        le=0xFFFFFFFF,
        description="How long the broker keeps the session, and messages in it, while the gateway is away (v5).",
    )
    receive_maximum: int = Field(
        default=1024, ge=1, le=0xFFFF, description="QoS 1 and 2 messages the broker may send unacknowledged (v5)."
    )
    topic_alias_maximum: int = Field(
        default=0,
        ge=0,
        le=0xFFFF,
        description="Topic aliases the broker may use towards the gateway (v5). Off by default: rumqttd mixes them up.",
    )
    maximum_packet_size: Size = Field(
        default=16 << 20,
        ge=128,
        le=268_435_460,
        description="Largest packet the gateway takes. A v5 broker is told so and discards larger ones without a word "
        "(MQTT-3.1.2-25): above RocketMQ's own limit, the gateway refuses, counts and names them.",
    )
    subscribe: list[ExtraFilter] = Field(
        default=[],
        max_length=64,
        description="Filters to subscribe to beside those of the routes, at QoS 1. What they bring and no route takes "
        'goes to `uplink.unroutable_topic`: `subscribe = ["#"]` with that makes a catch-all.',
    )
    share: str | None = Field(
        default=None,
        description="Share group: several gateways with the same group split the messages (`$share/GROUP/…`).",
    )
    no_local: bool | None = Field(
        default=None,
        description="Do not receive what this connection published (v5). On by default, except with `share`, "
        "where MQTT forbids it.",
    )
    retain_as_published: bool = Field(default=True, description="Keep the RETAIN flag of forwarded messages (v5).")
    retain_handling: Literal[0, 1, 2] = Field(
        default=0,
        description="Retained messages on subscribing: 0 always, 1 only for a new subscription, 2 never (v5).",
    )
    will: Will | None = Field(default=None, description="Last will of the connection.")
    connect_timeout: Duration = Field(
        default=10.0, gt=0, le=300, description="Deadline for TCP, TLS and the broker's CONNACK together."
    )
    backoff_initial: Duration = Field(default=0.25, gt=0, le=60, description="Ceiling of the first reconnect pause.")
    backoff_maximum: Duration = Field(default=30.0, gt=0, le=3600, description="Ceiling of every reconnect pause.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in DEFAULT_PORTS:
            raise _scheme_error(parts.scheme, has_separator="://" in url)
        if parts.username is not None or parts.password is not None:
            raise invalid("credentials do not belong in the URL", "use `username` and `password`")
        if parts.netloc.count(":") > 1 and "[" not in parts.netloc:
            raise invalid("has an IPv6 address without brackets", _IPV6_URL)
        if not parts.hostname:
            raise invalid("the URL names no host", "write `mqtt://host:1883`")
        if any(character in " \t,;" for character in url):
            raise invalid("a host name has no blanks, `,` or `;`", "one broker to an [[mqtt]]")
        if not is_host(parts.hostname):
            raise invalid(f"`{parts.hostname}` is no host name", "the parts between dots have 1 to 63 characters")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise invalid("nothing may follow the port", "MQTT topics go into `routes[].filter`")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise invalid("the port is not a number from 1 to 65535")
        return url

    @field_validator("version", mode="before")
    @classmethod
    def _version_text(cls, version: object) -> object:
        if version in (5, "5.0"):
            raise invalid("must be text", 'write version = "5"')
        if version in (3, 4, 3.1, "3", "3.1", "4"):
            raise invalid("is not a supported MQTT version", 'write version = "3.1.1" or "5"')
        return version

    @field_validator("share")
    @classmethod
    def _check_share(cls, share: str | None) -> str | None:
        if share is not None and (not share or any(character in share for character in "/+#\0")):
            raise invalid("a share group has at least one character and no `/`, `+`, `#` or NUL (MQTT-4.8.2-1)")
        return share

    def conflicts(self) -> Iterator[Conflict]:
        """What MQTT forbids, and what the URL contradicts."""
        if self.tls is not None and not self.url.startswith("mqtts:"):
            hint = "write `mqtts://` in `url`, or remove `tls`"
            yield Conflict(("tls", "url"), "is set, but the URL says plain mqtt", hint)
        if self.share is not None and self.no_local:
            yield Conflict(("no_local", "share"), "cannot be used with `share` (MQTT-3.8.3-4)", "remove `no_local`")
        if self.password is not None and self.username is None and self.version == "3.1.1":
            message = "MQTT 3.1.1 has no password without `username` (MQTT-3.1.2-22)"
            yield Conflict(("password", "username", "version"), message)
        if self.backoff_maximum < self.backoff_initial:
            yield Conflict(("backoff_maximum", "backoff_initial"), "is smaller than `backoff_initial`")

    @property
    def host(self) -> str:
        """Host of ``url``; IPv6 addresses without their brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of ``url``, or the scheme's default."""
        parts = urlsplit(self.url)
        return parts.port or DEFAULT_PORTS[parts.scheme]

    @property
    def tls_options(self) -> Tls | None:
        """TLS as it takes effect: the defaults when the URL alone asks for it, None for a plain connection."""
        if self.url.startswith("mqtts:"):
            return self.tls or Tls()
        return None

    @property
    def effective_no_local(self) -> bool:
        """``no_local`` with its default filled in."""
        return self.share is None if self.no_local is None else self.no_local


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise invalid("has brackets without an IPv6 address in them", _IPV6_URL) from None


def _scheme_error(scheme: str, *, has_separator: bool) -> Exception:
    if not has_separator:
        return invalid("is not a URL", "write `mqtt://host:1883`, or `mqtts://host:8883` for TLS")
    ours = _OTHER_SCHEMES.get(scheme)
    if ours is not None:
        return invalid(f"the scheme `{scheme}` is not known", f"`{scheme}://` is written `{ours}://` here")
    if scheme in ("ws", "wss"):
        return invalid("MQTT over WebSocket is not supported", "use the broker's `mqtt://` or `mqtts://` listener")
    return invalid("the scheme is neither `mqtt` nor `mqtts`", did_you_mean(scheme, DEFAULT_PORTS))
