"""A flame graph as one HTML file that loads nothing. It shows without JavaScript; with it, it zooms and searches."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial
from html import escape
from importlib import resources

from spanbridge_profiling.flames import Node, by_label, hottest, label, short, tree
from spanbridge_profiling.profile import Profile, Sample

_HEIGHT = 18
"""Pixels of one level."""
_NARROWEST = 0.0004
"""Share of the whole below which a frame is not drawn."""
_MOST_ROWS = 12
_LIBRARY = re.compile(r"^<|/(site|dist)-packages/|/lib/python3|^$")
"""Files of other people's code."""
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_OWN_TABLES = ("thread", "trace_id")


def write_flame_graph(profile: Profile, title: str, *, by: str = "") -> str:
    """The page. ``by`` is a label, or ``thread``, ``trace_id``, ``span_id``: one flame for each value of it."""
    group = partial(_group, by=by) if by else None
    root = tree(profile.samples, group)
    parts = {
        "title": escape(title),
        "about": "".join(f"<p>{escape(line)}</p>\n" for line in about(profile)),
        "flames": _svg(root, grouped=bool(by)),
        "tables": "\n".join(_tables(profile)),
    }
    page = resources.files(__package__).joinpath("flamegraph.html").read_text(encoding="utf-8")
    return _SLOT.sub(lambda slot: parts[slot[1]], page)


def about(profile: Profile) -> Iterator[str]:
    """What the profile is of, in lines."""
    counts = profile.counts
    seconds = profile.duration_ns / 1e9
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(profile.started_ns / 1e9))
    share = f", {profile.cpu_ns / profile.duration_ns:.1%} of one CPU" if profile.duration_ns else ""
    yield f"{began}, {seconds:.1f} s: {_time(profile.cpu_ns)} of CPU time{share}, in {_taken(profile)} samples"
    if counts.total:
        unknown = f", {counts.unknown} whose span could not be told" if counts.unknown else ""
        lost = f", {counts.lost} not kept" if counts.lost else ""
        yield f"{counts.linked} samples with a span, {counts.without_span} without{unknown}{lost}"


def _taken(profile: Profile) -> int:
    return sum(sample.count for sample in profile.samples)


def _group(sample: Sample, by: str) -> str:
    return f"{by}: {label(sample, by) or 'none'}"


def _svg(root: Node, *, grouped: bool) -> str:
    drawn = list(_frames(root, 0.0, 0, root.total_ns or 1, grouped=grouped)) if root.total_ns else []
    levels = 1 + max((level for level, _ in drawn), default=0)
    whole = "\n".join(text for _, text in drawn) or '<text x="4" y="13">no samples: nothing used the CPU</text>'
    return f'<svg id="flames" height="{levels * _HEIGHT}" role="img" aria-label="flame graph">\n{whole}\n</svg>'


def _frames(node: Node, left: float, level: int, whole: int, *, grouped: bool) -> Iterator[tuple[int, str]]:
    """A frame and those that it called, from left to right by their names, and their levels."""
    width = node.total_ns / whole
    if width < _NARROWEST:
        return
    yield level, _frame(node, left, width, level, grouped=grouped)
    for name in sorted(node.called):
        child = node.called[name]
        yield from _frames(child, left, level + 1, whole, grouped=grouped)
        left += child.total_ns / whole


def _frame(node: Node, left: float, width: float, level: int, *, grouped: bool) -> str:
    is_group = level == 0 or (grouped and level == 1)
    kind = "group" if is_group else "lib" if _LIBRARY.search(node.file) else "own"
    place = f" ({short(node.file)})" if node.file else ""
    own = f", itself {_time(node.self_ns)}" if node.self_ns else ""
    told = f"{node.function}{place}: {_time(node.total_ns)}, {width:.1%}{own}, {node.samples} samples"
    return (
        f'<svg class="f {kind}{" o" if level % 2 else ""}" data-x="{left:.8f}" data-w="{width:.8f}" x="{left:.4%}" '
        f'y="{level * _HEIGHT}" width="{width:.4%}" height="{_HEIGHT}"><title>{escape(told)}</title>'
        f'<rect width="100%" height="100%"/><text x="4" y="13">{escape(node.function)}</text></svg>'
    )


def _tables(profile: Profile) -> Iterator[str]:
    frames = [(f"{frame.function} ({short(frame.file)}:{frame.line})", cpu) for frame, cpu in hottest(profile.samples)]
    yield _table("time in the function itself", frames, profile.cpu_ns)
    labels = sorted({name for sample in profile.samples for name, _ in sample.labels})
    for name in (*labels, *_OWN_TABLES):
        rows = by_label(profile, name)
        if len(rows) > 1 or (rows and rows[0][0]):
            yield _table(name, [(value or "none", cpu) for value, cpu in rows], profile.cpu_ns)


def _table(title: str, rows: list[tuple[str, int]], whole: int) -> str:
    lines = [
        f'<tr><td class="n">{_time(cpu)}</td><td class="n">{cpu / whole if whole else 0:.1%}</td>'
        f"<td>{escape(name)}</td></tr>"
        for name, cpu in rows[:_MOST_ROWS]
    ]
    more = f"<p>and {len(rows) - _MOST_ROWS} more</p>" if len(rows) > _MOST_ROWS else ""
    return f"<div><h2>{escape(title)}</h2><table>{''.join(lines)}</table>{more}</div>"


def _time(ns: int) -> str:
    return f"{ns / 1e9:.2f} s" if ns >= 1_000_000_000 else f"{ns / 1e6:.1f} ms"
