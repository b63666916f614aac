"""Logging of the process: one line an event, for people on a terminal and as JSON for machines otherwise."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from typing import Literal

from spanbridge.telemetry.log.foreign import Foreign
from spanbridge.telemetry.log.writer import fill_closed_descriptors, is_terminal, standard, writer

Format = Literal["auto", "text", "json"]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """``text`` with control characters escaped: what a device wrote can neither forge lines nor steer terminals."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class TextFormatter(logging.Formatter):
    """``12:00:00.123 WARNING  mqtt.source: text``; control characters in a text are escaped.

    One worker of several has its number before the logger: ``12:00:00.123 WARNING  [2] mqtt.source: text``.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = "" if worker is None else f"[{worker}] "

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix("spanbridge.")
        text = one_line(record.getMessage())
        line = f"{moment}.{int(record.msecs):03d} {record.levelname:<8} {self._worker}{name}: {text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, ``exception`` if any.

    Of an event also its name as ``event``, and its ``fields``: what the message is made of. Of one worker of several
    also its number as ``worker``.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker: dict[str, object] = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._worker,
            "logger": record.name,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if event is not None:
            found["event"], found["fields"] = event, getattr(record, "fields", {})
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        line = json.dumps(found, ensure_ascii=False, default=str)
        return _CONTROL.sub(lambda one: f"\\u{ord(one[0]):04x}", line)  # those that JSON allows as they are


class _Stderr(logging.Handler):
    """Writes to whatever standard error is at the time. Never waits for its reader and never raises."""

    def __init__(self) -> None:
        super().__init__()
        self._foreign = Foreign()

    def start(self) -> None:
        """Start what writes, so that the first line of the event loop does not wait for that."""
        if standard(sys.stderr, 2):
            writer(2, self._dropped).start()

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if stream is None:
            return
        try:
            shown = self._foreign.shown(record)
            if shown is None:
                return
            line = f"{self.format(shown)}\n"
            if standard(stream, 2):
                writer(2, self._dropped).write(line)
            else:
                stream.write(line)
                stream.flush()
        except Exception:  # noqa: BLE001 - logging can never stop the gateway; there is nobody left to tell
            return

    def _dropped(self, count: int) -> str:
        text = f"{count} log line(s) were dropped: nobody read standard error"
        record = logging.LogRecord("spanbridge.telemetry", logging.WARNING, "", 0, text, None, None)
        return f"{self.format(record)}\n"


def configure(form: Format = "auto", level: str = "info", worker: int | None = None) -> None:
    """Log to standard error; ours from ``level`` up, other libraries' warnings. Doing it again replaces it.

    ``worker`` is the number that each line has, where there are several.
    """
    fill_closed_descriptors()
    # gRPC's C core writes to standard error by itself, past our log and its rate limits. It reads this when it loads.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    text = form == "text" or (form == "auto" and is_terminal(sys.stderr))
    handler = _Stderr()
    handler.setFormatter(TextFormatter(worker) if text else JsonFormatter(worker))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    handler.start()
    logging.getLogger("spanbridge").setLevel(level.upper())
    # It warns of each trace state that it does not understand: at the rate of devices' messages.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
