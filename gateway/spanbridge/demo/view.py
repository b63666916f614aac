"""How the demonstration looks: traces as trees on a common time axis, and the summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spanbridge.demo.otlp_model import Span
from spanbridge.demo.traces import Node, Trace

_PALETTE = ("bright_cyan", "bright_magenta", "bright_yellow", "bright_green", "bright_blue", "bright_red")
_BAR_CELLS = 34
_SHORTEST_BAR = 8
_TIME_CELLS = 9
_GAP = 2
_CROSSINGS = {"mqtt": "MQTT", "rocketmq": "RocketMQ"}


@dataclass(frozen=True, slots=True)
class _Indent:
    """The lines of a tree, one level deep; all equally wide."""

    tee: str
    last: str
    bar: str


_INDENTS = (_Indent("├─ ", "└─ ", "│  "), _Indent("├ ", "└ ", "│ "), _Indent("├", "└", "│"))
"""From the widest; a narrow terminal has room for the deepest traces with the last one only."""


@dataclass(frozen=True, slots=True)
class Colours:
    """A colour for each service, the same in every tree."""

    services: tuple[str, ...]

    def of(self, service: str) -> str:
        """The service's colour; white for one that is not known."""
        if service not in self.services:
            return "white"
        return _PALETTE[self.services.index(service) % len(_PALETTE)]


def trace_panel(trace: Trace, title: str, colours: Colours, width: int) -> Panel:
    """A trace as a tree: who did what, inside of what, when and for how long. ``width`` is the terminal's, in cells."""
    lines, layout = _laid_out(trace, colours, width)
    table = Table.grid(padding=(0, _GAP), expand=True)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    for cells, justify in layout.columns:
        table.add_column(no_wrap=True, justify=justify, width=cells)
    table.add_row(Text("process and span", "dim"), *layout.row("time →", "started", "took", "dim"))
    axis = _Axis(trace.start_ns, trace.end_ns, layout.bar)
    for line in lines:
        if line.span is None:
            table.add_row(line.label)
            continue
        offset = line.span.start_ns - trace.start_ns
        started = f"{'-' if offset < 0 else '+'}{_duration(abs(offset))}"
        took = _duration(line.span.end_ns - line.span.start_ns)
        table.add_row(line.label, *layout.row(axis.bar(line.span, line.colour), started, took))
    subtitle = Text.assemble(("trace ", "dim"), (trace.trace_id, "bold"))
    return Panel(
        table, title=Text(title, "bold"), title_align="left", subtitle=subtitle, subtitle_align="right",
        box=box.ROUNDED, border_style="grey50", padding=(0, 1),
    )  # fmt: skip


def _laid_out(trace: Trace, colours: Colours, width: int) -> tuple[list[_Line], _Layout]:
    """The lines with the deepest indent at which no name is cut short and there is room for bars."""
    for indent in _INDENTS:
        lines = list(_lines(trace, colours, indent))
        longest = max((line.label.cell_len for line in lines), default=0)
        layout = _Layout.of(width, longest)
        if layout.bar and longest <= _name_cells(width):
            break
    return lines, layout


def _name_cells(width: int) -> int:
    """A name takes seven tenths at the most."""
    return width * 7 // 10


@dataclass(frozen=True, slots=True)
class _Layout:
    """What stands beside the names, to which the bar gives way, then the column of starts, then the bar again."""

    bar: int
    started: bool

    @classmethod
    def of(cls, width: int, label: int) -> _Layout:
        """For a panel of ``width`` cells whose longest name has ``label``."""
        room = width - 4 - min(label, _name_cells(width)) - (_GAP + _TIME_CELLS) - _GAP
        beside_starts = room - (_GAP + _TIME_CELLS)
        if beside_starts >= _SHORTEST_BAR:
            return cls(min(beside_starts, _BAR_CELLS), True)
        return cls(min(room, _BAR_CELLS) if room >= _SHORTEST_BAR else 0, False)

    @property
    def columns(self) -> list[tuple[int, Literal["left", "right"]]]:
        """Width and alignment of each column but the first."""
        bar: list[tuple[int, Literal["left", "right"]]] = [(self.bar, "left")] if self.bar else []
        return bar + [(_TIME_CELLS, "right")] * (1 + self.started)

    def row(self, bar: Text | str, started: str, took: str, style: str = "") -> list[Text | str]:
        """The cells for these columns."""
        cells: list[Text | str] = [Text(bar, style) if isinstance(bar, str) else bar] if self.bar else []
        return [*cells, *([Text(started, "dim")] if self.started else []), Text(took, style)]


@dataclass(frozen=True, slots=True)
class _Line:
    label: Text
    span: Span | None = None
    colour: str = ""


def _lines(trace: Trace, colours: Colours, indent: _Indent) -> Iterator[_Line]:
    for root in trace.roots:
        yield from _node_lines(root, None, "", "", colours, indent)


def _node_lines(  # noqa: PLR0917
    node: Node, above: Span | None, guide: str, below: str, colours: Colours, indent: _Indent
) -> Iterator[_Line]:
    span, colour, service = node.span, colours.of(node.span.service), ""
    if above is None or above.service != span.service:
        service = f"{span.service}  "
    if above is not None and service:
        crossed = below[: -len(indent.bar)] + indent.bar
        yield _Line(Text.assemble((crossed, "grey50"), (_crossing(span), "italic grey62")))
    what = Text.assemble(("● ", colour), (service, f"bold {colour}"), span.name, _fault(span), _size(span))
    yield _Line(Text.assemble((guide, "grey50"), what), span, colour)
    rest = len(node.linked) + len(node.children)
    for linked in node.linked:
        rest -= 1
        yield _batch_line(linked, below + (indent.tee if rest else indent.last), colours)
    for child in node.children:
        rest -= 1
        tee, bar = (indent.tee, indent.bar) if rest else (indent.last, " " * len(indent.bar))
        yield from _node_lines(child, span, below + tee, below + bar, colours, indent)


def _batch_line(span: Span, guide: str, colours: Colours) -> _Line:
    count = span.attributes.get("messaging.batch.message_count", len(span.links))
    colour = colours.of(span.service)
    how = f"  linked batch of {count}" if int(count) > 1 or span.kind == "CLIENT" else "  linked"
    label = Text.assemble((guide, "grey50"), ("◌ ", colour), span.name, (how, "italic grey62"))
    return _Line(label, span, f"dim {colour}")


def _crossing(span: Span) -> str:
    """What the context travelled by, between two processes: the receiving span's messaging system tells."""
    return f"↓ {_CROSSINGS.get(str(span.attributes.get('messaging.system', '')), 'another process')}"


def _fault(span: Span) -> Text:
    return Text(f"  {span.attributes.get('error.type', 'error')}", "bold red") if span.status == "ERROR" else Text()


def _size(span: Span) -> Text:
    count = span.attributes.get("messaging.batch.message_count")
    return Text(f"  batch of {count}", "italic grey62") if span.kind == "CLIENT" and count is not None else Text()


@dataclass(frozen=True, slots=True)
class _Axis:
    start_ns: int
    end_ns: int
    cells: int

    def bar(self, span: Span, colour: str) -> Text:
        """A bar at the span's place on the axis, to half a cell; never so short that it is not seen."""
        halves = self.cells * 2
        scale = halves / max(1, self.end_ns - self.start_ns)
        begin = min(max(round((span.start_ns - self.start_ns) * scale), 0), halves - 1)  # a linked poll may be older
        end = min(max(round((span.end_ns - self.start_ns) * scale), begin + 1), halves)
        return Text.assemble(("─" * (begin // 2), "grey23"), (_bar(begin, end), colour))


def _bar(begin: int, end: int) -> str:
    """The line between two positions given in half cells, from the cell that holds ``begin``."""
    if begin // 2 == (end - 1) // 2 and end - begin == 1:
        return "╺" if begin % 2 else "╸"
    left = "╺" if begin % 2 else ""
    right = "╸" if end % 2 else ""
    return left + "━" * (end // 2 - (begin + 1) // 2) + right


def _duration(nanoseconds: int) -> str:
    if nanoseconds < 999_500:
        return f"{nanoseconds / 1e3:.0f} µs"
    if nanoseconds < 999_500_000:
        return f"{nanoseconds / 1e6:.1f} ms"
    return f"{nanoseconds / 1e9:.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceResult:
    """What became of the messages of one flow, which ``ends`` tells the kind of."""

    ends: str
    device: str
    carrier: str
    sent: int
    received: int
    complete: int
    lost: int


def summary_panel(
    tallies: Sequence[DeviceResult],
    latencies: Mapping[str, tuple[float, float]],
    duplicates: int,
    problems: Sequence[str],
) -> Panel:
    """Messages and traces, counted. ``latencies``: median and 99th percentile in ms, by what is at the ends."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, header_style="dim")
    width = max((len(tally.device) for tally in tallies), default=0)
    table.add_column(f"{'device':<{width}}  context in", ratio=1)
    for name in ("sent", "received", "lost", "traces"):
        table.add_column(name, justify="right")
    for tally in tallies:
        table.add_row(Text.assemble(f"{tally.device:<{width}}", (f"  {tally.carrier}", "dim")), *_counts(tally))
    if len(tallies) > 1:
        table.add_section()
        table.add_row(Text("all", "bold"), *_counts(_total(tallies)), style="bold")
    parts: list[RenderableType] = [table]
    for ends, (middle, most) in latencies.items():
        parts.append(Text(f"{ends}: median {middle:.1f} ms, 99th percentile {most:.1f} ms", "dim"))
    if duplicates:
        parts.append(Text(f"{duplicates} arrived twice: delivery is at least once", "dim"))
    parts += [Text(f"✗ {problem}", "bold red") for problem in problems]
    if not problems:
        parts.append(Text("✓ every message arrived, and every trace is whole", "bold green"))
    border = "red" if problems else "green"
    return Panel(Group(*parts), title=Text("Summary", "bold"), title_align="left", border_style=border, padding=(0, 1))


def _counts(tally: DeviceResult) -> Iterable[Text]:
    yield Text(str(tally.sent))
    yield Text(str(tally.received))
    yield Text(str(tally.lost), "bold red" if tally.lost else "green")
    yield Text(f"{tally.complete} of {tally.sent}", "green" if tally.complete == tally.sent else "bold red")


def _total(tallies: Sequence[DeviceResult]) -> DeviceResult:
    return DeviceResult(
        ends="",
        device="all",
        carrier="",
        sent=sum(tally.sent for tally in tallies),
        received=sum(tally.received for tally in tallies),
        complete=sum(tally.complete for tally in tallies),
        lost=sum(tally.lost for tally in tallies),
    )
