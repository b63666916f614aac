"""RocketMQ's jars: pinned by lock files, fetched once from a Maven repository, kept in the user's cache.

A file is written beside its place as ``*.part`` under an exclusive lock, hashed, and renamed into place. So an
interrupted download is resumed (RFC 9110 section 14), and two processes may fetch at once. Each start hashes what is in
the cache: what a full disk or a bad copy has spoilt there is fetched anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from spanbridge.devstack.errors import DownloadError
from spanbridge.devstack.progress import Advance, Progress, silent

DEFAULT_VERSION = "5.5.0"
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
_LOCK_FILES = Path(__file__).parent
_NATIVE = re.compile(r"-(linux|osx|windows)-(x86_64|aarch_64|riscv64)\.jar$")
_CHUNK = 256 * 1024
_WORKERS = 8
_ATTEMPTS = 4
_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = 15.0
_SPARE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked file: its path in a Maven repository, SHA-256 (hex) and size in bytes."""

    path: str
    sha256: str
    size: int


def cache_dir() -> Path:
    """Where downloads are kept: ``SPANBRIDGE_CACHE``, else ``spanbridge`` in the XDG cache directory.

    Raises:
        DownloadError: that is in the home directory, and there is none.
    """
    try:
        if configured := os.environ.get("SPANBRIDGE_CACHE"):
            return Path(configured).expanduser().absolute()
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # neither HOME nor an entry in the list of users
        raise DownloadError(
            "no cache directory: this user has no home directory",
            hint="set SPANBRIDGE_CACHE to a directory that you may write to",
        ) from error
    return Path(base, "spanbridge")


def maven_url() -> str:
    """The Maven repository to fetch from: ``SPANBRIDGE_MAVEN_URL``, else Maven Central.

    Raises:
        DownloadError: that is not an ``http`` or ``https`` URL without credentials.
    """
    url = (os.environ.get("SPANBRIDGE_MAVEN_URL") or MAVEN_CENTRAL).rstrip("/")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise DownloadError(
            "SPANBRIDGE_MAVEN_URL holds credentials, which are not supported",
            hint="use a repository that asks for none, or fill the cache from another machine: SPANBRIDGE_CACHE",
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DownloadError(
            f"SPANBRIDGE_MAVEN_URL is not the URL of a repository: {url}", hint=f"write it like {MAVEN_CENTRAL}"
        )
    return url


def lock_file(version: str) -> Path:
    """The lock file of one of RocketMQ's versions."""
    return _LOCK_FILES / f"rocketmq-{version}.lock.json"


def locked_jars(version: str) -> list[Jar]:
    """The jars that this platform needs: all of the version's lock file but native code for other platforms."""
    return [jar for entry in json.loads(lock_file(version).read_text())["jars"] if _fits(jar := Jar(**entry))]


def _fits(jar: Jar) -> bool:
    native = _NATIVE.search(jar.path)
    system = {"linux": "linux", "darwin": "osx"}.get(sys.platform, sys.platform)
    machine = {"amd64": "x86_64", "arm64": "aarch_64", "aarch64": "aarch_64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    return native is None or native.groups() == (system, machine)


def missing_jars(jars: Sequence[Jar]) -> list[Jar]:
    """Those that are not in the cache yet."""
    return [jar for jar in jars if not _present(_place(jar), jar)]


def ensure_jars(progress: Progress = silent, version: str = DEFAULT_VERSION) -> list[Path]:
    """The paths of all jars of RocketMQ ``version``, after fetching what the cache lacks.

    Raises:
        DownloadError: the network, the disk, or the content of a file is not what it should be.
    """
    jars = locked_jars(version)
    if missing := missing_jars(jars):
        _check_room(missing)
        with progress(f"RocketMQ's jars from {maven_url()}", len(missing), sum(jar.size for jar in missing)) as advance:
            _fetch_all(missing, advance)
    return [_place(jar) for jar in jars]


def _fetch_all(jars: Sequence[Jar], advance: Advance) -> None:
    given_up = threading.Event()
    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="spanbridge-jars")
    try:
        futures: list[Future[None]] = [pool.submit(_fetch, jar, advance, given_up) for jar in jars]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    finally:  # by Ctrl-C as well: what is under way ends with the bytes at hand
        given_up.set()
        pool.shutdown(cancel_futures=True)
    for future in done:
        future.result()


def _fetch(jar: Jar, advance: Advance, given_up: threading.Event) -> None:
    place = _place(jar)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{place}.part", "a+b") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            if not _present(place, jar):  # another process may have been faster
                _fill(part, jar, advance, given_up)
                if not given_up.is_set():
                    os.replace(part.name, place)
            advance(0, 1)
    except OSError as error:
        raise DownloadError(
            f"cannot write {place}: {error.strerror or error}",
            hint="make room, or set SPANBRIDGE_CACHE to a directory with at least 200 MB free that you may write to",
        ) from error


def _fill(part: BinaryIO, jar: Jar, advance: Advance, given_up: threading.Event) -> None:
    """Bring ``part`` to the locked content, trying again after a pause where that may help."""
    failure: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if given_up.wait(0 if attempt == 0 else _PAUSE_SECONDS * 2**attempt):
            return
        try:
            _transfer(part, jar, advance, given_up)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                error.close()
                raise _unreachable(jar, error) from error
            error.close()
            failure = error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            failure = error
        else:
            if given_up.is_set() or _digest(part) == jar.sha256:
                return
            failure = ValueError("its content does not have the locked checksum")
            advance(-part.tell(), 0)
            part.truncate(0)
    if isinstance(failure, ValueError):
        raise DownloadError(
            f"{_url(jar)}: {failure} ({jar.sha256})",
            hint="the repository, or something between it and here, serves another file: check SPANBRIDGE_MAVEN_URL",
        )
    raise _unreachable(jar, failure)


def _transfer(part: BinaryIO, jar: Jar, advance: Advance, given_up: threading.Event) -> None:
    have = part.seek(0, os.SEEK_END)
    if have >= jar.size:
        return
    headers = {"User-Agent": "spanbridge-devstack"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(_url(jar), headers=headers)  # noqa: S310 - the operator's own URL
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
        if answer.status == 206:
            advance(have, 0)
        else:
            part.truncate(0)
        while chunk := answer.read1(_CHUNK):
            if given_up.is_set() or part.tell() > jar.size:  # it cannot be the file, and may never end
                break
            part.write(chunk)
            advance(len(chunk), 0)
        part.flush()
    if part.tell() < jar.size and not given_up.is_set():
        raise ConnectionError("the connection was closed early")


def _digest(part: BinaryIO) -> str:
    part.seek(0)
    digest = hashlib.sha256()
    while chunk := part.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _place(jar: Jar) -> Path:
    return cache_dir() / "maven" / jar.path


def _url(jar: Jar) -> str:
    return f"{maven_url()}/{jar.path}"


def _present(place: Path, jar: Jar) -> bool:
    """Whether the whole, locked file is there. Hashing all of them takes a fraction of a second."""
    try:
        if place.stat().st_size != jar.size:
            return False
        with place.open("rb") as file:
            return _digest(file) == jar.sha256
    except OSError:
        return False


def _check_room(missing: Sequence[Jar]) -> None:
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
    except OSError as error:
        raise DownloadError(
            f"cannot use the cache directory {cache}: {error.strerror or error}",
            hint="set SPANBRIDGE_CACHE to a directory that you may write to",
        ) from error
    needed = sum(jar.size for jar in missing) + _SPARE_BYTES
    if free < needed:
        raise DownloadError(
            f"{cache} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed",
            hint="make room, or set SPANBRIDGE_CACHE to a directory on another disk",
        )


def _unreachable(jar: Jar, cause: Exception | None) -> DownloadError:
    reason = getattr(cause, "reason", None) or cause
    return DownloadError(
        f"cannot fetch {_url(jar)}: {reason}",
        hint="check the network (HTTPS_PROXY and SSL_CERT_FILE are honoured), or set SPANBRIDGE_MAVEN_URL to a Maven "
        "repository that you can reach; what has been fetched so far is kept and will be resumed",
    )
