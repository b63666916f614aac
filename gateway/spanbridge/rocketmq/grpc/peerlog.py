"""gRPC's own log lines, as events of ours: counted, and limited like everything else."""

from __future__ import annotations

import logging

from spanbridge.ports import Reporter
from spanbridge.rocketmq.events import GrpcNotice

_LONGEST = 200


class GrpcLogHandler(logging.Handler):
    """Hands gRPC's log records to a reporter. A traceback becomes the name and text of its exception."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Report ``record``. Never raises."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        except Exception as fault:  # noqa: BLE001 - a record that does not format must not end the caller
            text = f"a record that does not format, {type(fault).__name__}"
        line = " ".join(text.split())
        self._reporter.report(GrpcNotice(logger=record.name, cause=line[:_LONGEST]))


def take_over(reporter: Reporter) -> None:
    """Send what gRPC logs to ``reporter`` from now on, and nowhere else. The last reporter has it."""
    logger = logging.getLogger("grpc")
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, GrpcLogHandler)]
    logger.addHandler(GrpcLogHandler(reporter))
    logger.propagate = False
