"""What people see: the tree on its time axis, and the summary."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

from spanbridge.demo.otlp_model import Span
from spanbridge.demo.traces import Traces
from spanbridge.demo.view import Colours, DeviceResult, summary_panel, trace_panel

T = "a" * 32
COLOURS = Colours(("device-v5", "spanbridge", "consumer"))


def _text(renderable: RenderableType, width: int = 118) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def _trace_text(spans: list[Span], width: int = 118) -> str:
    traces = Traces()
    traces.add(spans)
    return _text(trace_panel(traces.trace(T), "a device", COLOURS, width), width)


def test_a_tree_names_processes_crossings_batch_and_times(message_spans: Callable[..., list[Span]]) -> None:
    lines = _trace_text(message_spans(T)).splitlines()
    rows = [line.strip("│╭╰ ").rstrip() for line in lines[2:-1]]
    starts = [
        "● device-v5  read sensor", "└─ ● send devices", "│  ↓ MQTT", "└─ ● spanbridge  process", "└─ ● send t",
        "├─ ◌ send t  linked batch of 1", "│  ↓ RocketMQ", "└─ ● consumer  process t",
    ]  # fmt: skip
    assert len(rows) == len(starts)
    for row, start in zip(rows, starts, strict=True):
        assert start.strip("│ └") in row
    assert rows[-1].split()[-4:] == ["+4.5", "ms", "1.5", "ms"]
    assert T in lines[-1]


def test_bars_stand_where_and_as_long_as_the_spans(make_span: Callable[..., Span]) -> None:
    root = make_span("device-v5", "whole", "INTERNAL", T, begin=0, end=10)
    half = make_span("device-v5", "second half", "INTERNAL", T, root, begin=5, end=10)
    short = make_span("device-v5", "instant", "INTERNAL", T, root, begin=10, end=10)
    rows = [line for line in _trace_text([root, half, short]).splitlines() if "●" in line]
    assert [row.count("━") for row in rows] == [34, 17, 0]
    assert "─" * 17 + "━" * 17 in rows[1]
    assert rows[2].count("╺") == 1, "even the shortest span can be seen"


def test_an_error_is_marked(make_span: Callable[..., Span]) -> None:
    failed = make_span("spanbridge", "send t", "PRODUCER", T, status="ERROR", attributes={"error.type": "unavailable"})
    assert "send t  unavailable" in _trace_text([failed])


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_line_fits_the_terminal(message_spans: Callable[..., list[Span]], width: int) -> None:
    assert {len(line) for line in _trace_text(message_spans(T), width).splitlines()} == {width}


def _tally(lost: int = 0, complete: int = 10) -> DeviceResult:
    return DeviceResult(
        ends="", device="MQTT v5 device", carrier="tp", sent=10, received=10 - lost, complete=complete, lost=lost
    )


def test_the_summary_adds_up() -> None:
    text = _text(summary_panel([_tally(), _tally()], {"device → consumer": (3.21, 9.99)}, 0, []))
    assert "20 of 20" in text
    assert "device → consumer: median 3.2 ms, 99th percentile 10.0 ms" in text
    assert "every message arrived, and every trace is whole" in text


def test_the_summary_says_what_is_wrong() -> None:
    text = _text(summary_panel([_tally(lost=1, complete=8)], {}, 2, ["one message did not arrive"]))
    assert "✗ one message did not arrive" in text
    assert "8 of 10" in text
    assert "2 arrived twice" in text
    assert "✓" not in text


def test_names_can_be_read_on_a_terminal_of_80_columns(make_span: Callable[..., Span]) -> None:
    device = make_span("device-v5", "send devices/{device}/telemetry", "PRODUCER", T, system="mqtt")
    process = make_span("spanbridge", "process devices/{device}/telemetry", "CONSUMER", T, device, system="mqtt")
    send = make_span("spanbridge", "send telemetry", "PRODUCER", T, process, system="rocketmq")
    consumed = make_span("consumer", "process telemetry", "CONSUMER", T, send, system="rocketmq", begin=1, end=9)
    text = _trace_text([device, process, send, consumed], 80)
    assert "…" not in text
    assert "━" in text, "and there is room for bars"


@pytest.mark.parametrize("width", [80, 120])
def test_a_question_and_its_answer_can_be_read(question_spans: Callable[..., list[Span]], width: int) -> None:
    text = _trace_text(question_spans(T), width)
    assert "…" not in text
    assert "━" in text
    assert text.count("↓ RocketMQ") == text.count("↓ MQTT") == 2
    assert {len(line) for line in text.splitlines()} == {width}


def test_on_a_narrow_terminal_names_come_before_bars(message_spans: Callable[..., list[Span]]) -> None:
    text = _trace_text(message_spans(T), 40)
    assert "read sensor" in text
    assert "━" not in text
    assert {len(line) for line in text.splitlines()} == {40}
