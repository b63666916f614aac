"""The gateway put together: the only place that builds adapters."""

from spanbridge.app.run import run

__all__ = ["run"]
