"""What importing the adapter loads, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LAZY = """
import sys
import spanbridge.rocketmq
assert not {"grpc", "google.protobuf", "rocketmq"} & set(sys.modules)
"""

STUBS = """
import sys
from spanbridge.rocketmq import RocketmqOptions, create_sink
class Silent:
    def report(self, event): pass
sink = create_sink(RocketmqOptions(endpoints="127.0.0.1:1"), Silent())
assert "rocketmq" not in sys.modules and "rocketmq.v5" not in sys.modules
from spanbridge.rocketmq.grpc.stubs import definition
import rocketmq
from rocketmq.grpc_protocol import Resource
assert Resource is definition.Resource
assert rocketmq.ClientConfiguration
"""

AFTER = """
import rocketmq
from rocketmq.grpc_protocol import Resource
from spanbridge.rocketmq.grpc.stubs import definition
assert Resource is definition.Resource
"""


def run(code: str, home: Path) -> None:
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_options_load_neither_grpc_nor_protobuf(tmp_path: Path) -> None:
    run(LAZY, tmp_path)


def test_the_stubs_come_without_the_client_and_leave_it_usable(tmp_path: Path) -> None:
    run(STUBS, tmp_path)


def test_the_stubs_of_a_client_already_loaded_are_shared(tmp_path: Path) -> None:
    run(AFTER, tmp_path)
