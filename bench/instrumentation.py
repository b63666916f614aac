"""What the zero-code instrumentation adds to a message, by client: member ``instrumentation`` of the JSON object."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from typing import Any

CLIENTS = ("paho", "rocketmq")


def measure(stack: Any = None) -> dict[str, Any]:
    """Per client, microseconds of CPU per message without, with unsampled and with fully sampled instrumentation.

    Each client has a module ``bench.instrumentation_<client>`` with ``measure(stack)``; ``stack`` is a running
    devstack, for those that need a broker.
    """
    found = {}
    for client in CLIENTS:
        name = f"bench.instrumentation_{client}"
        if importlib.util.find_spec(name) is not None:
            found[client] = importlib.import_module(name).measure(stack)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
