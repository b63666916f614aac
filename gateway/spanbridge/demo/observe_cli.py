"""Runs ``spanbridge demo --observe``: starts everything, looks, and shows what was seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.text import Text

from spanbridge.demo.keep import print_commands
from spanbridge.demo.observe import Observed, observe
from spanbridge.demo.observe_stage import ObserveStage
from spanbridge.demo.observe_view import FILE, next_commands, show
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack.progress import for_terminal

Act = Callable[[Console, str, str], AbstractContextManager[None]]


def run_observe(console: Console, act: Act, *, messages: int, keep: bool, as_json: bool) -> bool:
    """Whether everything was there to be seen. ``act`` shows what is being done.

    :raises DevstackError: a process did not start, or failed.
    :raises OSError: the flame graph cannot be written.
    """
    with OtlpReceiver() as receiver, ObserveStage(receiver) as stage:
        with act(console, "brokers", "RocketMQ 5.5 and MQTT 5, real ones on free ports"):
            stage.start_brokers(for_terminal())
        with act(console, "gateway", "spanbridge run, and a plain consumer that is too slow, profiled"):
            stage.start_observed()
            if not stage.start_prometheus():
                console.print(Text("Prometheus is not on the PATH: done without", "dim"))
        with act(console, "device", f"a plain MQTT client sends {messages} messages at once; the consumer is behind"):
            seen = observe(stage, messages)
        show(console, seen, stage.prometheus.url if stage.prometheus else None)
        if as_json:
            print(json.dumps(as_dict(seen)), flush=True)
        if keep:
            print_commands(
                console, "Everything keeps running until Ctrl-C. In another terminal:", next_commands(stage.admin_url)
            )
            while True:
                time.sleep(1)
    return seen.ok


def as_dict(seen: Observed) -> dict[str, Any]:
    """What was seen, as JSON."""
    delay, profile = seen.delay, seen.profile
    return {
        "ok": seen.ok,
        "lag": seen.lag and {name: seen.lag[name] for name in ("group", "topic", "lag", "age_s", "means")},
        "delay": delay and {"count": delay.count, "mean_s": round(delay.sum / max(1, delay.count), 3)},
        "in_flight": seen.in_flight,
        "prometheus": seen.asked,
        "samples": profile and {"linked": profile.counts.linked, "all": profile.counts.total},
        "trace_id": seen.hottest and seen.hottest.trace_id,
        "span_id": seen.hottest and seen.hottest.span_id,
        "flame_graph": str(FILE.resolve()) if profile else None,
        "problems": seen.problems,
    }
