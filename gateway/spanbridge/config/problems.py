"""What is wrong with a configuration, in a form that a terminal, a log and a machine can all show."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from spanbridge.core.errors import ConfigError

Severity = Literal["error", "warning"]
Loc = tuple[str | int, ...]
"""Keys and indexes from the root of the file, as in ``("routes", 2, "topic")``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check has to say about the setting at ``loc``. The loader adds path, line, value and source."""

    loc: Loc
    message: str
    hint: str | None = None
    severity: Severity = "error"
    show_value: bool = True
    source: str | None = None


def warning(loc: Loc, message: str, hint: str | None = None, *, show_value: bool = False) -> Finding:
    """A finding about what is legal and seldom meant."""
    return Finding(loc=loc, message=message, hint=hint, severity="warning", show_value=show_value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding.

    ``path`` is the TOML path (``routes[2].topic``; empty for the file itself). ``value`` is the offending value as
    written in the file, already shortened, and None where it is, or could be, a secret. ``line`` counts from 1.
    ``source`` names the environment variable when the value came from one.
    """

    path: str
    message: str
    hint: str | None = None
    value: str | None = None
    line: int | None = None
    source: str | None = None
    severity: Severity = "error"

    def text(self) -> str:
        """One line: where, what, the value, the hint."""
        where = self.path or "configuration"
        if self.line is not None:
            where += f" (line {self.line})"
        if self.source is not None:
            where += f" (from {self.source})"
        value = f", got {self.value}" if self.value is not None else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{where}: {self.message}{value}{hint}"

    def located(self, file: str | os.PathLike[str]) -> str:
        """``file:line: severity: path: message, got value (hint)``, the form that editors and CI systems know."""
        line = f":{self.line}" if self.line is not None else ""
        where = f" {self.path}:" if self.path else ""
        source = f" (from {self.source})" if self.source else ""
        value = f", got {self.value}" if self.value is not None else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{os.fspath(file)}{line}: {self.severity}:{where} {self.message}{source}{value}{hint}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, all fields always present."""
        return asdict(self)


class InvalidConfigError(ConfigError):
    """The configuration cannot be used. ``problems`` holds all that was found: errors first, then warnings."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.severity != "error")
        errors = [problem.text() for problem in self.problems if problem.severity == "error"]
        super().__init__("\n".join(errors) or "invalid configuration")


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be, or None when nothing is close."""
    candidates = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), candidates, n=1, cutoff=0.6)
    return candidates[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that offers the closest known word, or None when nothing is close."""
    close = closest(word, known)
    return f"did you mean `{close}`?" if close else None
