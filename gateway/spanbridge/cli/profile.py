"""`spanbridge profile`: a CPU profile of a running gateway, or one from a file, as something to look at."""

from __future__ import annotations

import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spanbridge.cli import exits
from spanbridge.cli.running import DEFAULT_FILE, MissingPackageError, complain, installed

if TYPE_CHECKING:
    from spanbridge_profiling import Profile

EPILOG = (
    "Example: spanbridge profile --seconds 10\n\n"
    "Example: spanbridge profile http://edge-1:9464 --token file:/run/secrets/profiling --by spanbridge.stage\n\n"
    "Example: spanbridge profile cpu-4711-20261130T101500Z.pb.gz --format speedscope -o cpu.speedscope.json"
)
_ROWS = 5


class Format(StrEnum):
    """How a profile is written."""

    HTML = "html"
    PPROF = "pprof"
    SPEEDSCOPE = "speedscope"
    COLLAPSED = "collapsed"


_ENDINGS = {
    Format.HTML: "html",
    Format.PPROF: "pb.gz",
    Format.SPEEDSCOPE: "speedscope.json",
    Format.COLLAPSED: "collapsed.txt",
}


def profile(  # noqa: PLR0917 - the options of a command
    source: Annotated[
        str | None,
        typer.Argument(metavar="URL|FILE", help="Admin server to ask, or a pprof file. Default: as the file says."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", "-s", min=0.1, max=60, help="How long to look.")] = 10.0,
    form: Annotated[Format, typer.Option("--format", "-f", help="What to write. html is a flame graph.")] = Format.HTML,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; - for standard output."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="LABEL",
            help="html: one flame for each value of it: spanbridge.stage, spanbridge.route, thread, trace_id, ...",
        ),
    ] = "",
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="The setting profiling.token; file:PATH reads it from a file."),
    ] = None,
    config: Annotated[
        Path,
        typer.Option("-c", "--config", metavar="FILE", envvar="SPANBRIDGE_CONFIG", help="Configuration file (TOML)."),
    ] = DEFAULT_FILE,
) -> None:
    """Write a CPU profile of a running gateway as a flame graph: one HTML file, which is not opened.

    Asks the admin server (profiling.enabled has to be true there), whose address and token are taken from the
    configuration unless a URL is given. A pprof file, such as SPANBRIDGE_PROFILING=file writes, is converted.

    Exit codes: 0 written, 1 nobody answered, a profile is being made already, or a file cannot be read or written,
    2 wrong command line or configuration, profiles are off, or the token is missing or wrong.
    """
    try:
        with installed():
            name, content = _content(source, seconds, token, config)
            found = _read(content)
    except MissingPackageError as error:
        complain(str(error))
        raise typer.Exit(exits.USAGE) from None
    except KeyboardInterrupt:
        raise typer.Exit(exits.INTERRUPTED) from None
    path = output or Path(f"spanbridge-{time.strftime('%Y%m%dT%H%M%S')}.{_ENDINGS[form]}")
    _write(path, content if form is Format.PPROF else _written(found, form, f"CPU of {name}", by).encode())
    if str(path) != "-":
        _tell(found, path)


def _content(source: str | None, seconds: float, token: str | None, config: Path) -> tuple[str, bytes]:
    """A name for it, and a pprof profile.

    :raises typer.Exit: there is none to be had.
    """
    if source is not None and "://" not in source:
        try:
            return Path(source).name, Path(source).read_bytes()
        except OSError as error:
            raise _failed(f"cannot read {source}: {(error.strerror or str(error)).lower()}") from None
    from spanbridge.cli.profile_client import PROFILE, ProfileRefused, fetch, from_config, read_token  # noqa: PLC0415

    try:
        url, known = (source, None) if source is not None else from_config(config, os.environ)
        given = known if token is None else read_token(token)
        return url.removesuffix(PROFILE), fetch(url, seconds, given)
    except ProfileRefused as error:
        raise _failed(str(error), error.code) from None


def _failed(text: str, code: int = exits.FAILURE) -> typer.Exit:
    complain(text)
    return typer.Exit(code)


def _read(content: bytes) -> Profile:
    from spanbridge_profiling.reading import UnreadableProfile, read_pprof  # noqa: PLC0415

    try:
        return read_pprof(content)
    except UnreadableProfile as error:
        raise _failed(str(error)) from None


def _written(found: Profile, form: Format, title: str, by: str) -> str:
    match form:
        case Format.COLLAPSED:
            from spanbridge_profiling.collapsed import write_collapsed  # noqa: PLC0415

            return write_collapsed(found)
        case Format.SPEEDSCOPE:
            from spanbridge_profiling.speedscope import write_speedscope  # noqa: PLC0415

            return write_speedscope(found, title)
        case _:
            from spanbridge_profiling.flamegraph import write_flame_graph  # noqa: PLC0415

            return write_flame_graph(found, title, by=by)


def _write(path: Path, content: bytes) -> None:
    """Write the file, which appears complete or not at all."""
    if str(path) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise _failed(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None


def _tell(found: Profile, path: Path) -> None:
    """What the profile says in a few lines, and where it is."""
    from spanbridge_profiling.flamegraph import about  # noqa: PLC0415
    from spanbridge_profiling.flames import by_label, hottest, short  # noqa: PLC0415

    whole = found.cpu_ns or 1
    lines = list(about(found))
    stages = [(value, cpu) for value, cpu in by_label(found, "spanbridge.stage") if value]
    if stages:
        lines.append("stages: " + ", ".join(f"{value} {cpu / whole:.0%}" for value, cpu in stages[:_ROWS]))
    for frame, cpu in hottest(found.samples, _ROWS):
        lines.append(f"{cpu / whole:6.1%}  {frame.function} ({short(frame.file)}:{frame.line})")
    sys.stdout.write("\n".join([*lines, f"wrote {path}"]) + "\n")
