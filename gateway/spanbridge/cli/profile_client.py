"""Asks an admin server for a profile."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from spanbridge.cli import exits
from spanbridge.core.errors import SpanbridgeError

PROFILE: Final = "/debug/pprof/profile"
_SOMEBODY_HAS_TO_MEND_IT = (400, 401, 403, 404)
_SPARE = 15.0
"""Seconds beyond those of the profile until an answer has to be there: it is encoded and sent."""
_LARGEST = 256 << 20


class ProfileRefused(SpanbridgeError):  # noqa: N818 - a state rather than a fault
    """There is no profile to be had. ``code`` is the exit code, the message says why, without the token."""

    reason = "profiling"

    def __init__(self, text: str, code: int = exits.FAILURE) -> None:
        super().__init__(text)
        self.code = code


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The server is where it was said to be: a token goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def from_config(file: Path, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """The admin server's address and the token, by a gateway's configuration.

    :raises ProfileRefused: it has errors, or profiles are off by it.
    """
    from spanbridge.cli.present import show_problems  # noqa: PLC0415
    from spanbridge.config import examine  # noqa: PLC0415

    report = examine(file, environ)
    config = report.config
    if config is None:
        show_problems(file, report, stream=sys.stderr)
        raise ProfileRefused("give the admin server's URL, or a configuration without errors", exits.USAGE)
    if not config.admin.enabled or not config.profiling.enabled:
        raise ProfileRefused(f"profiles are off in {file}: set `enabled = true` in [profiling]", exits.USAGE)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.admin.host, config.admin.host)  # noqa: S104 - not bound
    token = config.profiling.token
    url = f"http://[{host}]:{config.admin.port}" if ":" in host else f"http://{host}:{config.admin.port}"
    return url, None if token is None else token.get_secret_value()


def read_token(given: str) -> str:
    """A token as written, or the content of the file that ``file:PATH`` names, without its last newline.

    :raises ProfileRefused: the file cannot be read.
    """
    if not given.startswith("file:"):
        return given
    path = Path(given.removeprefix("file:"))
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ProfileRefused(f"--token: cannot read {path}: {told}", exits.USAGE) from None


def fetch(url: str, seconds: float, token: str | None) -> bytes:
    """A pprof profile of the next ``seconds``. Blocks as long, and 15 s more at most.

    :raises ProfileRefused: the address cannot be used, nobody answers, or the answer is no profile.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ProfileRefused("the admin server's URL is http://HOST:PORT or https://HOST:PORT", exits.USAGE)
    base = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix(PROFILE).rstrip('/')}"
    headers = {"User-Agent": "spanbridge"} | ({"Authorization": f"Bearer {token}"} if token is not None else {})
    request = urllib.request.Request(f"{base}{PROFILE}?seconds={seconds:g}", headers=headers)  # noqa: S310 - see above
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds + _SPARE) as answer:
            content: bytes = answer.read(_LARGEST)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(base, error.code, error.read(65536)) from None
    except (OSError, ValueError) as error:  # ValueError: a token that is no header
        reason = getattr(error, "reason", error)
        raise ProfileRefused(f"no profile from {base}: {_plain(reason)}") from None
    return content


def _plain(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError):
        return (reason.strerror or str(reason)).lower()
    return "the request cannot be sent" if isinstance(reason, ValueError) else str(reason)


def _refused(base: str, status: int, body: bytes) -> ProfileRefused:
    """What the server said, with its hint."""
    try:
        told = json.loads(body)
        text = str(told["error"]) + (f" ({told['hint']})" if "hint" in told else "")
    except (ValueError, KeyError, TypeError):
        text = f"it answered {status}"
    return ProfileRefused(
        f"no profile from {base}: {text}", exits.USAGE if status in _SOMEBODY_HAS_TO_MEND_IT else exits.FAILURE
    )
