"""Pydantic's errors in the words of somebody who edits a TOML file."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spanbridge.config.environment import plain_value
from spanbridge.config.lookup import path_text, section_at
from spanbridge.config.models import Section
from spanbridge.config.models.base import CONFLICTS, Conflict
from spanbridge.config.problems import Finding, Loc, did_you_mean

_TYPES = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_too_short": "must not be empty",
}


def explain(error: ValidationError, root: type[Section]) -> list[Finding]:
    """All of ``error`` as findings, in the order of the models."""
    findings: list[Finding] = []
    for details in error.errors(include_url=False):
        if details["type"] == CONFLICTS:
            findings += [conflict_finding(details["loc"], one) for one in details["ctx"]["conflicts"]]
        else:
            findings.append(_explain(details, root))
    return findings


def conflict_finding(section: Loc, conflict: Conflict) -> Finding:
    """A conflict, told where its first setting stands."""
    return Finding(loc=(*section, *conflict.settings[0].split(".")), message=conflict.message, hint=conflict.hint)


def _explain(details: ErrorDetails, root: type[Section]) -> Finding:
    kind, context = details["type"], details.get("ctx", {})
    loc = tuple(part for part in details["loc"] if part != "[key]")
    match kind:
        case "missing":
            return Finding(loc=loc, message="is missing", hint=_example(loc), show_value=False)
        case "extra_forbidden":
            return Finding(loc=loc, message=_unknown(root, loc), hint=_known(root, loc), show_value=False)
        case "spanbridge":
            return Finding(loc=loc, message=context["message"], hint=context["hint"])
        case "too_short":
            return Finding(loc=loc, message="needs at least one item", hint=_example(loc), show_value=False)
        case "string_pattern_mismatch":
            return Finding(
                loc=loc,
                message="has characters that are not allowed, or too many",
                hint=f"it must match {context['pattern']}",
            )
    message = _TYPES.get(kind) or _reworded(details["msg"])
    return Finding(loc=loc, message=message, hint=_type_hint(details, loc))


def _reworded(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should be", "must be").replace("'", "`")
    return text[:1].lower() + text[1:]


def _type_hint(details: ErrorDetails, loc: Loc) -> str | None:
    kind, value = details["type"], details["input"]
    if kind in ("enum", "literal_error"):
        return did_you_mean(str(value), re.findall("'([^']+)'", str(details.get("ctx", {}).get("expected", ""))))
    if kind == "string_type":
        return _example(loc) if isinstance(value, list | dict) else "put it in quotes"
    if kind in ("list_type", "model_type"):
        return _brackets_hint(loc, kind)
    if kind in ("bool_type", "int_type", "float_type") and isinstance(value, str):
        return "write it without quotes" if not isinstance(plain_value(value), str) else None
    return None


def _brackets_hint(loc: Loc, kind: str) -> str:
    names = [part for part in loc if isinstance(part, str)]
    if len(names) == 1 and names[0] in ("mqtt", "routes", "downlinks"):
        return f"write `[[{names[0]}]]`, with two brackets"
    if kind == "model_type":
        return f"write `[{'.'.join(names)}]`, with one bracket"
    return 'write `["…"]`'


_EXAMPLES: dict[str, str] = {
    "mqtt": '[mqtt] with `url = "mqtt://127.0.0.1:1883"`',
    "mqtt.url": 'url = "mqtt://127.0.0.1:1883"',
    "rocketmq": '[rocketmq] with `endpoints = "127.0.0.1:8081"`',
    "rocketmq.endpoints": 'endpoints = "127.0.0.1:8081"',
    "routes": '[[routes]] with `filter = "devices/{device}/telemetry"` and `topic = "telemetry"`',
    "routes.filter": 'filter = "devices/{device}/telemetry"',
    "routes.topic": 'topic = "telemetry"',
    "downlinks.topic": 'topic = "commands"',
    "downlinks.consumer_group": 'consumer_group = "spanbridge-commands"',
    "downlinks.mqtt_topic": 'mqtt_topic = "devices/{key}/commands"',
}


def _example(loc: Loc) -> str | None:
    example = _EXAMPLES.get(".".join(part for part in loc if isinstance(part, str)))
    return f"for example: {example}" if example else None


def _unknown(root: type[Section], loc: Loc) -> str:
    return "is not a setting" if section_at(root, loc[:-1]) is not root else "is not a section or setting"


def _known(root: type[Section], loc: Loc) -> str | None:
    """The closest known name; where nothing is close, another section that has it; else all names."""
    section, name = section_at(root, loc[:-1]), str(loc[-1])
    if section is None:
        return None
    if close := did_you_mean(name, section.model_fields):
        return close
    elsewhere = [path for path, other in _sections(root) if name in other.model_fields and other is not section]
    if elsewhere:
        return f"it belongs to {' or '.join(f'[{path}]' for path in elsewhere)}"
    return "known here: " + ", ".join(section.model_fields)


def _sections(root: type[Section]) -> list[tuple[str, type[Section]]]:
    found: list[tuple[str, type[Section]]] = []

    def visit(section: type[Section], loc: tuple[Any, ...]) -> None:
        for name in section.model_fields:
            inner = section_at(section, (name,))
            if inner is not None:
                found.append((path_text((*loc, name)), inner))
                visit(inner, (*loc, name))

    visit(root, ())
    return found
