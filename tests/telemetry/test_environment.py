"""The OTEL_* variables, ids and the wire."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from spanbridge.telemetry import Telemetry, TelemetrySettings
from spanbridge.telemetry.env import OtlpSettings, TelemetryConfigError, exporter_kind, otlp_settings
from spanbridge.telemetry.otlp.buffer import SpanBuffer
from spanbridge.telemetry.otlp.transport import create_transport
from spanbridge.telemetry.otlp.transport_http import retry_after
from spanbridge.telemetry.settings import export_plan, resource
from spanbridge.telemetry.spans import ids, sampling, wire

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
HTTP = {PROTOCOL: "http/protobuf"}


@pytest.mark.parametrize(
    ("environ", "target", "secure"),
    [
        ({}, "localhost:4317", False),
        ({ENDPOINT: "http://collector"}, "collector:4317", False),
        ({ENDPOINT: "https://collector:443/"}, "collector:443", True),
        ({ENDPOINT: "collector:4317"}, "collector:4317", True),
        ({ENDPOINT: "collector:4317", "OTEL_EXPORTER_OTLP_INSECURE": "true"}, "collector:4317", False),
        ({ENDPOINT: "http://[::1]:5000"}, "[::1]:5000", False),
        ({ENDPOINT: "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:1"}, "b:1", False),
        (HTTP, "http://localhost:4318/v1/traces", False),
        ({**HTTP, ENDPOINT: "https://c/base/"}, "https://c/base/v1/traces", True),
        ({**HTTP, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/own"}, "http://c/own", False),
    ],
)
def test_endpoints(environ: dict[str, str], target: str, secure: bool) -> None:
    settings = otlp_settings("traces", environ)
    assert (settings.target, settings.secure) == (target, secure)


def test_a_signal_s_own_variables_win_and_empty_ones_do_not_count() -> None:
    environ = {
        PROTOCOL: "grpc",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1500",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": " ",
        "OTEL_EXPORTER_OTLP_HEADERS": "A=b%2Cc, d = e ",
    }
    traces, metrics = otlp_settings("traces", environ), otlp_settings("metrics", environ)
    assert (traces.protocol, metrics.protocol, traces.timeout) == ("grpc", "http/protobuf", 1.5)
    assert traces.headers == (("a", "b,c"), ("d", "e"))
    assert "b,c" not in repr(traces)
    assert "hunter2" not in repr(OtlpSettings(signal="traces", target="http://user:hunter2@host/?key=hunter2"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (PROTOCOL, "http/json"),
        (ENDPOINT, "http://:4317"),
        (ENDPOINT, "http://host:notaport"),
        (ENDPOINT, "https://user:secret[@host"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0d%0aX: y"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "my key=secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "key=secr\u00e9t"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_TRACES_SAMPLER", "foo"),
        ("OTEL_SDK_DISABLED", "yes"),
    ],
)
def test_bad_values_name_the_variable_and_no_secret(name: str, value: str) -> None:
    with pytest.raises(TelemetryConfigError) as caught:
        export_plan(TelemetrySettings(), {ENDPOINT: "http://h", name: value})
    assert name in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"OTEL_TRACES_SAMPLER": "foo"}, "OTEL_TRACES_SAMPLER='foo'"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "abc"}, "OTEL_TRACES_SAMPLER_ARG='abc'"),
        ({"OTEL_TRACES_SAMPLER": "ParentBased_TraceIdRatio", "OTEL_TRACES_SAMPLER_ARG": "1.5"}, "_ARG='1.5'"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"}, "_ARG='nan'"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "foo"}, "OTEL_RESOURCE_ATTRIBUTES.*'foo'"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,=c"}, "OTEL_RESOURCE_ATTRIBUTES"),
        ({ENDPOINT: "collector:4317", "OTEL_EXPORTER_OTLP_INSECURE": "1"}, "OTEL_EXPORTER_OTLP_INSECURE='1'"),
        ({"OTEL_SDK_DISABLED": "1"}, "OTEL_SDK_DISABLED='1'"),
    ],
)
def test_what_the_sdk_only_warns_of_ends_the_start(environ: dict[str, str], name: str) -> None:
    with pytest.raises(TelemetryConfigError, match=name):
        Telemetry(environ=environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_SAMPLER": ""},
        {"OTEL_TRACES_SAMPLER": "Always_Off", "OTEL_TRACES_SAMPLER_ARG": "abc"},
        {"OTEL_TRACES_SAMPLER": "traceidratio"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1e-3"},
        {"OTEL_RESOURCE_ATTRIBUTES": " a = b, c=,"},
    ],
)
def test_what_can_be_used_is(environ: dict[str, str]) -> None:
    assert Telemetry(environ=environ)


def test_a_url_that_only_the_http_library_refuses_is_an_error_of_ours() -> None:
    with pytest.raises(TelemetryConfigError) as caught:
        create_transport(otlp_settings("traces", {**HTTP, ENDPOINT: "http://user:secret@host\\"}))
    assert "traces" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("name", ["CERTIFICATE", "CLIENT_CERTIFICATE"])
def test_a_missing_certificate_is_found_at_once(protocol: str, name: str) -> None:
    environ = {ENDPOINT: "https://h", PROTOCOL: protocol, f"OTEL_EXPORTER_OTLP_{name}": "/nowhere/ca.pem"}
    with pytest.raises(TelemetryConfigError, match=r"CERTIFICATE.*/nowhere/ca.pem"):
        Telemetry(environ=environ)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_files_that_are_no_certificates_are_found_at_once(protocol: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("not PEM")
    common = {ENDPOINT: "https://h", PROTOCOL: protocol}
    for name in ("CERTIFICATE", "CLIENT_CERTIFICATE"):
        with pytest.raises(TelemetryConfigError, match=r"broken\.pem"):
            Telemetry(environ={**common, f"OTEL_EXPORTER_OTLP_{name}": str(broken)})
    with pytest.raises(TelemetryConfigError, match="needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"):
        Telemetry(environ={**common, "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(broken)})


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, "none"),
        ({ENDPOINT: "http://h"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "OTLP"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://h"}, "none"),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"}, "none"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://h"}, "none"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://h"}, "none"),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "none"),
    ],
)
def test_exporters(environ: dict[str, str], kind: str) -> None:
    assert exporter_kind("traces", environ) == kind


def test_metrics_for_prometheus_alone_are_not_pushed() -> None:
    assert exporter_kind("metrics", {"OTEL_METRICS_EXPORTER": "prometheus", ENDPOINT: "http://h"}) == "none"
    with pytest.raises(TelemetryConfigError):
        exporter_kind("traces", {"OTEL_TRACES_EXPORTER": "prometheus"})


def test_a_batch_is_never_larger_than_the_queue() -> None:
    def plan(**environ: str) -> tuple[int, int | None]:
        made = export_plan(TelemetrySettings(), environ)
        return made.batch_spans, made.max_spans

    assert plan() == (2048, None)
    assert plan(OTEL_BSP_MAX_QUEUE_SIZE="100") == (100, 100)
    assert plan(OTEL_BSP_MAX_QUEUE_SIZE="9000", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="7") == (7, 9000)


def test_span_limits_that_make_no_sense_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "many")
    with pytest.raises(TelemetryConfigError, match="OTEL_SPAN_LINK_COUNT_LIMIT"):
        Telemetry(environ={"OTEL_TRACES_EXPORTER": "console"})


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("7") == 7.0
    assert retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0.0
    assert (retry_after("Fri, 01 Jan 2100 00:00:00 GMT") or 0) > 1e9
    assert [retry_after(text) for text in ("", "soon", "-1", "\u0661")] == [None] * 4


class TestResource:
    def made(self, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], **settings: Any) -> dict[str, Any]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return dict(resource(TelemetrySettings(**settings)).attributes)

    def test_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.made(monkeypatch, {})
        assert found["service.name"] == "spanbridge"
        assert found["service.version"]
        assert found["service.instance.id"]

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=x,site=lab%201", "OTEL_SERVICE_NAME": "y"}
        found = self.made(monkeypatch, environ)
        assert (found["service.name"], found["site"]) == ("y", "lab 1")

    @pytest.mark.parametrize(
        "environ", [{"OTEL_SERVICE_NAME": ""}, {"OTEL_RESOURCE_ATTRIBUTES": "peer.service.name=x"}]
    )
    def test_no_name_is_no_name(self, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
        assert self.made(monkeypatch, environ)["service.name"] == "spanbridge"

    def test_the_instance_is_the_gateway_unless_the_environment_says_otherwise(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert resource(TelemetrySettings(), {}, "edge-3").attributes["service.instance.id"] == "edge-3"
        assert Telemetry(environ={}, instance="edge-3").resource.attributes["service.instance.id"] == "edge-3"
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7")
        assert resource(TelemetrySettings(), os.environ, "edge-3").attributes["service.instance.id"] == "pod-7"
        own = TelemetrySettings(resource={"service.instance.id": "mine"})
        assert resource(own, os.environ, "edge-3").attributes["service.instance.id"] == "mine"

    def test_configuration_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.made(monkeypatch, {"OTEL_SERVICE_NAME": "y"}, service_name="z", resource={"site": "b"})
        assert (found["service.name"], found["site"]) == ("z", "b")


class TestSampler:
    def test_named_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
        sampler = sampling.sampler_from_environment()
        assert isinstance(sampler, ParentBased)
        assert sampling.bounds(sampler) == sampling.Bounds(1 << 62, sampling.ALWAYS, sampling.NEVER)

    def test_default_is_parent_based(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
        found = sampling.bounds(sampling.sampler_from_environment())
        assert found == sampling.Bounds(sampling.ALWAYS, sampling.ALWAYS, sampling.NEVER)

    def test_sub_classes_are_asked(self) -> None:
        class Mine(TraceIdRatioBased):
            def should_sample(self, *args: Any, **kwargs: Any) -> Any:
                return super().should_sample(*args, **kwargs)

        assert sampling.bounds(Mine(0.5)) is None


class TestIds:
    def test_they_differ_and_are_not_zero(self) -> None:
        drawn = [ids.span_id() for _ in range(5000)]
        assert len(set(drawn)) == 5000
        assert bytes(8) not in drawn
        assert len(ids.trace_id()) == 16

    def test_a_forked_child_draws_its_own(self) -> None:
        # In a process of its own: gRPC, once loaded with its threads, does not survive a fork.
        done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True, timeout=60)
        drawn = done.stdout.split()
        assert len(drawn) == 800
        assert len(set(drawn)) == 800


FORKING = """
import os
from spanbridge.telemetry.spans import ids

ids.span_id()
child = os.fork()
os.write(1, b"".join(ids.span_id().hex().encode() + b"\\n" for _ in range(400)))
if child:
    os.waitpid(child, 0)
"""


class TestWire:
    @given(st.text(max_size=300), st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.binary()))
    def test_attributes_read_back(self, name: str, value: Any) -> None:
        (found,) = Span.FromString(wire.attribute(9, name, value)).attributes
        assert isinstance(found, KeyValue)
        assert found.key == name
        assert getattr(found.value, found.value.WhichOneof("value")) == value

    @given(st.text(alphabet=st.characters(codec=None), max_size=20))
    def test_any_text_is_encoded(self, value: str) -> None:
        framed = wire.attribute(9, "k", value)
        assert Span.FromString(framed).attributes[0].key == "k"
        assert ScopeSpans.FromString(wire.framed(framed)).spans[0].attributes[0].key == "k"


class TestBuffer:
    def test_batches_keep_their_order_and_bounds(self) -> None:
        buffer = SpanBuffer(1000, batch_spans=4, batch_bytes=100)
        ready: list[int] = []
        buffer.ready = lambda: ready.append(buffer.spans)
        for letter in "abc":
            buffer.add([letter.encode(), letter.encode()])
        assert ready == [4, 6]
        assert buffer.take() == ([b"aa", b"bb"], 4)
        assert buffer.take() == ([b"cc"], 2)
        assert buffer.take() == ([], 0)
        assert (buffer.bytes, buffer.spans) == (0, 0)

    def test_large_additions_are_split(self) -> None:
        buffer = SpanBuffer(1000, batch_spans=4, batch_bytes=100)
        buffer.add([b"x"] * 10)
        assert [buffer.take()[1] for _ in range(3)] == [4, 4, 2]

    def test_bytes_bound_a_batch(self) -> None:
        buffer = SpanBuffer(1000, batch_spans=100, batch_bytes=10)
        for _ in range(3):
            buffer.add([b"123456"])
        assert [buffer.take()[1] for _ in range(3)] == [1, 1, 1]

    def test_bytes_bound_what_comes_at_once_too(self) -> None:
        buffer = SpanBuffer(1000, batch_spans=100, batch_bytes=10)
        buffer.add([b"12345"] * 7 + [b"x" * 50])
        taken = [buffer.take() for _ in range(5)]
        assert [len(b"".join(pieces)) for pieces, count in taken if count != 1] == [10, 10, 10]
        assert sum(count for _, count in taken) == 8

    def test_of_too_many_spans_those_that_fit_stay(self) -> None:
        buffer = SpanBuffer(1000, batch_spans=4, batch_bytes=100, max_spans=6)
        buffer.add([b"a"] * 5)
        buffer.add([b"b"] * 5)
        buffer.add([b"c"])
        assert (buffer.spans, buffer.dropped) == (6, 5)
        assert [buffer.take(), buffer.take()] == [([b"aaaa"], 4), ([b"a", b"b"], 2)]

    def test_what_does_not_fit_is_counted(self) -> None:
        buffer = SpanBuffer(10, batch_spans=100, batch_bytes=10)
        buffer.add([b"12345678"])
        buffer.add([b"12", b"3"])
        buffer.add([b"12"])
        assert (buffer.dropped, buffer.take()) == (2, ([b"12345678", b"12"], 2))
