"""The profiler as a service: profiles on request, and pushed at an interval where that is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import CodeType
from typing import Any

from spanbridge.core.errors import SpanbridgeError
from spanbridge.ports import Reporter
from spanbridge.profiling.events import ProfileFailed, ProfilerUnavailable
from spanbridge.profiling.stages import labels
from spanbridge_profiling import Collection, Counts, Peek, Profile, ProfilingUnavailable, Sampler
from spanbridge_profiling.otlp import write_otlp
from spanbridge_profiling.pprof import write_pprof

Push = Callable[[bytes, int], Awaitable[None]]
"""Takes an encoded profile, and how many samples it holds, to where it belongs. Reports by itself what failed."""
Encode = Callable[[Profile, Mapping[str, object]], bytes]
"""Encodes a profile of a resource. Runs on a thread of the pool."""


class NotProfiled(SpanbridgeError):  # noqa: N818 - a state rather than a fault
    """The gateway cannot be profiled here. The message says why."""

    reason = "profiling"


class Busy(SpanbridgeError):  # noqa: N818 - as above
    """A profile is being made already."""

    reason = "profiling_busy"


class ProfilerService:
    """Samples while somebody wants samples. A :class:`spanbridge.ports.Service`.

    :param rate: samples per second of CPU time.
    :param peeks: read the route from the frames of functions that work for one.
    :param push: where profiles go every ``interval`` seconds; None pushes none.
    :param encode: what ``push`` is given; an OTLP request by default.
    :param resource: whose profiles they are.
    """

    name = "profiling"

    def __init__(
        self,
        reporter: Reporter,
        *,
        rate: int,
        peeks: Mapping[CodeType, Peek],
        push: Push | None = None,
        encode: Encode | None = None,
        interval: float = 15.0,
        resource: Mapping[str, object] | None = None,
        version: str = "",
    ) -> None:
        self._reporter = reporter
        self._rate = rate
        self._peeks = peeks
        self._push = push
        self._encode = encode or self._otlp
        self._interval = interval
        self._resource = dict(resource or {})
        self._version = version
        self._sampler: Sampler | None = None
        self._why = "the profiler has not started"
        self._task: asyncio.Task[None] | None = None
        self._pushed: Collection | None = None
        self._asked = False
        self._profiles = 0
        self._counts = Counts()

    async def start(self) -> None:
        """Get ready, and begin to sample for what is pushed. On the main thread: it takes signals."""
        try:
            self._sampler = Sampler(self._rate, peeks=self._peeks)
            if self._push is not None:
                self._pushed = self._sampler.open()
                self._task = asyncio.create_task(self._push_forever(self._pushed, self._push), name=self.name)
        except (ProfilingUnavailable, OSError) as error:
            self._sampler, self._why = None, str(error)
            self._reporter.report(ProfilerUnavailable(cause=self._why))

    async def stop(self) -> None:
        """End sampling. What was sampled since the last push is dropped. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        sampler, self._sampler, self._why = self._sampler, None, "the gateway is stopping"
        if sampler is not None and self._pushed is not None:
            sampler.close(self._pushed)

    def status(self) -> dict[str, Any]:
        """Whether it samples, and what the samples were since the start."""
        counts = self._counts
        return {
            "samples_now": self._sampler is not None and self._sampler.runs,
            "rate": self._rate,
            "profiles": self._profiles,
            "samples": counts.total,
            "samples_lost": counts.lost,
        } | ({"unavailable": self._why} if self._sampler is None else {})

    async def profile(self, seconds: float) -> bytes:
        """A pprof profile of the next ``seconds``.

        :raises NotProfiled: the gateway cannot be profiled here.
        :raises Busy: another one is being made.
        """
        sampler = self._sampler
        if sampler is None:
            raise NotProfiled(self._why)
        if self._asked:
            raise Busy("a profile is being made already: one at a time")
        self._asked = True
        try:
            collection = sampler.open()
            try:
                await asyncio.sleep(seconds)
                profile = self._take(collection)
            finally:
                sampler.close(collection)
            return await asyncio.to_thread(write_pprof, profile, labels)
        except OSError as error:
            raise NotProfiled(str(error)) from error
        finally:
            self._asked = False

    def _take(self, collection: Collection) -> Profile:
        profile = collection.take()
        self._profiles += 1
        self._counts.add(profile.counts)
        return profile

    async def _push_forever(self, collection: Collection, push: Push) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._push_once(collection, push)

    async def _push_once(self, collection: Collection, push: Push) -> None:
        try:
            profile = self._take(collection)
            if profile.samples:
                body = await asyncio.to_thread(self._encode, profile, self._resource)
                await push(body, profile.counts.total)
        except Exception as fault:  # noqa: BLE001 - one fault must not end the export for good
            self._reporter.report(ProfileFailed(cause=f"{type(fault).__name__}: {fault}"))

    def _otlp(self, profile: Profile, resource: Mapping[str, object]) -> bytes:
        return write_otlp(profile, resource, version=self._version, labels=labels)
