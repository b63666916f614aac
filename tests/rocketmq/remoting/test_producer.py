"""The producer's decisions, against brokers that answer as told: which queue, how often, and what an answer means."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.core.events import Event
from spanbridge.core.message import Destination
from spanbridge.ports import Link
from spanbridge.rocketmq import RocketmqOptions
from spanbridge.rocketmq.events import StoredUnsafely
from spanbridge.rocketmq.remoting.codes import RequestCode
from spanbridge.rocketmq.remoting.producer import RemotingProducer

from .fake_cluster import FakeBroker, FakeCluster, fake_cluster, refuse, silence

pytestmark = pytest.mark.anyio


class Kept:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)


@asynccontextmanager
async def producer(cluster: FakeCluster, kept: Kept | None = None, **options: Any) -> AsyncIterator[RemotingProducer]:
    settings: dict[str, Any] = {"backoff_maximum": 0.01, **options}
    made = RocketmqOptions(endpoints=cluster.name_server, protocol="remoting", **settings)
    sink = RemotingProducer(made, kept or Kept())
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


def messages(sink: RemotingProducer, count: int, **destination: Any) -> tuple[int, list[bytes]]:
    head = sink.head(Destination("t", **destination))
    return head.partition, [head.encode(b"%d" % number, "", (), time.time_ns()) for number in range(count)]


async def send(sink: RemotingProducer, count: int = 1, **destination: Any) -> None:
    partition, batch = messages(sink, count, **destination)
    await sink.send("t", partition, batch)


def queues(broker: FakeBroker) -> list[int]:
    return [int(frame.fields["e"]) for frame in broker.sends()]


async def test_batches_go_to_one_queue_after_the_other() -> None:
    async with fake_cluster("a", "b", t=2) as cluster, producer(cluster) as sink:
        for _ in range(8):
            await send(sink, 3)
        first, second = cluster.brokers
        assert sorted(queues(first)) == sorted(queues(second)) == [0, 0, 1, 1]
        request = first.sends()[0]
        assert request.code == RequestCode.SEND_BATCH_MESSAGE
        assert (request.fields["b"], request.fields["n"], request.fields["m"]) == ("t", "a", "true")
        assert sink.status.link is Link.UP


async def test_one_message_is_sent_by_itself() -> None:
    async with fake_cluster("a", t=1) as cluster, producer(cluster) as sink:
        await send(sink, tag="x")
        (request,) = cluster.brokers[0].sends()
        assert (request.code, request.body) == (RequestCode.SEND_MESSAGE_V2, b"0")
        assert request.fields["i"].startswith("TAGS\x01x\x02BORN_TIMESTAMP\x01")


@pytest.mark.parametrize(
    ("code", "remark", "kind", "reason"),
    [
        (1, "whatever", SinkUnavailable, "system_error"),
        (1, "[PC_SYNCHRONIZED]broker busy, start flow control for a while", SinkThrottled, "broker_busy"),
        (2, "[TIMEOUT_CLEAN_QUEUE]broker busy", SinkThrottled, "broker_busy"),
        (215, "", SinkThrottled, "broker_busy"),
        (13, "the message is illegal, maybe", SinkRejected, "message_illegal"),
        (14, "service not available now", SinkUnavailable, "store_unavailable"),
        (16, "the broker[127.0.0.1] sending message is forbidden", SinkMisconfigured, "forbidden"),
        (17, "topic[t] not exist, apply first please!", SinkMisconfigured, "topic_not_found"),
        (1500, "go away", SinkUnavailable, "go_away"),
        (9999, "new", SinkUnavailable, "refused"),
    ],
)
async def test_what_a_brokers_code_means(code: int, remark: str, kind: type[SinkError], reason: str) -> None:
    async with fake_cluster("a", t=1) as cluster, producer(cluster, attempts=1) as sink:
        cluster.brokers[0].answers.append(refuse(code, remark))
        with pytest.raises(kind) as caught:
            await send(sink)
        assert (type(caught.value), caught.value.reason) == (kind, reason)
        assert cluster.brokers[0].address in str(caught.value)
        await send(sink)


async def test_what_may_pass_is_tried_again_at_another_queue() -> None:
    async with fake_cluster("a", t=4) as cluster, producer(cluster) as sink:
        (broker,) = cluster.brokers
        broker.answers += [refuse(2), refuse(1500)]
        await send(sink, 2)
        used = queues(broker)
        assert len(used) == 3
        assert len(set(used)) == 3
        assert broker.connections == 2  # a broker that stops is left


async def test_a_group_is_tried_again_at_its_own_queue() -> None:
    async with fake_cluster("a", t=8) as cluster, producer(cluster) as sink:
        (broker,) = cluster.brokers
        broker.answers += [refuse(2), refuse(2)]
        await send(sink, 2, group="g")
        await send(sink, 1, group="g")
        assert len(queues(broker)) == 4
        assert len(set(queues(broker))) == 1


async def test_a_batch_of_groups_fails_in_part() -> None:
    async with fake_cluster("a", t=8) as cluster, producer(cluster, attempts=1, ordered_partitions=1) as sink:
        heads = [sink.head(Destination("t", group=f"device-{number}")) for number in range(16)]
        batch = [head.encode(b"x", "", (), time.time_ns()) for head in heads]
        cluster.brokers[0].answers.append(refuse(14))
        with pytest.raises(SinkUnavailable) as caught:
            await sink.send("t", 0, batch)
        assert 0 < len(caught.value.stored) < 16


@pytest.mark.parametrize("code", [10, 11, 12])
async def test_stored_less_safely_is_stored_or_not_as_the_setting_says(code: int) -> None:
    async with fake_cluster("a", t=1) as cluster:
        for setting, requests in (("accept", 1), ("retry", 1)):
            kept = Kept()
            async with producer(cluster, kept, stored_unsafely=setting) as sink:
                cluster.brokers[0].asked.clear()
                cluster.brokers[0].answers.append(refuse(code))
                if setting == "accept":
                    await send(sink, 3)
                else:
                    with pytest.raises(SinkUnavailable, match="not as safely"):
                        await send(sink, 3)
            (event,) = [event for event in kept.events if isinstance(event, StoredUnsafely)]
            assert event.count == 3
            assert event.reason.endswith(("persistence_timeout", "ha_not_available"))
            assert len(cluster.brokers[0].sends()) == requests  # each quick try would store another copy


async def test_silence_is_a_deadline_and_replaces_the_connection() -> None:
    async with fake_cluster("a", t=1) as cluster, producer(cluster, attempts=1, request_timeout=0.2) as sink:
        await send(sink)
        (broker,) = cluster.brokers
        broker.answers += [silence, silence]
        for _ in range(2):
            with pytest.raises(SinkUnavailable) as caught:
                await send(sink)
            assert caught.value.reason == "deadline_exceeded"
        assert sink.status.link is Link.BACKOFF
        await send(sink)
        assert broker.connections == 2
        assert sink.status.link is Link.UP


async def test_brokers_that_are_away_are_passed_over() -> None:
    async with fake_cluster("a", "b", t=2) as cluster, producer(cluster) as sink:
        await send(sink)
        cluster.brokers[0].address = "127.0.0.1:1"
        sink._cluster.routes.invalidate("t")  # as a refresh would
        for _ in range(6):
            await send(sink, 2)
        assert len(cluster.brokers[1].sends()) >= 6


async def test_a_broker_that_moved_is_found_again() -> None:
    async with fake_cluster("a", "b", t=1) as cluster, producer(cluster, route_refresh_interval=0.1) as sink:
        cluster.registered = {"a"}
        await send(sink)
        first, second = cluster.brokers
        second.name, first.name = first.name, "gone"
        with anyio.fail_after(20):
            while not second.sends():
                await send(sink)
                await anyio.sleep(0.05)


async def test_a_broker_that_stops_is_down_once_a_new_connection_is_refused_as_well() -> None:
    async with fake_cluster("a", "b", t=1) as cluster, producer(cluster, attempts=1) as sink:
        first, second = cluster.brokers
        first.answers += [refuse(1500)] * 2
        with anyio.fail_after(20):
            while first.answers:
                with suppress(SinkUnavailable):
                    await send(sink)
        assert sink.status.detail["endpoints"][first.address]["up"] is False
        before = len(first.sends())
        for _ in range(4):
            await send(sink)  # the other broker takes them
        assert len(first.sends()) == before
        assert second.sends()
        assert first.connections >= 2


async def test_a_master_that_moved_is_found_for_groups_before_the_next_refresh() -> None:
    """A controller makes a replica the master: the same broker, at another address."""
    async with fake_cluster("a", "b", t=4) as cluster, producer(cluster, attempts=1) as sink:
        cluster.registered = {"a"}
        await send(sink, 1, group="g")
        first, second = cluster.brokers
        queue, (first.name, second.name) = queues(first)[0], ("gone", "a")
        first.answers += [refuse(14)] * 3  # it is a replica now
        with anyio.fail_after(20):
            while not second.sends():
                with suppress(SinkUnavailable):
                    await send(sink, 1, group="g")
                await anyio.sleep(0.01)
        assert queues(second)[0] == queue


async def test_brokers_without_a_master_are_away_and_not_misconfigured() -> None:
    async with fake_cluster("a", "b", t=1) as cluster:
        cluster.headless = {"a", "b"}
        async with producer(cluster, topics=("t",)) as sink:
            with pytest.raises(SinkUnavailable, match="a, b has no master now") as caught:
                await send(sink)
            assert caught.value.reason == "no_broker"
            cluster.headless = {"a"}
            for _ in range(2):
                await send(sink)
            assert [len(broker.sends()) for broker in cluster.brokers] == [0, 2]
            cluster.headless = {"a", "b"}
            await sink._cluster.routes.refresh()  # what was known stays in use: no group moves
            await send(sink)
            assert len(cluster.brokers[1].sends()) == 3


async def test_topics_that_are_missing_and_brokers_that_are() -> None:
    async with fake_cluster("a", "b", t=1) as cluster, producer(cluster, topics=("t", "u")) as sink:
        with pytest.raises(SinkMisconfigured, match="'u' does not exist") as caught:
            await sink.probe()
        assert caught.value.reason == "topic_not_found"
        cluster.topics["u"] = 1
        await sink.probe()
        # The name server forgets the topics of a broker that stops, and nothing is wrong with them.
        cluster.registered = {"a"}
        del cluster.topics["t"]
        with pytest.raises(SinkUnavailable) as unavailable:
            await sink._cluster.routes.renew("t")
        assert unavailable.value.reason == "no_broker"
        cluster.registered = set()
        with pytest.raises(SinkUnavailable) as unavailable:
            await sink.send("v", -1, messages(sink, 1)[1])
        assert unavailable.value.reason == "no_broker"


async def test_old_brokers_get_no_delivery_timestamps() -> None:
    async with fake_cluster("a", t=1) as cluster, producer(cluster) as sink:
        cluster.brokers[0].version = 409  # 4.9.8
        with pytest.raises(SinkMisconfigured, match="knows no delivery timestamps") as caught:
            await send(sink, 1, delivery_timestamp_ms=1)
        assert caught.value.reason == "timer_disabled"
        assert cluster.brokers[0].sends() == []


async def test_old_brokers_get_delay_levels_where_they_may() -> None:
    async with fake_cluster("a", t=1) as cluster, producer(cluster, delay_levels=True) as sink:
        broker = cluster.brokers[0]
        broker.version = 409
        now_ms = time.time_ns() // 1_000_000
        for ahead_ms in (-1000, 3_000_000):
            await send(sink, 1, tag="x", delivery_timestamp_ms=now_ms + ahead_ms)
        assert ["DELAY\x01" in frame.fields["i"] for frame in broker.sends()] == [False, True]
        assert "TAGS\x01x\x02DELAY\x0117\x02BORN_TIMESTAMP" in broker.sends()[1].fields["i"]
        with pytest.raises(SinkRejected) as caught:
            await send(sink, 1, delivery_timestamp_ms=now_ms + 3 * 3_600_000)
        assert caught.value.reason == "illegal_delivery_time"
        assert len(broker.sends()) == 2


async def test_newer_brokers_get_delivery_timestamps_all_the_same() -> None:
    async with fake_cluster("a", t=1) as cluster, producer(cluster, delay_levels=True) as sink:
        await send(sink, 1, delivery_timestamp_ms=1)
        assert "TIMER_DELIVER_MS\x011\x02" in cluster.brokers[0].sends()[0].fields["i"]


@pytest.mark.parametrize("group", [None, "g"])
async def test_large_bodies_are_compressed_and_share_requests_with_their_like(group: str | None) -> None:
    large, small, noise = b"spanbridge" * 200, b"small", os.urandom(2000)
    async with fake_cluster("a", t=1) as cluster, producer(cluster, compress_above=1000) as sink:
        head = sink.head(Destination("t", group=group))
        bodies = [small, large, large, noise, small, large]
        batch = [head.encode(body, "", (), time.time_ns()) for body in bodies]
        await sink.send("t", head.partition, batch)
        requests = cluster.brokers[0].sends()
        assert [(frame.fields["f"], frame.fields["m"]) for frame in requests] == [
            ("0", "false"), ("1", "true"), ("0", "true"), ("1", "false"),
        ]  # fmt: skip
        assert requests[0].body == small
        assert zlib.decompress(requests[3].body) == large
        assert noise in requests[2].body
        assert len(requests[1].body) < 500


async def test_namespaces_heartbeats_and_goodbye() -> None:
    async with fake_cluster("a", **{"ns%t": 1}) as cluster:
        async with producer(cluster, namespace="ns", topics=("t",)) as sink:
            await send(sink, 2)
            await sink.probe()
        codes = [frame.code for frame in cluster.brokers[0].asked]
        assert RequestCode.HEART_BEAT in codes
        assert codes[-1] == RequestCode.UNREGISTER_CLIENT
        assert cluster.brokers[0].sends()[0].fields["b"] == "ns%t"
        assert set(cluster.asked) == {"ns%t"}


async def test_keys_sign_and_secrets_stay_out_of_errors() -> None:
    keys = {"access_key": "who", "secret_key": "hidden-secret", "security_token": "hidden-token"}
    async with fake_cluster("a", t=1) as cluster, producer(cluster, attempts=1, **keys) as sink:
        cluster.brokers[0].answers.append(refuse(1, "hidden-secret hidden-token"))
        with pytest.raises(SinkUnavailable) as caught:
            await send(sink)
        assert "hidden" not in str(caught.value)
        fields = cluster.brokers[0].sends()[0].fields
        assert (fields["AccessKey"], fields["SecurityToken"]) == ("who", "hidden-token")
        assert fields["Signature"]


async def test_an_empty_cluster_answers_a_probe_by_its_brokers() -> None:
    async with fake_cluster("a") as cluster, producer(cluster, connect_timeout=1.0) as sink:
        await sink.probe()
        cluster.brokers[0].address = "127.0.0.1:1"
        with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:1"):
            await sink.probe()
        with pytest.raises(SinkMisconfigured, match="is not host:port"):
            RemotingProducer(RocketmqOptions(endpoints="nonsense"), Kept())
