"""How the user's shell reaches this command, for commands that are printed to be copied."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "spanbridge"


def command() -> str:
    """``spanbridge`` where the PATH leads to this installation, else the path of its script.

    A checkout's ``.venv`` is seldom on the PATH: ``make demo`` works there, and ``spanbridge`` alone does not.
    """
    script = Path(sys.executable).with_name(NAME)
    found = shutil.which(NAME)
    if not script.exists() or (found is not None and os.path.realpath(found) == os.path.realpath(script)):
        return NAME
    below = os.path.relpath(script)
    return shlex.quote(str(script) if below.startswith("..") else below)
