"""Properties that hold for every input, checked with hypothesis."""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Callable

import hypothesis
from hypothesis import strategies as st
from opentelemetry import trace

from spanbridge_context import (
    PROBLEMS,
    TraceContext,
    TraceContextError,
    cap_baggage,
    context_from_compact,
    extract_rocketmq,
    extract_topic,
    extract_user_properties,
    inject_json,
    inject_rocketmq,
    inject_topic,
    inject_user_properties,
    normalise_tracestate,
    parse_baggage,
    parse_compact,
    parse_traceparent,
    parse_tracestate,
    split_json,
    split_topic,
    split_user_properties,
)
from spanbridge_context.otel import SpanbridgePropagator, from_span_context, user_property_getter
from tests.drawing import examples


def given(*strategies: st.SearchStrategy) -> Callable:
    """As hypothesis's, without its limits of time: a busy machine is no failure."""
    settings = hypothesis.settings(
        max_examples=examples(50), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    return lambda test: settings(hypothesis.given(*strategies)(test))


KEY_START = "abcdefghijklmnopqrstuvwxyz0123456789"
VALUE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in ",=")
TOKEN = "!#$%&'*+-.^_`|~" + KEY_START + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OCTET = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\')

keys = st.builds(str.__add__, st.sampled_from(KEY_START), st.text(KEY_START + "_-*/@", max_size=20))
values = st.builds(str.__add__, st.text(VALUE, max_size=20), st.sampled_from(VALUE.replace(" ", "")))
tracestates = st.lists(st.builds("{}={}".format, keys, values), max_size=5).map(",".join)
pairs = st.builds("{}={}".format, st.text(TOKEN, min_size=1, max_size=10), st.text(OCTET, max_size=20))
members = st.builds(lambda pair, more: ";".join([pair, *more]), pairs, st.lists(pairs, max_size=2))
baggages = st.lists(members, max_size=5).map(",".join)


def ids(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).filter(any)


contexts = st.builds(TraceContext, ids(16), ids(8), st.integers(0, 255), tracestates, baggages)
names = st.sampled_from(["tp", "traceparent", "tracestate", "baggage", "TRACE_CONTEXT", "unit", "Traceparent", ""])
a_parent = contexts.flatmap(lambda c: st.sampled_from([c.traceparent, c.compact]))
near_misses = st.builds(
    lambda text, at, char: text[:at] + char + text[at + 1 :], a_parent, st.integers(0, 60), st.text(max_size=2)
)
texts = st.one_of(
    st.text(max_size=70), a_parent, near_misses, tracestates, baggages, st.text("a=,;@ \t\n1", max_size=20)
)
properties = st.lists(st.tuples(names, texts), max_size=6)
# Anything a caller could hand over by mistake, lone surrogates included.
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.text(st.characters(), max_size=60), texts,
    st.lists(st.one_of(st.none(), st.text(), st.tuples(names, st.one_of(st.none(), st.integers(), texts)))),
    st.dictionaries(names, st.one_of(st.none(), st.integers(), texts)),
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | names, inner, max_size=4),
    max_leaves=6,
)
objects = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in ("traceparent", "tracestate")), json_values, max_size=4
)
layouts = st.builds(
    lambda value, indent, separators, ascii_only: json.dumps(
        value, indent=indent, separators=separators, ensure_ascii=ascii_only
    ).encode("utf-8", "surrogatepass"),
    objects, st.sampled_from([None, 0, 2]), st.sampled_from([None, (",", ":"), (" , ", " : ")]), st.booleans(),
)  # fmt: skip


def assert_valid(context: TraceContext) -> None:
    """Everything a context writes is accepted by the parsers, and by the rules written another way."""
    assert parse_traceparent(context.traceparent) == TraceContext(context.trace_id, context.span_id, context.flags)
    assert parse_compact(context.compact).traceparent == context.traceparent
    assert context.traceparent.startswith("00-")
    assert len(context.traceparent) == 55
    assert any(context.trace_id_bytes)
    assert any(context.span_id_bytes)
    assert normalise_tracestate(context.tracestate) == context.tracestate
    assert len(parse_tracestate(context.tracestate)) <= 32
    assert cap_baggage(context.baggage) == (context.baggage, True)
    assert len(context.baggage) <= 8192
    assert (context.traceparent + context.tracestate + context.baggage).isprintable()


@given(contexts)
def test_a_context_is_valid_as_it_stands(context: TraceContext) -> None:
    assert_valid(context)
    assert_valid(context.child())


@given(contexts, st.lists(st.tuples(st.text(), st.text())), st.sampled_from(["compact", "w3c"]))
def test_user_properties_round_trip(context: TraceContext, ordinary: list, form: str) -> None:
    ordinary = [item for item in ordinary if item[0] not in ("tp", "traceparent", "tracestate", "baggage")]
    carried = inject_user_properties(ordinary, context, form)
    assert split_user_properties(carried) == (context, None, ordinary)
    assert inject_user_properties(carried, context, form) == carried


@given(contexts, st.dictionaries(st.text(), st.text()))
def test_rocketmq_round_trip(context: TraceContext, ordinary: dict) -> None:
    given_properties = dict(ordinary)
    carried = inject_rocketmq(given_properties, context)
    assert given_properties == ordinary
    assert extract_rocketmq(carried) == (context, None)
    for name in ("traceparent", "tracestate", "baggage"):
        carried.pop(name, None)
        ordinary.pop(name, None)
    assert carried == ordinary


@given(contexts, st.text(min_size=1))
def test_topic_round_trip(context: TraceContext, topic: str) -> None:
    plain = split_topic(topic)[0]
    assert split_topic(inject_topic(topic, context)) == (plain, parse_traceparent(context.traceparent), None)
    assert inject_topic(topic, context, retain=True) == topic


@given(contexts, layouts)
def test_json_payload_comes_back_byte_for_byte(context: TraceContext, payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        assert inject_json(payload, context) == payload
        return
    carried = inject_json(payload, context)
    assert carried != payload
    assert split_json(carried) == (payload, context.replace(baggage=""), None)
    expected = {
        "traceparent": context.traceparent,
        **({"tracestate": context.tracestate} if context.tracestate else {}),
    }
    assert json.loads(carried) == expected | json.loads(payload)
    assert inject_json(carried, context) == carried


@given(contexts, objects, st.integers(0, 5))
def test_json_members_anywhere_are_found_and_the_rest_stays_valid(context: TraceContext, value: dict, at: int) -> None:
    items = list(value.items())
    items.insert(min(at, len(items)), ("traceparent", context.traceparent))
    restored, extracted, problem = split_json(json.dumps(dict(items)).encode())
    assert (extracted, problem) == (parse_traceparent(context.traceparent), None)
    assert json.loads(restored) == value


@given(anything)
def test_parsers_raise_the_documented_error_only(value: object) -> None:
    problems = set()
    for parse in (parse_traceparent, parse_compact, parse_tracestate, normalise_tracestate, parse_baggage):
        try:
            result = parse(value)
        except TraceContextError as error:
            problems.add(error.problem)
        else:
            if isinstance(result, TraceContext):
                assert_valid(result)
    assert problems <= set(PROBLEMS)


@given(anything, anything)
def test_what_is_no_carrier_is_told_by_name_and_nothing_else_raises(value: object, other: object) -> None:
    told = []
    for extract, argument in (
        (extract_user_properties, "properties"),
        (split_user_properties, "properties"),
        (extract_topic, "topic"),
        (split_topic, "topic"),
        (split_json, "payload"),
        (lambda given: extract_rocketmq(given, other), "properties"),
    ):
        try:
            extract(value)
        except TypeError as error:
            told.append((str(error), argument))
    assert all(text.startswith(f"{argument}: ") for text, argument in told)
    kept, _ = cap_baggage(value)
    parse_baggage(kept)


@given(st.one_of(st.binary(min_size=26, max_size=26).map(lambda raw: b2a_base64(raw).decode()[:35]), texts))
def test_both_readers_of_the_compact_form_agree(text: str) -> None:
    for each in (text, text.replace("+", "-").replace("/", "_")):
        try:
            expected = parse_compact(each)
        except TraceContextError:
            expected = None
        assert context_from_compact(each) == expected


@given(st.lists(st.one_of(members, st.text('a=;, \t"\\é', max_size=8)), max_size=4).map(",".join))
def test_tidy_baggage_is_what_the_grammar_makes_of_it(text: str) -> None:
    try:
        whole = [f"{key}={value};{more}" if more else f"{key}={value}" for key, value, more in parse_baggage(text)]
    except TraceContextError:
        assert not cap_baggage(text)[1]
    else:
        assert cap_baggage(text) == (",".join(whole), True)


@given(properties)
def test_user_properties_lose_nothing_of_the_application(given_properties: list) -> None:
    context, problem, rest = split_user_properties(given_properties)
    assert problem is None or problem in PROBLEMS
    if context is not None:
        assert_valid(context)
    own = [item for item in given_properties if item[0] not in ("tp", "traceparent", "tracestate", "baggage")]
    assert [item for item in rest if item[0] not in ("tp", "traceparent", "tracestate", "baggage")] == own
    assert [item for item in given_properties if item in rest] == rest or len(set(rest)) < len(rest)
    if context is None and problem is None:
        assert rest == given_properties


@given(properties)
def test_the_propagator_reads_what_the_codec_reads(given_properties: list) -> None:
    span = trace.get_current_span(SpanbridgePropagator().extract(given_properties, getter=user_property_getter))
    context = extract_user_properties(given_properties).context
    if context is None:
        assert not span.get_span_context().is_valid
    else:
        assert from_span_context(span.get_span_context()) == context.replace(baggage="")


@given(st.dictionaries(names, texts), st.none() | texts)
def test_rocketmq_contexts_are_valid(given_properties: dict, trace_context: str | None) -> None:
    context, problem = extract_rocketmq(given_properties, trace_context)
    assert problem is None or problem in PROBLEMS
    if context is not None:
        assert_valid(context)


@given(st.one_of(st.text(max_size=80), st.builds("{}/~tp/{}".format, st.text(), texts)))
def test_topics_keep_their_plain_part(topic: str) -> None:
    plain, context, problem = split_topic(topic)
    assert topic.startswith(plain)
    assert context is None or problem is None
    if plain == topic:
        assert (context, problem) == (None, None)


fragments = st.lists(
    st.sampled_from(
        ['"traceparent"', '"tracestate"', "{", "}", "[", "]", ":", ",", '"', "\\", " ", "1", '"a=1"', '"x"']
    )
    | contexts.map(lambda context: json.dumps(context.traceparent)),
    max_size=14,
).map("".join)


@given(st.one_of(st.binary(), fragments.map(str.encode), fragments.map(lambda text: ('{"t":1,' + text + "}").encode())))
def test_payloads_that_are_not_json_stay_as_they_are(payload: bytes) -> None:
    restored, context, _problem = split_json(payload)
    if restored != payload:
        assert context is not None
    if context is not None:
        assert_valid(context)
        assert isinstance(json.loads(payload), dict)
        json.loads(restored)
    carried = inject_json(payload, TraceContext("1" * 32, "2" * 16))
    if carried != payload:
        assert json.loads(carried)["traceparent"] in (
            f"00-{'1' * 32}-{'2' * 16}-01",
            json.loads(payload).get("traceparent"),
        )
