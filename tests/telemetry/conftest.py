"""Leave the process's logging as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from spanbridge.telemetry import faults


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("spanbridge")
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


@pytest.fixture(autouse=True)
def no_faults_told_before() -> None:
    """Faults of telemetry are told once a minute each: of the whole process."""
    faults._told.clear()
