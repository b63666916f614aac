"""How help looks: no type beside a flag, which takes no value, and paragraphs that fill the terminal's width."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command whose help a person reads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.help = flowing(self.help)

    def get_params(self, ctx: Any) -> Any:
        """The parameters, of which flags show no type."""
        return _without_types(super().get_params(ctx))


class CommandGroup(TyperGroup):
    """The same for a group of commands."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.help = flowing(self.help)

    def get_params(self, ctx: Any) -> Any:
        """The parameters, of which flags show no type."""
        return _without_types(super().get_params(ctx))


def use_plain_help(app: typer.Typer) -> typer.Typer:
    """Have ``app`` and all that is below it show its help so."""
    if _is_default(app.info.cls):
        app.info.cls = CommandGroup
    for command in app.registered_commands:
        if command.cls in (None, TyperCommand):
            command.cls = PlainCommand
    for group in app.registered_groups:
        if _is_default(group.cls):
            group.cls = CommandGroup
        if group.typer_instance is not None:
            use_plain_help(group.typer_instance)
    return app


def _is_default(group: object) -> bool:
    return not isinstance(group, type) or group is TyperGroup


def flowing(text: str | None) -> str | None:
    """``text`` with its paragraphs as one line each, which typer would break where the source did."""
    if text is None:
        return None
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _without_types(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters
