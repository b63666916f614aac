"""Errors inside the instrumentation: told once each, never passed on to the code that is instrumented."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from opentelemetry.trace import Span

_P = ParamSpec("_P")
_T = TypeVar("_T")

LOG = logging.getLogger("spanbridge_instrumentation")
_told: set[str] = set()
_MAX_TOLD = 256


def warn_once(key: str, text: str, *args: object, exc_info: bool = False) -> None:
    """Log ``text % args`` as a warning, the first time only for each ``key``."""
    if key in _told or len(_told) >= _MAX_TOLD:
        return
    _told.add(key)
    LOG.warning(text, *args, exc_info=exc_info)


def internal_error(where: str) -> None:
    """Tell, once for each ``where``, that the instrumentation itself (or a hook given to it) failed.

    To be called in an ``except`` block; the message concerned goes its way, untraced from here on.
    """
    warn_once(
        f"internal:{where}", "instrumentation failed in %s; messages go on, possibly untraced", where, exc_info=True
    )


def call_hook(where: str, hook: Callable[_P, _T] | None, *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
    """Call a user's hook; what it raises is told once and goes no further."""
    if hook is None:
        return None
    try:
        return hook(*args, **kwargs)
    except Exception:  # noqa: BLE001  a hook must not fail the message
        internal_error(where)
        return None


def error_type(error: BaseException) -> str:
    """``error.type`` of an exception: its class's qualified name, without the module for built-in ones."""
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def text_of(error: BaseException) -> str:
    """What the exception says; empty when it cannot say it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  a class of the user's, whose error goes on as it is
        return ""


def end_span(span: Span) -> None:
    """End the span; what a span processor raises goes no further."""
    try:
        span.end()
    except Exception:  # noqa: BLE001
        internal_error("end of a span")


def choice(variable: str, allowed: tuple[str, ...], default: str, given: str | None = None) -> str:
    """An option from a keyword (``given``) or the environment; a wrong value is told once and replaced by the default.

    A keyword that is wrong is a programming error and raises.

    :raises ValueError: ``given`` is none of ``allowed``.
    """
    if given is not None:
        if given not in allowed:
            raise ValueError(f"{given!r} is none of {', '.join(allowed)}")
        return given
    value = os.environ.get(variable, "").strip().lower()
    if not value:
        return default
    if value not in allowed:
        warn_once(f"env:{variable}", "%s=%r is none of %s; using %s", variable, value, ", ".join(allowed), default)
        return default
    return value


def number(variable: str, default: float, given: float | None = None) -> float:
    """A positive number from a keyword or the environment, as :func:`choice` does it.

    :raises ValueError: ``given`` is not above zero.
    """
    if given is not None:
        if given <= 0:
            raise ValueError(f"{given!r} is not above zero")
        return given
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        warn_once(f"env:{variable}", "%s=%r is no number above zero; using %s", variable, text, default)
        return default
    return value
