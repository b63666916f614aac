"""What the instrumentors have in common, beside OpenTelemetry's base class: single clients, the check of versions."""

from __future__ import annotations

from abc import abstractmethod
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from .safety import LOG


class ClientInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments all clients of ``library`` in the process, or single ones, which the base class does not know of."""

    library: ClassVar[str]
    """The distribution's name."""

    def uninstrument(self, **kwargs: Any) -> None:
        """End the instrumentation of all clients, single ones too; what runs at that time ends as it should."""
        if self.is_instrumented_by_opentelemetry or not self._anything():
            super().uninstrument(**kwargs)
        else:
            self._uninstrument(**kwargs)

    @abstractmethod
    def _anything(self) -> bool:
        """Whether any client is instrumented."""

    def _supported(self) -> bool:
        """The agent skips the version check for a distribution with several instrumentors; so it is made here too."""
        conflict = get_dependency_conflicts(self.instrumentation_dependencies())
        if conflict is not None:
            LOG.error("%s is not instrumented: %s", self.library, conflict)
        return conflict is None


def own_version() -> str:
    """The version of this distribution, "" where it is not installed as one."""
    try:
        return version("spanbridge")
    except PackageNotFoundError:
        return ""
