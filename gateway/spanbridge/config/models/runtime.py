"""``[uplink]``, ``[admin]`` and ``[telemetry]``: how the gateway runs, is looked at, and reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from spanbridge.config.models.base import Conflict, Duration, Secret, Section, Size, invalid
from spanbridge.core.hosts import is_host, is_loopback
from spanbridge.core.rocketmq_rules import topic_problem
from spanbridge.core.spooled import HERE


def check_plain_topic(topic: str) -> str:
    """A RocketMQ topic written out: a message that no route took has no levels to fill a template with."""
    problem = topic_problem(topic)
    if problem is not None:
        raise invalid(f"is not a topic RocketMQ takes: it {problem}")
    return topic


def check_listen_host(host: str) -> str:
    """A name or an address as the resolver takes it."""
    if "[" in host or "]" in host:
        raise invalid("has brackets", "write an IPv6 address without them")
    if not is_host(host):
        raise invalid("is no host name or address", "write `127.0.0.1`, or `0.0.0.0` with `allow_remote = true`")
    return host


TOKEN = re.compile(r"[!-~]+")
"""What a header can carry (RFC 9110 section 5.5)."""
ListenHost = Annotated[str, AfterValidator(check_listen_host)]
PlainTopic = Annotated[str, AfterValidator(check_plain_topic)]


class Batch(Section):
    """How many messages share one request. An idle gateway sends at once; batches grow with the load by themselves."""

    max_messages: int = Field(default=128, ge=1, le=1024, description="Messages in one request.")
    max_bytes: Size = Field(default=1 << 20, ge=1024, le=4 << 20, description="Size of one request.")
    concurrency: int = Field(
        default=4, ge=1, le=64, description="Requests under way at a time, per topic without message groups."
    )


class UplinkSection(Section):
    """MQTT to RocketMQ."""

    max_in_flight: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Messages received and not yet acknowledged at which the gateway stops reading MQTT.",
    )
    max_in_flight_bytes: Size = Field(
        default=32 << 20, ge=1 << 16, description="The same by size of payloads and properties."
    )
    unroutable_topic: PlainTopic | None = Field(
        default=None,
        description=(
            "RocketMQ topic for messages that no route takes. It is no catch-all by itself: the gateway subscribes to "
            'the filters of the routes only, until `subscribe = ["#"]` in `[mqtt]` (or a route with `filter = "#"`) '
            "asks for more. Topics that begin with `$` never go here. Without it, such messages go to "
            "`rejected_topic`, or are dropped and counted."
        ),
    )
    rejected_topic: PlainTopic | None = Field(
        default=None,
        description=(
            "RocketMQ topic (dead letters) for what can never be forwarded: refused by RocketMQ or by a limit, "
            "malformed, in a loop. Without it, and without `rejected`: dropped and counted."
        ),
    )
    rejected: Literal["spool"] | None = Field(
        default=None,
        description=(
            "`spool`: dead letters stay on this machine, in the directory of `[spool]`, instead of going to "
            "`rejected_topic`. `spanbridge spool ls --rejected` shows them, `replay --rejected` sends them again."
        ),
    )
    reject_after: Duration = Field(
        default=30.0,
        gt=0,
        le=86400,
        description=(
            "How long a message is retried whose RocketMQ topic a device names (a template with fields of the "
            "message) while that topic is missing or of the wrong type. Then it is rejected, so that those behind it "
            "go on. Topics spelled out in this file are retried for ever."
        ),
    )
    drain_timeout: Duration = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="How long SIGTERM waits for messages in flight. The rest stays with MQTT.",
    )
    batch: Batch = Field(default_factory=Batch, description="Batching.")

    def conflicts(self) -> Iterator[Conflict]:
        """What is in flight holds a batch."""
        if self.max_in_flight_bytes < self.batch.max_bytes:
            message = "is smaller than `batch.max_bytes`, so no batch could fill"
            yield Conflict(("max_in_flight_bytes", "batch.max_bytes"), message)
        if self.rejected is not None and self.rejected_topic is not None:
            message = "cannot be used with `rejected_topic`: a dead letter goes to one place"
            yield Conflict(("rejected", "rejected_topic"), message, "remove one")

    @property
    def rejected_to(self) -> str | None:
        """Where dead letters go, as metrics and /status name it."""
        return HERE if self.rejected is not None else self.rejected_topic


class Admin(Section):
    """The HTTP server for health, metrics and status."""

    enabled: bool = Field(default=True, description="Whether to listen at all.")
    host: ListenHost = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; IPv6 without brackets."
    )
    port: int = Field(default=9464, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    allow_remote: bool = Field(
        default=False,
        description="Needed for a `host` that others can reach: the server has no TLS.",
    )
    token: Secret | None = Field(
        default=None,
        description=(
            "What requests for other pages than `/livez`, `/readyz` and `/metrics` have to bring (`Authorization: "
            "Bearer ...`, or as the password in a browser). Without it these pages are shown on loopback only; "
            "`file:PATH` reads it from a file."
        ),
    )
    max_unacknowledged_age: Duration = Field(
        default=30.0, gt=0, le=86400, description="Not ready when a message has been waiting longer for RocketMQ."
    )
    probe_interval: Duration = Field(
        default=10.0, ge=1, le=3600, description="Pause between probes, real round trips to RocketMQ."
    )
    max_probe_age: Duration = Field(
        default=30.0, ge=1, le=86400, description="Not ready when the last good probe is older."
    )

    @field_validator("token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and TOKEN.fullmatch(token.get_secret_value()) is None:
            raise invalid(
                "is empty, or has other characters than visible ASCII", "make one with `openssl rand -hex 32`"
            )
        return token

    def conflicts(self) -> Iterator[Conflict]:
        """Nobody else gets in by accident, and a probe is never too old before the next one."""
        if self.enabled and not is_loopback(self.host) and not self.allow_remote:
            hint = "listen on 127.0.0.1, or set `allow_remote = true` behind a firewall"
            yield Conflict(("host", "allow_remote", "enabled"), "can be reached from other machines", hint)
        if self.max_probe_age < self.probe_interval:
            message = "is smaller than `probe_interval`, so the gateway would never stay ready"
            yield Conflict(("max_probe_age", "probe_interval"), message)


class TelemetrySection(Section):
    """What the gateway says about itself. OpenTelemetry's OTEL_* variables set exporters, endpoints and samplers."""

    service_name: str | None = Field(
        default=None, min_length=1, description="`service.name`. Defaults to OTEL_SERVICE_NAME, else `spanbridge`."
    )
    resource: dict[str, str] = Field(
        default={}, description="Further resource attributes, over OTEL_RESOURCE_ATTRIBUTES."
    )
    traces: bool = Field(default=True, description="Make spans. Off, the device's context still travels on unchanged.")
    metrics: bool = Field(default=True, description="Export metrics over OTLP.")
    prometheus: bool = Field(default=True, description="Serve metrics on the admin server's `/metrics`.")
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="`auto` is text on a terminal and JSON lines otherwise."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level logged."
    )
