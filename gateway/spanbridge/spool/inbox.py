"""The inbox: where commands leave what the gateway of a spool is to do with it: within seconds, or when it starts.

A directory in the spool's: who may write there may do as much to the spool itself. A file is
there whole or not at all, and is removed once it is done: after a crash in between, it is done twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.spooled import Spooled, SpooledError
from spanbridge.core.spooled_json import from_json
from spanbridge.spool.disk import sync_directory
from spanbridge.spool.errors import fault_of

INBOX = "inbox"
_MESSAGES = ".jsonl"
_ERRAND = ".json"
_REFUSED = ".refused"
_LONGEST = 512 << 20
"""Bytes of a line: a payload has 256 MiB at most, and base64 makes a third more of it."""


class InboxRefused(SpanbridgeError):  # noqa: N818 - an outcome, as the others of core.errors
    """A file in the inbox cannot be understood."""

    reason = "inbox"


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be done with dead letters: ``do`` is ``replay`` or ``purge``. With ``reasons``, with those only."""

    do: str
    reasons: tuple[str, ...] = ()


class SpoolInbox:
    """The inbox of the spool in a directory. Everything blocks.

    :raises SpoolFault: by every method, when the disk fails.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.path = spool / INBOX

    def leave(self, what: Errand | list[dict[str, Any]]) -> None:
        """Leave messages, or an errand, for the gateway. On the disk when this returns."""
        if isinstance(what, Errand):
            suffix, content = _ERRAND, json.dumps({"do": what.do, "reasons": what.reasons})
        else:
            suffix, content = _MESSAGES, "".join(json.dumps(message) + "\n" for message in what)
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        hidden = self.path / f".{name}"
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o700, exist_ok=True)
                sync_directory(self._spool)
            self._give(self.path)
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._give(hidden)
            hidden.rename(self.path / f"{name}{suffix}")
            sync_directory(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise fault_of(error, "writing to the spool's inbox") from None

    def _give(self, path: Path) -> None:
        """What root left is the gateway's, whose directory it is."""
        owner = self._spool.stat()
        if os.geteuid() == 0 and (owner.st_uid or owner.st_gid):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def waiting(self) -> list[str]:
        """The names of files that wait, oldest first."""
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if entry.name.endswith((_MESSAGES, _ERRAND)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise fault_of(error, "reading the spool's inbox") from None

    def errand(self, name: str) -> Errand | None:
        """The errand in a file; None: it holds messages.

        :raises InboxRefused: it is none.
        """
        if name.endswith(_MESSAGES):
            return None
        try:
            with self._open(name) as file:
                found = json.loads(file.read(65_536))
            errand = Errand(str(found["do"]), tuple(str(reason) for reason in found["reasons"]))
        except OSError as error:
            raise fault_of(error, "reading the spool's inbox") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InboxRefused(f"it is no errand: {type(error).__name__}") from None
        if errand.do not in ("replay", "purge"):
            raise InboxRefused(f"nobody knows how to {errand.do!r}")
        return errand

    def messages(self, name: str, offset: int, count: int, size: int) -> tuple[list[Spooled], int]:
        """Messages of a file from a byte on, up to about so many and so many bytes, and where those behind them begin.

        :raises InboxRefused: a line is no message.
        """
        found: list[Spooled] = []
        try:
            with self._open(name) as file:
                file.seek(offset)
                while len(found) < count and file.tell() - offset < size and (line := file.readline(_LONGEST)):
                    if line.strip():
                        found.append(from_json(json.loads(line)))
                return found, file.tell()
        except OSError as error:
            raise fault_of(error, "reading the spool's inbox") from None
        except (ValueError, SpooledError) as error:
            raise InboxRefused(f"a line {error}" if isinstance(error, SpooledError) else "a line is no JSON") from None

    def _open(self, name: str) -> Any:
        return os.fdopen(os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")

    def finish(self, name: str) -> None:
        """A file is done with."""
        try:
            (self.path / name).unlink(missing_ok=True)
            sync_directory(self.path)
        except OSError as error:
            raise fault_of(error, "removing from the spool's inbox") from None

    def refuse(self, name: str) -> str:
        """Put a file aside that cannot be understood; return its new name."""
        try:
            (self.path / name).rename(self.path / f"{name}{_REFUSED}")
        except OSError as error:
            raise fault_of(error, "removing from the spool's inbox") from None
        return f"{name}{_REFUSED}"
