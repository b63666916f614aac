"""What a gateway writes to standard error is its log, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

GRPC_LOADS = """
import os
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_VERBOSITY"))

sys.meta_path.insert(0, Watch())

from spanbridge.app import convert
from spanbridge.app.gateway import Gateway
from spanbridge.config import Config
from spanbridge.telemetry import Telemetry

config = Config.model_validate({
    "mqtt": [{"url": "mqtt://127.0.0.1:1"}],
    "rocketmq": {"endpoints": "127.0.0.1:1"},
    "routes": [{"filter": "a/+", "topic": "t"}],
})
source, target = convert.peers(config)
telemetry = Telemetry(config.telemetry, source=source, target=target)
Gateway(config, telemetry)
"""


def test_grpc_is_loaded_for_its_exporter_only_and_told_to_be_quiet_before() -> None:
    """Its C core writes lines of its own otherwise, such as "Got goaway", between those of a JSON log."""
    for exporter, printed in (("otlp", "NONE\n"), ("none", "")):
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        environment |= {"OTEL_TRACES_EXPORTER": exporter, "OTEL_METRICS_EXPORTER": "none"}
        environment.pop("GRPC_VERBOSITY", None)
        command = [sys.executable, "-c", GRPC_LOADS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, printed), done.stderr
