"""What is measured: five modes of two bridges, and the ratios between them that the product promises."""

from __future__ import annotations

from dataclasses import dataclass

from bench.stats import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One column of the benchmark.

    ``carrier`` is how the devices send their context ("none": they send none), ``sampled`` how many of a hundred
    contexts carry the sampled flag, ``exports`` whether the bridge has an exporter at all. ``backlog`` is how many
    messages the generator may be ahead of RocketMQ: always many times what the bridge has in flight.
    """

    name: str
    bridge: str
    carrier: str
    sampled: int
    exports: bool
    backlog: int
    about: str


MODES = (
    Mode(
        name="untraced", bridge="gateway", carrier="tp", sampled=100, exports=False, backlog=8000,
        about="gateway, the same messages, OTEL_TRACES_EXPORTER=none: contexts are handed on, metrics stay on",
    ),
    Mode(
        name="sampled_10", bridge="gateway", carrier="tp", sampled=10, exports=True, backlog=8000,
        about="gateway, every device sends a context, 10 % of them sampled",
    ),
    Mode(
        name="traced", bridge="gateway", carrier="tp", sampled=100, exports=True, backlog=8000,
        about="gateway, every device sends a sampled context, all spans exported",
    ),
    Mode(
        name="baseline_untraced", bridge="baseline", carrier="traceparent", sampled=100, exports=False, backlog=2000,
        about="paho-mqtt callback to rocketmq-python-client send_async, no OpenTelemetry; contexts are not looked at",
    ),
    Mode(
        name="baseline_traced", bridge="baseline", carrier="traceparent", sampled=100, exports=True, backlog=2000,
        about="the same, with two OpenTelemetry SDK spans a message",
    ),
)  # fmt: skip


RATIO = "×"  # noqa: RUF001 - the sign is meant
"""The unit of a ratio."""


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: ``value`` compared with ``bound``. Unitless for a ratio (``RATIO``)."""

    about: str
    value: float
    bound: float
    at_least: bool
    unit: str

    @property
    def met(self) -> bool:
        """Whether the promise is kept in this run."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def targets(results: dict[str, Measurement]) -> list[Target]:
    """The promises that can be judged from the modes that ran."""
    found = []

    def ratio(about: str, over: str, under: str, bound: float) -> None:
        if over in results and under in results and results[under].msgs_per_s:
            value = results[over].msgs_per_s / results[under].msgs_per_s
            found.append(Target(about, value, bound, at_least=True, unit=RATIO))

    ratio("rate, traced at 100 %, against the baseline traced", "traced", "baseline_traced", 10)
    ratio("rate, untraced, against the baseline untraced", "untraced", "baseline_untraced", 15)
    ratio("rate kept when everything is traced", "traced", "untraced", 0.75)
    if "traced" in results:
        found.append(Target("CPU per message, traced", results["traced"].cpu_us_per_msg, 50, at_least=False, unit="µs"))
    gateway = [results[mode.name] for mode in MODES if mode.bridge == "gateway" and mode.name in results]
    if gateway:
        idle = max(result.idle_rss_mib for result in gateway)
        found.append(Target("resident when idle", idle, 80, at_least=False, unit="MiB"))
    if results:
        lost = sum(result.lost for result in results.values())
        found.append(Target("messages acknowledged and lost", lost, 0, at_least=False, unit=""))
    return found
