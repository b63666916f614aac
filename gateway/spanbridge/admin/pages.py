"""What the admin server answers, apart from HTTP: a path and the headers that matter in, a status and a body out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from spanbridge.admin.access import CHALLENGE, OPEN, Access, Denied
from spanbridge.core.health import Readiness
from spanbridge.core.hosts import is_loopback

Metrics = Callable[[str], tuple[bytes, str]]
"""Takes the Accept header, returns the exposition and its Content-Type."""

Liveness = Callable[[], str | None]
"""None while the gateway works or waits for a peer; else why it is stuck, so that only a restart helps."""

_JSON = "application/json; charset=utf-8"
_HTML = "text/html; charset=utf-8"
PROFILE = "/debug/pprof/profile"
_PATHS = ("/", "/livez", "/readyz", "/metrics", "/status", PROFILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What matters of a request. ``host`` is the Host header, None when there was none; ``peer`` is who asks."""

    method: str
    path: str
    query: str = ""
    host: str | None = None
    accept: str = ""
    authorization: str = field(default="", repr=False)
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    body: bytes
    content_type: str = _JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaterAnswer:
    """A response that takes a while. Its connection waits for it, others do not."""

    make: Callable[[], Awaitable[Answer]]


ProfilePage = Callable[[str], Answer | LaterAnswer]
"""Takes the query."""

Fresh = Callable[[str], Awaitable[None]]
"""Takes a path; brings what that page shows, where it has to be asked for. Never raises."""


def as_json(status: int, content: object, headers: Mapping[str, str] | None = None) -> Answer:
    """``content`` as indented JSON: people read it with curl."""
    body = json.dumps(content, indent=2, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"
    return Answer(status, body, headers=headers or {})


def error(status: int, message: str, headers: Mapping[str, str] | None = None, **more: object) -> Answer:
    """An error in the one form all of them have."""
    return as_json(status, {"error": message, **more}, headers)


def _denied(why: Denied) -> Answer:
    if why is Denied.WRONG:
        return error(401, why.value, {"WWW-Authenticate": CHALLENGE})
    return error(403, why.value, hint="set `token` in [admin]")


def alive() -> str | None:
    """Alive, as far as an answer shows."""
    return None


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages over what the gateway hands in, for those whom ``access`` lets see them."""

    readiness: Callable[[], Readiness]
    status: Callable[[], Mapping[str, Any]]
    metrics: Metrics | None
    liveness: Liveness = alive
    access: Access = OPEN
    profile: ProfilePage | None = None
    fresh: Fresh | None = None

    def answer(self, request: Request) -> Answer | LaterAnswer:
        """Answer one request."""
        path, host = request.path, request.host
        if not self.access.exposed and host is not None and not names_loopback(host):
            # A page in the operator's browser could reach us under its own name (DNS rebinding).
            return error(403, "this server answers to localhost and loopback addresses only", host=host[:255])
        if path not in _PATHS:
            return error(404, "no such page", pages=list(_PATHS))
        denied = self.access.denied(path, request.authorization)
        if denied is not None:
            return _denied(denied)
        if request.method not in ("GET", "HEAD"):
            return error(405, f"{path} takes GET and HEAD", {"Allow": "GET, HEAD"})
        if path == PROFILE:
            return self._profile(request)
        return self._page(path, request.accept) if self.fresh is None else self._later(path, request.accept)

    def _later(self, path: str, accept: str) -> LaterAnswer:
        return LaterAnswer(lambda: self._fresh(path, accept))

    async def _fresh(self, path: str, accept: str) -> Answer:
        assert self.fresh is not None
        await self.fresh(path)
        return self._page(path, accept)

    def _profile(self, request: Request) -> Answer | LaterAnswer:
        if self.profile is None:
            return error(404, "profiles are off", hint="set `enabled = true` in [profiling]")
        if request.method != "GET":  # a profile takes seconds, and nobody would see it
            return error(405, f"{PROFILE} takes GET", {"Allow": "GET"})
        return self.profile(request.query)

    def _page(self, path: str, accept: str) -> Answer:
        match path:
            case "/livez":
                return self._livez()
            case "/readyz":
                return self._readyz()
            case "/status":
                return as_json(200, self.status())
            case "/metrics":
                return self._metrics(accept)
            case _:
                return index()

    def _livez(self) -> Answer:
        stuck = self.liveness()
        return as_json(200, {"live": True}) if stuck is None else as_json(503, {"live": False, "reason": stuck})

    def _readyz(self) -> Answer:
        verdict = self.readiness()
        reasons = [{"code": reason.code, "message": reason.message} for reason in verdict.reasons]
        return as_json(200 if verdict.ready else 503, {"ready": verdict.ready, "reasons": reasons})

    def _metrics(self, accept: str) -> Answer:
        if self.metrics is None:
            return error(404, "metrics for Prometheus are off", hint="set `prometheus = true` in [telemetry]")
        body, content_type = self.metrics(accept)
        return Answer(200, body, content_type)


def index() -> Answer:
    """The status page. It holds no data itself and loads nothing from elsewhere."""
    body = resources.files(__package__).joinpath("index.html").read_bytes()
    policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return Answer(200, body, _HTML, {"Content-Security-Policy": policy})


def names_loopback(host: str) -> bool:
    """Whether a Host header names this machine's loopback (RFC 9110 section 7.2: ``host[:port]``)."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)
