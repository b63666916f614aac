"""Running a gateway as several workers: signals, the admin server, changes of the configuration, the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from spanbridge.admin import AdminServer
from spanbridge.app.clock import SystemClock
from spanbridge.app.events import ConfigNeedsRestart, ConfigProblem, ConfigRefused, ConfigReloaded
from spanbridge.app.overview import Overview
from spanbridge.app.services import Periodic, Services, TelemetryService
from spanbridge.config import Config, Report, examine_text
from spanbridge.core.errors import ConfigError, SpanbridgeError
from spanbridge.ports import Service
from spanbridge.supervisor.process import launch
from spanbridge.supervisor.supervisor import Supervisor
from spanbridge.telemetry import Telemetry

EXIT_FAILED = 1
_WORKER = "spanbridge.app.worker_run"


def supervise(config: Config, file: Path) -> int:
    """Run the workers until SIGTERM or SIGINT; return the process's exit code.

    Signals mean what they mean to a gateway of one process, for all workers. It forwards nothing itself.

    :raises ConfigError: the file cannot be read any more, or an OTEL_* variable cannot be used.
    """
    settings = config.telemetry.model_copy(update={"traces": False})
    telemetry = Telemetry(settings, instance=config.name)
    text = _text(file)
    try:
        with asyncio.Runner() as runner:
            return runner.run(Supervision(config, file, text, telemetry).run())
    except SpanbridgeError as error:
        telemetry.log_fatal(str(error))
        return EXIT_FAILED


def _text(file: Path) -> str:
    """The file's text: all workers read the same.

    :raises ConfigError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {file}: {str(cause).lower()}") from None


class WorkersReload(Periodic):
    """Reads the configuration again when it is asked to. All workers take it over, or none."""

    name = "reload"

    def __init__(self, config: Config, file: Path, supervisor: Supervisor, telemetry: Telemetry) -> None:
        super().__init__()
        self.config = config
        self._file = file
        self._supervisor = supervisor
        self._report = telemetry.reporter.report
        self._asked = asyncio.Event()
        self._loaded = datetime.now(UTC)
        self._reloads = self._refusals = 0
        self._last_error: str | None = None
        self._refused = self._loaded
        self._needs_restart: tuple[str, ...] = ()

    def ask(self) -> None:
        """Read the configuration again soon. Synchronous."""
        self._asked.set()

    async def run(self) -> None:
        """Wait to be asked, again and again."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._reload()
            except SpanbridgeError as error:
                self._refuse([str(error)])
            except Exception as fault:  # noqa: BLE001 - whatever a file brings up, what runs goes on
                self._refuse([f"internal error: {type(fault).__name__}: {fault}"])

    async def _reload(self) -> None:
        """Take it over when it is valid.

        :raises ConfigError: the file cannot be read.
        """
        if self._supervisor.stopping:
            return
        text = await asyncio.to_thread(_text, self._file)
        report = await asyncio.to_thread(partial(_examined, text, self._file))
        if report.config is None:
            self._refuse([problem.located(str(self._file)) for problem in report.errors])
            return
        outcome = await self._supervisor.change({**self._supervisor.start, "text": text})
        if outcome.refusals:
            self._refuse(outcome.refusals)
            return
        self.config, self._loaded, self._last_error = report.config, datetime.now(UTC), None
        self._needs_restart = outcome.needed
        self._reloads += 1
        changes, warnings = outcome.changes, len(report.warnings)
        self._report(ConfigReloaded(file=str(self._file), changes=changes, warnings=warnings))
        if outcome.needed:
            self._report(ConfigNeedsRestart(file=str(self._file), settings=", ".join(outcome.needed)))

    def _refuse(self, texts: list[str] | tuple[str, ...]) -> None:
        self._refusals += 1
        self._last_error, self._refused = "; ".join(texts), datetime.now(UTC)
        for text in texts:
            self._report(ConfigProblem(problem=text))
        self._report(ConfigRefused(file=str(self._file), errors=len(texts)))

    def status(self) -> dict[str, Any]:
        """How often it was asked, and with what result."""
        return {"reloads": self._reloads, "refusals": self._refusals}

    def show(self) -> dict[str, Any]:
        """For /status: which configuration is in force."""
        age = (datetime.now(UTC) - self._refused).total_seconds()
        return {
            "file": str(self._file),
            "loaded_at": self._loaded.isoformat(timespec="seconds"),
            "reloads": self._reloads,
            "last_error": self._last_error,
            "last_error_age_s": None if self._last_error is None else round(max(0.0, age), 1),
            "needs_restart": list(self._needs_restart),
        }


def _examined(text: str, file: Path) -> Report:
    return examine_text(text, os.environ, base=file.parent)


class Supervision:
    """The parts of a supervisor's process. Built on the loop."""

    def __init__(self, config: Config, file: Path, text: str, telemetry: Telemetry) -> None:
        clock = SystemClock()
        self._overview = Overview(config.name, telemetry, clock)
        start = {
            "workers": config.gateway.workers,
            "text": text,
            "file": str(file),
            "base": str(file.parent.absolute()),
            "log_format": config.telemetry.log_format,
        }
        self._supervisor = Supervisor(
            config.gateway.workers,
            partial(launch, _WORKER),
            start,
            reporter=telemetry.reporter,
            clock=clock,
            noted=self._overview.noted,
            ended=self._overview.ended,
        )
        self._reload = WorkersReload(config, file, self._supervisor, telemetry)
        found: list[Service] = [TelemetryService(telemetry)]
        found += [self._admin(config, telemetry)] if config.admin.enabled else []
        found += [self._overview, self._reload]
        self._services = Services(found, telemetry.reporter)
        self._overview.watch(self._supervisor, config=self._reload.show, services=self._services.status)

    def _admin(self, config: Config, telemetry: Telemetry) -> AdminServer:
        overview, token = self._overview, config.admin.token
        return AdminServer(
            config.admin.host,
            config.admin.port,
            readiness=overview.readiness,
            status=overview.page,
            reporter=telemetry.reporter,
            metrics=overview.metrics if config.telemetry.prometheus else None,
            liveness=overview.liveness,
            profile=overview.profile if config.profiling.enabled else None,
            token=None if token is None else token.get_secret_value(),
            fresh=overview.fresh,
        )

    async def run(self) -> int:
        """Run until a signal; the process's exit code.

        :raises SpanbridgeError: the admin server cannot listen.
        """
        loop = asyncio.get_running_loop()
        stop, at_once = asyncio.Event(), asyncio.Event()
        causes: list[str] = []

        def on_signal(number: signal.Signals) -> None:
            if causes:
                at_once.set()
            causes.append(number.name)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.ask)
        try:
            await self._services.start()
            return await self._supervisor.run(stop, at_once, cause=lambda: causes[0], deadline=self._deadline)
        finally:
            await self._services.stop()

    def _deadline(self) -> float:
        config = self._reload.config
        return config.uplink.drain_timeout + (config.downlink.drain_timeout if config.downlinks else 0)
