"""Find things by their location: the model or field of a setting, its value as written, its path as people write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from spanbridge.config.models import Section
from spanbridge.config.problems import Loc

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
# All up to the last `@`: a password that was not percent-encoded may itself hold `/` and `@`.
_CREDENTIALS = re.compile(r"(?:(?<=//)|^(?!\w+://)).*@", re.DOTALL)
_LONGEST_VALUE = 80


def path_text(loc: Loc) -> str:
    """``("routes", 2, "topic")`` as ``routes[2].topic``; keys that TOML has to quote are quoted."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE.match(part) else f'"{part}"'
            text += f".{key}" if text else key
    return text


def section_in(annotation: Any) -> type[Section] | None:
    """The model inside ``list[Model]``, ``Model | None`` or ``Annotated[Model, ...]``, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        arguments = arguments[:1]
    return next((found for argument in arguments if (found := section_in(argument))), None)


def section_at(root: type[Section], loc: Loc) -> type[Section] | None:
    """The model of the table at ``loc``, or None when there is none."""
    section: type[Section] | None = root
    for part in loc:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part) if section else None
        section = section_in(field.annotation) if field else None
    return section


def field_at(root: type[Section], loc: Loc) -> FieldInfo | None:
    """The field at ``loc`` (or the list field that holds it), or None when there is none."""
    names = list(loc)
    while names and isinstance(names[-1], int):
        names.pop()
    if not names or isinstance(names[-1], int):
        return None
    section = section_at(root, tuple(names[:-1]))
    return section.model_fields.get(str(names[-1])) if section else None


def is_secret(field: FieldInfo) -> bool:
    """Whether the value must not be shown."""
    return "SecretStr" in repr(field.annotation) or field.annotation is SecretStr


def value_at(data: Any, loc: Loc) -> Any:
    """The value at ``loc`` in parsed TOML, or None."""
    for part in loc:
        if isinstance(data, list):
            data = dict(enumerate(data))
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data


def shown_value(root: type[Section], data: Any, loc: Loc) -> str | None:
    """The value at ``loc`` as text to show; None for tables, lists, unknown keys and whatever may be secret."""
    field = field_at(root, loc)
    value = value_at(data, loc)
    if field is None or is_secret(field) or section_in(field.annotation) or not isinstance(value, str | int | float):
        return None
    text = f'"{_CREDENTIALS.sub("***@", value)}"' if isinstance(value, str) else str(value).lower()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
