"""The configuration reference and the JSON schema, made from the models.

``python -m spanbridge.config.docs`` writes both into ``docs/``; a test checks that they are fresh.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from spanbridge.config.example import EXAMPLE
from spanbridge.config.lookup import section_in
from spanbridge.config.models import Config, Section
from spanbridge.config.models.base import Kind
from spanbridge.core.downlinks import Away, ContextForm
from spanbridge.core.policy import Carrier, ContextPolicy

_INTRODUCTION = """\
# Configuration

This page is made from the models by `python -m spanbridge.config.docs`; `spanbridge config docs` prints it.

spanbridge reads one TOML file. `spanbridge init` writes a commented one, `spanbridge check -c FILE` tells everything
that is wrong with it at once, and `spanbridge config schema` prints a JSON schema for editors
([spanbridge.schema.json](spanbridge.schema.json)). Unknown settings and values of the wrong type are errors.
A running gateway reads it again on SIGHUP ([operations](operations.md#reading-the-configuration-again)).

- **duration**: seconds as a number, or text: `"500ms"`, `"30s"`, `"5m"`, `"1h"`, `"1d"`.
- **size**: bytes as a whole number, or text: `"512KiB"`, `"4MiB"`, `"1GB"`.
- **path**: a relative path starts at the folder of the configuration file.
- **secret**: text, or `"file:PATH"` to read it from a file (its last newline is left out). Never logged or shown.
- **filter**: an MQTT topic filter. A level may be `+` or `{name}`, which is a `+` that templates can use; the last
  level may be `#`.
- **template**: text with fields. `{name}` is a named level of the filter, `{topic}` the whole MQTT topic, `{topic[0]}`
  one of its levels, `{source}` the `name` of the `[[mqtt]]` that brought the message, `{client_id}` the gateway's
  client id there, `{user.site}` an MQTT 5 user property. `{user.site|unknown}` gives a default for what is missing or
  empty, as a level may be (`devices//telemetry`). `{{` and `}}` are literal braces. The template of a downlink's
  `mqtt_topic` is filled by a RocketMQ message: `{key}` is its first key, `{keys}` all of them with blanks between,
  `{tag}`, `{message_group}`, `{topic}` its topic, `{property.site}` a user property; defaults are written the same way.

## The environment

Any text may hold `${NAME}`, or `${NAME:-default}` for when the variable is unset or empty; `$${` is a literal `${`.
An unset variable without a default is an error.

Any setting can be set from outside: the path in capitals, joined by double underscores, after `SPANBRIDGE__`. Items of
a list go by position, counted from 0, or by `name`, in which everything but letters and digits becomes `_`:

```sh
SPANBRIDGE__ROCKETMQ__ENDPOINTS=proxy-1:8081
SPANBRIDGE__MQTT__0__URL=mqtt://broker-1:1883
SPANBRIDGE__MQTT__PLANT_A__PASSWORD=file:/run/secrets/plant-a
SPANBRIDGE__ROUTES__0__TOPIC=telemetry
SPANBRIDGE__ROUTES__0__KEYS='["{device}", "{topic}"]'
SPANBRIDGE__DOWNLINKS__0__CONSUMER_GROUP=spanbridge-plant-a
```

`SPANBRIDGE__MQTT__0__…` is the first broker, whether it is written as `[mqtt]` or as `[[mqtt]]`. With one broker,
`SPANBRIDGE__MQTT__URL` says the same.

Precedence: environment, then file, then default. An override that leads nowhere is an error. Another variable whose
name begins with `SPANBRIDGE_` and that nothing reads is a warning, which offers the name that was probably meant.

## Which route wins

The most specific one, level by level from the left: a literal level before `+` or `{name}`, that before `#`. The order
in the file does not matter. Two routes that match exactly the same topics are an error; overlapping ones are a warning
that names the winner.

What no route takes goes to `uplink.unroutable_topic`. The gateway subscribes to the filters of the routes only, so that
such messages come only where more is asked for: `subscribe = ["#"]` in `[mqtt]` brings everything else (but topics that
begin with `$`, which wildcards do not match).

## Downlinks

Each `[[downlinks]]` is a consumer group's subscription to one RocketMQ topic. RocketMQ keeps one subscription to a
group, so that each downlink has a group of its own; gateways that share the work have the same. `check` tells of
downlinks that publish what a route takes up again.

A file may have routes, downlinks, or both. A broker that no route takes messages of is published to only.

## A complete file
"""


def markdown() -> str:
    """The reference."""
    parts = [_INTRODUCTION, "```toml", EXAMPLE.rstrip(), "```", "", "## Settings", ""]
    for title, section in _sections():
        parts += [f"### {title}", "", _docstring(section), "", *_table(section), ""]
    return "\n".join(parts)


def json_schema() -> str:
    """The JSON schema (draft 2020-12) of the file, indented, with a last newline."""
    schema = Config.model_json_schema(mode="validation")
    # One broker may be written as a table.
    brokers = schema["properties"]["mqtt"]
    schema["properties"]["mqtt"] = {"anyOf": [brokers["items"], brokers], "description": brokers.pop("description")}
    schema["anyOf"] = [{"required": ["routes"]}, {"required": ["downlinks"]}]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "spanbridge configuration"}
    return json.dumps(head | {key: value for key, value in schema.items() if key != "title"}, indent=2) + "\n"


def _sections() -> Iterator[tuple[str, type[Section]]]:
    yield "Top level", Config
    yield from _inner(Config, "")


def _inner(section: type[Section], prefix: str) -> Iterator[tuple[str, type[Section]]]:
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None:
            continue
        is_list = get_origin(field.annotation) is list
        path = f"{prefix}{name}"
        title = "`[mqtt]` or `[[mqtt]]`" if path == "mqtt" else f"`[[{path}]]`" if is_list else f"`[{path}]`"
        yield title, inner
        yield from _inner(inner, f"{path}.")


def _docstring(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _table(section: type[Section]) -> list[str]:
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        if section is Config and section_in(field.annotation) is not None:
            continue
        cells = (f"`{name}`", type_text(field), _default(field), field.description or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def type_text(field: FieldInfo) -> str:
    """What a setting takes, in a few words."""
    kinds = [item.name for item in field.metadata if isinstance(item, Kind)]
    return (kinds[0] if kinds else _annotation_text(field.annotation)) + _range(field)


def _range(field: FieldInfo) -> str:
    """The bounds of a number without a unit, which has no other place to say them."""
    bounds = {name: getattr(item, name) for item in field.metadata for name in ("ge", "le") if hasattr(item, name)}
    return (
        f", {bounds['ge']} to {bounds['le']}" if field.annotation is int and _bare(field) and len(bounds) == 2 else ""
    )


def _bare(field: FieldInfo) -> bool:
    return not any(isinstance(item, Kind) for item in field.metadata)


_WORDS = (ContextPolicy, Carrier, Away, ContextForm)
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "table of text"}


def _annotation_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kinds = [item.name for item in arguments[1:] if isinstance(item, Kind)]
        return kinds[0] if kinds else _annotation_text(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_annotation_text(part) for part in arguments if part is not NoneType)
    if origin is list:
        return f"list of {_annotation_text(arguments[0])}"
    choices = arguments if origin is Literal else tuple(annotation) if annotation in _WORDS else ()
    return ", ".join(f"`{json.dumps(choice)}`" for choice in choices) or _PLAIN.get(origin or annotation, "table")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default is PydanticUndefined or field.default is None:
        return ""
    kinds = [item.name for item in field.metadata if isinstance(item, Kind)]
    return f"`{_value_text(field.default, kinds)}`"


def _value_text(value: Any, kinds: list[str]) -> str:
    if "duration" in kinds:
        unit, seconds = next(
            (
                pair
                for pair in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
                if value >= pair[1] and not value % pair[1]
            ),
            ("ms", 0.001),
        )
        return f'"{round(value / seconds)}{unit}"' if value else "0"
    if "size" in kinds:
        return f'"{value >> 20}MiB"' if value >= 1 << 20 else f'"{value >> 10}KiB"'
    return json.dumps(value)


def main(arguments: list[str]) -> int:
    """Write both files into a folder (``docs`` when none is named)."""
    folder = Path(arguments[0] if arguments else "docs")
    (folder / "configuration.md").write_text(markdown(), encoding="utf-8")
    (folder / "spanbridge.schema.json").write_text(json_schema(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
