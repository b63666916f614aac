"""A sampler with a thread that exports, for a process that knows nothing of it."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from opentelemetry import context, trace

from spanbridge_profiling.profile import Profile
from spanbridge_profiling.push import Write, file_writer, otlp_writer, pyroscope_writer
from spanbridge_profiling.pyroscope import mark_spans
from spanbridge_profiling.sampler import ProfilingUnavailable, Sampler
from spanbridge_profiling.settings import SettingError, Settings, read_settings
from spanbridge_profiling.threads import OwnThread

LOG = logging.getLogger("spanbridge_profiling")
_SUPPRESS = ("suppress_instrumentation", "suppress_http_instrumentation")
"""OpenTelemetry's keys: the requests that bring profiles away make no spans."""


def begin(environ: Mapping[str, str]) -> Background | None:
    """Profile this process as the environment says; None where it says nothing, or something that cannot be done."""
    try:
        settings = read_settings(environ)
        if settings is None:
            return None
        found = Background(settings, _writers(settings, environ))
        found.start()
    except (SettingError, ProfilingUnavailable, OSError) as error:
        LOG.warning("this process is not profiled: %s", error)
        return None
    return found


class Background:
    """Exports what the sampler collected, every ``interval`` seconds in which there was something."""

    def __init__(self, settings: Settings, writers: Sequence[Write]) -> None:
        """Get ready.

        :raises ProfilingUnavailable: the process cannot be profiled.
        """
        self._settings = settings
        self._writers = writers
        self._sampler = Sampler(settings.rate)
        if self._sampler.unread is not None:
            LOG.warning("spans of threads other than the main one cannot be told: %s", self._sampler.unread)
        self._stopping = threading.Event()
        self._failing = False
        self._ended = False

    def start(self) -> None:
        """Begin.

        :raises OSError: the system has no more timers.
        """
        self._collection = self._sampler.open()
        self._begin()
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self.stop)

    def stop(self) -> None:
        """Export what is left, and end. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._sampler.close(self._collection)
        self._stopping.set()
        self._collection.wake()
        self._thread.join(2 * self._settings.timeout)

    def _begin(self) -> None:
        self._thread = OwnThread(target=self._run, name="spanbridge-profiles", daemon=True)
        self._thread.start()

    def _forked(self) -> None:
        """In the child: the exporting thread stayed with the parent."""
        if not self._ended:
            self._stopping = threading.Event()
            self._begin()

    def _run(self) -> None:
        values = context.get_current()
        for key in _SUPPRESS:
            values = context.set_value(key, True, values)
        context.attach(values)
        while not self._stopping.is_set():
            self._collection.wait()  # an idle process is not woken
            self._stopping.wait(self._settings.interval)
            self._sampler.find_threads()
            self._export(self._collection.take())
        self._export(self._collection.take())  # what came while the last one was on its way

    def _export(self, profile: Profile) -> None:
        if not profile.samples:
            return
        for write in self._writers:
            try:
                write(profile)
            except OSError as error:
                self._tell(str(error), profile)
            else:
                self._failing = False

    def _tell(self, cause: str, profile: Profile) -> None:
        """One line for an outage, not one for each profile."""
        if not self._failing:
            count = profile.counts.total
            LOG.warning("a profile of %d samples is dropped, and those that follow until it works: %s", count, cause)
        self._failing = True


def _writers(settings: Settings, environ: Mapping[str, str]) -> list[Write]:
    found: list[Write] = []
    if "otlp" in settings.ways:
        found.append(otlp_writer(settings, _resource(environ), _version()))
    if "pyroscope" in settings.ways:
        found.append(pyroscope_writer(settings, _resource(environ)))
        mark_spans()
    if "file" in settings.ways:
        found.append(file_writer(settings))
    return found


def _resource(environ: Mapping[str, str]) -> dict[str, object]:
    """The resource that the process's spans have, so that both are found together."""
    known = getattr(trace.get_tracer_provider(), "resource", None)
    found: dict[str, object] = dict(getattr(known, "attributes", {}))
    if not found:
        found["service.name"] = environ.get("OTEL_SERVICE_NAME", "").strip() or "unknown_service"
    return found


def _version() -> str:
    try:
        return version("spanbridge")
    except PackageNotFoundError:
        return ""
