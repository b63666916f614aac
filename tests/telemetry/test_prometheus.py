"""The exposition parses and says what the metrics say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser as parsers
from prometheus_client.openmetrics import parser as openmetrics_parser

from spanbridge.telemetry import Peer, Telemetry, TelemetrySettings
from spanbridge.telemetry.log.reporter import EventReporter
from spanbridge.telemetry.metrics import hot, process
from spanbridge.telemetry.metrics.meter import Instruments
from spanbridge.telemetry.metrics.points import MetricScope
from spanbridge.telemetry.metrics.prometheus import OPENMETRICS, TEXT, prometheus_text

PLAIN = "text/plain;version=0.0.4"
OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def telemetry() -> Telemetry:
    found = Telemetry(
        TelemetrySettings(service_name="gw"), source=Peer("mqtt", 1883), target=Peer("rmq", 8081), environ={}
    )
    found.metrics.consumed("a/+", 7)
    found.metrics.requested("orders", 5, 20.0)
    found.metrics.requested("orders", 2, 20.0, "throttled")
    found.metrics.process_duration("a/+", 0.004, 3)
    found.metrics.process_duration("a/+", 0.3)
    found.metrics.batch("orders", 5, 0.01)
    found.metrics.dropped('we"ird\\\n/+', "expired", 2)
    found.metrics.context("continued", 7)
    found.gauge("spanbridge.in_flight", lambda: 4, unit="{message}", description="In flight.")
    found.gauge("spanbridge.oldest_unacknowledged.age", lambda: 1.5, unit="s", description='Age: "old"\nor \\ not.')
    found.gauge("spanbridge.source.up", lambda: [(1, {"source": "m"}), (0, {"source": "n"})])
    return found


def families(accept: str) -> dict[str, Any]:
    body, content_type = telemetry().prometheus(accept)
    assert content_type == (OPENMETRICS if accept == OPEN else TEXT)
    parse = openmetrics_parser if accept == OPEN else parsers
    return {family.name: family for family in parse.text_string_to_metric_families(body.decode())}


@pytest.mark.parametrize("accept", [PLAIN, OPEN])
def test_parses_and_holds_the_numbers(accept: str) -> None:
    found = families(accept)
    # The parser of the plain format names a counter's family without _total too.
    sent = found["messaging_client_sent_messages"]
    assert sent.type == "counter"
    values = {sample.labels.get("error_type"): sample.value for sample in sent.samples}
    assert values == {None: 5, "throttled": 2}
    assert sent.samples[0].labels["otel_scope_name"] == "spanbridge"
    assert sent.samples[0].labels["server_address"] == "rmq"

    duration = found["messaging_process_duration_seconds"]
    assert duration.type == "histogram"
    by_bound = {s.labels["le"]: s.value for s in duration.samples if s.name.endswith("_bucket")}
    assert (by_bound["0.005"], by_bound["0.25"], by_bound["0.5"], by_bound["+Inf"]) == (3, 3, 4, 4)
    assert next(s.value for s in duration.samples if s.name.endswith("_count")) == 4
    assert next(s.value for s in duration.samples if s.name.endswith("_sum")) == pytest.approx(0.312)

    (dropped,) = found["spanbridge_dropped"].samples
    assert dropped.labels["messaging_destination_template"] == 'we"ird\\\n/+'
    assert found["spanbridge_in_flight"].samples[0].value == 4
    assert found["spanbridge_oldest_unacknowledged_age_seconds"].samples[0].value == 1.5
    assert {s.labels["source"]: s.value for s in found["spanbridge_source_up"].samples} == {"m": 1, "n": 0}
    overflow = found["messaging_client_operation_duration_seconds"].samples
    assert next(s.value for s in overflow if s.labels.get("le") == "10.0") == 0


def test_topics_that_devices_make_up_do_not_make_series_without_end() -> None:
    found = Telemetry(environ={})
    for number in range(2 * hot.SERIES):
        found.metrics.requested(f"telemetry-{number}", 1, 0.1)
    body, _ = found.prometheus()
    read = {family.name: family.samples for family in parsers.text_string_to_metric_families(body.decode())}
    sent = read["messaging_client_sent_messages"]
    assert len(sent) == hot.SERIES + 1
    assert {s.value for s in sent if s.labels.get("otel_metric_overflow") == "true"} == {hot.SERIES}
    assert sum(sample.value for sample in sent) == 2 * hot.SERIES
    counts = [s for s in read["messaging_client_operation_duration_seconds"] if s.name.endswith("_count")]
    assert len(counts) == hot.SERIES + 1
    assert sum(sample.value for sample in counts) == 2 * hot.SERIES


def test_openmetrics_has_units_and_target_info() -> None:
    found = families(OPEN)
    assert found["messaging_process_duration_seconds"].unit == "seconds"
    assert found["target"].type == "info"
    assert found["target"].samples[0].labels["service_name"] == "gw"


def test_names_that_meet_do_not_break_the_page() -> None:
    instruments = Instruments()
    reader = instruments.reader()
    instruments.gauge("a.b", lambda: 1)
    instruments.gauge("a_b", lambda: [(2.0, {"x.y": "1", "x_y": "2"})])
    instruments.gauge("c", lambda: 0.5, unit="1")
    body = prometheus_text(reader.read(), {}, MetricScope("s"), openmetrics=True).decode()
    found = {family.name: family for family in openmetrics_parser.text_string_to_metric_families(body)}
    assert [sample.value for sample in found["a_b"].samples] == [1, 2]
    assert found["a_b"].samples[1].labels["x_y"] == "1;2"
    assert found["c_ratio"].samples[0].value == 0.5


def test_events_are_counters_of_their_own() -> None:
    from spanbridge.telemetry.events import TelemetryDropped

    found = Telemetry(environ={})
    assert isinstance(found.reporter, EventReporter)
    found.reporter.report(TelemetryDropped(signal="traces", reason="buffer_full", count=3))
    body, _ = found.prometheus()
    assert b'spanbridge_telemetry_dropped_total{otel_signal="traces",reason="buffer_full"' in body


def test_off_is_empty() -> None:
    off = Telemetry(TelemetrySettings(prometheus=False), environ={})
    off.metrics.consumed("a", 1)
    off.gauge("spanbridge.x", lambda: 1)
    assert off.prometheus("")[0] == b""
    assert off.prometheus(OPEN)[0] == b"# EOF\n"


def test_the_process_is_described_as_prometheus_clients_do() -> None:
    from prometheus_client import ProcessCollector

    theirs = {family.name: family for family in ProcessCollector(registry=None).collect()}
    ours = families(PLAIN)
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= set(theirs)
    for name, family in theirs.items():
        assert (ours[name].type, ours[name].documentation) == (family.type, family.documentation), name
        (mine,), (other,) = ours[name].samples, family.samples
        assert mine.name == other.name
        assert mine.value == pytest.approx(other.value, rel=0.5)
    (build,) = ours["spanbridge_build_info"].samples
    assert build.value == 1
    assert {"version", "python"} <= set(build.labels)


def test_a_machine_without_proc_has_no_such_metrics(tmp_path: Path) -> None:
    instruments = Instruments()
    reader = instruments.reader()
    process.register(instruments, tmp_path)
    names = {metric.name for metric in reader.read()}
    assert names == {"process.max_fds", "spanbridge.build_info"}


def test_a_gauge_that_fails_leaves_out_itself_only(caplog: pytest.LogCaptureFixture) -> None:
    instruments = Instruments()
    reader = instruments.reader()
    instruments.gauge("bad", lambda: 1 // 0)
    instruments.gauge("good", lambda: 2)
    for _ in range(2):
        assert b"\ngood{" in prometheus_text(reader.read(), {}, MetricScope("s"))
    assert caplog.messages == [
        "internal error: the metric bad could not be read: ZeroDivisionError: integer division or modulo by zero; "
        "messages are not affected"
    ]
