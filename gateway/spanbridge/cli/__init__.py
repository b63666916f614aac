"""The command line.

Only the standard library is imported here: without the ``gateway`` extra, the command says what to install.
"""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec

from spanbridge.cli import exits
from spanbridge.cli.running import plain_run, run_gateway
from spanbridge.installing import install_command


def main() -> None:
    """Entry point of the ``spanbridge`` command. Ends the process with the command's exit code."""
    try:
        _main()
    except KeyboardInterrupt:  # while something was still being imported
        sys.exit(130)


def _main() -> None:
    if find_spec("typer") is None:  # the base install has no dependencies
        sys.stderr.write(f"spanbridge: the command line needs its extra: {install_command('gateway')}\n")
        sys.exit(exits.USAGE)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a locale that cannot write "…" is no reason to fail
    if (file := plain_run(sys.argv[1:])) is not None:
        sys.exit(run_gateway(file))
    from spanbridge.cli.commands import build  # noqa: PLC0415

    build()()
