"""The /status pages of several workers as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Row = Mapping[str, Any]

_MOST: Final = ("oldest_unacknowledged_s", "oldest_s")
_LEAST: Final = ("last_s", "hours_left", "since_s")
_ALL: Final = ("straight",)
"""True when it is so for all workers; other booleans when it is for one."""
_KEPT: Final = 20
"""Warnings and errors shown, of all workers."""
_SUMS: Final = ("uplink", "downlink", "spool")
_KEYED: Final = {"routes": ("source", "filter"), "downlinks": ("name",)}
_EACH: Final = ("mqtt", "publishers", "consumers")


def totals(pages: Mapping[int, Row]) -> dict[str, Any]:
    """What is on the pages of workers, given by their numbers: counts added up, connections one by one."""
    found: dict[str, Any] = {}
    for name in ("uplink", "routes", "batches", "downlink", "downlinks", "publishers", "consumers", "mqtt", "spool"):
        having = {number: page[name] for number, page in pages.items() if name in page}
        if having:
            found[name] = _total(name, having)
    links = [page["rocketmq"] for page in pages.values()]
    if links:  # one that is away is what matters
        found["rocketmq"] = next((link for link in links if link["link"] != "up"), links[0])
    lag = next((page["lag"] for page in pages.values() if "lag" in page), None)
    if lag is not None:
        found["lag"] = lag
    return found


def _total(name: str, having: Mapping[int, Any]) -> Any:
    if name == "batches":
        return _batches(list(having.values()))
    if name in _SUMS:
        return added(list(having.values()))
    rows = [(number, row) for number, page in having.items() for row in page]
    if name in _EACH:
        return [{"worker": number, **row} for number, row in rows]
    same: dict[tuple[Any, ...], list[Row]] = {}
    for _, row in rows:
        same.setdefault(tuple(row[key] for key in _KEYED[name]), []).append(row)
    return [added(found) for found in same.values()]


def last_errors(pages: Mapping[int, Row]) -> list[dict[str, Any]]:
    """The last warnings and errors of all workers, latest first."""
    found = [{"worker": number, **row} for number, page in pages.items() for row in page["last_errors"]]
    return sorted(found, key=lambda row: float(row["age_s"]))[:_KEPT]


def added(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows about the same thing as one: numbers added up, ages at their worst, the latest error."""
    keys = dict.fromkeys(key for row in rows for key in row)
    found = {key: _one(key, [row[key] for row in rows if row.get(key) is not None]) for key in keys}
    if "last_error_age_s" in found:
        latest = min(rows, key=lambda row: _age(row.get("last_error_age_s")))
        found |= {key: latest[key] for key in ("last_error", "last_error_age_s")}
    return found


def _age(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds


def _one(key: str, values: Sequence[Any]) -> Any:
    if not values:
        return None
    first = values[0]
    if isinstance(first, bool):
        return all(values) if key in _ALL else any(values)
    if isinstance(first, Mapping):
        return added(values)
    if isinstance(first, int | float):
        chosen = max if key in _MOST else min if key in _LEAST else sum
        total = chosen(values)
        return round(total, 3) if isinstance(total, float) else total
    return first


def _batches(rows: Sequence[Row]) -> dict[str, Any]:
    """Averages of each worker count as much as its requests of the last seconds."""
    found = added(rows)
    for key in ("messages_per_request", "request_ms"):
        found[key] = _mean((row[key], row["stored_per_s"]) for row in rows if row[key] is not None)
    return found


def _mean(weighted: Iterable[tuple[float, float]]) -> float | None:
    pairs = list(weighted)
    weight = sum(one for _, one in pairs)
    return round(sum(value * one for value, one in pairs) / weight, 1) if weight else None
