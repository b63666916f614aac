"""Profiles for a Pyroscope server: what is pushed, read back. No such server is asked: none could be had."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from spanbridge_profiling.pyroscope import PROFILE_ID, _marker, write_push
from spanbridge_profiling.settings import SettingError, read_settings
from tests.profiling.reading import Pprof, read_pprof
from tests.profiling.test_flamegraph import PROFILE, SPAN
from tests.profiling.test_zero_code import Receiver, receiver, run, spans

__all__ = ["receiver"]


def pushed(body: bytes) -> tuple[dict[str, str], Pprof]:
    """push/v1/push.proto in Connect's JSON: PushRequest, RawProfileSeries, RawSample."""
    request: dict[str, Any] = json.loads(body)
    [series] = request["series"]
    [sample] = series["samples"]
    assert set(series) == {"labels", "samples"}
    assert set(sample) == {"rawProfile"}
    labels = {label["name"]: label["value"] for label in series["labels"]}
    return labels, read_pprof(base64.b64decode(sample["rawProfile"], validate=True))


def test_a_push() -> None:
    resource = {"service.name": "billing", "process.pid": 4711, "host.name": "edge-1"}
    labels, found = pushed(write_push(PROFILE, resource, lambda sample: dict(sample.labels)))
    assert labels == {"__name__": "process_cpu", "service_name": "billing", "host_name": "edge-1"}
    assert found.types == [("samples", "count"), ("cpu", "nanoseconds")]
    assert [sample.labels for sample in found.samples] == [
        {"spanbridge_stage": "mqtt.codec", "profile_id": f"{SPAN:016x}", "span_id": f"{SPAN:016x}"},
        {"spanbridge_stage": "mqtt.codec"},
        {"spanbridge_stage": "runtime"},
        {},
    ], "neither threads nor traces: Pyroscope would make a series of each"


def test_spans_name_their_profile() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(_marker())
    with provider.get_tracer("test").start_as_current_span("work") as span:
        assert span.attributes is not None  # type: ignore[attr-defined]
        assert span.attributes[PROFILE_ID] == f"{span.get_span_context().span_id:016x}"  # type: ignore[attr-defined]


def test_an_instrumented_program_pushes_span_profiles(receiver: Receiver, tmp_path: Path) -> None:
    done = run(
        SPANBRIDGE_PROFILING="pyroscope",
        SPANBRIDGE_PROFILING_RATE="250",
        SPANBRIDGE_PROFILING_PYROSCOPE_URL=f"{receiver.url}/pyroscope/",
        SPANBRIDGE_PROFILING_PYROSCOPE_HEADERS="x-tenant=plant%20a",
    )
    assert (done.returncode, done.stderr) == (3, "")
    [(path, tenant, body)] = receiver.taken
    assert (path, tenant) == ("/pyroscope/push.v1.PusherService/Push", "plant a")
    labels, found = pushed(body)
    assert labels["service_name"] == "program"
    cpu: dict[str, int] = {}
    for sample in found.samples:
        cpu[sample.labels.get("profile_id", "")] = cpu.get(sample.labels.get("profile_id", ""), 0) + sample.values[1]
    for _trace, span in spans(done).values():
        assert cpu[span] > 0.25e9


@pytest.mark.parametrize("url", ["localhost:4040", "ftp://localhost", "http://me:secret@localhost:4040"])
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(SettingError, match="SPANBRIDGE_PROFILING_PYROSCOPE_URL") as told:
        read_settings({"SPANBRIDGE_PROFILING": "pyroscope", "SPANBRIDGE_PROFILING_PYROSCOPE_URL": url})
    assert "secret" not in str(told.value)
