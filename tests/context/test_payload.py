"""The JSON carrier's bounds; what it does within them is in docs/vectors."""

from __future__ import annotations

import json

from spanbridge_context import TraceContext, inject_json, split_json

CONTEXT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


def payload_of(size: int) -> bytes:
    return b'{"t":"' + b"x" * (size - 8) + b'"}'


def test_a_payload_of_the_largest_size_carries_the_largest_context() -> None:
    payload = payload_of(65536)
    full = ",".join(f"k{i:02}" + "z" * 253 + "=" + '"' * 256 for i in range(32))
    context = CONTEXT.replace(tracestate=full)
    assert len(context.tracestate) == 16447
    carried = inject_json(payload, context)
    assert len(carried) < 131072
    assert split_json(carried) == (payload, context, None)


def test_text_is_a_payload_too() -> None:
    assert inject_json('{"t":"21 °C"}', CONTEXT) == inject_json('{"t":"21 °C"}'.encode(), CONTEXT)
    assert inject_json("21 °C", CONTEXT) == "21 °C".encode()


def test_a_larger_payload_is_left_alone() -> None:
    assert inject_json(payload_of(65537), CONTEXT) == payload_of(65537)
    carried = b'{"traceparent":"' + CONTEXT.traceparent.encode() + b'",' + payload_of(131072)[1:]
    assert split_json(carried) == (carried, None, None)


def test_many_members_of_the_name_cost_one_pass() -> None:
    parent = b'"traceparent":"' + CONTEXT.traceparent.encode() + b'"'
    state = b'"tracestate":"a=1"'
    carried = b"{" + b" , ".join([parent, *[state] * 4000, b'"t":1']) + b"}"
    assert len(carried) < 131072
    assert split_json(carried)[1:] == (CONTEXT, "tracestate")
    assert json.loads(split_json(carried)[0]) == {"t": 1}
    assert split_json(b"{" + b",".join([parent, *[state] * 4000]) + b"}") == (b"{}", CONTEXT, "tracestate")


def test_deep_nesting_is_left_alone() -> None:
    payload = b'{"traceparent":"x","t":' + b"[" * 50000 + b"]" * 50000 + b"}"
    assert split_json(payload) == (payload, None, None)
    assert inject_json(b'{"t":' + b"[" * 30000 + b"]" * 30000 + b"}", CONTEXT).startswith(b'{"t":[')
