"""The gateway put together: the only place that builds adapters."""
