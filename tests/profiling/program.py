"""A program that knows nothing of profiles, started under OpenTelemetry's agent."""

import asyncio
import json
import sys
import threading
import time

from opentelemetry import trace

TRACER = trace.get_tracer("program")


def burn(seconds: float) -> None:
    """Use that much CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(200))


def work(name: str) -> None:
    """Burn under a span, and tell which."""
    with TRACER.start_as_current_span(name) as span:
        burn(0.4)
        found = span.get_span_context()
    print(json.dumps([name, f"{found.trace_id:032x}", f"{found.span_id:016x}"]), flush=True)


async def main() -> None:
    """One span in a task, one in a thread."""
    work("task")
    thread = threading.Thread(target=work, args=("thread",), name="worker")
    thread.start()
    await asyncio.to_thread(thread.join)


asyncio.run(main())
sys.exit(3)
