"""Runs the Dockerfile's steps in order without a container engine: ``python -m tests.deploy.dockerfile [PYTHON]``.

The build stage's files are those that .dockerignore lets in. Its Python is a new virtual environment of PYTHON (by
default ``python3.12``, the image's), and of this process's environment it gets what pip needs to find its index. What
needs root (users, groups) is left out and named. Takes minutes: it installs from the index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.deploy.test_image import INSTRUCTIONS, ROOT, patterns

_KEPT = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HOME")
_AS_ROOT = ("groupadd", "useradd", "mkdir /etc")


def context(target: Path) -> None:
    """What COPY . . copies."""
    for name in patterns((ROOT / ".dockerignore").read_text()):
        if name.startswith("!"):
            source = ROOT / name[1:]
            if source.is_dir():
                shutil.copytree(source, target / name[1:], ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target / name[1:])


def main(python: str) -> None:
    """Run them, printing each.

    :raises subprocess.CalledProcessError: one failed.
    """
    with tempfile.TemporaryDirectory(prefix="spanbridge-image-") as folder:
        root = Path(folder)
        (root / "src").mkdir()
        subprocess.run([python, "-m", "venv", str(root / "python")], check=True)
        path = f"{root}/opt/spanbridge/bin:{root}/python/bin:/usr/bin:/bin"
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"PATH": path}
        environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        for name, rest in INSTRUCTIONS:
            if name == "COPY" and "--from" not in rest:
                print(f"{name} {rest}", flush=True)
                context(root / "src")
            elif name == "RUN":
                step(re.sub(r"--mount=\S+\s*", "", rest), root, environment)
            elif name == "ENTRYPOINT":
                print(f"{name} {rest}", flush=True)
                subprocess.run(["spanbridge", "--version"], cwd=root, env=environment, check=True)
                subprocess.run(["opentelemetry-instrument", "--version"], cwd=root, env=environment, check=True)


def step(command: str, root: Path, environment: dict[str, str]) -> None:
    """One RUN: paths of the image are below ``root``."""
    if command.startswith(_AS_ROOT):
        print(f"left out, it needs root: RUN {command}", flush=True)
        return
    print(f"RUN {command}", flush=True)
    here = re.sub(r"(?<![\w.])/(src|opt)/", rf"{root}/\1/", command)
    subprocess.run(["/bin/sh", "-ec", here], cwd=root / "src", env=environment, check=True)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["python3.12"]))
