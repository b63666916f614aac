"""Two versions of the instrumentors in one process: what is ours of their cost, before and after, in turns.

Both versions' modules are loaded, under the same names, one after the other, and keep to themselves: what one has
instrumented is given back before the other's turn. In each turn the same providers are used by the SDK alone, by the
earlier version and by this one; the order of the two changes from turn to turn. A turn's figure is its fastest slice
(other work on the machine only ever adds), what is reported is the median over the turns, and of the ratios the median
of the turns' own: who shares the processor changes from turn to turn, and less within one.
"""

from __future__ import annotations

import importlib
import statistics
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from bench.revision import ROOT, THIS, Code, checked_out

_OURS = ("spanbridge_context", "spanbridge_instrumentation", "bench")
_BENCH = "bench.instrumentors"
_TURNS = 15
_SLICES = 6


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
        count = after._count(cases[-1].plain)
        turns = []
        for turn in range(_TURNS):
            figures = [0.0, 0.0, 0.0]
            figures[2] = _best(after, lambda: cases[-1].sdk(floor, True), count, cases[-1].messages)
            for at in (0, 1) if turn % 2 else (1, 0):
                with versions[at]._instrumented(cases[at], providers):
                    figures[at] = _best(after, cases[at].instrumented, count, cases[at].messages)
            again = _best(after, lambda: cases[-1].sdk(floor, True), count, cases[-1].messages)
            figures[2] = min(figures[2], again)
            turns.append(figures)
        calls = [bench._calls_of_ours(case, providers) for bench, case in zip(versions, cases, strict=True)]
    return cases[-1].name, _summary(turns, calls)


def _best(bench: ModuleType, call: Callable[[], Any], count: int, messages: int) -> float:
    return min(bench._slice(call, count) / messages for _ in range(_SLICES))


def _summary(turns: Sequence[Sequence[float]], calls: Sequence[int]) -> dict[str, float]:
    before, after, sdk = (statistics.median(column) for column in zip(*turns, strict=True))
    ours = [(turn[0] - turn[2], turn[1] - turn[2]) for turn in turns]
    return {
        "sdk_us": round(sdk, 1),
        "before_us": round(before, 1),
        "after_us": round(after, 1),
        "ours_before_us": round(statistics.median(one[0] for one in ours), 1),
        "ours_after_us": round(statistics.median(one[1] for one in ours), 1),
        "ours_ratio": round(statistics.median(one[1] / one[0] for one in ours if one[0] > 0), 2),
        "ours_calls_before": calls[0],
        "ours_calls_after": calls[1],
    }
