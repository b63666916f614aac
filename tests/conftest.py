"""Fixtures for the whole suite."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
"""A busy machine is no fault: for every property, whatever else its own settings say."""

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
