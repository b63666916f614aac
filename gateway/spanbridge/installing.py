"""The command that installs more of spanbridge: from where this installation came from.

spanbridge is on no package index. Its bare name would install whatever somebody puts there under it, so no text of ours
gives that to pip.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def install_command(*extras: str) -> str:
    """A command for a shell that installs ``extras`` from this installation's checkout or wheel.

    Where that is unknown or gone, the command is one for the top of a checkout.
    """
    origin = _origin()
    wanted = f"[{','.join(extras)}]"
    if origin is None:
        return f'pip install ".{wanted}" at the top of a checkout'
    path, editable = origin
    return f'pip install {"-e " if editable else ""}"{path}{wanted}"'


def _origin() -> tuple[Path, bool] | None:
    """The folder or wheel that pip installed from, and whether it is an editable install (PEP 610, direct_url.json)."""
    try:
        recorded: Any = json.loads(distribution("spanbridge").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    url = urlsplit(recorded.get("url", ""))
    path = Path(unquote(url.path))
    if url.scheme != "file" or not path.exists():
        return None
    return path, bool(recorded.get("dir_info", {}).get("editable"))
