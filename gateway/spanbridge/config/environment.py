"""What the environment adds to the file: ``${NAME}`` inside strings, and overrides named by path.

Values that came from the environment are text and stay marked as such (:class:`EnvText`), so that a setting that is a
number may be given as ``"${PORT}"`` while a quoted number written by hand stays the type error it is.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from spanbridge.config.problems import Finding, Loc

PREFIX = "SPANBRIDGE__"

_LISTS = ("mqtt", "routes", "downlinks")
"""Lists of tables at the top of the file. `mqtt` may also be written as one table."""

# `$${` stands for a literal `${`. Names follow POSIX (IEEE Std 1003.1, section 8.1), the default syntax its shell's
# `${parameter:-word}`: the word is taken when the variable is unset or empty.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{)")


class EnvText(str):
    """Text that came, wholly or in part, from the environment."""

    __slots__ = ()


class DigitsError(ValueError):
    """A whole number of more than some thousand digits, which Python refuses to convert."""


def parse(text: str) -> dict[str, Any]:
    """TOML to Python objects.

    :raises tomllib.TOMLDecodeError: the text is not TOML.
    :raises DigitsError: it holds a number that is too long.
    :raises RecursionError: it is nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        raise DigitsError(str(error)) from None


def plain_value(text: str) -> Any:
    """Read ``text`` as a TOML value (number, boolean, array, inline table); return it unchanged if it is none."""
    try:
        return parse(f"value = {text}\n")["value"]
    except (ValueError, RecursionError):  # the latter is a long row of brackets
        return str(text)


def interpolate(data: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Finding]]:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in all strings of parsed TOML; keys are left alone."""
    findings: list[Finding] = []

    def visit(value: Any, loc: Loc) -> Any:
        if isinstance(value, dict):
            return {key: visit(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [visit(item, (*loc, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and not isinstance(value, EnvText) and "${" in value:
            return _expand(
                value, environ, lambda what, hint: findings.append(Finding(loc=loc, message=what, hint=hint))
            )
        return value

    return visit(data, ()), findings


def _expand(text: str, environ: Mapping[str, str], complain: Callable[[str, str], None]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match["broken"]:
            complain(
                "`${` does not start a reference", "write `${NAME}`, `${NAME:-default}`, or `$${` for a plain `${`"
            )
            return ""
        name, default = match["name"], match["default"]
        if name is None:
            return "${"
        if default is not None:
            return environ.get(name) or str(default)
        if name not in environ:
            complain(f"environment variable {name} is not set", f"set it, or give a default: `${{{name}:-…}}`")
        return environ.get(name, "")

    return EnvText(_REFERENCE.sub(replace, text))


def apply_overrides(data: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[Loc, str], list[Finding]]:
    """Write ``SPANBRIDGE__A__B=value`` into ``data`` at ``a.b``; list items go by index or by their ``name``.

    A single broker may be written as a table or as a list of one, and is reached in both forms with its index, its name
    or neither: ``SPANBRIDGE__MQTT__0__URL`` is always the URL of the first.

    Returns which variable set which location, and what could not be placed.
    """
    sources: dict[Loc, str] = {}
    findings: list[Finding] = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        steps = variable[len(PREFIX) :].lower().split("__")
        try:
            sources[_place(data, steps, EnvText(environ[variable]))] = variable
        except LookupError as error:
            findings.append(Finding(loc=(), message=str(error.args[0]), source=variable))
    return sources, findings


def _place(data: dict[str, Any], steps: list[str], value: EnvText) -> Loc:
    """Set ``value`` at the end of ``steps``, making tables on the way.

    :raises LookupError: a step leads nowhere; the message says which.
    """
    if not all(steps):
        raise LookupError("the variable's name has an empty part; write SPANBRIDGE__SECTION__SETTING")
    if len(steps) > 1 and steps[0] in _LISTS:
        steps = _with_index(data, steps)
    node: Any = data
    loc: list[str | int] = []
    for position, step in enumerate(steps):
        key = _index(node, step) if isinstance(node, list) else step
        loc.append(key)
        if position == len(steps) - 1:
            node[key] = value
            break
        node = _enter(node, key, loc)
    return tuple(loc)


def _with_index(data: dict[str, Any], steps: list[str]) -> list[str]:
    """``steps`` as the list that they lead into is written: a single broker's table has no index, a list needs one."""
    name, item, *rest = steps
    if name != "mqtt":
        data.setdefault(name, [])
        return steps
    written = data.setdefault(name, {})
    if isinstance(written, dict) and rest and (item == "0" or _folded(written.get("name")) == _folded(item)):
        return [name, *rest]
    if isinstance(written, dict) and rest and item.isdecimal():
        raise LookupError(f"there is no item {item}: `[mqtt]` is a single table; several are written `[[mqtt]]`")
    named = isinstance(written, list) and any(_is_named(one, item) for one in written)
    if isinstance(written, list) and not named and not item.isdecimal():
        if len(written) != 1:
            raise LookupError(f"no item of the list is named `{item}`; write {PREFIX}MQTT__0__… for the first")
        return [name, "0", item, *rest]
    return steps


def _enter(node: Any, key: Any, loc: list[str | int]) -> Any:
    inner = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
    if isinstance(inner, dict | list):
        return inner
    where = ".".join(map(str, loc))
    raise LookupError(f"`{where}` is not a table, so nothing can be set inside it")


def _index(items: list[Any], step: str) -> int:
    """The position that ``step`` means in a list: a number (one past the end appends), or an item's name."""
    if step.isdecimal():
        index = int(step)
        if index == len(items):
            items.append({})
        if index < len(items):
            return index
        raise LookupError(f"there is no item {index}: the list has {len(items)}")
    for index, item in enumerate(items):
        if _is_named(item, step):
            return index
    raise LookupError(f"no item of the list is named `{step}`")


def _is_named(item: Any, step: str) -> bool:
    return isinstance(item, dict) and _folded(item.get("name")) == _folded(step)


def _folded(name: object) -> str:
    """Names as an environment variable can spell them: lower case, everything else an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower())
