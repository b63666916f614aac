"""What is written, read back by others: a reader of our own for pprof, the official descriptors for OTLP."""

from __future__ import annotations

from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest
from opentelemetry.proto.profiles.v1development import profiles_pb2

from spanbridge_profiling import Counts, Frame, Profile, Sample
from spanbridge_profiling.collapsed import write_collapsed
from spanbridge_profiling.otlp import write_otlp
from spanbridge_profiling.pprof import write_pprof
from tests.profiling.reading import read_pprof

INNER = Frame("Codec.decode", "/app/codec.py", 12, 10)
OUTER = Frame("main", "/app/main.py", 3, 1)
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PROFILE = Profile(
    started_ns=1_700_000_000_000_000_000,
    duration_ns=15_000_000_000,
    period_ns=10_000_000,
    samples=(
        Sample((INNER, OUTER), TRACE, SPAN, "MainThread", "", 3, 30_500_000),
        Sample((OUTER,), 0, 0, "worker;1", "note", 1, 10_000_000),
    ),
    counts=Counts(linked=3, without_span=1, unknown=2, lost=4),
)


def note(sample: Sample) -> dict[str, str]:
    return {"spanbridge.route": sample.note} if sample.note else {}


def test_pprof() -> None:
    found = read_pprof(write_pprof(PROFILE, note))
    assert found.types == [("samples", "count"), ("cpu", "nanoseconds")]
    assert found.period == ("cpu", "nanoseconds", 10_000_000)
    assert found.default_type == "cpu"
    assert (found.time_ns, found.duration_ns) == (1_700_000_000_000_000_000, 15_000_000_000)
    assert found.comments == [
        "samples with a span: 3",
        "samples without a span: 1",
        "samples whose span could not be told: 2",
        "samples not kept: 4",
    ]
    first, second = found.samples
    assert first.frames == [("Codec.decode", "/app/codec.py", 12, 10), ("main", "/app/main.py", 3, 1)]
    assert first.values == [3, 30_500_000]
    assert first.labels == {
        "thread": "MainThread",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
    }
    assert second.labels == {"thread": "worker;1", "spanbridge.route": "note"}
    assert second.values == [1, 10_000_000]


def test_the_descriptors_are_those_of_1_10_or_later() -> None:
    """What these tests judge by: before 1.10, ``values`` was field 2."""
    numbers = {field.name: field.number for field in profiles_pb2.Sample.DESCRIPTOR.fields}
    assert numbers == {
        "stack_index": 1,
        "attribute_indices": 2,
        "link_index": 3,
        "values": 4,
        "timestamps_unix_nano": 5,
    }


def test_otlp() -> None:
    resource = {"service.name": "app", "process.pid": 0, "ok": True, "args": ("a", "b"), "load": 1.5}
    request = ExportProfilesServiceRequest.FromString(write_otlp(PROFILE, resource, version="1", labels=note))
    tables = request.dictionary
    for table in ("mapping_table", "location_table", "function_table", "link_table", "attribute_table", "stack_table"):
        rows = getattr(tables, table)
        assert not rows[0].ListFields(), table  # index 0 is the null entry
        assert len({row.SerializeToString() for row in rows}) == len(rows), table
    assert tables.string_table[0] == ""
    [of_resource] = request.resource_profiles
    attributes = {pair.key: pair.value for pair in of_resource.resource.attributes}
    assert attributes["service.name"].string_value == "app"
    assert attributes["process.pid"].WhichOneof("value") == "int_value"
    assert attributes["ok"].bool_value
    assert [value.string_value for value in attributes["args"].array_value.values] == ["a", "b"]
    [of_scope] = of_resource.scope_profiles
    assert (of_scope.scope.name, of_scope.scope.version) == ("spanbridge.profiling", "1")
    [profile] = of_scope.profiles
    strings = tables.string_table
    for kind in (profile.sample_type, profile.period_type):
        assert (strings[kind.type_strindex], strings[kind.unit_strindex]) == ("cpu", "nanoseconds")
    assert profile.period == 10_000_000
    assert (profile.time_unix_nano, profile.duration_nano) == (PROFILE.started_ns, PROFILE.duration_ns)
    assert len(profile.profile_id) == 16
    assert any(profile.profile_id)
    told = {strings[tables.attribute_table[at].key_strindex]: at for at in profile.attribute_indices}
    counts = {key: tables.attribute_table[at].value.int_value for key, at in told.items()}
    assert counts == {
        "spanbridge.samples.linked": 3,
        "spanbridge.samples.without_span": 1,
        "spanbridge.samples.unknown_span": 2,
        "spanbridge.samples.lost": 4,
    }


def test_otlp_samples() -> None:
    request = ExportProfilesServiceRequest.FromString(write_otlp(PROFILE, {}, labels=note))
    tables, strings = request.dictionary, request.dictionary.string_table
    linked, plain = request.resource_profiles[0].scope_profiles[0].profiles[0].samples
    assert (list(linked.values), list(plain.values)) == ([30_500_000], [10_000_000])
    link = tables.link_table[linked.link_index]
    assert (link.trace_id, link.span_id) == (TRACE.to_bytes(16, "big"), SPAN.to_bytes(8, "big"))
    assert plain.link_index == 0

    def frames(sample: profiles_pb2.Sample) -> list[tuple[str, str, int, int]]:
        found = []
        for at in tables.stack_table[sample.stack_index].location_indices:
            location = tables.location_table[at]
            [line] = location.lines
            function = tables.function_table[line.function_index]
            name, file = strings[function.name_strindex], strings[function.filename_strindex]
            found.append((name, file, line.line, function.start_line))
            [kind] = [tables.attribute_table[one] for one in location.attribute_indices]
            assert (strings[kind.key_strindex], kind.value.string_value) == ("profile.frame.type", "cpython")
        return found

    def labels(sample: profiles_pb2.Sample) -> dict[str, str]:
        rows = [tables.attribute_table[at] for at in sample.attribute_indices]
        return {strings[row.key_strindex]: row.value.string_value for row in rows}

    assert frames(linked) == [("Codec.decode", "/app/codec.py", 12, 10), ("main", "/app/main.py", 3, 1)]
    assert frames(plain) == [("main", "/app/main.py", 3, 1)]
    assert labels(linked) == {"thread.name": "MainThread"}
    assert labels(plain) == {"thread.name": "worker;1", "spanbridge.route": "note"}


def test_collapsed() -> None:
    assert write_collapsed(PROFILE) == (
        "MainThread;main (app/main.py);Codec.decode (app/codec.py) 30500\nworker:1;main (app/main.py) 10000\n"
    )


def test_a_profile_of_nothing() -> None:
    empty = Profile(1, 2, 3)
    assert read_pprof(write_pprof(empty)).samples == []
    assert write_collapsed(empty) == ""
    [of_resource] = ExportProfilesServiceRequest.FromString(write_otlp(empty, {})).resource_profiles
    assert not of_resource.scope_profiles[0].profiles[0].samples
