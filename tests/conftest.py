"""Fixtures for the whole suite."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, settings

from tests.drawing import TIMES, examples

settings.register_profile(
    "spanbridge",
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=TIMES == 1,
    print_blob=True,
)
settings.load_profile("spanbridge")
"""For every property, whatever else its own settings say: a busy machine is no fault, and a run of the tests draws what
the run before drew. What was never drawn before is looked for with ``make fuzz``."""

logging.getLogger("rocketmq-python-client").propagate = False
"""Its threads outlive the tests that use it, and log into whatever test captures the log then."""

pytest_plugins = ["spanbridge.devstack.pytest_plugin"]


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Run every async test on both event loops that the gateway supports."""
    return request.param
