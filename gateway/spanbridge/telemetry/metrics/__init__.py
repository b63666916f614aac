"""Counters and histograms of the hot path, the SDK around them, and the Prometheus exposition."""
