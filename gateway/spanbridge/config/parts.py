"""The sections that are valid by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from spanbridge.config.models import Admin, Config, Mqtt, Rocketmq, Route, Section, Uplink, default_name

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(slots=True)
class Parts:
    """The sections that are valid by themselves, with their locations: enough to check one against another."""

    name: str = ""
    brokers: dict[int, Mqtt] = field(default_factory=dict)
    routes: dict[int, Route] = field(default_factory=dict)
    rocketmq: Rocketmq | None = None
    uplink: Uplink | None = None
    admin: Admin | None = None
    complete: bool = True

    @classmethod
    def of(cls, config: Config) -> Parts:
        """The parts of a configuration that is valid section by section."""
        return cls(
            config.name,
            dict(enumerate(config.mqtt)),
            dict(enumerate(config.routes)),
            config.rocketmq,
            config.uplink,
            config.admin,
        )

    @classmethod
    def salvage(cls, data: Mapping[str, Any], context: dict[str, Any]) -> Parts:
        """What is usable of a configuration that is not, so that all errors show at once."""
        name = data.get("name")
        return cls(
            name if isinstance(name, str) else default_name(),
            _each(Mqtt, data.get("mqtt"), context),
            _each(Route, data.get("routes"), context),
            _one(Rocketmq, data.get("rocketmq"), context),
            _one(Uplink, data.get("uplink", {}), context),
            _one(Admin, data.get("admin", {}), context),
            complete=False,
        )


def _one(model: type[SectionT], data: object, context: dict[str, Any]) -> SectionT | None:
    try:
        return model.model_validate(data, context=context)
    except ValidationError:
        return None


def _each(model: type[SectionT], data: object, context: dict[str, Any]) -> dict[int, SectionT]:
    items = data if isinstance(data, list) else []
    valid = {index: _one(model, item, context) for index, item in enumerate(items)}
    return {index: item for index, item in valid.items() if item is not None}
