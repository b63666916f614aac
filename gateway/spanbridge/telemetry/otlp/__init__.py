"""Spans and metrics on their way to an OTLP receiver: a bounded buffer, tasks that export, and two transports."""
