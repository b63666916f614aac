"""Benchmarks of spanbridge on real brokers. ``python -m bench`` runs the end-to-end one; see docs/benchmark.md."""
