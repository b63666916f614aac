"""What no peer and no fault of ours may do to the client: end its tasks, keep its memory, fill the log."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trustme

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkUnavailable
from spanbridge.core.message import Destination
from spanbridge.core.tls import TlsOptions
from spanbridge.rocketmq.grpc.stubs import service
from tests.fakes import FakeReporter

from .fake_proxy import OK, FakeProxy, status
from .test_peers import IMPATIENT, failing, make, sink_to, until
from .test_tls import Files

pytestmark = pytest.mark.anyio

NONSENSE = b"\xff\xff\xff\xff"


async def test_answers_that_do_not_decode_end_nothing() -> None:
    recorder = FakeReporter()
    options: dict[str, Any] = {"reporter": recorder, "route_refresh_interval": 0.05, "attempts": 1}
    async with FakeProxy() as proxy, sink_to(proxy, **options) as sink:
        await sink.send("t", *make(sink))
        await until(lambda: sink.status.detail["telemetry_stream"])
        proxy.answers = lambda method, _: NONSENSE
        await proxy.commands.put(NONSENSE)
        error = await failing(sink)
        assert isinstance(error, SinkUnavailable)
        assert error.reason == "undecodable"
        assert proxy.address in str(error)
        before = {method: proxy.count(method) for method in ("Heartbeat", "QueryRoute", "Telemetry")}
        await until(lambda: proxy.count("Heartbeat") >= before["Heartbeat"] + 3)
        await until(lambda: proxy.count("QueryRoute") >= before["QueryRoute"] + 3)
        await until(lambda: proxy.count("Telemetry") > before["Telemetry"])
        assert recorder.names().count("rocketmq.endpoint.down") == 1
        proxy.answers = lambda method, _: None
        await sink.send("t", *make(sink))
        await until(lambda: sink.status.detail["telemetry_stream"])
        await sink.probe()


async def test_ok_without_an_answer_is_no_fault_of_ours() -> None:
    proxy = FakeProxy()
    proxy.wordless = True
    async with proxy, sink_to(proxy, attempts=1) as sink:
        error = await failing(sink)
        assert isinstance(error, SinkUnavailable)
        assert (error.reason, proxy.count("SendMessage")) == ("undecodable", 1)


async def test_settings_that_make_no_sense_end_nothing() -> None:
    recorder = FakeReporter()
    async with FakeProxy() as proxy, sink_to(proxy, reporter=recorder) as sink:
        await until(lambda: sink.status.detail["telemetry_stream"])
        role = sink._cluster._role
        faults = [ZeroDivisionError("no"), ZeroDivisionError("no")]

        def refuse(settings: Any) -> None:
            if faults:
                raise faults.pop()

        object.__setattr__(role, "on_settings", refuse)
        await sink.send("t", *make(sink))  # a new topic: the settings are sent, and answered
        await until(lambda: not faults)
        await until(lambda: sink.status.detail["telemetry_stream"])
        assert "rocketmq.background_faults" in recorder.names()


async def test_settings_that_cannot_be_written_are_written_next_time() -> None:
    recorder = FakeReporter()
    async with FakeProxy() as proxy, sink_to(proxy, reporter=recorder) as sink:
        await until(lambda: sink.status.detail["telemetry_stream"])
        role = sink._cluster._role
        make_settings = role.settings
        faults = [RuntimeError("no")]

        def settings() -> Any:
            if faults:
                raise faults.pop()
            return make_settings()

        object.__setattr__(role, "settings", settings)
        known = len(proxy.settings)
        await sink.send("t", *make(sink))
        await until(lambda: len(proxy.settings) > known)
        assert "rocketmq.background_faults" in recorder.names()


async def test_a_fault_of_ours_does_not_end_background_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = FakeReporter()
    async with FakeProxy() as proxy, sink_to(proxy, reporter=recorder, route_refresh_interval=0.05) as sink:
        await sink.send("t", *make(sink))
        session = sink._cluster._sessions[proxy.address]

        async def broken(*_: object) -> None:
            raise KeyError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(sink._cluster.routes, "refresh", broken)
            patch.setattr(session, "heartbeat", broken)

            def told() -> set[object]:
                return {event.task for event in recorder.events if event.name == "rocketmq.background_faults"}  # type: ignore[attr-defined]

            await until(lambda: told() >= {"route refresh", "heartbeat"})
        beats, queries = proxy.count("Heartbeat"), proxy.count("QueryRoute")
        await until(lambda: proxy.count("Heartbeat") > beats and proxy.count("QueryRoute") > queries)


async def test_an_entry_that_failed_is_not_stored_whatever_the_status_says() -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        entries = [service.SendResultEntry(status=one) for one in (OK, status("MESSAGE_BODY_TOO_LARGE", "why"), OK)]
        answer = service.SendMessageResponse(status=OK, entries=entries)
        proxy.answers = lambda method, _: answer if method == "SendMessage" else None
        partition, batch = make(sink, 3)
        with pytest.raises(SinkRejected, match="MESSAGE_BODY_TOO_LARGE") as caught:
            await sink.send("t", partition, batch)
        assert caught.value.stored == {0, 2}
        # One entry for a batch speaks for all of it.
        with pytest.raises(SinkRejected) as caught:
            await sink.send("t", partition, batch[:2])
        assert caught.value.stored == frozenset()


async def test_part_of_a_request_that_is_stored_is_not_tried_again_inside() -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        entries = [service.SendResultEntry(status=one) for one in (OK, status("TOO_MANY_REQUESTS"))]
        answer = service.SendMessageResponse(status=status("MULTIPLE_RESULTS"), entries=entries)
        proxy.answers = lambda method, _: answer if method == "SendMessage" else None
        with pytest.raises(SinkError) as caught:
            await sink.send("t", *make(sink, 2))
        assert caught.value.stored == {0}
        assert proxy.count("SendMessage") == 1


async def test_ok_without_a_word_on_any_message_is_no_success() -> None:
    async with FakeProxy() as proxy, sink_to(proxy, attempts=1) as sink:
        answer = service.SendMessageResponse(status=OK)
        proxy.answers = lambda method, _: answer if method == "SendMessage" else None
        assert (await failing(sink)).reason == "empty_answer"


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


FAULT = ZeroDivisionError("a fault of ours")


class Batch(list[bytes]):
    """A list that can be watched."""


FAILURES: list[tuple[str, Any]] = [
    ("refused", lambda method, _: status("UNAUTHORIZED") if method == "SendMessage" else None),
    ("rejected", lambda method, _: status("MESSAGE_BODY_TOO_LARGE") if method == "SendMessage" else None),
    ("unavailable", lambda method, _: status("PROXY_TIMEOUT") if method == "SendMessage" else None),
    ("hangs", lambda method, _: 30.0 if method == "SendMessage" else None),
    ("nonsense", lambda method, _: NONSENSE if method == "SendMessage" else None),
    ("route", lambda method, _: status("PROXY_TIMEOUT") if method == "QueryRoute" else None),
    ("no topic", lambda method, _: status("TOPIC_NOT_FOUND") if method == "QueryRoute" else None),
]


@pytest.mark.parametrize("answers", [answers for _, answers in FAILURES], ids=[name for name, _ in FAILURES])
@pytest.mark.parametrize("queues", [1, 4])
async def test_a_failed_send_keeps_nothing_of_its_batch(answers: Any, queues: int) -> None:
    options: dict[str, Any] = {"request_timeout": IMPATIENT, "heartbeat_interval": 30.0, "ordered_partitions": 1}
    async with FakeProxy(queues=queues) as proxy, sink_to(proxy, **options) as sink:
        proxy.answers = answers
        heads = [sink.head(Destination("t", group=f"g{n}")) for n in range(3)]
        with no_collector():
            batch = Batch(head.encode(b"x" * 1000, "", (), 1) for head in heads)
            message = batch[0]
            watched = weakref.ref(batch)
            with suppress(SinkError):
                await sink.send("t", 0, batch)
                pytest.fail("it was to fail")
            await asyncio.sleep(0.05)  # gRPC's own tasks of what was cancelled
            del batch
            assert watched() is None
            # `message` itself, and the argument of the call
            assert sys.getrefcount(message) == 2


async def test_nobody_there_keeps_nothing_either() -> None:
    async with sink_to("127.0.0.1:1", "127.0.0.1:2", heartbeat_interval=30.0) as sink:
        with no_collector():
            batch = Batch([sink.head(Destination("t")).encode(b"x" * 1000, "", (), 1)])
            watched = weakref.ref(batch)
            with suppress(SinkUnavailable):
                await sink.send("t", -1, batch)
            await asyncio.sleep(0.05)
            del batch
            assert watched() is None


async def test_a_fault_in_one_request_ends_its_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeProxy(queues=4) as proxy, sink_to(proxy, ordered_partitions=1, single_requests=2) as sink:
        batch = [sink.head(Destination("t", group=f"g{n}")).encode(b"%d" % n, "", (), 1) for n in range(8)]
        await sink.send("t", 0, batch[:1])
        proxy.holds = asyncio.Event()
        endpoint = sink._cluster.endpoint(proxy.address)
        send = endpoint.send
        sent = 0

        async def broken(request: bytes, topic: str, count: int) -> None:
            nonlocal sent
            sent += 1
            if sent == 2:
                raise FAULT
            await send(request, topic, count)

        with monkeypatch.context() as patch:
            patch.setattr(endpoint, "send", broken)
            with pytest.raises(ZeroDivisionError):
                await sink.send("t", 0, batch)
        begun = sent
        assert begun < len(batch)
        proxy.holds.set()
        await sink.send("t", 0, batch[-1:])
        assert sent == begun
        assert proxy.bodies == [b"0", b"7"], "what was under way was cancelled"
        assert sink.status.detail["in_flight"] == 0


async def test_a_wrong_certificate_is_one_line_not_one_a_topic(files: Files) -> None:
    recorder = FakeReporter()
    topics = tuple(f"t{n}" for n in range(10))
    tls = TlsOptions(ca_file=files.ca)  # the certificate is for another name
    async with (
        FakeProxy(tls=files.server()) as proxy,
        sink_to(proxy, tls=tls, topics=topics, reporter=recorder) as sink,
    ):
        for _ in range(3):
            with pytest.raises(SinkMisconfigured, match="issued for another name"):
                await sink.probe()
    assert [name for name in recorder.names() if name.startswith(("rocketmq.endpoint", "rocketmq.topic"))] == [
        "rocketmq.endpoint.down"
    ]


@pytest.fixture
def files(tmp_path: Any) -> Files:
    return Files(tmp_path)


async def test_a_probe_names_every_topic_that_cannot_be_used() -> None:
    async with FakeProxy() as proxy:
        proxy.answers = lambda method, request: (
            status("TOPIC_NOT_FOUND") if method == "QueryRoute" and request.topic.name != "there" else None
        )
        async with sink_to(proxy, topics=("gone-1", "there", "gone-2")) as sink:
            with pytest.raises(SinkMisconfigured, match=r"gone-1.*gone-2") as caught:
                await sink.probe()
            assert caught.value.reason == "topic_not_found"
            assert "'there'" not in str(caught.value)
            sink.expect(("there", "gone-3"), (("there", "NORMAL"),))
            with pytest.raises(SinkMisconfigured, match="gone-3") as caught:
                await sink.probe()
            assert "gone-1" not in str(caught.value)
            sink.expect(("there",), ())
            await sink.probe()


async def test_certificates_that_were_renewed_are_taken_up(files: Files, tmp_path: Any) -> None:
    other = trustme.CA()
    ours = tmp_path / "ours.pem"
    ours.write_bytes(other.cert_pem.bytes())
    recorder = FakeReporter()
    async with FakeProxy(tls=files.server()) as proxy:
        options: dict[str, Any] = {"tls": TlsOptions(ca_file=str(ours), server_name="localhost"), "attempts": 1}
        async with sink_to(proxy, reporter=recorder, route_refresh_interval=0.05, **options) as sink:
            assert (await failing(sink)).reason == "tls"
            ours.write_text("not a certificate")
            await until(lambda: "rocketmq.background_faults" in recorder.names())
            ours.write_bytes(other.cert_pem.bytes() + files.authority.cert_pem.bytes())
            await until(lambda: "rocketmq.channel.replaced" in recorder.names())
            await sink.send("t", *make(sink))
    assert proxy.bodies == [b"0"]
