"""``spanbridge init --systemd | --compose | --kubernetes``: writes the files and says what to do with them."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from spanbridge.cli import exits
from spanbridge.deployment import COMPOSE, KUBERNETES, SYSTEMD, Kit


def write_kits(*, systemd: Path | None, compose: Path | None, kubernetes: Path | None, force: bool) -> None:
    """Write each kit that has a folder. Nothing is written when any of its files exists, unless ``force`` is set.

    :raises typer.Exit: a file exists, or cannot be written.
    """
    wanted = [(kit, path) for kit, path in ((SYSTEMD, systemd), (COMPOSE, compose), (KUBERNETES, kubernetes)) if path]
    try:
        if not force:
            _refuse_to_overwrite(wanted)
        for kit, folder in wanted:
            sys.stdout.write("".join(f"wrote {path}\n" for path in kit.write(folder)))
            sys.stdout.write("next:\n" + "".join(f"  {line.format(folder=folder)}\n" for line in kit.then))
    except OSError as error:
        sys.stderr.write(f"spanbridge: cannot write {error.filename}: {(error.strerror or str(error)).lower()}\n")
        raise typer.Exit(exits.FAILURE) from None


def _refuse_to_overwrite(wanted: list[tuple[Kit, Path]]) -> None:
    occupied = [path for kit, folder in wanted for path in kit.occupied(folder)]
    if occupied:
        files = ", ".join(map(str, occupied))
        sys.stderr.write(f"spanbridge: nothing written; --force overwrites what exists: {files}\n")
        raise typer.Exit(exits.USAGE)
