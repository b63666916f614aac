"""Conflicts that a section's other errors hide.

Pydantic looks at a section as a whole only when each of its settings is valid. So that all errors show at once, what is
invalid is taken out and the rest is looked at again. A conflict with a setting that was taken out is not told: nobody
knows what it will be.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spanbridge.config.explain import conflict_finding
from spanbridge.config.lookup import value_at
from spanbridge.config.models import Config
from spanbridge.config.models.base import CONFLICTS, Conflict
from spanbridge.config.problems import Finding, Loc


def hidden_conflicts(data: dict[str, Any], error: ValidationError, context: dict[str, Any]) -> list[Finding]:
    """The conflicts in ``data`` beyond those that ``error``, its validation, tells."""
    rest, gone, found = copy.deepcopy(data), set[Loc](), list[Finding]()
    while removed := {loc for loc in _culprits(error) if loc not in gone and _remove(rest, loc)}:
        gone |= removed
        try:
            Config.model_validate(rest, context=context)
            break
        except ValidationError as again:
            error = again
        found += [
            conflict_finding(section, conflict)
            for section, conflict in _conflicts(error)
            if not any(_reaches(loc, (*section, *name.split("."))) for name in conflict.settings for loc in gone)
        ]
    return found


def _conflicts(error: ValidationError) -> Iterator[tuple[Loc, Conflict]]:
    for details in error.errors(include_url=False):
        if details["type"] == CONFLICTS:
            yield from ((details["loc"], conflict) for conflict in details["ctx"]["conflicts"])


def _culprits(error: ValidationError) -> Iterator[Loc]:
    for details in error.errors(include_url=False):
        yield from _blamed(details)


def _blamed(details: ErrorDetails) -> Iterator[Loc]:
    if details["type"] == CONFLICTS:
        for conflict in details["ctx"]["conflicts"]:
            yield (*details["loc"], *conflict.settings[0].split("."))
    else:
        yield tuple(part for part in details["loc"] if part != "[key]")


def _remove(data: dict[str, Any], loc: Loc) -> bool:
    """Take out what is at ``loc``, keeping the place of an item in its list; False when nothing is there."""
    holder = value_at(data, loc[:-1]) if loc else None
    if isinstance(holder, list) and isinstance(loc[-1], int):
        holder[loc[-1]] = {}
        return True
    return isinstance(holder, dict) and holder.pop(loc[-1], None) is not None


def _reaches(loc: Loc, setting: Loc) -> bool:
    return setting[: len(loc)] == loc
