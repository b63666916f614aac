"""Commands from the entry-point group ``spanbridge.commands``: listed without loading, loaded when called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points

import typer

from spanbridge.cli import exits
from spanbridge.cli.help import use_plain_help
from spanbridge.installing import install_command

GROUP = "spanbridge.commands"

# Ours are known here so that `--help` need not import them; any other plug-in says where it comes from.
_SUMMARIES = {
    "devstack": "Start and stop real MQTT brokers and a real RocketMQ on this machine.",
    "demo": "Follow one trace from simulated devices through the gateway to a RocketMQ consumer.",
}
_EXTRAS = {"devstack": ("devstack",), "demo": ("gateway", "devstack")}


def add_plugins(app: typer.Typer) -> None:
    """Add every plugged-in command to ``app``."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _add(app, entry)


def _add(app: typer.Typer, entry: EntryPoint) -> None:
    summary = _SUMMARIES.get(entry.name, f"Plug-in {entry.value}.")

    @app.command(
        name=entry.name,
        help=summary,
        add_help_option=False,  # `--help` belongs to the plug-in
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
    )
    def call(context: typer.Context) -> None:
        plugin = load(entry)
        with _installed(entry):
            plugin(args=list(context.args), prog_name=context.command_path)


def load(entry: EntryPoint) -> typer.Typer:
    """Import a plug-in, or say which extra is missing.

    :raises typer.Exit: something it needs is not installed.
    """
    with _installed(entry):
        plugin = entry.load()
    if not isinstance(plugin, typer.Typer):
        sys.stderr.write(f"spanbridge: the plug-in `{entry.value}` is not a typer application\n")
        raise typer.Exit(exits.USAGE)
    return use_plain_help(plugin)


@contextmanager
def _installed(entry: EntryPoint) -> Iterator[None]:
    """Say which extra brings a missing package, on loading a plug-in or while a command of it runs."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.stderr.write(f"spanbridge: {_missing(entry, error.name or '')}\n")
        raise typer.Exit(exits.USAGE) from None


def _missing(entry: EntryPoint, module: str) -> str:
    if module.partition(".")[0] == "spanbridge":
        return f"`{entry.name}` is not part of this installation ({module} is missing)"
    extras = _EXTRAS.get(entry.name)
    advice = f": {install_command(*extras)}" if extras else f"; install what {entry.value} needs"
    return f"`{entry.name}` needs the package `{module}`, which is not installed{advice}"
