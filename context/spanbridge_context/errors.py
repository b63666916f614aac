"""The one error the codec raises, and the words that say what was wrong with a context."""

DUPLICATE = "duplicate"
"""More than one parent was sent (W3C Trace Context allows one): the context is dropped."""

MALFORMED = "malformed"
"""The parent does not follow the grammar: the context is dropped."""

ZERO_ID = "zero_id"
"""The trace id or the span id is all zero: the context is dropped."""

TRACESTATE = "tracestate"
"""The tracestate does not follow the grammar: it is dropped, the parent is kept."""

BAGGAGE = "baggage"
"""Baggage members were malformed or over the limits: those are dropped, the rest and the parent are kept."""

PROBLEMS = (DUPLICATE, MALFORMED, ZERO_ID, TRACESTATE, BAGGAGE)
"""Every word that an extraction can report. A closed set, fit for a metric's label."""


class TraceContextError(ValueError):
    """A value is not what W3C Trace Context, W3C Baggage or the compact form allow.

    ``problem`` is one of :data:`PROBLEMS`. The message never repeats the value: it came from outside.
    """

    def __init__(self, message: str, problem: str = MALFORMED) -> None:
        super().__init__(message)
        self.problem = problem


def wrong_type(argument: str, wanted: str, value: object) -> TypeError:
    """The error for an argument that is no carrier: a mistake in the program, which no message can cause."""
    return TypeError(f"{argument}: {wanted} wanted, not {type(value).__name__}")
