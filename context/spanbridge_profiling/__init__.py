"""Continuous CPU profiles tied to traces: an in-process sampler, and writers of pprof and OTLP profiles.

Standard library and the OpenTelemetry API only, so that the gateway and instrumented clients both can use it::

    sampler = Sampler()
    collection = sampler.open()
    ...
    profile = collection.take()
    sampler.close(collection)

``opentelemetry-instrument`` starts it where SPANBRIDGE_PROFILING says so (:mod:`spanbridge_profiling.auto`).
"""

from spanbridge_profiling.profile import Collection, Counts, Profile, Sample
from spanbridge_profiling.sampler import DEFAULT_RATE, ProfilingUnavailable, Sampler
from spanbridge_profiling.stacks import Frame, Peek

__all__ = [
    "DEFAULT_RATE",
    "Collection",
    "Counts",
    "Frame",
    "Peek",
    "Profile",
    "ProfilingUnavailable",
    "Sample",
    "Sampler",
]
