"""Fetching the locked jars, against an HTTP server that behaves as told."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from spanbridge.devstack import jars, progress
from spanbridge.devstack.errors import DownloadError

FILES = {f"org/example/lib{n}/1.0/lib{n}-1.0.jar": os.urandom(50_000 + n) for n in range(12)}


class Repository(http.server.ThreadingHTTPServer):
    """A Maven repository with a few files, ranges, and a list of statuses to answer with first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.failures: list[int] = []
        self.cut_short: set[str] = set()
        self.ranges: list[str] = []
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/maven2"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        self.server.requests += 1
        path = self.path.removeprefix("/maven2/")
        if self.server.failures:
            self.send_error(self.server.failures.pop())
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        content, start = self.server.files[path], 0
        if span := self.headers["Range"]:
            self.server.ranges.append(span)
            start = int(span.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if path in self.server.cut_short:
            self.server.cut_short.discard(path)
            self.wfile.write(content[start : start + 10_000])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    server = Repository()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    lock = tmp_path / f"rocketmq-{jars.DEFAULT_VERSION}.lock.json"
    entries = [
        {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for path, content in FILES.items()
    ]
    lock.write_text(json.dumps({"jars": entries}))
    monkeypatch.setattr(jars, "_LOCK_FILES", tmp_path)
    monkeypatch.setattr(jars, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("SPANBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPANBRIDGE_MAVEN_URL", server.url + "/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetches_all_once_and_says_so(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    paths = jars.ensure_jars(progress.plain)
    assert [path.read_bytes() for path in paths] == list(FILES.values())
    assert "12 files, 1 MB" in capsys.readouterr().err
    assert not list(jars.cache_dir().rglob("*.part"))
    asked = repository.requests
    assert jars.ensure_jars() == paths
    assert repository.requests == asked == 12


def test_resumes_what_was_interrupted(repository: Repository) -> None:
    path, content = next(iter(FILES.items()))
    part = jars.cache_dir() / "maven" / f"{path}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:20_000])
    assert jars.ensure_jars()[0].read_bytes() == content
    assert repository.ranges == ["bytes=20000-"]


def test_goes_on_where_the_connection_broke(repository: Repository) -> None:
    path = next(iter(FILES))
    repository.cut_short.add(path)
    assert jars.ensure_jars()[0].read_bytes() == FILES[path]
    assert repository.ranges == ["bytes=10000-"]


def test_starts_over_when_what_was_kept_is_wrong(repository: Repository) -> None:
    path, content = next(iter(FILES.items()))
    part = jars.cache_dir() / "maven" / f"{path}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(content) + 5))
    assert jars.ensure_jars()[0].read_bytes() == content


def test_tries_again_when_the_repository_is_busy(repository: Repository) -> None:
    repository.failures = [503, 429]
    assert len(jars.ensure_jars()) == len(FILES)


def test_a_wrong_checksum_is_refused_with_its_address(repository: Repository) -> None:
    path = next(iter(FILES))
    repository.files[path] = b"y" * len(FILES[path])
    with pytest.raises(DownloadError, match="locked checksum") as caught:
        jars.ensure_jars()
    assert f"{repository.url}/{path}" in str(caught.value)
    assert "SPANBRIDGE_MAVEN_URL" in caught.value.hint
    assert not (jars.cache_dir() / "maven" / path).exists()


def test_a_file_that_was_spoilt_in_the_cache_is_fetched_anew(repository: Repository) -> None:
    spoilt, *others = jars.ensure_jars()
    content = spoilt.read_bytes()
    spoilt.write_bytes(bytes(len(content)))
    before = repository.requests
    assert jars.ensure_jars() == [spoilt, *others]
    assert spoilt.read_bytes() == content
    assert repository.requests == before + 1


def test_a_missing_file_is_no_reason_to_try_again(repository: Repository) -> None:
    repository.files.clear()
    with pytest.raises(DownloadError, match="Not Found"):
        jars.ensure_jars()
    assert repository.requests <= 12


def test_a_server_that_never_stops_sending_does_not_fill_the_disk(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "_ATTEMPTS", 1)
    name = next(iter(FILES))
    repository.files[name] = bytes(16 << 20)
    most = 0

    def measure(count: int, _: int) -> None:
        nonlocal most
        most += max(count, 0)

    with pytest.raises(DownloadError, match="locked checksum"):
        jars._fetch(
            next(jar for jar in jars.locked_jars(jars.DEFAULT_VERSION) if jar.path == name), measure, threading.Event()
        )
    assert most < 1 << 20


def test_no_network_names_the_settings_that_help(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_MAVEN_URL", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match=r"cannot fetch http://127\.0\.0\.1:1/") as caught:
        jars.ensure_jars()
    assert "HTTPS_PROXY" in caught.value.hint
    assert "refused" in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "https://user:hunter2@example.org/maven"])
def test_a_repository_that_cannot_be_one(repository: Repository, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SPANBRIDGE_MAVEN_URL", url)
    with pytest.raises(DownloadError, match="SPANBRIDGE_MAVEN_URL") as caught:
        jars.ensure_jars()
    assert "hunter2" not in str(caught.value)


def test_ctrl_c_ends_a_download_and_not_only_the_waiting_for_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, under_way = threading.Event(), list[bool]()

    def slow(_jar: object, _advance: object, given_up: threading.Event) -> None:
        begun.set()
        under_way.append(given_up.wait(60))

    def interrupted(*_: object, **__: object) -> None:
        assert begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(jars, "_fetch", slow)
    monkeypatch.setattr(jars, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jars.ensure_jars()
    assert all(under_way), "each was told to give up"
    assert 0 < len(under_way) <= jars._WORKERS


def test_a_full_disk_is_found_before_the_download(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1_000_000))
    with pytest.raises(DownloadError, match="1 MB free"):
        jars.ensure_jars()
    assert repository.requests == 0


def test_a_cache_that_cannot_be_used(repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("SPANBRIDGE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DownloadError, match="cannot use the cache directory"):
        jars.ensure_jars()


def test_two_processes_at_once_fetch_each_file_once(repository: Repository) -> None:
    code = (
        "import sys, pathlib\n"
        "from spanbridge.devstack import jars\n"
        "jars._LOCK_FILES = pathlib.Path(sys.argv[1])\n"
        "print(len(jars.ensure_jars()))\n"
    )
    command = [sys.executable, "-c", code, str(jars._LOCK_FILES)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=30)[0] for process in processes] == ["12\n", "12\n"]
    assert repository.requests == 12


def test_the_cache_follows_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPANBRIDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jars.cache_dir() == tmp_path / "spanbridge"
    monkeypatch.setenv("SPANBRIDGE_CACHE", str(tmp_path / "mine"))
    assert jars.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("SPANBRIDGE_MAVEN_URL", raising=False)
    assert jars.maven_url() == "https://repo1.maven.org/maven2"


def test_the_lock_names_whole_files_and_leaves_out_other_platforms() -> None:
    locked = jars.locked_jars(jars.DEFAULT_VERSION)
    assert all(len(jar.sha256) == 64 and jar.size > 0 and jar.path.endswith(".jar") for jar in locked)
    assert len({jar.path for jar in locked}) == len(locked)
    assert any("rocketmq-proxy-5.5.0" in jar.path for jar in locked)
    assert not any("windows" in jar.path for jar in locked)


def test_the_bar_counts_bytes_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("jars", 2, 2_000_000) as advance:
        advance(1_000_000, 1)
        advance(1_000_000, 1)
    shown = capsys.readouterr().err
    assert "2/2 files" in shown
    assert "2.0/2.0 MB" in shown
