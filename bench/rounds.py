"""Which cases are measured, and the rounds through them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.downlink import SHAPES_DOWN, DownRun
from bench.environment import Case, Place
from bench.modes import COMPARED, MODES, SHAPE_MODES, mode
from bench.processes import ChildError
from bench.revision import Code
from bench.run import Run, Timing
from bench.shapes import PLAIN, SHAPES, shape
from bench.stats import Measurement
from bench.targets import Key
from spanbridge.demo.otlp import OtlpReceiver

QUICK = Timing(idle=0.5, warm_up=0.5, load=1.0, paced=1.0)
WARM_UPS_DOWN = 3
"""Runs before the first that counts, where any is of the way down: RocketMQ's JVM compiles that way for long."""
TRIES = 2
"""Of one run, before the benchmark gives up."""


def cases(shapes: Sequence[str], only: Sequence[str], against: Code | None) -> list[Case]:
    """What one round measures, in its order.

    Without names everything: the modes of ``plain``, then the shapes. Modes alone are those of ``plain``. Shapes are
    measured untraced and traced. Each is followed by the same of ``against``. Not every shape is there on the way down.
    """
    if shapes:
        wanted = [(name, one) for name in shapes for one in only or SHAPE_MODES]
    elif only:
        wanted = [(PLAIN.name, one.name) for one in MODES if one.name in only]
    else:
        wanted = [(PLAIN.name, one.name) for one in MODES]
        wanted += [(one.name, name) for one in SHAPES[1:] for name in SHAPE_MODES]
    found = []
    for shape_name, mode_name in wanted:
        case = Case(shape=shape(shape_name), mode=mode(mode_name))
        if case.mode.down and shape_name not in SHAPES_DOWN:
            continue
        found.append(case)
        if against is not None and mode_name in COMPARED:
            found.append(Case(shape=case.shape, mode=case.mode, code=against))
    return found


@dataclass(frozen=True, slots=True)
class Rounds:
    """Round after round through all cases, so that what else the machine does hits all of them alike.

    ``brief`` is how long shapes other than ``plain`` are timed, and everything that is compared with another commit.
    """

    place: Place
    receiver: OtlpReceiver
    timing: Timing
    brief: Timing
    console: Console

    def measure(self, round_of: list[Case], count: int) -> dict[Key, list[Measurement]]:
        """Measurements of each case, ``count`` of them.

        :raises ChildError: a process ended or nothing went through, several times.
        :raises RemotingError: RocketMQ's broker did not let itself be read.
        """
        runs: dict[Key, list[Measurement]] = {_key(case): [] for case in round_of}
        run_ids = iter(range(int(time.time()) & 0xFFFFFF, 1 << 32))
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            task = progress.add_task("warming up RocketMQ", total=len(round_of) * count)

            def say(text: str) -> None:
                progress.update(task, description=text)

            warm_up = Timing(idle=0.5, warm_up=0.5, load=min(4.0, self.timing.load), paced=1.0)
            up = [case for case in round_of if not case.mode.down][:1]
            down = [case for case in round_of if case.mode.down][:1]
            for case in (*up, *down * (1 if self.timing == QUICK else WARM_UPS_DOWN)):
                self._measure(case, warm_up, run_ids, say)  # its JVM compiles its hot paths
            brief = any(case.code.rev for case in round_of) or all(case.shape is not PLAIN for case in round_of)
            for number in range(count):
                first = number % len(round_of)  # what is measured later finds a warmer JVM: each is first once
                for case in (*round_of[first:], *round_of[:first]):
                    head = f"[cyan]{case.label}[/] {number + 1}/{count}"
                    timing = self.brief if brief or case.shape is not PLAIN else self.timing
                    result = self._measure(case, timing, run_ids, lambda text, head=head: say(f"{head} {text}"))
                    runs[_key(case)].append(result)
                    progress.console.print(_line(case, result), style="dim", highlight=False)
                    progress.advance(task)
        return runs

    def _measure(self, case: Case, timing: Timing, run_ids: Iterator[int], say: object) -> Measurement:
        for left in reversed(range(TRIES)):
            try:
                steps = DownRun if case.mode.down else Run
                run = steps(self.place, case, next(run_ids), timing, say)  # type: ignore[arg-type]
                return run.measure(lambda: self.receiver.span_count)
            except ChildError:
                if not left:
                    raise
        raise AssertionError


def _key(case: Case) -> Key:
    return Key(case.shape.name, case.mode.name, case.code.rev)


def _line(case: Case, result: Measurement) -> str:
    return (
        f"  {case.label:<28} {result.msgs_per_s:>8,.0f} msg/s  {result.cpu_us_per_msg:>6.1f} µs  "
        f"p50 {result.p50_ms:>5.1f} ms  p99 {result.p99_ms:>6.1f} ms  lost {result.lost:.0f}"
    )
