"""The gateway's profiler: what of its own work takes CPU time, by stage and route."""

from spanbridge.profiling.service import Busy, NotProfiled, ProfilerService
from spanbridge.profiling.stages import labels, stage

__all__ = ["Busy", "NotProfiled", "ProfilerService", "labels", "stage"]
