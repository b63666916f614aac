"""Files of other programs, Compose, Kubernetes and the collector, as their own libraries read them: those are in Go.

Skipped where Go is missing, or where the modules were not fetched: nothing is downloaded by a test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.deploy.test_kubernetes import FOLDER, MANIFESTS
from tests.deploy.test_stack import ROOT, SERVICES

MODULE = Path(__file__).with_name("go")
pytestmark = [
    pytest.mark.timeout(900),  # compiled once, then out of Go's cache
    pytest.mark.skipif(shutil.which("go") is None, reason="go is not on the PATH"),
]
Run = Callable[..., subprocess.CompletedProcess[str]]


def go(*arguments: str, module: Path = MODULE, limit: float = 800) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
    return subprocess.run(
        ["go", *arguments], cwd=module, env=environment, capture_output=True, text=True, check=False, timeout=limit
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs one of the two programs."""
    folder = tmp_path_factory.mktemp("programs")
    built = go("build", "-o", f"{folder}/", "./compose", "./kubernetes")
    if "GOPROXY=off" in built.stderr or "requires go >=" in built.stderr:
        pytest.skip(f"the modules are not there: (cd {MODULE.relative_to(ROOT)} && go mod download)")
    assert built.returncode == 0, built.stderr

    def run(name: str, *files: Path) -> subprocess.CompletedProcess[str]:
        argv = [str(folder / name), *map(str, files)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    return run


def collector(file: Path) -> subprocess.CompletedProcess[str]:
    """``otelcol validate`` of a collector with our file's components alone. Go keeps what it has linked once."""
    try:
        done = go("run", ".", "validate", "--config", str(file), module=MODULE / "collector", limit=300)
    except subprocess.TimeoutExpired:
        pytest.skip("the collector takes long to compile: go -C tests/deploy/go/collector build -o /dev/null")
    if "GOPROXY=off" in done.stderr or "requires go >=" in done.stderr:
        pytest.skip("the modules are not there: go -C tests/deploy/go/collector mod download")
    return done


def test_compose_agrees(programs: Run, tmp_path: Path) -> None:
    done = programs("compose", ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(SERVICES)
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("mem_limit:", "mem_limits:", 1))
    assert "mem_limits" in programs("compose", wrong).stderr


def test_kubernetes_agrees(programs: Run, tmp_path: Path) -> None:
    ours = [FOLDER / name for name in MANIFESTS if not name.endswith("servicemonitor.yaml")]  # the operator's own kind
    done = programs("kubernetes", *ours)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = tmp_path / "deployment.yaml"
    wrong.write_text((FOLDER / "deployment.yaml").read_text().replace("replicas:", "replica:", 1))
    assert 'unknown field "replica"' in programs("kubernetes", wrong).stderr


def test_the_collector_agrees(tmp_path: Path) -> None:
    done = collector(ROOT / "deploy" / "otelcol" / "config.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    wrong = tmp_path / "config.yaml"
    wrong.write_text((ROOT / "deploy" / "otelcol" / "config.yaml").read_text().replace("limit_mib:", "limit_mb:", 1))
    assert "invalid keys: limit_mb" in collector(wrong).stderr


def test_the_collector_has_the_images_version() -> None:
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["otelcol"]["image"]
    version = image.rpartition(":")[2]
    assert (
        f"go.opentelemetry.io/collector/receiver/otlpreceiver v{version}" in (MODULE / "collector/go.mod").read_text()
    )
