"""Logging of the process: one line an event, for people on a terminal and as JSON for machines otherwise."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Literal, TextIO

Format = Literal["auto", "text", "json"]
_MARK = "_spanbridge"


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """``text`` with control characters escaped: what a device wrote can neither forge lines nor steer terminals."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class TextFormatter(logging.Formatter):
    """``12:00:00.123 WARNING  mqtt.source: text``; control characters in a text are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix("spanbridge.")
        text = one_line(record.getMessage())
        line = f"{moment}.{int(record.msecs):03d} {record.levelname:<8} {name}: {text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, ``exception`` if any."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        line = json.dumps(found, ensure_ascii=False)
        return _CONTROL.sub(lambda one: f"\\u{ord(one[0]):04x}", line)  # those that JSON allows as they are


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure(form: Format = "auto", level: str = "info") -> None:
    """Log to standard error; ours from ``level`` up, other libraries' warnings. Doing it again replaces it."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = _Stderr()
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    setattr(handler, _MARK, True)
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, _MARK, False)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("spanbridge").setLevel(level.upper())
    # It warns of each trace state that it does not understand: at the rate of devices' messages.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
