"""The service that W3C's Trace Context suite talks to: it takes every context through all of the codec's carriers.

The suite posts a list of ``{"url": ..., "arguments": ...}``; the service posts ``arguments`` to each ``url`` with the
context it would send on. Here that context travels HTTP → compact → MQTT properties → RocketMQ properties → HTTP.
"""

from __future__ import annotations

import argparse

from aiohttp import ClientSession, web

from spanbridge_context import (
    TraceContext,
    extract_rocketmq,
    extract_user_properties,
    inject_rocketmq,
    inject_user_properties,
    parse_compact,
)


def receive(headers: list[tuple[str, str]]) -> TraceContext:
    """The context of a request: HTTP field names have no case, the codec's names do. A new trace when there is none."""
    context = extract_user_properties([(name.lower(), value) for name, value in headers]).context
    return TraceContext.new() if context is None else context


def carry(context: TraceContext) -> list[tuple[str, str]]:
    """The headers to send on: a child of the context, after a way over all carriers."""
    child = context.child()
    assert parse_compact(child.compact).traceparent == child.traceparent
    over_mqtt = extract_user_properties(inject_user_properties([("unit", "C")], child)).context
    assert over_mqtt is not None
    over_rocketmq = extract_rocketmq(inject_rocketmq({}, over_mqtt)).context
    assert over_rocketmq is not None
    return inject_user_properties([], over_rocketmq, "w3c")


async def handle(request: web.Request) -> web.Response:
    """Answer one request of the suite."""
    context = receive(list(request.headers.items()))
    session: ClientSession = request.app[SESSION]
    for action in await request.json():
        async with session.post(action["url"], json=action["arguments"], headers=carry(context)) as response:
            await response.read()
    return web.json_response(None)


SESSION = web.AppKey("session", ClientSession)


def application() -> web.Application:
    """The service, at ``POST /test``."""

    async def session(app: web.Application):
        async with ClientSession() as client:
            app[SESSION] = client
            yield

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_post("/test", handle)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    web.run_app(application(), host="127.0.0.1", port=parser.parse_args().port, print=None)
