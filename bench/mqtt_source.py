"""CPU per message of the MQTT sources: ``python bench/mqtt_source.py [--version 5] [--messages 100000] [--parts]``.

A peer in a child process writes QoS 1 PUBLISH packets of 128 bytes payload over 100 topics, with one user property of
35 characters in v5, and reads what comes back; every message is acked in the read that brought it. CPU is that of
the process with the source alone. Prints one JSON object.

``--parts`` needs no peer: it times decoding, taking into the session and acking by themselves, in microseconds a
message, for messages without properties, with a compact trace context, with ten properties more, and in 3.1.1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from typing import Any

import uvloop

from spanbridge.core.delivery import Delivery
from spanbridge.core.events import Event
from spanbridge.core.message import Publish
from spanbridge.mqtt import MqttOptions, Subscription, create_source
from spanbridge.mqtt.codec import Decoder, Publishes, v5, v311
from spanbridge.mqtt.session import MqttSession


def packet(version: str, topic: str, packet_id: int) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + packet_id.to_bytes(2, "big")
    if version == "5":
        body += bytes([42, 0x26, 0, 2]) + b"tp" + b"\0\x23" + b"x" * 35
    body += b"p" * 128
    return b"\x32" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body


async def peer(version: str, messages: int) -> None:
    finished = asyncio.Event()
    heap = b"".join(packet(version, f"plant/line/{n % 100}", n + 1) for n in range(1000))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"\x20\x03\x00\x00\x00" if version == "5" else b"\x20\x02\x00\x00")
        subscribe = await reader.read(4096)
        writer.write(
            b"\x90\x04" + subscribe[2:4] + b"\x00\x01" if version == "5" else b"\x90\x03" + subscribe[2:4] + b"\x01"
        )
        answered = 0
        for sent in range(0, messages, 1000):
            writer.write(heap)
            await writer.drain()
            while answered < (sent - 1000) * 4:
                answered += len(await reader.read(1 << 20))
        while await reader.read(1 << 20):
            pass
        finished.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await finished.wait()


class Silent:
    def report(self, event: Event) -> None:
        pass


async def measure(version: str, messages: int, port: int) -> dict[str, float]:
    options = MqttOptions(
        name="bench",
        host="127.0.0.1",
        port=port,
        version="5" if version == "5" else "3.1.1",
        client_id="bench",
        subscriptions=(Subscription(filter="#"),),
    )
    source = create_source(options, Silent())
    got = reads = 0
    done = asyncio.Event()

    def deliver(batch: list[Delivery[Publish]]) -> None:
        nonlocal got, reads
        got += len(batch)
        reads += 1
        source.ack(batch)
        if got >= messages:
            done.set()

    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    run = asyncio.create_task(source.run(deliver, lambda: None))
    await asyncio.wait_for(done.wait(), 120)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    await source.close()
    await run
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cpu_us_per_msg": round(cpu / got * 1e6, 2),
        "msgs_per_s": round(got / took),
        "messages_per_read": round(got / reads, 1),
    }


def _shape(name: str, number: int) -> bytes:
    topic, payload = f"plant/7/line/{number % 100}/temp", b"x" * 128
    if name == "v311":
        return v311.encode_publish(Publish(topic, payload, 1), number + 1)
    message = Publish(topic, payload, 1)
    if name != "plain":
        message.user_properties = (("tp", f"{number:035d}"),)
    if name == "ten":
        message.user_properties = (*message.user_properties, *((f"name{n}", f"value{n}") for n in range(10)))
        message.content_type, message.correlation_data = "application/json", b"%08d" % number
    return v5.encode_publish(message, number + 1)


def parts(count: int = 300, rounds: int = 150) -> dict[str, dict[str, float]]:
    """The best of all rounds, since other processes only add."""
    result: dict[str, dict[str, float]] = {}
    for name in ("plain", "tp", "ten", "v311"):
        data = b"".join(_shape(name, number) for number in range(count))
        session = MqttSession()
        source: Any = None
        decoder = Decoder(source, v5=name != "v311", limit=1 << 24)
        session.connected(session_present=False)
        best = dict.fromkeys(("decode", "take", "ack"), float("inf"))
        for _ in range(rounds):
            began = time.process_time_ns()
            (run,) = decoder.feed(data, 5, 5)
            decoded = time.process_time_ns()
            assert isinstance(run, Publishes)
            deliveries, _, _ = session.take(run)
            taken = time.process_time_ns()
            session.ack(deliveries)
            times = {"decode": decoded - began, "take": taken - decoded, "ack": time.process_time_ns() - taken}
            best = {key: min(value, times[key] / count / 1000) for key, value in best.items()}
        result[name] = {key: round(value, 2) for key, value in best.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", choices=["5", "3.1.1"], default="5")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parts", action="store_true", help="decoding, taking and acking by themselves")
    args = parser.parse_args()
    if args.parts:
        print(json.dumps(parts()))
        return
    if args.peer:
        uvloop.run(peer(args.version, args.messages))
        return
    command = [sys.executable, __file__, "--peer", "--version", args.version, "--messages", str(args.messages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        run = uvloop.run if args.loop == "uvloop" else asyncio.run
        result = run(measure(args.version, args.messages, port))
    print(json.dumps({"version": args.version, "loop": args.loop, "messages": args.messages, **result}))


if __name__ == "__main__":
    main()
