"""One worker of several as a process: a gateway that its supervisor tells what to do. ``python -m`` runs it."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spanbridge.app import convert
from spanbridge.app.gateway import Gateway
from spanbridge.app.reload import Prepared
from spanbridge.app.run import EXIT_OK, serve, tune_collector
from spanbridge.app.worker import Worker
from spanbridge.config import Config, examine_text
from spanbridge.core.errors import ConfigError, SpanbridgeError
from spanbridge.ports import Link
from spanbridge.supervisor.channel import Channel, ChannelClosed, ChannelError, Message, receive
from spanbridge.supervisor.slot import HOPELESS
from spanbridge.telemetry import Telemetry
from spanbridge.telemetry.log import lines
from spanbridge.telemetry.metrics.merge import as_wire

_log = logging.getLogger("spanbridge.worker")


def main() -> None:
    """Run the worker that the command line names; the process's exit code as that of ``spanbridge run``."""
    # Whoever signals all processes of a terminal or a service means the supervisor too, which says what to do.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(run_worker(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))))


def run_worker(number: int, connection: socket.socket) -> int:
    """Run until the supervisor says so, or is gone."""
    try:
        start = receive(connection)
    except ChannelClosed:
        return EXIT_OK
    worker = Worker(number, int(start["workers"]))
    try:
        config = read(worker, start)
        source, target = convert.peers(config)
        telemetry = Telemetry(config.telemetry, source=source, target=target, instance=config.name, worker=number)
    except ConfigError as error:
        lines.configure(start["log_format"], worker=number)
        _log.error("%s", error)
        return HOPELESS

    async def drive(gateway: Gateway) -> None:
        await Duty(worker, gateway).run(connection)

    return serve(telemetry, lambda: Gateway(config, telemetry, environ=os.environ, worker=worker), drive)


def read(worker: Worker, start: Message) -> Config:
    """The configuration as the supervisor has read it, as this worker's. Blocking: it looks at files.

    :raises ConfigError: it cannot be used.
    """
    report = examine_text(start["text"], os.environ, base=Path(start["base"]))
    if report.config is None:
        raise ConfigError("; ".join(problem.located(start["file"]) for problem in report.errors))
    return worker.config(report.config, os.environ)


class Duty:
    """What a worker does for its supervisor: answers, takes over configurations, stops."""

    def __init__(self, worker: Worker, gateway: Gateway) -> None:
        self._worker = worker
        self._gateway = gateway
        self._stop = asyncio.Event()
        self._cause = ""
        self._prepared: Prepared | None = None
        self._main: asyncio.Task[Any] | None = None
        self._answers: dict[str, Callable[[], Any]] = {
            "health": self._health,
            "status": gateway.watch.status,
            "metrics": lambda: as_wire(gateway.metrics()),
            "settled": self._is_settled,
        }

    async def run(self, connection: socket.socket) -> None:
        """Forward until told to stop.

        :raises SpanbridgeError: something that no retry can mend.
        """
        self._main = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end, "SIGTERM")
        channel = Channel(self._answer, self._noted)
        await channel.open(connection)
        alone = asyncio.create_task(self._until_alone(channel), name="supervisor")
        channel.note({"running": True})
        tune_collector()
        try:
            await self._gateway.run(self._stop, lambda: self._cause)
        finally:
            channel.note({"metrics": as_wire(self._gateway.metrics())})
            alone.cancel()
            await asyncio.gather(alone, return_exceptions=True)
            await channel.close()

    async def _until_alone(self, channel: Channel) -> None:
        await channel.gone.wait()
        self._end("its supervisor is gone")

    def _end(self, cause: str) -> None:
        """Drain and end."""
        self._cause = self._cause or cause
        self._stop.set()

    def _noted(self, message: Message) -> None:
        match message:
            case {"stop": cause}:
                self._end(cause)
            case {"end": True}:
                assert self._main is not None
                self._main.cancel()
            case {"release": True}:
                self._gateway.release()
            case {"drop": True}:
                self._prepared = None

    async def _answer(self, request: Message) -> Any:
        """Answer one request.

        :raises SpanbridgeError: it cannot be done.
        """
        match request["ask"]:
            case "prepare":
                return await self._prepare(request)
            case "commit":
                return await self._commit()
            case "profile":
                return await self._profile(float(request["seconds"]))
            case what:
                return self._answers[what]()

    async def _prepare(self, request: Message) -> Message:
        self._prepared = None
        config = await asyncio.to_thread(read, self._worker, request)
        self._prepared = await self._gateway.reload.prepare(config)
        return {}

    async def _commit(self) -> Message:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise ChannelError("there is nothing to take over")
        await self._gateway.reload.take_over(prepared)
        return {"changes": prepared.found.words(), "needed": prepared.needed}

    async def _profile(self, seconds: float) -> str:
        profiler = self._gateway.profiler
        if profiler is None:
            raise SpanbridgeError("profiles are off")
        return base64.b64encode(await profiler.profile(seconds)).decode()

    def _health(self) -> Message:
        watch = self._gateway.watch
        return {
            "reasons": [[reason.code, reason.message] for reason in watch.readiness().reasons],
            "stuck": watch.liveness(),
        }

    def _is_settled(self) -> bool:
        """Whether the MQTT brokers have granted all subscriptions."""
        return all(source.status.link is Link.UP and source.granted for source in self._gateway.sources)


if __name__ == "__main__":
    main()
