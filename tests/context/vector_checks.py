"""Checks of the codec against docs/vectors. Runs on CPython (test_vectors.py) and MicroPython (test_micropython.py).

Each check takes one case and returns pairs of (what the codec said, what the vector says).
"""

import spanbridge_context as codec
from spanbridge_context import TraceContext, TraceContextError


def problem_of(function, *arguments):
    try:
        function(*arguments)
    except TraceContextError as error:
        return error.problem
    return None


def as_dict(context):
    if context is None:
        return None
    return {"traceparent": context.traceparent, "tracestate": context.tracestate, "baggage": context.baggage}


def from_dict(case):
    parent = codec.parse_traceparent(case["traceparent"])
    return parent.replace(tracestate=case["tracestate"], baggage=case["baggage"])


def pairs(items):
    return [tuple(item) for item in items]


def parent_valid(case):
    context = codec.parse_traceparent(case["traceparent"])
    return [
        (context.traceparent, case["canonical"]),
        (context.compact, case["compact"]),
        (context.trace_id, case["trace_id"]),
        (context.span_id, case["span_id"]),
        (context.flags, case["flags"]),
        (context.sampled, case["sampled"]),
        (context.trace_id_bytes.hex() + context.span_id_bytes.hex(), case["trace_id"] + case["span_id"]),
        (codec.parse_compact(case["compact"]), context),
        (TraceContext(case["trace_id"], case["span_id"], case["flags"]), context),
    ]


def parent_valid_compact(case):
    return [(codec.parse_compact(case["compact"]).traceparent, case["canonical"])]


def parent_invalid_traceparent(case):
    return [(problem_of(codec.parse_traceparent, case["traceparent"]), case["problem"])]


def parent_invalid_compact(case):
    return [(problem_of(codec.parse_compact, case["compact"]), case["problem"])]


def tracestate_valid(case):
    joined = ",".join(case["values"])
    normalised = codec.normalise_tracestate(joined)
    return [
        (normalised, case["normalised"]),
        (codec.normalise_tracestate(normalised), normalised),
        (codec.format_tracestate(codec.parse_tracestate(joined)), normalised),
    ]


def tracestate_invalid(case):
    return [(problem_of(codec.parse_tracestate, ",".join(case["values"])), "tracestate")]


def baggage_cases(case):
    joined = ",".join(case["values"])
    kept, whole = codec.cap_baggage(joined)
    return [
        (kept, case["kept"]),
        (whole, case["whole"]),
        (codec.cap_baggage(kept), (kept, True)),
        (problem_of(codec.parse_baggage, kept), None),
        (problem_of(codec.parse_baggage, joined), None if whole else "baggage"),
    ]


def user_properties_extract(case):
    properties = pairs(case["properties"])
    context, problem, rest = codec.split_user_properties(properties)
    extracted = codec.extract_user_properties(properties)
    return [
        (as_dict(context), case["context"]),
        (problem, case["problem"]),
        (rest, pairs(case["rest"])),
        (extracted.context, context),
        (extracted.problem, problem),
        (properties, pairs(case["properties"])),
    ]


def user_properties_inject(case):
    properties = pairs(case["properties"])
    result = codec.inject_user_properties(properties, from_dict(case["context"]), case["form"])
    return [
        (result, pairs(case["result"])),
        (properties, pairs(case["properties"])),
        (as_dict(codec.extract_user_properties(result).context), case["context"]),
    ]


def topic_extract(case):
    plain, context, problem = codec.split_topic(case["topic"])
    return [
        (plain, case["plain"]),
        (as_dict(context), case["context"]),
        (problem, case["problem"]),
        (tuple(codec.extract_topic(case["topic"])), (context, problem)),
    ]


def topic_inject(case):
    return [(codec.inject_topic(case["topic"], from_dict(case["context"]), case["retain"]), case["result"])]


def topic_filters(case):
    return [(codec.suffix_filter(case["filter"]), case["also"])]


def json_payload_extract(case):
    restored, context, problem = codec.split_json(case["payload"].encode())
    return [(restored, case["restored"].encode()), (as_dict(context), case["context"]), (problem, case["problem"])]


def json_payload_inject(case):
    payload = case["payload"].encode()
    result = codec.inject_json(payload, from_dict(case["context"]))
    return [(result, case["result"].encode())]


def rocketmq_extract(case):
    extracted = codec.extract_rocketmq(case["properties"], case["trace_context"])
    return [(as_dict(extracted.context), case["context"]), (extracted.problem, case["problem"])]


def rocketmq_inject(case):
    properties = dict(case["properties"])
    result = codec.inject_rocketmq(properties, from_dict(case["context"]))
    return [
        (result, case["result"]),
        (properties, case["properties"]),
        (as_dict(codec.extract_rocketmq(result).context), case["context"]),
    ]


CHECKS = {
    ("parent", "valid"): parent_valid,
    ("parent", "valid_compact"): parent_valid_compact,
    ("parent", "invalid_traceparent"): parent_invalid_traceparent,
    ("parent", "invalid_compact"): parent_invalid_compact,
    ("tracestate", "valid"): tracestate_valid,
    ("tracestate", "invalid"): tracestate_invalid,
    ("baggage", "cases"): baggage_cases,
    ("user-properties", "extract"): user_properties_extract,
    ("user-properties", "inject"): user_properties_inject,
    ("topic", "extract"): topic_extract,
    ("topic", "inject"): topic_inject,
    ("topic", "filters"): topic_filters,
    ("json-payload", "extract"): json_payload_extract,
    ("json-payload", "inject"): json_payload_inject,
    ("rocketmq", "extract"): rocketmq_extract,
    ("rocketmq", "inject"): rocketmq_inject,
}


def check_file(name, vectors, skip=()):
    """Check all cases of one file; returns (cases checked, failures as text)."""
    count = 0
    failures = []
    for (file, part), check in CHECKS.items():
        if file != name:
            continue
        for case in vectors[part]:
            if case.get("name", "") in skip:
                continue
            count += 1
            where = f"{part} {case.get('name', '')}"
            try:
                failures += [
                    f"{where}: {said!r}, not {expected!r}" for said, expected in check(case) if said != expected
                ]
            except Exception as error:
                failures.append(f"{where}: raised {error!r}")
    return count, failures
