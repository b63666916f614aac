"""CPU time of the gateway's own way of a message, without MQTT broker, RocketMQ and network.

``python -m bench.pipeline`` feeds the bytes of PUBLISH packets to decoder and session, and on through intake and
sender into a sink that takes every batch at once; spans go as far as encoded requests. ``--against REV`` lets the code
of another commit take turns with this checkout's, each in a process of its own: what slows the machine slows both. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from bench.revision import THIS, Code, checked_out
from bench.shapes import SHAPES

DEFAULT = ("plain", "readme", "topics_10k", "properties")
WARM_UP = 25_000
"""Messages before the first round that counts: every topic has come twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """CPU of one shape and mode, microseconds a message: ``median`` and ``least`` of the rounds.

    ``over`` is the median of the rounds' ratios to the other commit's, and ``over_least`` that of the least times.
    """

    median: float
    least: float
    over: float | None = None
    over_least: float | None = None


class Worker:
    """A process that runs one code's pipeline, round by round, as it is told to."""

    def __init__(self, code: Code, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-P", str(Path(__file__).with_name("pipeline_worker.py")), *arguments]
        environment = {"PYTHONPATH": f"{code.environment['PYTHONPATH']}:{THIS.root}", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def round(self) -> float:
        """Run one round; return microseconds of CPU a message.

        :raises RuntimeError: the process ended.
        """
        self._ask("encode")
        return float(self._ask("run"))

    def _ask(self, what: str) -> str:
        pipe: tuple[IO[str] | None, IO[str] | None] = (self._process.stdin, self._process.stdout)
        into, out = pipe
        assert into is not None
        assert out is not None
        into.write(what + "\n")
        into.flush()
        answer = out.readline()
        if not answer:
            raise RuntimeError("a worker ended")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def measure(codes: Sequence[Code], shape: str, mode: str, messages: int, rounds: int) -> Figure:
    """Measure this checkout's code, and the other's when there is one, in turn."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(code, [shape, mode, str(messages)])) for code in codes]
        for worker in workers:
            for _ in range(WARM_UP // messages + 1):
                worker.round()
        times: list[list[float]] = [[] for _ in workers]
        for number in range(rounds):
            order = list(enumerate(workers))
            for place, worker in order if number % 2 else reversed(order):
                times[place].append(worker.round())
    mine = times[0]
    figure = Figure(median=statistics.median(mine), least=min(mine))
    if len(times) == 1:
        return figure
    ratios = [one / other for one, other in zip(*times, strict=True)]
    return Figure(
        median=figure.median,
        least=figure.least,
        over=round(statistics.median(ratios), 3),
        over_least=round(figure.least / min(times[1]), 3),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [shape.name for shape in SHAPES]
    parser.add_argument("--shape", action="append", choices=names, help="this shape (repeat for several)")
    parser.add_argument("--mode", action="append", choices=("untraced", "traced"), help="with or without spans")
    parser.add_argument("--against", metavar="REV", help="beside the code of another commit")
    parser.add_argument("--messages", type=int, default=2048, help="messages of a round")
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    with ExitStack() as stack:
        codes = [THIS] if given.against is None else [THIS, stack.enter_context(checked_out(given.against))]
        print(f"{'':24}{'median':>9}{'least':>9}{'over':>8}{'least':>8}")
        for shape in given.shape or DEFAULT:
            for mode in given.mode or ("untraced", "traced"):
                figure = measure(codes, shape, mode, given.messages, given.rounds)
                result.setdefault(shape, {})[mode] = asdict(figure)
                over = "" if figure.over is None else f"{figure.over:>8.3f}{figure.over_least:>8.3f}"
                print(f"{shape + ' ' + mode:24}{figure.median:>6.2f} µs{figure.least:>6.2f} µs{over}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
