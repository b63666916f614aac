"""``[spool]``: what the gateway keeps on disk while RocketMQ is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

from spanbridge.config.models.base import Conflict, Duration, Kind, Section, Size, resolve_path


def read_directory(value: Any, info: ValidationInfo) -> Any:
    """A directory that need not be there yet; a relative path starts at the configuration file's folder."""
    return resolve_path(value, info) if isinstance(value, str) else value


Directory = Annotated[Path, BeforeValidator(read_directory, json_schema_input_type=str), Kind("path")]


class SpoolSection(Section):
    """Messages on disk while RocketMQ is away. Without this table there is no spool: the MQTT broker keeps them."""

    path: Directory = Field(
        description="Directory, made when it is not there. It is one gateway's alone, on a disk that honours fsync.",
        examples=["/var/lib/spanbridge/spool"],
    )
    max_bytes: Size = Field(default=1 << 30, ge=1 << 20, description="What it may take on the disk.")
    reserve: Size = Field(default=64 << 20, ge=0, description="What it leaves free on the file system.")
    segment_bytes: Size = Field(
        default=16 << 20, ge=1 << 16, le=1 << 30, description="Size of its files: space is given back file by file."
    )
    max_age: Duration | None = Field(
        default=None, gt=0, description="Messages that were received longer ago are dropped instead of sent."
    )
    spill_after: Duration = Field(
        default=5.0,
        ge=0.5,
        le=3600,
        description="How long a message waits for RocketMQ before it, and what follows it, goes to the spool.",
    )
    drain_window: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="How many messages may be out of the spool at a time, beside live ones, as a part of "
        "`uplink.max_in_flight`. A window, not a rate: RocketMQ's answers pace it.",
    )
    qos0_share: float = Field(
        default=0.1, ge=0, le=1, description="How much of `max_bytes` messages with QoS 0 may take. Above: dropped."
    )

    rejected_max_bytes: Size = Field(
        default=64 << 20,
        ge=1 << 20,
        description="What dead letters may take on the disk, beside `max_bytes`, with `uplink.rejected`. Above: the "
        "oldest are removed, and counted.",
    )
    rejected_max_age: Duration = Field(
        default=30 * 86400.0, ge=60, description="Dead letters that were rejected longer ago are removed, and counted."
    )

    def conflicts(self) -> Iterator[Conflict]:
        """There is room for more than one file: only whole files are given back."""
        if self.max_bytes < 4 * self.segment_bytes:
            message = "is less than four times `segment_bytes`, so that hardly any space could be given back"
            yield Conflict(("max_bytes", "segment_bytes"), message)
