"""The sink against proxies that misbehave, on purpose and reproducibly."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.core.message import Destination
from spanbridge.core.tls import TlsOptions
from spanbridge.ports import Link
from spanbridge.rocketmq import RocketmqOptions
from spanbridge.rocketmq.grpc.producer import GrpcProducer
from spanbridge.rocketmq.grpc.routes import read_route
from spanbridge.rocketmq.grpc.stubs import service
from spanbridge.rocketmq.partitions import DELAYED, UNORDERED
from tests.fakes import FakeReporter

from .fake_proxy import FakeProxy, status

pytestmark = pytest.mark.anyio

QUICK = RocketmqOptions(
    endpoints="", request_timeout=5.0, backoff_initial=0.001, backoff_maximum=0.01, heartbeat_interval=0.1
)
IMPATIENT = 0.5
"""Request timeout, in seconds, where a peer never answers. Elsewhere a slow machine must not look like that."""


@asynccontextmanager
async def sink_to(*proxies: FakeProxy | str, **changes: Any) -> AsyncIterator[GrpcProducer]:
    endpoints = ";".join(proxy if isinstance(proxy, str) else proxy.address for proxy in proxies)
    reporter = changes.pop("reporter", None) or FakeReporter()
    sink = GrpcProducer(replace(QUICK, endpoints=endpoints, **changes), reporter)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


def make(sink: GrpcProducer, count: int = 1, **address: Any) -> tuple[int, list[bytes]]:
    head = sink.head(Destination("t", **address))
    return head.partition, [head.encode(b"%d" % n, "", (), time.time_ns()) for n in range(count)]


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


async def failing(sink: GrpcProducer, **address: Any) -> SinkError:
    partition, batch = make(sink, **address)
    with pytest.raises(SinkError) as caught:
        await sink.send("t", partition, batch)
    return caught.value


async def test_what_a_session_looks_like() -> None:
    async with FakeProxy() as proxy:
        async with sink_to(proxy, topics=("t",), namespace="space") as sink:
            partition, batch = make(sink, 3)
            assert partition == UNORDERED
            await sink.send("t", partition, batch)
            await sink.probe()
            await until(lambda: proxy.count("Heartbeat") >= 2 and sink.status.detail["telemetry_stream"])
            assert sink.status.link is Link.UP
            assert sink.status.detail["topics"] == {"t": {"queues": 1, "types": ["DELAY", "FIFO", "NORMAL"]}}
            assert sink.status.detail["in_flight"] == 0
        assert proxy.bodies == [b"0", b"1", b"2"]
        assert proxy.batches[0][0].topic.resource_namespace == "space"
        (settings, *_) = proxy.settings
        assert settings.access_point.addresses[0].port == proxy.port
        assert [topic.name for topic in settings.publishing.topics] == ["t"]
        assert proxy.calls[-1][0] == "NotifyClientTermination"
        assert {headers["x-mq-client-id"] for _, headers in proxy.calls} == {sink.status.detail["client_id"]}
        assert sink.status.link is Link.CLOSED
        await sink.close()
        with pytest.raises(SinkUnavailable, match="closed"):
            await sink.send("t", partition, batch)


async def test_the_servers_limits_are_taken_over_and_new_topics_are_announced() -> None:
    proxy = FakeProxy()
    proxy.max_body_size = 1000
    async with proxy, sink_to(proxy) as sink:
        await until(lambda: sink.status.detail["max_body_bytes"] == 1000)
        head = sink.head(Destination("t"))
        with pytest.raises(SinkRejected, match="over the cluster's limit of 1000"):
            head.encode(b"x" * 1001, "", (), 1)
        await sink.send("t", *make(sink))
        await until(lambda: [topic.name for topic in proxy.settings[-1].publishing.topics] == ["t"])
        # 600 bytes each: two would be over the server's limit for a request.
        big = [head.encode(b"%d" % n * 600, "", (), 1) for n in range(3)]
        await sink.send("t", UNORDERED, big)
        assert [len(batch) for batch in proxy.batches] == [1, 1, 1, 1]


async def test_throttling_is_retried_and_then_told() -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        refusals = [status("TOO_MANY_REQUESTS", "flow limit")] * 2
        proxy.answers = lambda method, _: refusals.pop() if method == "SendMessage" and refusals else None
        await sink.send("t", *make(sink))
        assert proxy.bodies == [b"0"]
        busy = status("INTERNAL_SERVER_ERROR", "[TIMEOUT_CLEAN_QUEUE]broker busy")
        proxy.answers = lambda method, _: busy if method == "SendMessage" else None
        before = proxy.count("SendMessage")
        error = await failing(sink)
        assert isinstance(error, SinkThrottled)
        assert proxy.count("SendMessage") - before == QUICK.attempts


@pytest.mark.parametrize("code", ["HA_NOT_AVAILABLE", "MASTER_PERSISTENCE_TIMEOUT", "SLAVE_PERSISTENCE_TIMEOUT"])
async def test_what_was_stored_less_safely_is_not_stored_again_at_once(code: str) -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        proxy.answers = lambda method, _: status(code) if method == "SendMessage" else None
        error = await failing(sink)
        assert isinstance(error, SinkUnavailable)
        assert proxy.count("SendMessage") == 1


async def test_a_proxy_that_throttles_routes_is_left_for_another() -> None:
    async with FakeProxy() as busy, FakeProxy() as good, sink_to(busy, good) as sink:
        busy.answers = lambda method, _: status("TOO_MANY_REQUESTS") if method == "QueryRoute" else None
        await sink.send("t", *make(sink))
        assert good.count("QueryRoute") == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [("MESSAGE_BODY_TOO_LARGE", SinkRejected), ("UNAUTHORIZED", SinkMisconfigured), ("FORBIDDEN", SinkMisconfigured)],
)
async def test_what_no_retry_mends_is_told_at_once(code: str, kind: type[SinkError]) -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        proxy.answers = lambda method, _: status(code, "why") if method == "SendMessage" else None
        error = await failing(sink)
        assert isinstance(error, kind)
        assert error.reason == code.lower()
        assert proxy.address in str(error)
        assert "topic 't'" in str(error)
        assert proxy.count("SendMessage") == 1


async def test_a_hanging_proxy_ends_by_deadline_and_is_reconnected() -> None:
    options: dict[str, Any] = {"reporter": (recorder := FakeReporter()), "request_timeout": IMPATIENT}
    async with FakeProxy() as proxy, sink_to(proxy, **options) as sink:
        await sink.send("t", *make(sink))
        proxy.answers = lambda method, _: 30.0
        before = proxy.count("SendMessage")
        error = await failing(sink)
        assert error.reason == "deadline_exceeded"
        # One deadline, not three: there is no other proxy to try.
        assert proxy.count("SendMessage") == before + 1
        await until(lambda: "rocketmq.channel.replaced" in recorder.names())
        assert sink.status.link is Link.BACKOFF
        with pytest.raises(SinkUnavailable):
            await sink.probe()
        proxy.answers = lambda method, _: None
        await sink.send("t", *make(sink))
        await sink.probe()
        assert sink.status.link is Link.UP


async def test_a_goodbye_that_nobody_answers_is_no_news() -> None:
    """The words "the connection is tried again" would be the last line of a gateway that has stopped."""
    options: dict[str, Any] = {"reporter": (recorder := FakeReporter()), "request_timeout": IMPATIENT}
    async with FakeProxy() as proxy:
        async with sink_to(proxy, **options) as sink:
            await sink.send("t", *make(sink))
            proxy.answers = lambda method, _: 30.0 if method == "NotifyClientTermination" else None
        assert proxy.count("NotifyClientTermination") == 1
        assert "rocketmq.endpoint.down" not in recorder.names()
        assert sink.status.link is Link.CLOSED


async def test_many_requests_that_hang_together_replace_a_connection_once() -> None:
    recorder = FakeReporter()
    options: dict[str, Any] = {"reporter": recorder, "ordered_partitions": 1, "heartbeat_interval": 30.0}
    options["request_timeout"] = IMPATIENT
    async with FakeProxy(queues=4) as proxy, sink_to(proxy, **options) as sink:
        forms = [sink.head(Destination("t", group=f"g{n}")) for n in range(32)]
        await sink.send("t", 0, [forms[0].encode(b"x", "", (), 1)])
        proxy.answers = lambda method, _: 5.0 if method == "SendMessage" else None
        with pytest.raises(SinkUnavailable):
            await sink.send("t", 0, [form.encode(b"x", "", (), 1) for form in forms])
        assert recorder.names().count("rocketmq.channel.replaced") == 1


async def test_a_broker_that_hangs_does_not_take_the_turns_of_another() -> None:
    async with FakeProxy(queues=4) as one, FakeProxy(queues=4) as two:
        # Brokers sort by name: partition 0 goes to the first, partition 1 to the second.
        one.others = [two]
        async with sink_to(one, ordered_partitions=2, single_requests=2, request_timeout=20.0) as sink:
            forms = [sink.head(Destination("t", group=f"g{n}")) for n in range(16)]
            partitions = [[form.encode(b"%d" % n, "", (), 1) for form in forms if form.partition == n] for n in (0, 1)]
            await sink.send("t", 0, partitions[0][:1])
            await sink.send("t", 1, partitions[1][:1])
            assert (one.bodies, two.bodies) == ([b"0"], [b"1"])
            held = asyncio.Event()
            two.holds = held
            stuck = asyncio.get_running_loop().create_task(sink.send("t", 1, partitions[1]))
            await until(lambda: two.count("SendMessage") == 3)
            await sink.send("t", 0, partitions[0])
            assert not stuck.done()
            held.set()
            await stuck


async def test_when_nobody_answers_what_has_not_begun_does_not_begin() -> None:
    limits: dict[str, Any] = {"ordered_partitions": 1, "single_requests": 2, "heartbeat_interval": 30.0}
    limits["request_timeout"] = IMPATIENT
    async with FakeProxy(queues=4) as proxy, sink_to(proxy, **limits) as sink:
        batch = [sink.head(Destination("t", group=f"g{n}")).encode(b"%d" % n, "", (), 1) for n in range(16)]
        proxy.answers = lambda method, _: 5.0 if method == "SendMessage" else None
        with pytest.raises(SinkUnavailable):
            await sink.send("t", 0, batch)
        assert proxy.count("SendMessage") == 2
        proxy.answers = lambda method, _: None
        await sink.send("t", 0, batch)
        assert sorted(proxy.bodies, key=int) == [b"%d" % n for n in range(16)]


async def test_a_hanging_proxy_is_left_for_another() -> None:
    async with FakeProxy() as good, FakeProxy() as bad, sink_to(good, bad, request_timeout=1.0) as sink:
        good.others, good.together = [bad], True
        bad.others, bad.together = [good], True
        await sink.send("t", *make(sink))
        bad.answers = lambda method, _: 30.0
        for _ in range(6):
            await sink.send("t", *make(sink))
        assert len(good.bodies) + len(bad.bodies) == 7


async def test_where_one_hangs_and_one_refuses_both_are_named() -> None:
    """Whichever came last: the one that hangs is to be looked after as well."""
    options: dict[str, Any] = {"request_timeout": 2.0, "heartbeat_interval": 30.0}
    async with FakeProxy() as hanging, FakeProxy() as refusing, sink_to(hanging, refusing, **options) as sink:
        hanging.others, hanging.together = [refusing], True
        refusing.others, refusing.together = [hanging], True
        await sink.send("t", *make(sink))
        hanging.answers = lambda method, _: 30.0 if method == "SendMessage" else None
        refusing.answers = lambda method, _: status("PROXY_TIMEOUT") if method == "SendMessage" else None
        error = await failing(sink)
        assert isinstance(error, SinkUnavailable)
        told = [str(error).count(f"RocketMQ at {proxy.address}") for proxy in (hanging, refusing)]
        assert told == [1, 1]


async def test_a_group_keeps_to_one_proxy_and_the_rest_take_turns() -> None:
    async with FakeProxy() as one, FakeProxy() as two, sink_to(one, two) as sink:
        one.others, one.together = [two], True
        two.others, two.together = [one], True
        for _ in range(4):
            await sink.send("t", *make(sink, group="g"))
        assert sorted([len(one.bodies), len(two.bodies)]) == [0, 4]
        for _ in range(4):
            await sink.send("t", *make(sink))
        assert sorted([len(one.bodies), len(two.bodies)]) == [2, 6]


async def test_nobody_there_and_then_somebody() -> None:
    async with FakeProxy() as proxy:
        port = proxy.port
    recorder = FakeReporter()
    async with sink_to(f"127.0.0.1:{port}", reporter=recorder) as sink:
        began_ns = time.time_ns()
        error = await failing(sink)
        assert isinstance(error, SinkUnavailable)
        assert sink.status.link is Link.BACKOFF
        assert began_ns <= sink.status.last_error_ns <= time.time_ns()
        assert f"127.0.0.1:{port}" in (sink.status.last_error or "")
        async with FakeProxy(port) as proxy:
            async with asyncio.timeout(30):
                while not proxy.bodies:
                    with contextlib.suppress(SinkUnavailable):
                        await sink.send("t", *make(sink))
                    await asyncio.sleep(0.05)
            assert proxy.bodies == [b"0"]
            await until(lambda: sink.status.detail["telemetry_stream"])
            assert recorder.names().count("rocketmq.endpoint.down") == 1
            assert recorder.names().count("rocketmq.endpoint.up") == 1


async def test_a_restarted_proxy_is_told_the_settings_again() -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        await until(lambda: proxy.settings)
        known = len(proxy.settings)
        forgotten = [status("UNRECOGNIZED_CLIENT_TYPE", "cannot find client settings for this client")]
        proxy.answers = lambda method, _: forgotten.pop() if method == "Heartbeat" and forgotten else None
        await until(lambda: len(proxy.settings) > known)
        await proxy.stop()
        await proxy.start()
        known = len(proxy.settings)
        await until(lambda: len(proxy.settings) > known)
        await until(lambda: sink.status.detail["telemetry_stream"])


async def test_commands_of_the_server() -> None:
    recorder = FakeReporter()
    async with FakeProxy() as proxy, sink_to(proxy, reporter=recorder) as sink:
        await until(lambda: sink.status.detail["telemetry_stream"])
        trace = service.PrintThreadStackTraceCommand(nonce="n1")
        await proxy.commands.put(service.TelemetryCommand(print_thread_stack_trace_command=trace))
        verify = service.VerifyMessageCommand(nonce="n2")
        await proxy.commands.put(service.TelemetryCommand(verify_message_command=verify))
        recover = service.RecoverOrphanedTransactionCommand(transaction_id="x")
        await proxy.commands.put(service.TelemetryCommand(recover_orphaned_transaction_command=recover))
        await until(lambda: recorder.names().count("rocketmq.server_commands.refused") == 3)
        await until(lambda: len(proxy.replies) == 2)
        assert [reply.thread_stack_trace.nonce or reply.verify_message_result.nonce for reply in proxy.replies] == [
            "n1",
            "n2",
        ]
        streams = proxy.count("Telemetry")
        reconnect = service.ReconnectEndpointsCommand(nonce="n3")
        await proxy.commands.put(service.TelemetryCommand(reconnect_endpoints_command=reconnect))
        await until(lambda: proxy.count("Telemetry") > streams)
        assert "rocketmq.channel.replaced" in recorder.names()
        await sink.send("t", *make(sink))


async def test_types_are_checked_before_anything_is_sent() -> None:
    async with FakeProxy(types=("FIFO",)) as proxy, sink_to(proxy) as sink:
        error = await failing(sink)
        assert isinstance(error, SinkMisconfigured)
        assert "topic 't' takes FIFO messages, not NORMAL" in str(error)
        assert proxy.count("SendMessage") == 0
        # The route is asked for again: the operator may have changed the topic.
        proxy.types = ("NORMAL",)
        await sink.send("t", *make(sink))


async def test_types_are_left_to_a_server_that_does_not_check_them() -> None:
    proxy = FakeProxy(types=("NORMAL",))
    proxy.checks_types = False
    async with proxy, sink_to(proxy, topics=("t",), kinds=(("t", "FIFO"),)) as sink:
        await sink.send("t", *make(sink, group="g"))
        await sink.probe()
        assert proxy.bodies == [b"0"]


async def test_a_probe_finds_configured_topics_of_another_type_and_says_so_once() -> None:
    async with FakeProxy(types=("FIFO",)) as proxy:
        reporter = FakeReporter()
        async with sink_to(proxy, topics=("t",), kinds=(("t", "NORMAL"),), reporter=reporter) as sink:
            for _ in range(3):
                with pytest.raises(SinkMisconfigured, match="takes FIFO messages, not NORMAL"):
                    await sink.probe()
            assert reporter.names().count("rocketmq.route.changes") == 1
            (event,) = [event for event in reporter.events if event.name == "rocketmq.topic.unusable"]
            assert event.labels() == {"topic": "t", "reason": "message_property_conflict_with_type"}
            assert "it is looked at again" in event.text()
            proxy.types = ("NORMAL",)
            await sink.probe()


async def test_a_topic_without_writable_queues() -> None:
    async with FakeProxy(queues=0) as proxy, sink_to(proxy) as sink:
        error = await failing(sink)
        assert isinstance(error, SinkMisconfigured)
        assert error.reason == "no_writable_queue"


async def test_callers_share_one_route_query() -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        proxy.answers = lambda method, _: 0.05 if method == "QueryRoute" else None
        await asyncio.gather(*(sink.send("t", *make(sink)) for _ in range(20)))
        assert proxy.count("QueryRoute") == 1


async def test_groups_on_one_queue_share_requests() -> None:
    async with FakeProxy(queues=1) as proxy, sink_to(proxy, ordered_partitions=1) as sink:
        messages = [make(sink, group=f"g{n}")[1][0] for n in range(10)]
        await sink.send("t", 0, messages)
        assert [len(batch) for batch in proxy.batches] == [10]


async def test_groups_on_several_queues_go_one_by_one_in_their_order() -> None:
    async with FakeProxy(queues=4) as proxy, sink_to(proxy, ordered_partitions=1, single_requests=8) as sink:
        forms = [sink.head(Destination("t", group=f"g{n}")) for n in range(10)]
        proxy.answers = lambda method, request: 0.005 * (hash(request.SerializeToString()) % 3)
        batch = [form.encode(b"%d" % turn, "", (), 1) for turn in range(5) for form in forms]
        await sink.send("t", 0, batch)
        assert {len(sent) for sent in proxy.batches} == {1}
        orders: dict[str, list[bytes]] = {}
        for (message,) in proxy.batches:
            orders.setdefault(message.system_properties.message_group, []).append(message.body)
        assert list(orders.values()) == [[b"0", b"1", b"2", b"3", b"4"]] * 10


async def test_what_was_stored_of_a_failed_batch_is_told() -> None:
    async with FakeProxy(queues=4) as proxy, sink_to(proxy, ordered_partitions=1) as sink:
        form, other = sink.head(Destination("t", group="g")), sink.head(Destination("t", group="other"))
        batch = [form.encode(b"%d" % n, "", (), 1) for n in range(4)] + [other.encode(b"x", "", (), 1)]
        proxy.answers = lambda method, request: (
            status("UNAUTHORIZED") if method == "SendMessage" and request.messages[0].body == b"2" else None
        )
        with pytest.raises(SinkMisconfigured) as caught:
            await sink.send("t", 0, batch)
        assert sorted(proxy.bodies) == [b"0", b"1", b"x"]
        assert caught.value.stored == {0, 1, 4}
        proxy.answers = lambda method, request: None
        await sink.send("t", 0, batch[2:4])
        assert sorted(proxy.bodies) == [b"0", b"1", b"2", b"3", b"x"]


async def test_delayed_messages_have_a_lane_and_requests_of_their_own() -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        partition, batch = make(sink, 3, delivery_timestamp_ms=1)
        assert partition == DELAYED
        await sink.send("t", partition, batch)
        assert [len(sent) for sent in proxy.batches] == [1, 1, 1]


async def test_a_group_stays_with_its_broker_when_brokers_stand_alone() -> None:
    async with FakeProxy() as one, FakeProxy() as two, sink_to(one, ordered_partitions=8) as sink:
        one.others = two.others = []
        one.others = [two]
        for turn in range(3):
            for n in range(16):
                form = sink.head(Destination("t", group=f"g{n}"))
                await sink.send("t", form.partition, [form.encode(b"%d" % turn, "", (), 1)])
        groups = [
            {message.system_properties.message_group for batch in proxy.batches for message in batch}
            for proxy in (one, two)
        ]
        assert not groups[0] & groups[1]
        assert all(groups)
        one.batches.clear()
        two.batches.clear()
        for _ in range(4):
            await sink.send("t", *make(sink))
        assert (one.bodies, two.bodies) == ([b"0"] * 2, [b"0"] * 2), "without a group, in turn"


async def test_a_broker_that_moved_is_found_before_the_next_refresh() -> None:
    async with FakeProxy() as front, FakeProxy() as old, FakeProxy() as new, sink_to(front) as sink:
        front.queues = 0
        front.others = [old]
        await sink.send("t", *make(sink, group="g"))
        await old.stop()
        front.others = [new]
        async with asyncio.timeout(10):
            while not new.bodies:
                with contextlib.suppress(SinkUnavailable):
                    await sink.send("t", *make(sink, group="g"))
                await asyncio.sleep(0.01)
        await old.start()


async def test_groups_on_several_queues_do_not_move_for_a_moment() -> None:
    async with FakeProxy(queues=2) as proxy, sink_to(proxy, ordered_partitions=1) as sink:
        await sink.send("t", *make(sink, group="g"))
        proxy.queues = 1
        proxy.answers = lambda method, _: status("INTERNAL_SERVER_ERROR") if method == "SendMessage" else None
        await failing(sink, group="g")
        await failing(sink, group="g")
        assert proxy.count("QueryRoute") == 1
        await failing(sink)  # no group: any queue will do
        await until(lambda: proxy.count("QueryRoute") == 2)


async def test_addresses_that_no_route_names_any_more_are_left() -> None:
    async with FakeProxy() as front, FakeProxy() as old, FakeProxy() as new:
        front.queues = 0
        front.others = [old]
        async with sink_to(front, route_refresh_interval=0.05) as sink:
            await sink.send("t", *make(sink))
            assert old.address in sink.status.detail["endpoints"]
            front.others = [new]
            await until(lambda: old.address not in sink.status.detail["endpoints"])
            await until(lambda: old.count("NotifyClientTermination") == 1)
            await sink.send("t", *make(sink))
            assert new.bodies


def test_groups_stay_with_a_brokers_name_when_addresses_change() -> None:
    def addresses(*ports: int) -> list[tuple[str, ...]]:
        brokers = [FakeProxy(port) for port in ports]
        brokers[0].others = brokers[1:]
        response = brokers[0]._QueryRoute(service.QueryRouteRequest(), None)
        return [target.addresses for target in read_route("t", response, None).targets]

    assert addresses(1, 2) == [("127.0.0.1:1",), ("127.0.0.1:2",)]
    assert addresses(3, 2) == [("127.0.0.1:3",), ("127.0.0.1:2",)]


async def test_addresses_of_routes_can_be_left_aside() -> None:
    async with FakeProxy() as proxy, FakeProxy() as other, sink_to(proxy, follow_routes=False) as sink:
        proxy.others = [other]
        for _ in range(4):
            await sink.send("t", *make(sink))
        assert len(proxy.bodies) == 4
        assert list(sink.status.detail["endpoints"]) == [proxy.address]


async def test_a_probe_looks_where_messages_would_go() -> None:
    async with FakeProxy() as front, FakeProxy() as broker, sink_to(front, request_timeout=1.0) as sink:
        front.others, front.queues = [broker], 0
        await sink.probe()
        await sink.send("t", *make(sink))
        await sink.probe()
        broker.answers = lambda method, _: 30.0
        with pytest.raises(SinkUnavailable, match=broker.address):
            await sink.probe()


async def test_a_server_that_is_no_rocketmq() -> None:
    async with FakeProxy() as proxy, sink_to(proxy) as sink:
        proxy.answers = lambda method, _: grpc.StatusCode.UNIMPLEMENTED
        error = await failing(sink)
        assert isinstance(error, SinkMisconfigured)
        assert "check the endpoint's port" in str(error)


async def test_closing_waits_for_what_is_in_flight() -> None:
    async with FakeProxy() as proxy:
        async with sink_to(proxy) as sink:
            await sink.send("t", *make(sink))
            proxy.answers = lambda method, _: 0.1 if method == "SendMessage" else None
            sending = asyncio.get_running_loop().create_task(sink.send("t", *make(sink)))
            await until(lambda: sink.status.detail["in_flight"] == 1)
        await sending
        assert len(proxy.bodies) == 2


@pytest.mark.parametrize("endpoints", ["", "host", "http://h:1", "h:0", "h:x"])
def test_endpoints_that_are_none(endpoints: str) -> None:
    with pytest.raises(SinkMisconfigured, match="rocketmq endpoints"):
        GrpcProducer(replace(QUICK, endpoints=endpoints), FakeReporter())


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (TlsOptions(cert_file="c"), "go together"),
        (TlsOptions(ca_file="/nowhere/ca.pem"), "No such file"),
    ],
)
async def test_tls_options_that_cannot_be_used(tls: TlsOptions, text: str) -> None:
    sink = GrpcProducer(replace(QUICK, endpoints="127.0.0.1:1", tls=tls), FakeReporter())
    with pytest.raises(SinkMisconfigured, match=text):
        await sink.start()
    await sink.close()


async def test_routes_are_refreshed_and_kept_when_nobody_answers() -> None:
    recorder = FakeReporter()
    async with FakeProxy() as proxy, sink_to(proxy, reporter=recorder, route_refresh_interval=0.05) as sink:
        await sink.send("t", *make(sink))
        proxy.queues = 4
        await until(lambda: sink.status.detail["topics"]["t"]["queues"] == 4)
        proxy.answers = lambda method, _: status("PROXY_TIMEOUT") if method == "QueryRoute" else None
        await until(lambda: "rocketmq.route.refresh_failures" in recorder.names())
        await sink.send("t", *make(sink))
        proxy.answers = lambda method, _: status("TOPIC_NOT_FOUND", "no route") if method == "QueryRoute" else None
        await until(lambda: not sink.status.detail["topics"])
        assert (await failing(sink)).reason == "topic_not_found"


async def test_no_secret_leaves_the_sink() -> None:
    recorder = FakeReporter()
    secrets = {"secret_key": "s3cr3t", "security_token": "t0ken"}
    async with FakeProxy() as proxy, sink_to(proxy, reporter=recorder, access_key="me", **secrets) as sink:
        proxy.answers = lambda method, _: status("UNAUTHORIZED", "bad t0ken, s3cr3t")
        error = await failing(sink)
        assert "authorization" in proxy.calls[-1][1]
        assert proxy.calls[-1][1]["x-mq-session-token"] == "t0ken"
        shown = f"{error} {error!r} {sink.status} {sink!r} {recorder.events} " + " ".join(
            event.text() for event in recorder.events
        )
    for secret in secrets.values():
        assert secret not in shown


async def test_nothing_is_left_running() -> None:
    before = asyncio.all_tasks()
    proxy = FakeProxy()
    await proxy.start()
    async with sink_to(proxy, topics=("t",), request_timeout=IMPATIENT) as sink:
        await sink.send("t", *make(sink))
        proxy.answers = lambda method, _: 30.0
        with pytest.raises(SinkUnavailable):
            await sink.send("t", *make(sink))
    left = {task for task in asyncio.all_tasks() - before if "fake_proxy" not in repr(task) and "aio" not in repr(task)}
    await proxy.stop()
    assert not left


async def test_a_probe_finds_configured_topics_that_are_missing_and_says_so_once() -> None:
    async with FakeProxy() as proxy:
        missing = True
        gone = status("TOPIC_NOT_FOUND")
        proxy.answers = lambda method, request: (
            gone if missing and method == "QueryRoute" and request.topic.name == "missing" else None
        )
        reporter = FakeReporter()
        async with sink_to(proxy, topics=("there", "missing"), reporter=reporter) as sink:
            for _ in range(3):
                with pytest.raises(SinkMisconfigured, match="'missing'"):
                    await sink.probe()
            assert reporter.names().count("rocketmq.topic.unusable") == 1
            missing = False
            await sink.probe()
