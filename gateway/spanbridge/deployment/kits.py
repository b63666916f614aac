"""What ``spanbridge init --systemd``, ``--compose`` and ``--kubernetes`` write, and where its text comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

import spanbridge

WHEEL: Final = f"spanbridge-{spanbridge.__version__}-py3-none-any.whl"
"""The file that ``make dist`` builds."""

_PACKAGED = Path(__file__).with_name("files")


def files_root() -> Path:
    """The folder of ``deploy/``, ``examples/`` and ``docker-compose.yml``: within the wheel, or the top of a checkout.

    :raises FileNotFoundError: this installation has neither.
    """
    for folder in (_PACKAGED, Path(__file__).parents[3]):
        if (folder / "deploy").is_dir() and (folder / "docker-compose.yml").is_file():
            return folder
    raise FileNotFoundError(None, "this installation has no files for deployment", "deploy")


@dataclass(frozen=True, slots=True)
class Kit:
    """The files of one way to run the gateway.

    ``base``, relative to the top of a checkout, is cut off their paths. ``sources`` are files and folders below it,
    ``texts`` files that no checkout has, by their name.
    """

    name: str
    base: str
    sources: tuple[str, ...]
    then: tuple[str, ...]
    """What to do next, a line each; ``{folder}`` is where the files are."""
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def files(self) -> dict[PurePosixPath, str]:
        """Every file's path below the target folder, and its text.

        :raises OSError: this installation does not have them.
        """
        base = files_root() / self.base
        found = {
            PurePosixPath(path.relative_to(base).as_posix()): path.read_text(encoding="utf-8")
            for source in self.sources
            for path in _below(base / source)
        }
        return found | {PurePosixPath(name): text for name, text in self.texts.items()}

    def occupied(self, folder: Path) -> list[Path]:
        """The files in ``folder`` that :meth:`write` would replace.

        :raises OSError: this installation does not have the kit's files.
        """
        return [path for path in sorted(folder / name for name in self.files()) if path.exists() or path.is_symlink()]

    def write(self, folder: Path) -> list[Path]:
        """Write every file, make the folders it needs, and return the paths.

        :raises OSError: a file cannot be read or written.
        """
        written = []
        for name, text in sorted(self.files().items()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
        return written


def _below(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    else:
        yield from (path for path in sorted(source.rglob("*")) if path.is_file())


SYSTEMD: Final = Kit(
    "systemd",
    base="deploy/systemd",
    sources=(".",),
    then=(
        "# it runs /opt/spanbridge/bin/spanbridge with /etc/spanbridge/spanbridge.toml",
        "sudo cp {folder}/spanbridge.service /etc/systemd/system/",
        "sudo systemctl daemon-reload && sudo systemctl enable --now spanbridge",
    ),
)

COMPOSE: Final = Kit(
    "compose",
    base=".",
    sources=(
        "docker-compose.yml",
        *(f"deploy/{name}" for name in ("Dockerfile", "compose", "mosquitto", "rocketmq")),
        *(f"deploy/{name}" for name in ("otelcol", "prometheus", "grafana")),
        *(
            f"examples/{name}"
            for name in ("ask.py", "consumer.py", "device_v311.py", "device_v5.py", "zero_code/consumer_slow.py")
        ),
    ),
    # The image is made from the wheel here, and from the sources in a checkout.
    texts=MappingProxyType({".dockerignore": "# The image is made from the wheel alone.\n*\n!spanbridge-*.whl\n"}),
    then=(
        "# the image is made from the wheel: the one that this came from, or what `make dist` builds in a checkout",
        f"cp {WHEEL} {{folder}}/",
        "docker compose --project-directory {folder} up --build -d",
    ),
)

KUBERNETES: Final = Kit(
    "kubernetes",
    base="deploy/kubernetes",
    sources=(".",),
    then=(
        "# before: image in {folder}/deployment.yaml, addresses and routes in configmap.yaml, passwords in secret.yaml",
        "kubectl apply -f {folder}",
    ),
)

KITS: Final = (SYSTEMD, COMPOSE, KUBERNETES)
