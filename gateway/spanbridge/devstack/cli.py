"""``spanbridge devstack``: real brokers from the command line."""

from __future__ import annotations

import time

import typer

from spanbridge.devstack.progress import for_terminal
from spanbridge.devstack.stack import Devstack

app = typer.Typer(help="Real brokers without docker or root.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Real brokers without docker or root."""


@app.command()
def up() -> None:
    """Start the brokers and keep them until Ctrl-C."""
    with Devstack.up(progress=for_terminal()) as stack:
        for name, value in stack.env().items():
            typer.echo(f"{name}={value}")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            typer.echo("stopping")
