"""Export on real sockets: both protocols, receivers that fail, hang, go away and come back, and shutdown."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from spanbridge.core.policy import ContextPolicy
from spanbridge.demo.otlp import OK, Behaviour, OtlpReceiver, ReceiverTls
from spanbridge.devstack.certificates import Certificates
from spanbridge.telemetry import Hop, Peer, Telemetry, TelemetrySettings, facade
from spanbridge.telemetry.env import OtlpSettings
from spanbridge.telemetry.log.reporter import EventReporter
from spanbridge.telemetry.otlp.exporter import MetricExporter, RequestSender
from spanbridge.telemetry.otlp.transport import ConsoleTransport, create_transport
from spanbridge_context import TraceContext

pytestmark = pytest.mark.anyio

PROTOCOLS = ("grpc", "http/protobuf")
DEVICE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_METRIC_EXPORT_INTERVAL": "60000"}


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as started:
        yield started


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def running(environ: Mapping[str, str], **settings: Any) -> AsyncIterator[Telemetry]:
    telemetry = Telemetry(
        TelemetrySettings(**settings), source=Peer("mqtt", 1883, "gw"), target=Peer("rmq", 8081), environ=environ
    )
    await telemetry.start()
    try:
        yield telemetry
    finally:
        await telemetry.shutdown(2)


def trace(telemetry: Telemetry, count: int = 1) -> None:
    """Three spans for one message; 2 n + 1 for n."""
    process = Hop(operation="process", system="mqtt", destination="a/1", template="a/+")
    send = Hop(operation="send", system="rocketmq", destination="orders")
    spans = telemetry.tracer.spans(process, send, policy=ContextPolicy.CONTINUE, trust=True)
    messages = [spans.begin(DEVICE, time.time_ns(), 1)[2] for _ in range(count)]
    now = time.time_ns()
    telemetry.tracer.requested(send, messages, now, now)
    telemetry.tracer.stored(messages, now)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_spans_arrive(receiver: OtlpReceiver, protocol: str, compression: str) -> None:
    environ = {
        **receiver.environment(protocol),
        **QUICK,
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        "OTEL_EXPORTER_OTLP_HEADERS": "X-Tenant=a%20b,authorization=Bearer%20t",
    }
    async with running(environ, service_name="gw", resource={"site": "lab"}) as telemetry:
        trace(telemetry, 400)
        await receiver.wait_for(lambda r: r.span_count >= 801)
    spans = receiver.spans
    assert {span.name for span in spans} == {"process a/+", "send orders"}
    assert {span.resource["site"] for span in spans} == {"lab"}
    assert {span.service for span in spans} == {"gw"}
    (batch,) = [span for span in spans if span.kind == "CLIENT"]
    assert batch.attributes["messaging.batch.message_count"] == 400
    assert len(batch.links) == 128
    children = {span.parent_id for span in spans if span.kind == "PRODUCER"}
    assert children == {span.span_id for span in spans if span.kind == "CONSUMER"}
    signal, headers = receiver.requests[0]
    assert (signal, headers["x-tenant"], headers["authorization"]) == ("traces", "a b", "Bearer t")
    if protocol == "http/protobuf":
        assert headers.get("content-encoding", "none") == compression


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_metrics_arrive_at_shutdown_at_the_latest(receiver: OtlpReceiver, protocol: str) -> None:
    async with running({**receiver.environment(protocol), **QUICK}) as telemetry:
        telemetry.metrics.consumed("a/+", 3)
        telemetry.metrics.requested("orders", 1, 0.02)
    consumed = receiver.metric("messaging.client.consumed.messages")
    assert consumed is not None
    assert consumed.points[0].value == 3
    duration = receiver.metric("messaging.client.operation.duration")
    assert duration is not None
    assert (duration.unit, duration.points[0].count, duration.points[0].bucket_counts[2]) == ("s", 1, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_metrics_arrive_at_their_interval(receiver: OtlpReceiver, protocol: str) -> None:
    environ = {**receiver.environment(protocol), "OTEL_METRIC_EXPORT_INTERVAL": "30"}
    async with running(environ) as telemetry:
        telemetry.metrics.consumed("a/+", 1)
        await receiver.wait_for(lambda r: len([1 for signal, _ in r.requests if signal == "metrics"]) >= 3)


async def test_metrics_of_the_last_moment_are_sent_though_a_push_is_under_way(receiver: OtlpReceiver) -> None:
    receiver.behaviour = Behaviour(hang=True, times=1)
    environ = {**receiver.environment(), "OTEL_METRIC_EXPORT_INTERVAL": "30", "OTEL_EXPORTER_OTLP_TIMEOUT": "5000"}
    async with running(environ) as telemetry:
        telemetry.metrics.consumed("a/+", 1)
        await receiver.wait_for(lambda r: len(r.requests) == 1)
        telemetry.metrics.consumed("a/+", 1)
        stopping = asyncio.create_task(telemetry.shutdown(5))
        await asyncio.sleep(0)
        receiver.release()
        await stopping
    consumed = receiver.metric("messaging.client.consumed.messages")
    assert consumed is not None
    assert consumed.points[0].value == 2


async def test_delta_temporality_sends_differences(receiver: OtlpReceiver) -> None:
    environ = {
        **receiver.environment(),
        "OTEL_METRIC_EXPORT_INTERVAL": "30",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
    }
    name = "messaging.process.duration"
    async with running(environ) as telemetry:
        telemetry.metrics.process_duration("a/+", 0.02, 5)
        await receiver.wait_for(lambda r: r.metric(name) is not None)
        telemetry.metrics.process_duration("a/+", 0.5, 2)
        await receiver.wait_for(lambda r: len([m for m in r.metrics if m.name == name]) >= 2)
    first, second = [metric for metric in receiver.metrics if metric.name == name]
    assert (first.temporality, first.points[0].count, second.points[0].count) == ("DELTA", 5, 2)
    assert second.points[0].sum == pytest.approx(1.0)
    assert second.points[0].start_ns == first.points[0].time_ns


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "refusal",
    [
        Behaviour.refuse("UNAVAILABLE", 503, times=1),
        Behaviour.refuse("RESOURCE_EXHAUSTED", 429, retry_after=0, times=1),
    ],
    ids=["unavailable", "exhausted"],
)
async def test_what_may_be_retried_is(receiver: OtlpReceiver, protocol: str, refusal: Behaviour) -> None:
    receiver.behaviour = refusal
    async with running({**receiver.environment(protocol), **QUICK}, metrics=False) as telemetry:
        trace(telemetry)
        await receiver.wait_for(lambda r: r.span_count >= 3)
        assert telemetry.reporter.counted("telemetry.export.failures") == 1
        assert telemetry.reporter.counted("telemetry.dropped") == 0
    assert receiver.span_count == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_refused_for_good_is_dropped_and_counted(receiver: OtlpReceiver, protocol: str) -> None:
    receiver.behaviour = Behaviour.refuse("INVALID_ARGUMENT", 400, times=1)
    async with running({**receiver.environment(protocol), **QUICK}, metrics=False) as telemetry:
        trace(telemetry)
        await receiver.wait_for(lambda r: len(r.requests) == 1)
        trace(telemetry)
        await receiver.wait_for(lambda r: r.span_count >= 3)
        assert telemetry.reporter.counted("telemetry.dropped") == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_partial_success_is_counted_and_not_retried(
    receiver: OtlpReceiver, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.behaviour = Behaviour(rejected=2, message="too\nold", times=1)
    async with running({**receiver.environment(protocol), **QUICK}, metrics=False) as telemetry:
        trace(telemetry)
        await receiver.wait_for(lambda r: r.span_count >= 3)
    assert telemetry.reporter.counted("telemetry.dropped") == 2
    assert len(receiver.requests) == 1
    assert "2 span(s) dropped (rejected: too old)" in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_a_receiver_says_is_logged(
    receiver: OtlpReceiver, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal's reason, and the remark on a request that was taken (OTLP, "Full Success")."""
    receiver.behaviour = Behaviour.refuse("INVALID_ARGUMENT", 400, times=1)
    async with running({**receiver.environment(protocol), **QUICK}, metrics=False) as telemetry:
        trace(telemetry)
        await receiver.wait_for(lambda _: telemetry.reporter.counted("telemetry.dropped") > 0)
        receiver.behaviour = Behaviour(message="use the other port", times=1)
        trace(telemetry)
        await receiver.wait_for(lambda _: telemetry.reporter.counted("telemetry.export.warnings") > 0)
    assert "told to refuse; they are dropped" in caplog.text
    assert "took the traces and says: use the other port" in caplog.text
    assert telemetry.reporter.counted("telemetry.dropped") == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_receiver_that_goes_away_and_comes_back_gets_everything(
    receiver: OtlpReceiver, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running({**receiver.environment(protocol), **QUICK}, metrics=False) as telemetry:
        trace(telemetry)
        await receiver.wait_for(lambda r: r.span_count >= 3)
        receiver.stop()
        trace(telemetry, 10)
        with caplog.at_level(logging.WARNING, "spanbridge"):
            await receiver.wait_for(lambda _: telemetry.reporter.counted("telemetry.export.failures") >= 2)
        lines = [record for record in caplog.records if "cannot export" in record.message]
        receiver.start()
        await receiver.wait_for(lambda r: r.span_count >= 24, timeout=20)
        assert telemetry.reporter.counted("telemetry.dropped") == 0
    assert len(lines) == 1
    assert "trying again" in lines[0].message


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_receiver_that_hangs_is_left_and_tried_again(receiver: OtlpReceiver, protocol: str) -> None:
    receiver.behaviour = Behaviour(hang=True)
    environ = {**receiver.environment(protocol), **QUICK, "OTEL_EXPORTER_OTLP_TIMEOUT": "200"}
    async with running(environ, metrics=False) as telemetry:
        trace(telemetry)
        await receiver.wait_for(lambda _: telemetry.reporter.counted("telemetry.export.failures") >= 1)
        receiver.release()
        await receiver.wait_for(lambda r: r.span_count >= 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_shutdown_sends_what_is_left(receiver: OtlpReceiver, protocol: str) -> None:
    environ = {**receiver.environment(protocol), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50"}
    async with running(environ) as telemetry:
        for _ in range(30):
            trace(telemetry, 10)
    assert receiver.span_count == 30 * 21
    assert telemetry.reporter.counted("telemetry.dropped") == 0


async def test_shutdown_keeps_its_deadline_and_counts_what_it_leaves(receiver: OtlpReceiver) -> None:
    receiver.behaviour = Behaviour(hang=True)
    async with running({**receiver.environment(), **QUICK}, metrics=False) as telemetry:
        trace(telemetry, 10)
        with anyio.fail_after(60):
            await telemetry.shutdown(0.3)
    assert telemetry.reporter.counted("telemetry.dropped") == 21
    receiver.behaviour = OK


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_shutdown_with_the_receiver_away_makes_a_few_attempts(protocol: str, unused_tcp_port: int) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{unused_tcp_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50",
    }
    async with running(environ) as telemetry:
        for _ in range(30):
            trace(telemetry, 10)
        with anyio.fail_after(60):
            await telemetry.shutdown(5)
    # Three for the batch under way, three for the first one after the loop, three for metrics.
    assert 3 <= telemetry.reporter.counted("telemetry.export.failures") <= 9
    assert telemetry.reporter.counted("telemetry.dropped") >= 30 * 21


async def test_a_fault_in_the_exporter_costs_one_batch(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running({**receiver.environment(), **QUICK}, metrics=False) as telemetry:
        exporter: Any = telemetry._exports._spans
        frame, exporter._frame = exporter._frame, None
        trace(telemetry)
        await receiver.wait_for(lambda _: telemetry.reporter.counted("telemetry.dropped") >= 3)
        exporter._frame = frame
        trace(telemetry)
        await receiver.wait_for(lambda r: r.span_count >= 3)
    assert "internal error: spans could not be exported: AttributeError" in caplog.text


async def test_a_queue_no_larger_than_a_batch_is_emptied_before_it_is_full(receiver: OtlpReceiver) -> None:
    """2048 is the specification's default for the queue, and our batch."""
    environ = {
        **receiver.environment(),
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
    }
    async with running(environ, metrics=False) as telemetry:
        for round_ in range(1, 4):
            trace(telemetry, 30)
            trace(telemetry, 30)  # 122 spans
            await receiver.wait_for(lambda r, sent=round_ * 100: r.span_count == sent)
    assert telemetry.reporter.counted("telemetry.dropped") == 3 * 22


async def test_a_full_buffer_drops_and_counts_and_never_blocks(receiver: OtlpReceiver) -> None:
    receiver.behaviour = Behaviour(hang=True)
    environ = {**receiver.environment(), **QUICK, "OTEL_BSP_MAX_QUEUE_SIZE": "100"}
    async with running(environ, metrics=False) as telemetry:
        for _ in range(100):
            trace(telemetry, 10)
        receiver.release()
        await receiver.wait_for(lambda r: r.span_count > 0)
        await receiver.wait_for(lambda r: telemetry.reporter.counted("telemetry.dropped") + r.span_count == 2100)
        assert receiver.span_count == 100


async def test_what_a_full_buffer_drops_is_told_while_the_receiver_hangs(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "_LOG_INTERVAL", 0.01)
    receiver.behaviour = Behaviour(hang=True)
    environ = {**receiver.environment(), **QUICK, "OTEL_BSP_MAX_QUEUE_SIZE": "21"}
    async with running(environ, metrics=False) as telemetry:
        for _ in range(3):
            trace(telemetry, 10)
        await receiver.wait_for(lambda _: telemetry.reporter.counted("telemetry.dropped") >= 21)
        receiver.release()


async def test_a_reading_that_fails_does_not_end_the_export(caplog: pytest.LogCaptureFixture) -> None:
    readings: Iterator[Exception | tuple[bytes, int]] = iter((RuntimeError("a gauge is broken"), (b"", 0), (b"", 0)))
    closing = asyncio.Event()

    def encode() -> tuple[bytes, int]:
        reading = next(readings)
        if isinstance(reading, Exception):
            raise reading
        closing.set()
        return reading

    transport = ConsoleTransport("metrics")
    delivery = RequestSender("metrics", transport, EventReporter(), timeout=1.0, give_up_after=1.0, closing=closing)
    await MetricExporter(encode, delivery, interval=0.001).run()
    assert "cannot export metrics: they could not be read: RuntimeError: a gauge is broken" in caplog.text


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("otlp"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shown", [True, False], ids=["with-certificate", "without"])
async def test_mutual_tls(certificates: Certificates, protocol: str, shown: bool) -> None:
    tls = ReceiverTls(certificates.server_cert, certificates.server_key, certificates.ca_file)
    with OtlpReceiver(tls=tls) as receiver:
        environ = {
            **receiver.environment(protocol),
            **QUICK,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.ca_file),
        }
        if shown:
            environ["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = str(certificates.client_cert)
            environ["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(certificates.client_key)
        async with running(environ, metrics=False) as telemetry:
            trace(telemetry)
            failures = "telemetry.export.failures"
            await receiver.wait_for(lambda r: r.span_count == 3 or telemetry.reporter.counted(failures) > 0)
            assert (receiver.span_count == 3) is shown
            await telemetry.shutdown(0.1)


@pytest.mark.parametrize("headers", ["", "authorization=hunter2"])
async def test_a_secret_in_an_endpoint_or_header_never_shows(headers: str, caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        **QUICK,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:hunter2@127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": headers,
    }
    with caplog.at_level(logging.DEBUG, "spanbridge"):
        telemetry = Telemetry(environ=environ)
        await telemetry.start()
        trace(telemetry)
        with anyio.fail_after(60):
            while not telemetry.reporter.counted("telemetry.export.failures"):
                await anyio.sleep(0.02)
        await telemetry.shutdown(0.3)
    assert "Connect call failed" in caplog.text or "refused" in caplog.text.lower()
    assert "hunter2" not in caplog.text


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that answers every connection like that."""

    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for start in range(0, len(answer), 1 << 16):
                writer.write(answer[start : start + (1 << 16)])
                await writer.drain()
        writer.close()
        over.set()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await over.wait()


def response(status: str, body: bytes, **headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", "Content-Type: text/plain", f"Content-Length: {len(body)}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 what\r\n\r\n",
        response("403 Forbidden", b"no account has the key s3cr3t-key, nor user hunter2"),
        response("403 Forbidden", b"x" * 190 + b"s3cr3t-key"),
        response("302 Found", b"", Location="http://127.0.0.1:9/?key=s3cr3t-key"),
    ],
)
async def test_a_secret_that_a_receiver_or_a_library_tells_is_blotted_out(answer: bytes) -> None:
    async with answering(answer) as address:
        transport = create_transport(
            OtlpSettings(
                signal="traces",
                protocol="http/protobuf",
                target=f"http://user:hunter2@{address}/v1/traces?key=s3cr3t-key",
                headers=(("x-api-key", "Key s3cr3t-key"),),
            )
        )
        outcome = await transport.send((), 5)
        await transport.close()
    assert outcome.reason
    assert "hunter2" not in outcome.detail
    assert "s3cr3t" not in outcome.detail
    assert outcome.detail.startswith(f"http://{address}/v1/traces")


@pytest.mark.parametrize(
    "answer",
    [
        response("200 OK", gzip.compress(bytes(32 << 20)), Content_Encoding="gzip"),
        response("400 Bad Request", gzip.compress(bytes(32 << 20)), Content_Encoding="gzip"),
        response("400 Bad Request", bytes(32 << 20)),
    ],
)
async def test_the_size_of_an_answer_does_not_decide_on_our_memory(answer: bytes) -> None:
    async with answering(answer) as address:
        settings = OtlpSettings(signal="traces", protocol="http/protobuf", target=f"http://{address}/v1/traces")
        transport = create_transport(settings)
        tracemalloc.start()
        try:
            await transport.send((), 10)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await transport.close()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
async def test_nothing_is_exported_unless_asked_for(environ: dict[str, str]) -> None:
    async with running(environ) as telemetry:
        assert not telemetry.tracer.enabled
        trace(telemetry)
    assert telemetry.reporter.counted("telemetry.export.failures") == 0


async def test_console_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    async with running({"OTEL_TRACES_EXPORTER": "console"}) as telemetry:
        trace(telemetry)
    assert '"process a/+"' in capsys.readouterr().out


@asynccontextmanager
async def proxying(refuses: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The address of an HTTP proxy, and the first lines of the requests that it got."""
    seen: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        method, target, _ = head.partition(b"\r\n")[0].split(b" ")
        if method != b"CONNECT" or refuses:
            writer.write(response("418 Refused", b""))
            writer.close()
            return
        host, _, port = target.decode().rpartition(":")
        there, to = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        tasks.update(asyncio.create_task(way) for way in (copy(reader, to), copy(there, writer)))

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
        yield f"user:pa%20ss@127.0.0.1:{listening.sockets[0].getsockname()[1]}", seen
        for task in tasks:
            await task


@pytest.fixture
def proxy_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def test_a_proxy_of_the_environment_gets_the_request(proxy_environment: pytest.MonkeyPatch) -> None:
    async with proxying() as (address, seen):
        proxy_environment.setenv("http_proxy", f"http://{address}")
        settings = OtlpSettings(signal="traces", protocol="http/protobuf", target="http://collector.example/v1/traces")
        transport = create_transport(settings)
        assert (await transport.send((), 60)).reason == "418"
        await transport.close()
    (head,) = seen
    assert head.startswith(b"POST http://collector.example/v1/traces HTTP/1.1\r\n")
    assert b"proxy-authorization: Basic dXNlcjpwYSBzcw==\r\n" in head.replace(b"Proxy-A", b"proxy-a")


async def test_no_proxy_is_respected(proxy_environment: pytest.MonkeyPatch) -> None:
    proxy_environment.setenv("http_proxy", "http://127.0.0.1:9")
    proxy_environment.setenv("no_proxy", "127.0.0.1")
    with OtlpReceiver() as receiver:
        target = f"{receiver.http_endpoint}/v1/traces"
        transport = create_transport(OtlpSettings(signal="traces", protocol="http/protobuf", target=target))
        assert not (await transport.send((), 60)).reason
        await transport.close()


@pytest.mark.parametrize("refuses", [False, True])
async def test_tls_through_a_proxy(
    certificates: Certificates, refuses: bool, proxy_environment: pytest.MonkeyPatch
) -> None:
    tls = ReceiverTls(certificates.server_cert, certificates.server_key, None)
    with OtlpReceiver(tls=tls) as receiver:
        async with proxying(refuses) as (address, seen):
            proxy_environment.setenv("https_proxy", f"http://{address}")
            transport = create_transport(
                OtlpSettings(
                    signal="traces",
                    protocol="http/protobuf",
                    target=f"{receiver.http_endpoint}/v1/traces",
                    secure=True,
                    certificate=str(certificates.ca_file),
                )
            )
            outcomes = [await transport.send((), 60) for _ in range(2)]
            await transport.close()
    assert [outcome.reason for outcome in outcomes] == (["unavailable"] * 2 if refuses else ["", ""])
    assert len(seen) == (2 if refuses else 1), "the connection is kept"
    assert seen[0].startswith(b"CONNECT ")
