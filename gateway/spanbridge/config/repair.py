"""What can still be said of a configuration that is not valid: conflicts and clashes that its other errors hide.

Pydantic looks at a section as a whole only when each of its settings is valid, and sections are checked against each
other only when each is. So that all errors show at once, an invalid setting is taken out, or replaced by its example
where there is one, and the rest is looked at again. Nothing is told of what was replaced: nobody knows what it will
be.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spanbridge.config.explain import conflict_finding
from spanbridge.config.lookup import field_at, section_at, value_at
from spanbridge.config.models import Config
from spanbridge.config.models.base import CONFLICTS, Conflict
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, Loc, closest


@dataclass(slots=True)
class Repair:
    """A configuration with its invalid settings replaced, and the conflicts that they hid."""

    parts: Parts | None
    conflicts: list[Finding]


def repair(data: dict[str, Any], error: ValidationError, context: dict[str, Any], unset: Iterable[Loc]) -> Repair:
    """Make ``data``, of which ``error`` is the validation, a configuration.

    ``unset`` are settings of which the environment holds no value.
    """
    attempt = _Attempt(copy.deepcopy(data), set(unset))
    config: Config | None = None
    while config is None and attempt.mend(error):
        try:
            config = Config.model_validate(attempt.data, context=context)
        except ValidationError as again:
            error = again
            attempt.note_conflicts(error)
    return Repair(None if config is None else Parts(config, frozenset(attempt.gone)), attempt.found)


@dataclass(slots=True)
class _Attempt:
    data: dict[str, Any]
    gone: set[Loc]
    found: list[Finding] = field(default_factory=list)

    def mend(self, error: ValidationError) -> bool:
        """Take out or replace what ``error`` blames; False when nothing is left to do so with."""
        blamed = [loc for details in error.errors(include_url=False) for loc in self._blamed(details)]
        fresh = {loc for loc in blamed if loc not in self.gone or _is_missing(self.data, loc)}
        mended = [loc for loc in fresh if self._replace(loc)]
        return bool(mended)

    def note_conflicts(self, error: ValidationError) -> None:
        """Keep those conflicts that are between settings of the user's own."""
        for section, conflict in _conflicts(error):
            settings = [(*section, *name.split(".")) for name in conflict.settings]
            if not any(loc[: len(gone)] == gone for loc in settings for gone in self.gone):
                self.found.append(conflict_finding(section, conflict))

    def _blamed(self, details: ErrorDetails) -> Iterator[Loc]:
        if details["type"] == CONFLICTS:
            for conflict in details["ctx"]["conflicts"]:
                settings = [(*details["loc"], *name.split(".")) for name in conflict.settings]
                yield next((loc for loc in settings if loc not in self.gone), settings[0])
        else:
            yield _setting_of(tuple(part for part in details["loc"] if part != "[key]"))

    def _replace(self, loc: Loc) -> bool:
        """Take out what is at ``loc``, keeping the place of an item in its list; put the example where there is one.

        Where that is a mistyped setting, the one that was meant is not known either.
        """
        holder = value_at(self.data, loc[:-1]) if len(loc) > 1 else self.data
        key = loc[-1] if loc else None
        if isinstance(holder, list) and isinstance(key, int) and key < len(holder):
            holder[key] = {}
        elif isinstance(holder, dict) and isinstance(key, str):
            setting = field_at(Config, loc)
            if setting is not None and setting.examples:
                holder[key] = copy.deepcopy(setting.examples[0])
            elif holder.pop(key, None) is None and loc in self.gone:
                return False
            section = section_at(Config, loc[:-1])
            meant = closest(key, section.model_fields) if setting is None and section is not None else None
            self.gone |= {(*loc[:-1], meant)} if meant is not None else set()
        else:
            return False
        self.gone.add(loc)
        return True


def _is_missing(data: dict[str, Any], loc: Loc) -> bool:
    return value_at(data, loc) is None


def _setting_of(loc: Loc) -> Loc:
    """The setting, or the item of a list of sections, that holds ``loc``."""
    while len(loc) > 1 and section_at(Config, loc[:-1]) is None:
        loc = loc[:-1]
    return loc


def _conflicts(error: ValidationError) -> Iterator[tuple[Loc, Conflict]]:
    for details in error.errors(include_url=False):
        if details["type"] == CONFLICTS:
            yield from ((details["loc"], conflict) for conflict in details["ctx"]["conflicts"])
