"""What W3C's suite asks of a service, asked of the shim that ``make w3c`` runs, without HTTP in between.

The grammar's cases are in docs/vectors; these are the ones about a request as a whole.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("w3c_shim", Path(__file__).with_name("w3c") / "shim.py")
shim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shim)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TEXT = f"00-{TRACE}-{SPAN}-01"


def through(*headers: tuple[str, str]) -> dict[str, str]:
    sent = shim.carry(shim.receive(list(headers)))
    assert len({name for name, _ in sent}) == len(sent)
    return dict(sent)


def trace_id(headers: dict[str, str]) -> str:
    version, trace, span, _ = headers["traceparent"].split("-")
    assert version == "00"
    assert span != SPAN
    return trace


def test_a_request_without_a_context_starts_a_trace() -> None:
    assert trace_id(through()) != trace_id(through())


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TRACEPARENT"])
def test_a_valid_parent_is_continued_whatever_the_case_of_its_name(name: str) -> None:
    assert trace_id(through((name, TEXT))) == TRACE


@pytest.mark.parametrize("name", ["trace-parent", "trace.parent", "x-traceparent"])
def test_another_name_is_no_parent(name: str) -> None:
    assert trace_id(through((name, TEXT))) != TRACE


def test_two_parents_are_none() -> None:
    assert trace_id(through(("traceparent", TEXT), ("Traceparent", f"00-{TRACE}-{SPAN[::-1]}-01"))) != TRACE


def test_every_request_has_a_span_id_of_its_own() -> None:
    sent = [through(("traceparent", TEXT))["traceparent"] for _ in range(3)]
    assert len(set(sent)) == 3
    assert {text.split("-")[1] for text in sent} == {TRACE}


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_known_flags_are_kept(flags: str) -> None:
    assert through(("traceparent", TEXT[:-2] + flags))["traceparent"][-2:] == flags


def test_reserved_flags_are_cleared() -> None:
    assert through(("traceparent", TEXT[:-2] + "ff"))["traceparent"][-2:] == "03"


@pytest.mark.parametrize("name", ["tracestate", "TraceState", "TRACESTATE"])
def test_tracestate_follows_a_valid_parent(name: str) -> None:
    assert through(("traceparent", TEXT), (name, "a=1"), (name, "b=2"))["tracestate"] == "a=1,b=2"


@pytest.mark.parametrize(
    "headers",
    [
        [("tracestate", "a=1")],
        [("traceparent", TEXT + "."), ("tracestate", "a=1")],
        [("traceparent", TEXT), ("trace-state", "a=1")],
        [("traceparent", TEXT), ("tracestate", "")],
        [("traceparent", TEXT), ("tracestate", "a=1"), ("tracestate", "B=1")],
    ],
)
def test_tracestate_is_not_sent_on_otherwise(headers: list) -> None:
    assert "tracestate" not in through(*headers)
