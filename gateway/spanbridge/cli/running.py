"""Running the gateway without the rest of the command line, which would stay in memory as long as it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spanbridge.cli import exits
from spanbridge.core.errors import ConfigError, SpanbridgeError
from spanbridge.installing import install_command

if TYPE_CHECKING:
    from spanbridge.config import Config

DEFAULT_FILE = Path("spanbridge.toml")


class MissingPackageError(SpanbridgeError):
    """A package that an extra brings is not installed."""

    reason = "config"


def plain_run(arguments: Sequence[str]) -> Path | None:
    """The configuration file of a ``run`` with nothing but that to parse; None where typer has to look at it.

    typer, click and rich are memory that an idle gateway would hold for ever (docs/adr/0065).
    """
    default = Path(os.environ.get("SPANBRIDGE_CONFIG") or DEFAULT_FILE)
    match list(arguments):
        case ["run"]:
            return default
        case ["run", "-c" | "--config", file] if not file.startswith("-"):
            return Path(file)
        case _:
            return None


def run_gateway(file: Path) -> int:
    """Read the configuration and run until a signal; the process's exit code."""
    try:
        with installed():
            from spanbridge.cli.present import as_json_lines, log_problems, show_problems  # noqa: PLC0415
            from spanbridge.config import examine  # noqa: PLC0415
    except MissingPackageError as error:
        complain(str(error))
        return exits.USAGE
    report = examine(file, os.environ)
    in_json = as_json_lines(report.log_format, sys.stderr)
    show = log_problems if in_json else show_problems
    show(file, report, stream=sys.stderr)
    return exits.USAGE if report.config is None else _run(report.config, file, in_json=in_json)


def _run(config: Config, file: Path, *, in_json: bool) -> int:
    try:
        with installed():
            if config.gateway.workers > 1:
                from spanbridge.app.supervise import supervise  # noqa: PLC0415

                return supervise(config, file)
            from spanbridge.app.run import run  # noqa: PLC0415

            return run(config, file)
    except MissingPackageError as error:
        complain(str(error))
        return exits.USAGE
    except SpanbridgeError as error:
        complain(str(error), in_json=in_json)
        return exits.USAGE if isinstance(error, ConfigError) else exits.FAILURE
    except KeyboardInterrupt:
        return exits.INTERRUPTED


@contextmanager
def installed() -> Iterator[None]:
    """Say which extra brings a missing package: another extra may have brought this command line.

    :raises MissingPackageError: naming the package and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = error.name or "?"
        if module.partition(".")[0] == "spanbridge":
            raise
        text = f"the package `{module}` is not installed: {install_command('gateway')}"
        raise MissingPackageError(text) from None


def complain(text: str, *, in_json: bool = False) -> None:
    """An error that ends the command, in the form of the log where that is JSON."""
    if in_json:
        from spanbridge.cli.present import json_line  # noqa: PLC0415

        sys.stderr.write(json_line("error", "spanbridge", text))
    else:
        sys.stderr.write(f"spanbridge: {text}\n")
