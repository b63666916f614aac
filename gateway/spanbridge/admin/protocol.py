"""aiohttp's protocol with errors in JSON. The one module of the package that imports aiohttp at its top."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from spanbridge.admin.pages import error

_KEEP_ALIVE = 75.0
_MAX_HEADER = 8190


class JsonRequestHandler(web.RequestHandler):
    """Answers requests that are not HTTP, too, in the form that all errors of the admin server have."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp when its parser or a handler fails. What the peer sent is not repeated to it."""
        answer = error(status, "the request is not valid HTTP/1.1" if status < 500 else "internal error")
        response = web.Response(status=status, body=answer.body, headers={"Content-Type": answer.content_type})
        response.force_close()
        return response


def protocol_factory(manager: web.Server, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
    """Make the protocol of each connection. No access log: probes come every few seconds."""
    quiet = logging.getLogger("spanbridge.admin.http")
    quiet.setLevel(logging.CRITICAL)  # bad requests are the peer's business, and answered

    def make() -> asyncio.Protocol:
        return JsonRequestHandler(
            manager,
            loop=loop,
            access_log=quiet,
            logger=quiet,
            keepalive_timeout=_KEEP_ALIVE,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )

    return make
