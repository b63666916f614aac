"""``[rocketmq]``: the cluster that messages go to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator

from spanbridge.config.models.base import Conflict, Duration, Secret, Section, Size, invalid, one_without_other
from spanbridge.config.models.mqtt import OptionalTls
from spanbridge.core.hosts import endpoint_problem, split_endpoint
from spanbridge.core.rocketmq_rules import header_problem

NAME_SERVER_PORT: Final = 9876
"""Where RocketMQ's name server listens by default. It does not speak gRPC."""
PROXY_PORT: Final = 8081
"""Where RocketMQ's gRPC proxy listens by default. It does not speak the remoting protocol."""


class Rocketmq(Section):
    """The RocketMQ cluster: RocketMQ 5 reached through its gRPC proxy, or any by its own protocol."""

    endpoints: str = Field(
        description="Addresses of the gRPC proxy, `host:port` (8081 by default), several separated by `;`; IPv6 as "
        '`[::1]:8081`. With `protocol = "remoting"`: of the name servers (9876 by default).',
        examples=["127.0.0.1:8081"],
    )
    protocol: Literal["auto", "grpc", "remoting"] = Field(
        default="grpc",
        description="`grpc` goes through the proxy, `remoting` to the brokers that the name servers name, without one. "
        "Both send, and both receive for downlinks. `auto` asks the endpoints which they are, once for each run.",
    )
    namespace: str = Field(
        default="", description="Namespace, for services that use it; Apache RocketMQ's own proxy ignores it."
    )
    access_key: str | None = Field(default=None, description="Access key (ACL).")
    secret_key: Secret | None = Field(default=None, description="Secret key (ACL); `file:PATH` reads it from a file.")
    security_token: Secret | None = Field(default=None, description="Session token of temporary credentials.")
    tls: OptionalTls = Field(default=None, description="TLS settings; `true` uses the defaults.")
    name: str = Field(default="rocketmq", pattern=r"^[A-Za-z0-9_.-]+$", description="Name in logs and metrics.")
    connect_timeout: Duration = Field(default=3.0, gt=0, le=60, description="Deadline of one connection attempt.")
    request_timeout: Duration = Field(default=3.0, gt=0, le=60, description="Deadline of one request.")
    attempts: int = Field(default=3, ge=1, le=16, description="Quick tries of one send, each at another queue.")
    heartbeat_interval: Duration = Field(default=10.0, ge=1, le=300, description="Pause between heartbeats.")
    route_refresh_interval: Duration = Field(
        default=30.0, ge=1, le=3600, description="Pause between refreshes of topic routes."
    )
    backoff_initial: Duration = Field(
        default=0.01, gt=0, le=60, description="First pause between these tries, until the server says otherwise."
    )
    backoff_maximum: Duration = Field(default=1.0, gt=0, le=600, description="Longest pause between these tries.")
    ordered_partitions: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Batches of grouped messages of one topic that may be under way at once. By default 4; with "
        '`protocol = "remoting"` or `"auto"` 8, and best as many as the topics have queues.',
    )
    single_requests: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Requests side by side, to each broker or cluster of proxies, where messages cannot share one.",
    )
    follow_routes: bool = Field(
        default=True,
        description="Send to the addresses that the cluster announces. Off: only to `endpoints`, for clusters whose "
        "announced addresses cannot be reached from here.",
    )
    stored_unsafely: Literal["accept", "retry"] = Field(
        default="accept",
        description='With `protocol = "remoting"`: what a message is that a broker stored, but not as safely as it is '
        "configured to (no flush or no replica in time): stored, or to be sent again, which stores another copy.",
    )

    delay_levels: bool = Field(
        default=False,
        description='With `protocol = "remoting"`: brokers before RocketMQ 5.0 know no delivery timestamps, but 18 '
        "delay levels (1s 5s 10s 30s 1m to 10m 20m 30m 1h 2h). On: messages are delivered at the end of the next "
        "longer one, and rejected where they are due in more than 2 hours. Off: messages of such routes wait.",
    )

    compress_above: Size = Field(
        default=0,
        ge=0,
        le=4 * 1024 * 1024,
        description='With `protocol = "remoting"`: bodies of more bytes are compressed with zlib, which all RocketMQ '
        "clients undo; 0: none. It costs CPU: for 4 KiB of JSON two to four times what a message takes otherwise.",
    )

    receive_by: Literal["auto", "pop", "pull"] = Field(
        default="auto",
        description='With `protocol = "remoting"`: how downlinks receive. `pop`: the broker hands out messages and '
        "counts attempts (RocketMQ 5). `pull`: queues are shared out among the members of the group, as RocketMQ 4 has "
        "it. `auto` pulls where a broker of the topic has no POP.",
    )

    @field_validator("endpoints")
    @classmethod
    def _check_endpoints(cls, endpoints: str) -> str:
        if "://" in endpoints:
            raise invalid("endpoints have no scheme", "write `host:port`, and `tls = true` for TLS")
        items = [item.strip() for item in endpoints.split(";") if item.strip()]
        if not items:
            raise invalid("names no endpoint", 'write `endpoints = "host:8081"`')
        for item in items:
            problem = endpoint_problem(item)
            if problem is not None:
                raise invalid(problem, _endpoint_hint(item))
        return ";".join(items)

    @field_validator("namespace", "access_key", "security_token")
    @classmethod
    def _check_header(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        problem = header_problem(value.get_secret_value() if isinstance(value, SecretStr) else value or "")
        if problem is not None:
            raise invalid(problem, "it goes into the headers of every request")
        return value

    @property
    def effective_partitions(self) -> int:
        """``ordered_partitions``, or what stands for it."""
        return self.ordered_partitions or (4 if self.protocol == "grpc" else 8)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each endpoint; IPv6 addresses without their brackets."""
        return [split_endpoint(item) for item in self.endpoints.split(";")]

    def conflicts(self) -> Iterator[Conflict]:
        """Credentials are whole, and the protocol can do what is asked for."""
        both = "ACL needs both `access_key` and `secret_key`"
        secret = self.secret_key is not None and self.secret_key.get_secret_value()
        yield from one_without_other(both, ("access_key", self.access_key), ("secret_key", secret))
        if self.security_token is not None and self.access_key is None:
            yield Conflict(("security_token", "access_key"), "needs `access_key` and `secret_key`")
        if self.protocol != "grpc" and not self.follow_routes:
            hint = 'drop it, or use `protocol = "grpc"`'
            yield Conflict(
                ("follow_routes", "protocol"), "name servers take no messages: routes have to be followed", hint
            )
        if self.backoff_maximum < self.backoff_initial:
            yield Conflict(("backoff_maximum", "backoff_initial"), "is smaller than `backoff_initial`")


def _endpoint_hint(item: str) -> str:
    if "," in item:
        return "separate several endpoints by `;`"
    if item.count(":") > 1:
        return "write an IPv6 address as `[::1]:8081`"
    return "RocketMQ's gRPC proxy listens on 8081 by default (not the name server's 9876)"
