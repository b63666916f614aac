"""What a command costs the whole gateway, between peers that cost it nothing: ``python -m bench.downlink_wire``.

The gateway runs as users run it. What hands it commands and takes its publications is ``bench/downlink_peers.py``, so
that RocketMQ's JVM, which takes most of a machine, is not in the way: a round is a second's work. With ``--against``
the gateway of another commit takes turns with this checkout's, round by round. ``--rate`` bounds how fast commands
come: in the middle of a backlog RocketMQ gives some thousands a second. Prints microseconds of CPU a command: the
median and the least of the rounds, and the medians of the rounds' ratios. Then, at 100 commands a second, how long the
gateway itself takes from a command that is there to its PUBLISH: medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.downlink_parts import TOPIC
from bench.environment import NEUTRAL
from bench.processes import Child
from bench.revision import THIS, Code, checked_out
from spanbridge.demo.otlp import OtlpReceiver

CONFIG = """\
name = "bench"

[mqtt]
url = "mqtt://127.0.0.1:{mqtt}"

[rocketmq]
endpoints = "127.0.0.1:{rocketmq}"

[[downlinks]]
topic = "{topic}"
consumer_group = "{topic}"
mqtt_topic = "bench/1/{{key}}"

[admin]
port = 0
"""


class Round:
    """A gateway and its peers, for round after round."""

    def __init__(self, code: Code, directory: Path, otlp: dict[str, str] | None, exits: ExitStack) -> None:
        name = f"{code.rev or 'this'}-{'traced' if otlp else 'untraced'}"
        peers = [sys.executable, "-m", "bench.downlink_peers"]
        self._peers = exits.enter_context(Child(peers, directory / f"{name}-peers.log"))
        rocketmq, mqtt = self._peers.hear(timeout=60.0).split()
        file = directory / f"{name}.toml"
        file.write_text(CONFIG.format(rocketmq=rocketmq, mqtt=mqtt, topic=TOPIC))
        exporter = "otlp" if otlp else "none"
        env = NEUTRAL | (otlp or {}) | code.environment
        env |= {"OTEL_TRACES_EXPORTER": exporter, "OTEL_METRICS_EXPORTER": exporter}
        self._gateway = exits.enter_context(Child(code.command("run", "-c", str(file)), directory / f"{name}.log", env))
        self.name = name

    def take(self, count: int, rate: float) -> float:
        """Microseconds of CPU a command."""
        before = used(self._gateway.pid)
        self._peers.tell(f"serve {count} {rate}")
        self._peers.hear(timeout=60.0)
        return (used(self._gateway.pid) - before) / count / 1000

    def pace(self, count: int) -> tuple[float, float]:
        """Milliseconds from command to PUBLISH at 100 a second: the median and the 99th percentile."""
        self._peers.tell(f"pace {count} 100")
        p50, p99 = self._peers.hear(timeout=60.0).split()
        return float(p50), float(p99)


def used(pid: int) -> int:
    """CPU time of all threads in nanoseconds (proc(5), ``schedstat``)."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REV", help="the gateway of this commit takes turns with this one's")
    parser.add_argument("--messages", type=int, default=4096, help="in each round")
    parser.add_argument("--rate", type=float, default=4000.0, help="commands a second at most, 0 for any")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--paced", type=int, default=100, help="commands one by one, five times")
    parser.add_argument("--traced", action="store_true", help="all spans are exported")
    options = parser.parse_args()
    with ExitStack() as exits:
        codes: list[Code] = [THIS]
        if options.against:
            codes.append(exits.enter_context(checked_out(options.against)))
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="spanbridge-bench-")))
        otlp = None
        if options.traced:
            otlp = exits.enter_context(OtlpReceiver(decode=False)).environment("http/protobuf")
        gateways = [Round(code, directory, otlp, exits) for code in codes]
        for gateway in gateways * 2:
            gateway.take(options.messages, options.rate)  # recipes, caches
        rounds = []
        for number in range(options.rounds):
            turn = gateways if number % 2 else gateways[::-1]
            found = {gateway.name: gateway.take(options.messages, options.rate) for gateway in turn}
            rounds.append([found[gateway.name] for gateway in gateways])
            time.sleep(0.1)
        paced = [[gateway.pace(options.paced) for gateway in gateways] for _ in range(5)]
    for gateway, found in zip(gateways, zip(*paced, strict=True), strict=True):
        p50, p99 = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"{gateway.name:<24} p50 {p50:6.2f} ms  p99 {p99:6.1f} ms")
    for gateway, values in zip(gateways, zip(*rounds, strict=True), strict=True):
        print(f"{gateway.name:<24} {statistics.median(values):6.1f} µs median  {min(values):6.1f} µs least")
    if options.against:
        ratios = [one[0] / one[1] for one in rounds]
        least = min(one[0] for one in rounds) / min(one[1] for one in rounds)
        print(f"ratio {statistics.median(ratios):.3f} median  {least:.3f} of the least")


if __name__ == "__main__":
    main()
