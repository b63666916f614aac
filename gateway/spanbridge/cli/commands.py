"""The commands. What a command needs is imported when it runs, so that ``--help`` and ``run`` stay light."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import spanbridge
from spanbridge.cli import exits, spool
from spanbridge.cli.help import use_plain_help
from spanbridge.cli.lag import EPILOG as LAG_EPILOG
from spanbridge.cli.lag import lag
from spanbridge.cli.plugins import add_plugins
from spanbridge.cli.profile import EPILOG as PROFILE_EPILOG
from spanbridge.cli.profile import profile
from spanbridge.cli.running import DEFAULT_FILE, MissingPackageError, complain, installed, run_gateway
from spanbridge.core.errors import ConfigError, SpanbridgeError

if TYPE_CHECKING:
    from spanbridge.app.findings import PeerFinding
    from spanbridge.config import Config

ConfigFile = Annotated[
    Path,
    typer.Option("-c", "--config", metavar="FILE", envvar="SPANBRIDGE_CONFIG", help="Configuration file (TOML)."),
]


def build() -> typer.Typer:
    """The whole command line, with the commands that other parts plug in."""
    app = typer.Typer(
        name="spanbridge",
        help="Gateway between MQTT and Apache RocketMQ that carries one W3C trace context across both.",
        epilog="Example: spanbridge init && spanbridge check && spanbridge run",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    app.command(epilog="Example: spanbridge run -c spanbridge.toml")(run)
    app.command(
        epilog="Example: spanbridge check -c spanbridge.toml --connect\n\n"
        "Example: spanbridge check --json | jq .problems"
    )(check)
    app.command(epilog=LAG_EPILOG)(lag)
    app.command(epilog=PROFILE_EPILOG)(profile)
    app.command(epilog="Example: spanbridge init /etc/spanbridge/spanbridge.toml")(init)
    app.command(epilog="Example: spanbridge version")(version)
    reference = typer.Typer(
        help="Reference of the configuration.", epilog="Example: spanbridge config docs | less", no_args_is_help=True
    )
    reference.command(epilog="Example: spanbridge config schema > spanbridge.schema.json")(schema)
    reference.command(epilog="Example: spanbridge config docs > configuration.md")(docs)
    app.add_typer(reference, name="config")
    app.add_typer(spool.build(), name="spool")
    add_plugins(app)
    return use_plain_help(app)


def _version_and_exit(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit(exits.OK)


def root(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version_and_exit, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def run(config: ConfigFile = DEFAULT_FILE) -> None:
    """Run the gateway until SIGTERM or Ctrl-C, then drain and stop. SIGHUP reads the configuration again.

    Warnings and errors go to standard error, as JSON lines where the log is written so
    (telemetry.log_format).

    Exit codes: 0 stopped in order, 1 failed at run time, 2 the configuration (or an
    OTEL_* variable) has errors.
    """
    raise typer.Exit(run_gateway(config))


def check(
    config: ConfigFile = DEFAULT_FILE,
    connect: Annotated[
        bool, typer.Option("--connect", help="Ask the MQTT brokers and RocketMQ as well, as the gateway would.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    schema_wanted: Annotated[bool, typer.Option("--schema", help="Print the JSON schema and check nothing.")] = False,
) -> None:
    """Check a configuration and tell everything that is wrong with it.

    Without --connect it connects to nothing. With it, each MQTT connection subscribes under a client id of its own
    and takes no message out of the gateway's session, and RocketMQ is asked for each topic that the file names and each
    consumer group of its downlinks. Nothing is published or received.

    Exit codes: 0 fine, 1 something did not answer, is missing or was refused (--connect only), 2 the configuration
    (or an OTEL_* variable) has errors (with --strict: or warnings).
    """
    if schema_wanted:
        schema()
        return
    with _installed():
        from spanbridge.cli.present import print_json, show_problems, show_valid  # noqa: PLC0415
        from spanbridge.config import examine  # noqa: PLC0415

    report = examine(config, os.environ)
    if report.config is not None:
        report = report.with_error(_telemetry_problem(report.config))
    failed = bool(report.errors or (strict and report.warnings))
    findings = _ask(report.config) if connect and report.config is not None and not failed else None
    if as_json:
        print_json(config, report, findings)
    else:
        show_problems(config, report, stream=sys.stdout)
        if report.config is not None:
            show_valid(config, report.config)
        if findings is not None:
            from spanbridge.cli.peers import show_findings  # noqa: PLC0415

            show_findings(findings, stream=sys.stdout)
    if failed:
        raise typer.Exit(exits.USAGE)
    if findings is not None and not all(finding.ok for finding in findings):
        raise typer.Exit(exits.FAILURE)


def _telemetry_problem(config: Config) -> str | None:
    """What `run` would end with at once: an OTEL_* variable that cannot be used."""
    with _installed():
        from spanbridge.app.environment import telemetry_problem  # noqa: PLC0415

        return telemetry_problem(config, os.environ)


def _ask(config: Config) -> list[PeerFinding]:
    """What both sides say. Ends the process when it is interrupted."""
    with _installed():
        from spanbridge.app.connect import ask_both_sides  # noqa: PLC0415

    try:
        return ask_both_sides(config)
    except KeyboardInterrupt:
        raise typer.Exit(exits.INTERRUPTED) from None
    except SpanbridgeError as error:
        complain(str(error))
        raise typer.Exit(exits.USAGE if isinstance(error, ConfigError) else exits.FAILURE) from None


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; - for standard output.")] = DEFAULT_FILE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    systemd: Annotated[
        Path | None, typer.Option("--systemd", metavar="DIR", help="Write a systemd unit and its examples.")
    ] = None,
    compose: Annotated[
        Path | None, typer.Option("--compose", metavar="DIR", help="Write the whole stack for docker compose.")
    ] = None,
    kubernetes: Annotated[
        Path | None, typer.Option("--kubernetes", metavar="DIR", help="Write Kubernetes manifests.")
    ] = None,
) -> None:
    """Write a commented configuration to start from. It is valid as it stands.

    With --systemd, --compose or --kubernetes: write what runs the gateway instead.
    """
    if systemd or compose or kubernetes:
        from spanbridge.cli.kits import write_kits  # noqa: PLC0415

        if file != DEFAULT_FILE:
            complain(f"{file}: a FILE cannot be combined with --systemd, --compose or --kubernetes")
            raise typer.Exit(exits.USAGE)
        write_kits(systemd=systemd, compose=compose, kubernetes=kubernetes, force=force)
        return
    from spanbridge.config.example import EXAMPLE  # noqa: PLC0415

    if str(file) == "-":
        sys.stdout.write(EXAMPLE)
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(EXAMPLE)
    except FileExistsError:
        complain(f"{file} exists; --force overwrites it")
        raise typer.Exit(exits.USAGE) from None
    except OSError as error:
        complain(f"cannot write {file}: {(error.strerror or str(error)).lower()}")
        raise typer.Exit(exits.FAILURE) from None
    sys.stdout.write(f"wrote {file}; next: spanbridge check -c {file}\n")


def version() -> None:
    """Print the version."""
    sys.stdout.write(f"spanbridge {spanbridge.__version__}\n")


def schema() -> None:
    """Print the JSON schema of the configuration, for editors and CI."""
    with _installed():
        from spanbridge.config.docs import json_schema  # noqa: PLC0415

    sys.stdout.write(json_schema())


def docs() -> None:
    """Print the configuration reference (Markdown)."""
    with _installed():
        from spanbridge.config.docs import markdown  # noqa: PLC0415

    sys.stdout.write(markdown())


@contextmanager
def _installed() -> Iterator[None]:
    """Say which extra brings a missing package: another extra may have brought this command line."""
    try:
        with installed():
            yield
    except MissingPackageError as error:
        complain(str(error))
        raise typer.Exit(exits.USAGE) from None
