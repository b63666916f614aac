"""Background export: spans as they come together, metrics at an interval. It never blocks and never holds up a message.

A task on the gateway's loop: docs/adr/0051 has the measurement against a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanbridge.core.retry import Backoff
from spanbridge.ports import Reporter
from spanbridge.telemetry import faults
from spanbridge.telemetry.env import Signal
from spanbridge.telemetry.events import ExportFailed, ReceiverWarned, TelemetryDropped
from spanbridge.telemetry.otlp.buffer import SpanBuffer
from spanbridge.telemetry.otlp.transport import Outcome, Transport
from spanbridge.telemetry.spans.wire import RequestFrame

_LAST_ATTEMPTS = 3
"""Attempts for a batch once the gateway is closing: at once, and after a quarter and another half of a second."""
_LAST_PAUSE = 0.25


@dataclass(slots=True)
class RequestSender:
    """Sends one request until it is taken, refused for good, or ``give_up_after`` seconds have passed.

    ``timeout`` (seconds) is of one attempt. Pauses grow with full jitter and respect what the receiver asks for. Once
    :attr:`closing` is set, a batch has a few attempts with pauses of a second at most: the shutdown's deadline is near,
    and a receiver that refuses connections does so at once.
    """

    signal: Signal
    transport: Transport
    reporter: Reporter
    timeout: float
    give_up_after: float
    closing: asyncio.Event

    async def send(self, body: Sequence[bytes], count: int) -> Outcome:
        """Send a body in pieces; what could not be delivered is reported as dropped, ``count`` of them."""
        backoff = Backoff(initial=0.5, maximum=15.0)
        started = time.monotonic()
        last_ones = 0
        while True:
            last_ones += self.closing.is_set()
            outcome = await self._attempt(body)
            if not outcome.reason:
                self._taken(outcome)
                return outcome
            pause = max(backoff.next_delay(random.random()), outcome.retry_after or 0.0)  # noqa: S311 - jitter
            again = outcome.retry and time.monotonic() - started + pause < self.give_up_after
            again = again and last_ones < _LAST_ATTEMPTS
            self.reporter.report(
                ExportFailed(signal=self.signal, reason=outcome.reason, detail=outcome.detail, retried=again)
            )
            if not again:
                self._dropped(count, outcome.reason)
                return outcome
            await self._pause(pause, last_ones)

    async def _attempt(self, body: Sequence[bytes]) -> Outcome:
        try:
            return await self.transport.send(body, self.timeout)
        except Exception as error:  # noqa: BLE001 - a fault in a library must not end the export for good
            kind = type(error).__name__
            return Outcome(reason=kind, detail=f"the exporter failed with {kind}")

    async def _pause(self, seconds: float, last_ones: int) -> None:
        if self.closing.is_set():
            await asyncio.sleep(_LAST_PAUSE * last_ones)
            return
        try:
            await asyncio.wait_for(self.closing.wait(), seconds)
        except TimeoutError:
            return

    def _taken(self, outcome: Outcome) -> None:
        """Tell what the receiver said of a request that it took, perhaps in part (OTLP, "Partial Success")."""
        if outcome.rejected:
            self._dropped(outcome.rejected, "rejected", outcome.detail)
        elif outcome.detail:
            self.reporter.report(ReceiverWarned(signal=self.signal, detail=outcome.detail))

    def _dropped(self, count: int, reason: str, detail: str = "") -> None:
        self.reporter.report(TelemetryDropped(signal=self.signal, reason=reason, detail=detail, count=count))


class SpanExporter:
    """Empties a buffer: when a batch is full, else ``delay`` seconds after the last time."""

    def __init__(self, buffer: SpanBuffer, frame: RequestFrame, delivery: RequestSender, *, delay: float) -> None:
        self._buffer = buffer
        self._frame = frame
        self._delivery = delivery
        self._delay = delay
        self._wake = asyncio.Event()
        self._told = 0
        self._under_way = 0
        buffer.ready = self._wake.set

    async def run(self) -> None:
        """Export until closing, then what is left."""
        closing = self._delivery.closing
        while not closing.is_set():
            try:
                woken = await self._wait()
                await self._export(everything=not woken)
            except Exception as error:  # noqa: BLE001 - one fault must not end the export for good
                faults.tell("spans could not be exported", error)
                self._lost()
                await asyncio.sleep(self._delay)
        with faults.told("the last spans could not be exported"):
            while self._buffer.spans and await self._export(everything=True):
                continue

    def _lost(self) -> None:
        count, self._under_way = self._under_way, 0
        if count:
            self._delivery.reporter.report(TelemetryDropped(signal="traces", reason="internal", count=count))

    def abandon(self) -> None:
        """Count what will never be sent: the deadline has passed."""
        left = self._buffer.spans + self._under_way
        self._under_way = 0
        while self._buffer.take()[1]:
            continue
        if left:
            self._delivery.reporter.report(TelemetryDropped(signal="traces", reason="shutdown", count=left))
        self.tell_dropped()

    def wake(self) -> None:
        """Export now."""
        self._wake.set()

    async def _wait(self) -> bool:
        """Whether it was a full batch, not the time, that ended the waiting."""
        try:
            await asyncio.wait_for(self._wake.wait(), self._delay)
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _export(self, *, everything: bool) -> bool:
        """Send full batches, and with ``everything`` all that is there now: what comes meanwhile waits for more.

        False once the gateway is closing and the receiver is away: the next batch would fare no better.
        """
        due = self._buffer.spans if everything else 0
        while self._buffer.batch_is_full or due > 0:
            spans, count = self._buffer.take()
            due -= count
            self._under_way = count
            outcome = await self._delivery.send(self._frame.wrap(spans), count)
            self._under_way = 0
            self.tell_dropped()
            if outcome.retry and self._delivery.closing.is_set():
                return False
        self.tell_dropped()
        return True

    def tell_dropped(self) -> None:
        """Report what was dropped since the last time because the buffer was full."""
        fresh = self._buffer.dropped - self._told
        if fresh:
            self._told = self._buffer.dropped
            self._delivery.reporter.report(TelemetryDropped(signal="traces", reason="buffer_full", count=fresh))


class MetricExporter:
    """Sends what ``encode`` returns every ``interval`` seconds, and once more when closing."""

    def __init__(self, encode: Callable[[], tuple[bytes, int]], delivery: RequestSender, *, interval: float) -> None:
        self._encode = encode
        self._delivery = delivery
        self._interval = interval

    async def run(self) -> None:
        """Export until closing, then what came since."""
        closing = self._delivery.closing
        last = False
        while not last:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), self._interval)
            last = closing.is_set()  # it may be set during the request, which knows nothing of what came after
            with faults.told("metrics could not be exported"):
                body, points = self._read()
                if points:
                    await self._delivery.send((body,), points)

    def _read(self) -> tuple[bytes, int]:
        try:
            return self._encode()
        except Exception as error:  # noqa: BLE001 - one bad reading must not end the export for good
            kind = type(error).__name__
            detail = f"they could not be read: {kind}: {error}"
            signal = self._delivery.signal
            self._delivery.reporter.report(ExportFailed(signal=signal, reason=kind, detail=detail, retried=False))
            return b"", 0
