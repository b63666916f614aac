"""Traces, metrics and internal events."""
