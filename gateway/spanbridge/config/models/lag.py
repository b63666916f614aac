"""``[lag]``: which consumer groups are watched, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator

from spanbridge.config.models.base import Conflict, Duration, Section, invalid
from spanbridge.config.models.runtime import PlainTopic
from spanbridge.core.hosts import endpoint_problem


class LagGroup(Section):
    """A consumer group whose lag is watched."""

    # RocketMQ's Validators.checkGroup
    name: str = Field(pattern=r"^[%|a-zA-Z0-9_-]{1,255}$", description="The consumer group.", examples=["billing"])
    topics: list[PlainTopic] = Field(
        default=[], description="Topics that it consumes. Without it: those that routes name without a field."
    )
    protocol: Literal["grpc", "remoting"] = Field(
        default="grpc",
        description="How its consumers receive. With `grpc`, lag counts what was not *delivered*, unless the group "
        "receives in order; with `remoting` (RocketMQ 4 clients), what was not *acknowledged*.",
    )
    ordered: bool | None = Field(
        default=None,
        description="Whether the group receives in order (`consumeMessageOrderly`). By default brokers are asked; "
        "proxies do not say.",
    )


class LagSection(Section):
    """How far consumer groups are behind. Reads offsets from name servers and brokers, no messages."""

    name_servers: str = Field(
        description="Addresses of the name servers, `host:port` (9876 by default), several separated by `;`. Brokers "
        "are asked at the addresses that these announce. In cluster mode the proxies' remoting port (8080 by default) "
        "does as well; `groups` are to be given then.",
        examples=["127.0.0.1:9876"],
    )
    groups: list[LagGroup] = Field(
        default=[],
        max_length=256,
        description="Groups to watch. Without it: all groups that consume a topic which routes name without a field.",
    )
    period: Duration = Field(default=30.0, ge=1, le=3600, description="Pause between two readings.")
    timeout: Duration = Field(default=3.0, gt=0, le=60, description="Deadline of one request.")
    retries: bool = Field(default=True, description="Watch retry topics and count dead letters as well.")
    max_requests: int = Field(
        default=2000,
        ge=10,
        le=100_000,
        description="Most requests of one reading. What is beyond is left out, and told.",
    )

    @field_validator("name_servers")
    @classmethod
    def _check_name_servers(cls, addresses: str) -> str:
        items = [item.strip() for item in addresses.split(";") if item.strip()]
        if not items:
            raise invalid("names no name server", 'write `name_servers = "host:9876"`')
        for item in items:
            problem = endpoint_problem(item)
            if problem is not None:
                raise invalid(problem, "the name server listens on 9876 by default (not the proxy's 8081)")
        return ";".join(items)

    def conflicts(self) -> Iterator[Conflict]:
        """A group is watched once."""
        names = [group.name for group in self.groups]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Conflict((f"groups.{index}.name",), "is given twice", "put all its topics into one entry")
