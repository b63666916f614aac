"""From a file and the environment to a :class:`Config`, or to everything that is wrong with them."""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spanbridge.config.checks import cross_check
from spanbridge.config.environment import DigitsError, apply_overrides, interpolate, parse
from spanbridge.config.explain import explain
from spanbridge.config.locate import line_numbers, line_of
from spanbridge.config.lookup import path_text, shown_value, value_at
from spanbridge.config.models import Config
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, InvalidConfigError, Loc, Problem
from spanbridge.config.repair import repair
from spanbridge.config.variables import unknown_variables

# tomllib's words, and what is usually behind them.
_SYNTAX_HINTS = {
    "Invalid value": "text values need quotes",
    "Cannot overwrite a value": "the setting is there twice",
    "twice": "write the table once; several are written `[[mqtt]]` or `[[routes]]`",
    "Invalid statement": "write `name = value`, or `[section]`",
}
_TOML_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)")


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of reading a configuration. ``config`` is None exactly when ``errors`` is not empty."""

    config: Config | None
    problems: list[Problem]
    log_format: str = "auto"
    """`telemetry.log_format`, also of a configuration that has errors elsewhere."""

    def with_error(self, message: str | None) -> Report:
        """The report with one more error, which no setting of the file is to blame for; itself where there is none."""
        if message is None:
            return self
        error = Problem(path="", message=message)
        return Report(None, [error, *self.problems], self.log_format)

    @property
    def errors(self) -> list[Problem]:
        """What has to be mended."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """What is legal and deserves a look."""
        return [problem for problem in self.problems if problem.severity == "warning"]


def load(path: str | os.PathLike[str], environ: Mapping[str, str]) -> Config:
    """Read a configuration.

    :raises InvalidConfigError: the file cannot be read or anything in it is wrong; holds every problem found.
    """
    report = examine(path, environ)
    if report.config is None:
        raise InvalidConfigError(report.problems)
    return report.config


def examine(path: str | os.PathLike[str], environ: Mapping[str, str]) -> Report:
    """Read a configuration and collect errors and warnings. Raises nothing that a file can cause."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except FileNotFoundError:
        return _unreadable(f"{file} does not exist", f"`spanbridge init {file}` writes one to start from")
    except OSError as error:
        return _unreadable(f"cannot read {file}: {(error.strerror or type(error).__name__).lower()}", None)
    except UnicodeDecodeError as error:
        return _unreadable(f"{file} is not UTF-8 text (byte {error.start})", "TOML files are UTF-8")
    return examine_text(text, environ, base=file.parent)


def examine_text(text: str, environ: Mapping[str, str], *, base: Path) -> Report:
    """As :func:`examine`, for text at hand. Relative paths in it start at ``base``."""
    try:
        return _Reading(parse(text), environ, base, line_numbers(text)).report()
    except tomllib.TOMLDecodeError as error:
        return _syntax_error(error)
    except DigitsError:
        return _unreadable("a number has too many digits to be read", None)
    except RecursionError:
        return _unreadable("tables or lists are nested too deeply", "no setting needs more than four levels")


def _unreadable(message: str, hint: str | None) -> Report:
    return Report(None, [Problem(path="", message=message, hint=hint)])


def _syntax_error(error: tomllib.TOMLDecodeError) -> Report:
    # The line itself is not shown: what breaks the syntax may be a password without its quotes.
    match = _TOML_POSITION.search(str(error))
    message = _TOML_POSITION.sub("", str(error))
    where = f" at column {match[2]}" if match else ""
    hint = next((hint for part, hint in _SYNTAX_HINTS.items() if part in message), None)
    line = int(match[1]) if match else None
    return Report(None, [Problem(path="", message=f"not valid TOML: {message}{where}", hint=hint, line=line)])


@dataclass(slots=True)
class _Reading:
    """One pass over one file."""

    written: dict[str, Any]
    environ: Mapping[str, str]
    base: Path
    lines: dict[Loc, int]
    sources: dict[Loc, str] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    single_broker: bool = False

    def report(self) -> Report:
        """Apply the environment, validate, cross-check."""
        self.shown = copy.deepcopy(self.written)
        self.sources, findings = apply_overrides(self.shown, self.environ)
        data, unset = interpolate(self.shown, self.environ)
        findings += unset + unknown_variables(self.environ)
        self._number_the_broker(data)
        config, told = self._validate(data, {finding.loc for finding in unset})
        findings += told
        problems = sorted(map(self._place, findings), key=lambda one: (one.severity != "error", one.line or 0))
        failed = any(problem.severity == "error" for problem in problems)
        return Report(None if failed else config, problems, self._log_format(data))

    def _validate(self, data: dict[str, Any], unset: set[Loc]) -> tuple[Config | None, list[Finding]]:
        """The configuration, and all that is to be said of it and not only of the settings in ``unset``."""
        context = {"base": self.base}
        unknown = {self._numbered(loc) for loc in unset}
        config: Config | None = None
        try:
            config = Config.model_validate(data, context=context)
        except ValidationError as error:
            repaired = repair(data, error, context, unknown)
            parts, told = repaired.parts, [*explain(error, Config), *repaired.conflicts]
        else:
            parts, told = Parts(config, frozenset(unknown)), []
        findings = [finding for finding in told if self._as_written(finding.loc) not in unset]
        return config, findings + (cross_check(parts) if parts is not None else [])

    def _log_format(self, data: dict[str, Any]) -> str:
        written = value_at(data, ("telemetry", "log_format"))
        return str(written) if written in ("text", "json") else "auto"

    def _number_the_broker(self, data: dict[str, Any]) -> None:
        """`[mqtt]` is `[[mqtt]]` with one item; findings are still told under the path as written."""
        self.single_broker = isinstance(data.get("mqtt"), dict)
        if self.single_broker:
            data["mqtt"] = [data["mqtt"]]

    def _as_written(self, loc: Loc) -> Loc:
        return ("mqtt", *loc[2:]) if self.single_broker and loc[:2] == ("mqtt", 0) else loc

    def _numbered(self, loc: Loc) -> Loc:
        return ("mqtt", 0, *loc[1:]) if self.single_broker and loc[:1] == ("mqtt",) else loc

    def _place(self, finding: Finding) -> Problem:
        loc = self._as_written(finding.loc)
        source = finding.source or self.sources.get(loc)
        return Problem(
            path=path_text(loc),
            message=finding.message,
            hint=finding.hint,
            value=shown_value(Config, self.shown, loc) if finding.show_value else None,
            line=None if source else line_of(loc, self.lines),
            source=source,
            severity=finding.severity,
        )
