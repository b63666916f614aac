"""What all sections share: strictness, and the types that people write as text (durations, sizes, secrets, files)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from spanbridge.config.environment import EnvText, plain_value


def invalid(message: str, hint: str | None = None) -> PydanticCustomError:
    """The error a validator raises: the message never holds the value, which is added where it is safe to show."""
    # Pydantic formats the template with the context, so braces of ours travel in the context.
    return PydanticCustomError("spanbridge", "{message}", {"message": message, "hint": hint})


CONFLICTS = "spanbridge_conflicts"
"""Type of the error that holds all of a section's :class:`Conflict` objects, under ``conflicts`` in its context."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Settings that do not go together. The first is the one to complain about; paths start at the section."""

    settings: tuple[str, ...]
    message: str
    hint: str | None = None


def one_without_other(message: str, first: tuple[str, object], second: tuple[str, object]) -> Iterator[Conflict]:
    """The conflict of two settings, each a name and what is given, of which one alone makes no sense."""
    for (name, given), (other, needed) in ((first, second), (second, first)):
        if given and not needed:
            yield Conflict((name, other), message)


@dataclass(frozen=True, slots=True)
class Kind:
    """How the reference calls a type."""

    name: str


class Section(BaseModel):
    """Base of every table of the file: unknown keys and wrong types are errors, values do not change afterwards."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    _takes_text: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._takes_text = frozenset(name for name, field in cls.model_fields.items() if takes_text(field.annotation))

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong with valid settings when they are seen together."""
        yield from ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if conflicts := list(self.conflicts()):
            raise PydanticCustomError(CONFLICTS, "settings do not go together", {"conflicts": conflicts})
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_environment_text(cls, data: Any) -> Any:
        """Turn text from the environment into the number, boolean or list that the setting is."""
        if not isinstance(data, Mapping):
            return data
        return {
            key: plain_value(value) if isinstance(value, EnvText) and key not in cls._takes_text else value
            for key, value in data.items()
        }


def takes_text(annotation: Any) -> bool:
    """Whether a setting of this type is itself written as text."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return takes_text(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return any(takes_text(part) for part in get_args(annotation) if part is not NoneType)
    if origin is Literal:
        return any(isinstance(value, str) for value in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, str | SecretStr | Path)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|kB|MB|GB)?")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_duration(value: Any) -> Any:
    """Seconds from a number, or from text such as ``"500ms"``, ``"30s"``, ``"5m"``, ``"1h"``, ``"1d"``."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise invalid(
            "is not a duration", 'write seconds as a number, or text such as "500ms", "30s", "5m", "1h", "1d"'
        )
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_whole_seconds(value: Any) -> Any:
    """As :func:`parse_duration`, for what the protocol counts in whole seconds."""
    seconds = parse_duration(value)
    if isinstance(seconds, float):
        if not seconds.is_integer():
            raise invalid("must be whole seconds", "the protocol cannot express less than a second")
        return int(seconds)
    return seconds


def parse_size(value: Any) -> Any:
    """Bytes from a whole number, or from text such as ``"512KiB"``, ``"4MiB"``, ``"1GB"``."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise invalid("is not a size", 'write bytes as a number, or text such as "512KiB", "4MiB"')
    return int(match[1]) * _BYTES[match[2] or "B"]


def read_secret(value: Any, info: ValidationInfo) -> Any:
    """A secret as written, or the content of the file that ``file:PATH`` names, without its last newline."""
    if not isinstance(value, str):
        return value
    if not value.startswith("file:"):
        return SecretStr(str(value))
    path = resolve_path(value.removeprefix("file:"), info)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(
            f"cannot read the secret file {path}: {_cause(error)}", "check the path and its permissions"
        ) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise invalid(f"the secret file {path} is empty")
    return SecretStr(text)


def read_path(value: Any, info: ValidationInfo) -> Any:
    """A file that must be there and readable; a relative path starts at the configuration file's folder."""
    if not isinstance(value, str):
        return value
    path = resolve_path(value, info)
    try:
        path.open("rb").close()
    except OSError as error:
        raise invalid(
            f"cannot read {path}: {_cause(error)}", "relative paths start at the configuration file"
        ) from None
    return path


def resolve_path(text: str, info: ValidationInfo) -> Path:
    """Join a relative path to the folder of the configuration file."""
    base = (info.context or {}).get("base", Path())
    try:
        path = Path(base) / Path(text).expanduser()
    except RuntimeError:
        raise invalid("starts with `~`, and that user has no home directory here", "write the whole path") from None
    if "\0" in text:
        raise invalid("a path has no NUL")
    return path


def _cause(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else "it is not UTF-8 text"


Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=float | str), Kind("duration")]
WholeSeconds = Annotated[int, BeforeValidator(parse_whole_seconds, json_schema_input_type=int | str), Kind("duration")]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str), Kind("size")]
Secret = Annotated[SecretStr, BeforeValidator(read_secret, json_schema_input_type=str), Kind("secret")]
ReadableFile = Annotated[Path, BeforeValidator(read_path, json_schema_input_type=str), Kind("path")]
