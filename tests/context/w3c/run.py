"""Run W3C's Trace Context suite against the codec: ``python tests/context/w3c/run.py <a clone of it>``.

The suite is not part of this repository. It runs at ``SPEC_LEVEL=2 STRICT_LEVEL=2``; further arguments are the names
of tests, as the suite takes them. The exit code is 0 when all of them pass.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the shim did not start")


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    root = Path(arguments[0]).expanduser().resolve()
    folder = next((path for path in (root / "test", root) if (path / "tracecontext").is_dir()), None)
    if folder is None:
        print(f"no W3C suite in {root}: expected its folder test/ with test.py and tracecontext/", file=sys.stderr)
        return 2
    port = free_port()
    shim = subprocess.Popen([sys.executable, str(Path(__file__).with_name("shim.py")), "--port", str(port)])
    try:
        wait_for(port, shim)
        environment = {**os.environ, "SPEC_LEVEL": "2", "STRICT_LEVEL": "2", "HARNESS_PORT": str(free_port())}
        command = [sys.executable, "test.py", f"http://127.0.0.1:{port}/test", *arguments[1:]]
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    finally:
        shim.terminate()
        shim.wait(10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
