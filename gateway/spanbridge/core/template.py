"""Templates over a topic: ``"factory-{line}"``, ``"{topic[0]}"``, ``"{user.site|unknown}"``.

Fields: ``{name}`` a named level of the route's filter, ``{topic}`` the whole MQTT topic, ``{topic[N]}`` its level N
from 0, ``{source}`` the name of the ``[[mqtt]]`` that a message came from, ``{client_id}`` the gateway's own MQTT
client id there (a PUBLISH does not name its publisher), ``{user.NAME}`` an MQTT 5 user property. ``|text`` after any
of them is used when the field is missing or empty. ``{{`` and ``}}`` are literal braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INDEX = re.compile(r"topic\[(\d{1,5})\]\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")

FIXED_FIELDS = ("client_id", "source")
"""Fields that the configuration fixes: no message changes them."""
FIELD_NAMES = ("topic", *FIXED_FIELDS)
"""Names that a level of a filter cannot have."""


class TemplateError(ValueError):
    """The text is not a template. ``position`` is the offset of the fault, counted in characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Field:
    """One ``{...}``: ``kind`` is level, index, topic, client_id, source or user; ``name``: what to look up."""

    kind: str
    name: str
    default: str = ""

    def value(self, scope: Scope) -> str:
        """The field's text in ``scope``, or the default when that is missing or empty."""
        return self._look_up(scope) or self.default

    def _look_up(self, scope: Scope) -> str:
        match self.kind:
            case "level":
                return scope.named.get(self.name, "")
            case "user":
                return next((value for name, value in scope.user if name == self.name), "")
            case "index":
                index = int(self.name)
                return scope.levels[index] if index < len(scope.levels) else ""
            case "topic":
                return "/".join(scope.levels)
            case "source":
                return scope.source
            case _:
                return scope.client_id


@dataclass(frozen=True, slots=True)
class Scope:
    """What a template may look at for one message."""

    levels: Sequence[str]
    named: Mapping[str, str]
    user: Sequence[tuple[str, str]] = ()
    client_id: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. ``per_message`` tells that it needs user properties, so its text is not fixed by the topic."""

    text: str
    parts: tuple[str | Field, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Parse ``text``.

        :raises TemplateError: an unbalanced brace or an unknown kind of field.
        """
        parts: list[str | Field] = []
        literal, position = "", 0
        for token in _TOKEN.finditer(text):
            literal += text[position : token.start()]
            position = token.end()
            if token.group() in ("{{", "}}"):
                literal += token.group()[0]
            elif token.group(1) is None:
                raise TemplateError(f"unbalanced {token.group()!r}", token.start())
            else:
                parts += [literal] if literal else []
                parts.append(_field(token.group(1), token.start()))
                literal = ""
        literal += text[position:]
        parts += [literal] if literal else []
        return cls(text, tuple(parts))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields in the order they stand."""
        return tuple(part for part in self.parts if isinstance(part, Field))

    @property
    def per_message(self) -> bool:
        """Whether two messages of one topic may give different texts."""
        return any(field.kind == "user" for field in self.fields)

    @property
    def from_device(self) -> bool:
        """Whether a device has a say in the text. If not, the configuration alone fixes it, per connection."""
        return any(field.kind not in FIXED_FIELDS for field in self.fields)

    def render(self, scope: Scope) -> str:
        """The template's text for one message. Never fails: a missing field without a default is empty."""
        return "".join(part if isinstance(part, str) else part.value(scope) for part in self.parts)


def _field(text: str, position: int) -> Field:
    name, _, default = text.partition("|")
    if name in FIELD_NAMES:
        return Field(name, name, default)
    if index := _INDEX.match(name):
        return Field("index", index.group(1), default)
    if name.startswith("user.") and len(name) > len("user."):
        return Field("user", name.removeprefix("user."), default)
    if _NAME.match(name):
        return Field("level", name, default)
    known = "{level}, {topic}, {topic[0]}, {client_id}, {source} or {user.name}"
    raise TemplateError(f"{{{text}}} is not a field: use {known}", position)
