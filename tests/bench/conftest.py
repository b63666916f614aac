"""A plausible measurement to vary."""

from __future__ import annotations

import pytest

from bench.stats import Measurement


@pytest.fixture
def run() -> Measurement:
    """One run of the gateway, traced."""
    return Measurement(
        msgs_per_s=1000.0,
        cpu_us_per_msg=40.0,
        rss_mib=90.0,
        p50_ms=2.0,
        p99_ms=9.0,
        lost=0,
        idle_rss_mib=70.0,
        spans_per_msg=2.0,
        generator_waited=0.9,
    )
