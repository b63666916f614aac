"""One call to the client: its span, how long it took, how it ended."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Token
from time import perf_counter
from typing import Any, ClassVar

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.current import SPAN_KEY
from spanbridge_instrumentation._shared.delivery import Attributes, Destination
from spanbridge_instrumentation._shared.safety import end_span, error_type, internal_error, text_of

from .active import RocketMQInstrumentation

Original = Callable[..., Any]


class Operation:
    """The span of one call, from its start to :meth:`end`, which may be in another thread.

    ``parent`` is the context that the call was made in, or what stands for it. ``attributes`` are said in place of the
    destination's.
    """

    __slots__ = ("_context", "_open", "_started", "_token", "instrumentation", "labels", "parent", "span")

    sends: ClassVar[bool] = False
    """Whether its messages are counted as sent."""

    def __init__(
        self,
        instrumentation: RocketMQInstrumentation,
        destination: Destination,
        kind: SpanKind,
        parent: Context,
        links: Sequence[Link] = (),
        *,
        attributes: Attributes | None = None,
    ) -> None:
        self._started = perf_counter()
        self._open = [True]  # who takes it out ends the operation: its future and its client's shutdown may race
        self._token: Token[Context] | None = None
        self.instrumentation = instrumentation
        self.labels = destination.labels
        self.parent = parent
        self.span: Span = instrumentation.telemetry.tracer.start_span(
            destination.name, parent, kind, destination.attributes if attributes is None else attributes, links
        )
        self._context = Context({**parent, SPAN_KEY: self.span})

    def enter(self) -> None:
        """Make the span current, for what the client does and logs in the call."""
        self._token = attach(self._context)

    def leave(self) -> None:
        """Make current what was before."""
        token, self._token = self._token, None
        if token is not None:
            detach(token)

    def end(self, error: BaseException | str | None = None) -> None:
        """End the span, record the metrics; a text is an ``error.type``. Never raises; does nothing the second time."""
        try:
            self._open.pop()
        except IndexError:
            return
        try:
            self._release()
            elapsed = perf_counter() - self._started
            labels = self.labels
            if error is not None:
                labels = {**labels, semconv.ERROR_TYPE: error if isinstance(error, str) else error_type(error)}
                fail(self.span, error)
            record = self.instrumentation.telemetry
            if self.sends:
                record.sent(elapsed, labels, context=self._context)
            else:
                record.operated(elapsed, labels, self._context)
        except Exception:  # noqa: BLE001
            internal_error("the end of a call")
        finally:
            end_span(self.span)

    def _release(self) -> None:
        """Give back what the operation used. Called once."""


def fail(span: Span, error: BaseException | str) -> None:
    """Tell the span's error."""
    if not span.is_recording():
        return
    if isinstance(error, str):
        span.set_attribute(semconv.ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR))
    else:
        span.set_attribute(semconv.ERROR_TYPE, error_type(error))
        span.set_status(Status(StatusCode.ERROR, text_of(error)))
        try:
            span.record_exception(error)
        except Exception:  # noqa: BLE001  an exception of the user's that cannot be printed
            internal_error("the exception of a call")


def call(operation: Operation | None, original: Original, *args: Any, **kwargs: Any) -> Any:
    """Make the call inside the operation's span; ends the operation when the call raises, and only then."""
    if operation is None:
        return original(*args, **kwargs)
    operation.enter()
    try:
        return original(*args, **kwargs)
    except BaseException as error:
        operation.end(error)
        raise
    finally:
        operation.leave()


def watch(future: Any, done: Callable[[Any, BaseException | None], None]) -> bool:
    """Call ``done(result, error)`` when the future is done, before any callback of the user; false for no future.

    The user's callbacks get the context that was current here: the client calls them in threads of its own.
    """
    if not isinstance(future, Future):
        return False

    def finish(ended: Future[Any]) -> None:
        try:
            error = None if ended.cancelled() else ended.exception()
            done(None if ended.cancelled() or error else ended.result(), error)
        except Exception:  # noqa: BLE001
            internal_error("the end of an asynchronous call")

    future.add_done_callback(finish)
    _carry_context(future, get_current())
    return True


def _carry_context(future: Future[Any], context: Context) -> None:
    here = weakref.ref(future)
    add = type(future).add_done_callback

    def add_done_callback(fn: Callable[[Future[Any]], object]) -> None:  # the name that the original has
        def in_context(ended: Future[Any]) -> None:
            token = attach(context)
            try:
                fn(ended)
            finally:
                detach(token)

        alive = here()
        if alive is not None:
            add(alive, in_context)

    future.add_done_callback = add_done_callback  # type: ignore[method-assign]
