"""Puts the profiler together: what it reads routes from, where profiles are pushed, the page."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any

from spanbridge import __version__
from spanbridge.config import Config
from spanbridge.profiling import ProfilerService, labels
from spanbridge.profiling.pyroscope import PyroscopePush
from spanbridge.telemetry import Telemetry
from spanbridge.telemetry.otlp.profiles import ProfileExport
from spanbridge.uplink.intake import Intake
from spanbridge_profiling import Profile
from spanbridge_profiling.pyroscope import write_push


class PushingProfiler(ProfilerService):
    """A profiler with a connection of its own to the receiver."""

    def __init__(self, export: ProfileExport, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, push=export.push, **options)
        self._export = export

    async def stop(self) -> None:
        """End sampling, and close the connection."""
        await super().stop()
        await self._export.close()


def build(config: Config, telemetry: Telemetry, environ: Mapping[str, str]) -> ProfilerService:
    """The profiler that the configuration asks for.

    :raises TelemetryConfigError: an OTEL_EXPORTER_OTLP_* variable cannot be used.
    """
    wanted = config.profiling
    options: dict[str, Any] = {
        "rate": wanted.rate,
        "peeks": {Intake._process.__code__: _route},
        "interval": wanted.interval,
        "resource": telemetry.resource.attributes,
        "version": __version__,
    }
    if wanted.push == "none":
        return ProfilerService(telemetry.reporter, **options)
    if wanted.push == "pyroscope":
        headers = wanted.pyroscope_headers.get_secret_value() if wanted.pyroscope_headers is not None else ""
        pyroscope = PyroscopePush(wanted.pyroscope_url, headers, telemetry.reporter)
        return ProfilerService(telemetry.reporter, push=pyroscope.push, encode=_for_pyroscope, **options)
    return PushingProfiler(ProfileExport(environ, telemetry.reporter), telemetry.reporter, **options)


def _for_pyroscope(profile: Profile, resource: Mapping[str, object]) -> bytes:
    return write_push(profile, resource, labels)


def _route(frame: FrameType) -> str:
    """The route for whose message the intake works; "" before it is known."""
    recipe = frame.f_locals.get("recipe")
    return recipe.route.name if recipe is not None else ""
