"""Running a gateway as a process: event loop, signals, exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from spanbridge.app import convert
from spanbridge.app.gateway import Gateway
from spanbridge.config import Config
from spanbridge.core.errors import SpanbridgeError
from spanbridge.telemetry import Telemetry

EXIT_OK = 0
EXIT_FAILED = 1


def run(config: Config, file: Path) -> int:
    """Run until SIGTERM or SIGINT; return the process's exit code.

    A second signal stops at once: what is unacknowledged stays with the MQTT broker. SIGHUP reads the configuration
    again from ``file``.
    """
    source, target = convert.peers(config)
    telemetry = Telemetry(config.telemetry, source=source, target=target, instance=config.name)
    return serve(telemetry, lambda: Gateway(config, telemetry, file=file, environ=os.environ), _run)


def serve(
    telemetry: Telemetry, build: Callable[[], Gateway], drive: Callable[[Gateway], Coroutine[Any, Any, None]]
) -> int:
    """Build a gateway and drive it to its end; return the process's exit code."""
    try:
        gateway = build()
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(drive(gateway))
    except SpanbridgeError as error:
        telemetry.log_fatal(str(error))
        return EXIT_FAILED
    except BaseExceptionGroup as group:
        known, unknown = group.split(SpanbridgeError)
        if unknown is not None or known is None:
            raise
        telemetry.log_fatal("; ".join(str(error) for error in _leaves(known)))
        return EXIT_FAILED
    except asyncio.CancelledError:
        left, down = gateway.uplink.in_flight, gateway.downlinks.in_flight
        told = f"{left} message(s) stay with the MQTT broker" + (f", {down} with RocketMQ" if down else "")
        telemetry.log_fatal(f"stopped at once by a second signal: {told}")
        return EXIT_FAILED
    return EXIT_OK


async def _run(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    stop = asyncio.Event()
    causes: list[str] = []

    def on_signal(number: signal.Signals) -> None:
        if causes:
            main.cancel()
        causes.append(number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    tune_collector()
    loop.add_signal_handler(signal.SIGHUP, gateway.reload.ask)
    await gateway.run(stop, lambda: causes[0])


def tune_collector() -> None:
    """Have the cyclic collector look less often, and never again at what the start left.

    Messages are no part of cycles, and those in flight are bounded: with the defaults the collector goes through them
    hundreds of times a second, for 6 % of the loop's time (docs/adr/0073).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where it is installed: it is not to be had for every platform."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop


def _leaves(group: BaseExceptionGroup[SpanbridgeError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
