"""Templates over a message: ``"factory-{line}"``, ``"{topic[0]}"``, ``"devices/{key}/commands"``.

Fields on the way up (:data:`UP`): ``{name}`` a named level of the route's filter, ``{topic}`` the whole MQTT topic,
``{topic[N]}`` its level N from 0, ``{source}`` the name of the ``[[mqtt]]`` that a message came from, ``{client_id}``
the gateway's own MQTT client id there (a PUBLISH does not name its publisher), ``{user.NAME}`` an MQTT 5 user property.

Fields on the way down (:data:`DOWN`): ``{topic}`` the RocketMQ topic, ``{tag}``, ``{key}`` the first key, ``{keys}``
all of them with a space between them, ``{message_group}``, ``{property.NAME}`` a user property.

``|text`` after any of them is used when the field is missing or empty. ``{{`` and ``}}`` are literal braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spanbridge.core.message import Message

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
class Fields:
    """What templates of one direction may name: ``names``, properties behind ``prefix``, and ``levels`` of a topic."""

    names: tuple[str, ...]
    prefix: str
    levels: bool
    known: str

    def field(self, text: str, position: int) -> Field:
        """The field that stands between two braces at ``position``.

        :raises TemplateError: there is no such field.
        """
        name, _, default = text.partition("|")
        if name in self.names:
            return Field(name, name, default)
        if self.levels and (index := _INDEX.match(name)):
            return Field("index", index.group(1), default)
        prefix = f"{self.prefix}."
        if name.startswith(prefix) and len(name) > len(prefix):
            return Field(self.prefix, name.removeprefix(prefix), default)
        if self.levels and _NAME.match(name):
            return Field("level", name, default)
        raise TemplateError(f"{{{text}}} is not a field: use {self.known}", position)


UP = Fields(FIELD_NAMES, "user", True, "{level}, {topic}, {topic[0]}, {client_id}, {source} or {user.name}")
"""Fields of an MQTT message."""

DOWN = Fields(
    ("topic", "tag", "key", "keys", "message_group"),
    "property",
    False,
    "{topic}, {tag}, {key}, {keys}, {message_group} or {property.name}",
)
"""Fields of a RocketMQ message."""

PER_MESSAGE = frozenset({"user", "tag", "key", "keys", "message_group", "property"})
"""Kinds of fields that two messages of one topic may have different texts for."""


class Fillable(Protocol):
    """Where a template's fields get their texts from."""

    def text(self, field: Field) -> str:
        """The field's text, "" when it is missing."""


@dataclass(frozen=True, slots=True)
class Field:
    """One ``{...}``. ``kind`` is level, index, user, property, or a name of its own; ``name``: what to look up."""

    kind: str
    name: str
    default: str = ""

    def value(self, scope: Fillable) -> str:
        """The field's text in ``scope``, or the default when that is missing or empty."""
        return scope.text(self) or self.default


@dataclass(frozen=True, slots=True)
class Scope:
    """What a template may look at for one MQTT message."""

    levels: Sequence[str]
    named: Mapping[str, str]
    user: Sequence[tuple[str, str]] = ()
    client_id: str = ""
    source: str = ""

    def text(self, field: Field) -> str:
        """See :class:`Fillable`."""
        match field.kind:
            case "level":
                return self.named.get(field.name, "")
            case "user":
                return next((value for name, value in self.user if name == field.name), "")
            case "index":
                index = int(field.name)
                return self.levels[index] if index < len(self.levels) else ""
            case "topic":
                return "/".join(self.levels)
            case "source":
                return self.source
            case _:
                return self.client_id


@dataclass(frozen=True, slots=True)
class MessageScope:
    """What a template may look at for one RocketMQ message."""

    message: Message

    def text(self, field: Field) -> str:
        """See :class:`Fillable`."""
        message = self.message
        match field.kind:
            case "property":
                return message.properties.get(field.name, "")
            case "tag":
                return message.tag or ""
            case "key":
                return message.keys[0] if message.keys else ""
            case "keys":
                return " ".join(message.keys)
            case "message_group":
                return message.group or ""
            case _:
                return message.topic


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. ``per_message`` tells that its text is not fixed by the topic alone."""

    text: str
    parts: tuple[str | Field, ...]

    @classmethod
    def parse(cls, text: str, fields: Fields = UP) -> Template:
        """Parse ``text``, which may name these ``fields``.

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
                parts.append(fields.field(token.group(1), token.start()))
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
        return any(field.kind in PER_MESSAGE for field in self.fields)

    @property
    def from_device(self) -> bool:
        """Whether a device has a say in the text. If not, the configuration alone fixes it, per connection."""
        return any(field.kind not in FIXED_FIELDS for field in self.fields)

    def render(self, scope: Fillable) -> str:
        """The template's text for one message. Never fails: a missing field without a default is empty."""
        return "".join(part if isinstance(part, str) else part.value(scope) for part in self.parts)
