"""What Apache's Java client makes of messages written natively, and the reverse.

``python -m bench.interop 4.9.7 [AGENT.jar]`` takes a devstack of that version, a JDK on the PATH, and, for traces,
OpenTelemetry's Java agent, which then runs on that JDK. It prints what each side has read; somebody has to look at it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from spanbridge.app.findings import Silent
from spanbridge.core.message import Destination
from spanbridge.devstack import Devstack
from spanbridge.devstack.jars import ensure_jars
from spanbridge.devstack.rocketmq_setup import java
from spanbridge.rocketmq import RocketmqOptions, create_sink
from spanbridge.rocketmq.packed import unpack
from spanbridge.rocketmq.remoting.admin import topic_route
from spanbridge.rocketmq.remoting.client import RemotingClient
from spanbridge.rocketmq.remoting.pull import pull

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LARGE = b"large" + b' {"value": 21.5}' * 1000


async def write(name_server: str, topic: str) -> None:
    """One message alone, a compressed one, and a batch of both kinds."""
    options = RocketmqOptions(
        endpoints=name_server, protocol="remoting", compress_above=4096, request_timeout=20.0, ordered_partitions=8
    )
    sink = create_sink(options, Silent())
    await sink.start()
    head = sink.head(Destination(topic, tag="tag-ü", keys=("k1", "k2"), properties=(("mqtt.topic", "plant/7"),)))
    for bodies in ([b"alone"], [LARGE], [b"first", b"second", LARGE, LARGE]):
        await sink.send(topic, head.partition, [head.encode(body, PARENT, (), time.time_ns()) for body in bodies])
    await sink.close()


async def read(name_server: str, topic: str, count: int) -> None:
    """Pull from the topic's one queue."""
    async with RemotingClient(name_server, timeout=20.0) as client:
        route = await client.ask(topic_route(topic))
    assert route is not None
    broker = route.brokers[0].master
    assert broker is not None
    at = 0
    async with RemotingClient(broker, timeout=20.0) as client:
        while at < count:
            for message in (await client.ask(pull("interop", topic, 0, at))).messages:
                at += 1
                body, fault = unpack(message.body, 1 << 20) if message.system_flag & 1 else (message.body, None)
                kept = {name: message.properties.get(name) for name in ("UNIQ_KEY", "TAGS", "KEYS", "traceparent")}
                print(
                    f"message {kept} flag={message.system_flag:#x} bytes={len(body)} start={body[:8]!r} {fault or ''}"
                )


def spans(line: str) -> Iterator[str]:
    """Name, kind, trace and parent of the spans that the agent has logged in this line."""
    _, found, text = line.partition('{"resource"')
    if found:
        for scope in json.loads(found + text)["scopeSpans"]:
            for span in scope["spans"]:
                parent = span.get("parentSpanId", "none")
                yield f"{span['name']!r} kind={span['kind']} trace={span['traceId']} parent={parent}"


def main() -> None:
    """Both directions."""
    version, *agent = sys.argv[1:]
    compiler = shutil.which("javac")
    if compiler is None:
        sys.exit("no javac on the PATH")
    path = ":".join(str(jar) for jar in ensure_jars(version=version))
    opens = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.nio", "sun.nio.ch", "jdk.internal.ref")]
    agents = [
        "-XX:TieredStopAtLevel=1",
        *(f"-javaagent:{one}" for one in agent),
        "-Dotel.instrumentation.common.default-enabled=false",
        "-Dotel.instrumentation.rocketmq-client.enabled=true",
        "-Dotel.traces.exporter=logging-otlp",
        "-Dotel.metrics.exporter=none",
        "-Dotel.logs.exporter=none",
    ]
    with (
        tempfile.TemporaryDirectory() as made,
        Devstack.up(mqtt_v5=False, mqtt_v311=False, rocketmq_version=version) as stack,
    ):
        source = Path(__file__).with_name("JavaPeer.java")
        subprocess.run([compiler, "-cp", path, "-d", made, str(source)], check=True)
        assert stack.rocketmq is not None
        name_server = stack.rocketmq.namesrv

        def peer(*words: str, with_parent: bool) -> None:
            parent = [f"-Dtraceparent={PARENT}"] if with_parent else []
            runner = "java" if agent else java()
            command = [runner, "-Xmx256m", f"-Duser.home={made}", *opens, *agents, *parent, "-cp", f"{made}:{path}"]
            done = subprocess.run([*command, "JavaPeer", *words], capture_output=True, text=True, check=False)
            lines = (done.stdout + done.stderr).splitlines()
            print(*(line for line in lines if line.startswith(("message ", "sent ")) or "Exception" in line), sep="\n")
            print(*(f"span {span}" for line in lines for span in spans(line)), sep="\n")
            print(f"-- exit code {done.returncode}", flush=True)

        topic = stack.rocketmq.create_topic(queues=1)
        group = stack.rocketmq.create_group()
        print(f"== {version}: written natively, read by Java")
        asyncio.run(write(name_server, topic))
        peer("read", name_server, topic, group, "6", with_parent=False)
        topic = stack.rocketmq.create_topic(queues=1)
        print(f"== {version}: written by Java, pulled natively")
        peer("write", name_server, topic, "interop-writer", with_parent=not agent)
        asyncio.run(read(name_server, topic, 4))


if __name__ == "__main__":
    main()
