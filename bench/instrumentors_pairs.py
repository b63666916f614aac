"""Two versions of the instrumentors in one process: what is ours of their cost, before and after, in turns.

Both versions' modules are loaded, under the same names, one after the other, and keep to themselves: what one has
instrumented is given back before the other's turn. In each turn the same providers are used by the SDK alone, by the
earlier version and by this one; the order of the two changes from turn to turn. A run's figures are those of the
fastest slices of its turns (other work on the machine only ever adds); what is reported is the median over the runs,
and ``ours_ratio`` is that of the two medians of what is ours.
"""

from __future__ import annotations

import importlib
import statistics
import sys
from collections.abc import Callable, Sequence
from math import inf
from types import ModuleType
from typing import Any

from bench.revision import ROOT, THIS, Code, checked_out

_OURS = ("spanbridge_context", "spanbridge_instrumentation", "bench")
_BENCH = "bench.instrumentors"
_RUNS = 5
_TURNS = 8
_SLICES = 10
_SHORTER = 4


def compare(rev: str, names: Sequence[str] = ()) -> dict[str, Any]:
    """``{case: {"unsampled": {...}, "sampled": {...}}}``: microseconds of CPU per message, of both versions.

    :raises RevisionError: there is no such commit.
    """
    with checked_out(rev) as before:
        versions = [_loaded(before), _loaded(THIS)]
    found: dict[str, Any] = {}
    for makes in zip(*(bench._CASES for bench in versions), strict=True):
        if names and makes[0].__name__ not in names:
            continue
        for sampled in (False, True):
            case, figures = _case(versions, makes, sampled)
            found.setdefault(case, {})["sampled" if sampled else "unsampled"] = figures
    return found


def _loaded(code: Code) -> ModuleType:
    """``bench.instrumentors`` of this checkout over the packages of ``code``."""

    def mine(name: str) -> bool:
        return name.partition(".")[0] in _OURS

    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if mine(name)}
    path = [str(code.root / "context"), str(ROOT), *sys.path]
    before, sys.path[:] = list(sys.path), path
    try:
        module = importlib.import_module(_BENCH)
        importlib.import_module("spanbridge_instrumentation.paho")
        importlib.import_module("spanbridge_instrumentation.rocketmq")
        return module
    finally:
        sys.path[:] = before
        for name in [name for name in sys.modules if mine(name)]:
            del sys.modules[name]
        sys.modules.update(kept)


def _case(
    versions: Sequence[ModuleType], makes: Sequence[Callable[[bool], Any]], sampled: bool
) -> tuple[str, dict[str, float]]:
    after = versions[-1]
    with after._providers(sampled) as providers:
        cases = [make(sampled) for make in makes]
        floor = after.Floor(**providers)
        count = max(1, after._count(cases[-1].plain) // _SHORTER)
        sdk = lambda: cases[-1].sdk(floor, True)  # noqa: E731
        runs = []
        for _ in range(_RUNS):
            best = [inf, inf, inf]
            for turn in range(_TURNS):
                for at in (0, 1) if turn % 2 else (1, 0):
                    best[2] = min(best[2], _fastest(after, sdk, count))
                    with versions[at]._instrumented(cases[at], providers):
                        best[at] = min(best[at], _fastest(after, cases[at].instrumented, count))
            runs.append([value / cases[-1].messages for value in best])
        calls = [bench._calls_of_ours(case, providers) for bench, case in zip(versions, cases, strict=True)]
    return cases[-1].name, _summary(runs, calls)


def _fastest(bench: ModuleType, call: Callable[[], Any], count: int) -> float:
    return min(bench._slice(call, count) for _ in range(_SLICES))


def _summary(runs: Sequence[Sequence[float]], calls: Sequence[int]) -> dict[str, float]:
    before, after, sdk = (statistics.median(column) for column in zip(*runs, strict=True))
    ours_before, ours_after = (statistics.median(run[at] - run[2] for run in runs) for at in (0, 1))
    return {
        "sdk_us": round(sdk, 1),
        "before_us": round(before, 1),
        "after_us": round(after, 1),
        "ours_before_us": round(ours_before, 1),
        "ours_after_us": round(ours_after, 1),
        "ours_ratio": round(ours_after / ours_before, 2),
        "ours_calls_before": calls[0],
        "ours_calls_after": calls[1],
    }
