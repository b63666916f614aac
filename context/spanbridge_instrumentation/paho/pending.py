"""Publishes whose acknowledgement is still to come.

Keyed by the identity of paho's ``MQTTMessageInfo``, which is one a publish: packet identifiers are used again after
65 535 messages, and QoS 0 and QoS 1 share them. Who takes a publish out of the table ends it: exactly once, whichever
thread is first. No locks: each step is one dictionary operation.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode
from paho.mqtt.enums import MQTTErrorCode

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.current import NOTHING, SPAN_KEY
from spanbridge_instrumentation._shared.delivery import Attributes
from spanbridge_instrumentation._shared.safety import call_hook, end_span, error_type, internal_error

from .active import PahoClientState, PahoInstrumentation
from .options import MAX_PENDING

ACK_TIMEOUT: Final = "acknowledgement_timeout"
TOO_MANY: Final = "too_many_pending"
DISCONNECTED: Final = "disconnected"
CLIENT_GONE: Final = "client_gone"
DROPPED: Final = "dropped"
REASON_CODE: Final = "messaging.mqtt.reason_code"

_FAILURE = 0x80  # MQTT 5.0 section 2.4: reason codes of 0x80 or greater indicate failure
_NO_ERROR = (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN)
_MAX_REFUSED = 256


class Publish:
    """One publish from the call to its end."""

    __slots__ = ("info", "instrumentation", "labels", "recorded", "span", "started", "state")

    def __init__(
        self,
        instrumentation: PahoInstrumentation,
        state: PahoClientState,
        span: Span,
        labels: Attributes,
        recorded: bool,
    ) -> None:
        self.recorded = recorded
        self.instrumentation = instrumentation
        self.state = state
        self.span = span
        self.labels = labels
        self.started = perf_counter()
        self.info: Any = None

    def end(self, error: str | None = None, reason: Any = None) -> None:
        """End the span and record the metrics. ``reason`` is the broker's reason code, when there is one."""
        try:
            elapsed = perf_counter() - self.started
            if reason is not None and error is None and reason.value >= _FAILURE:
                error = reason.getName()
            labels = self.labels if error is None else {**self.labels, semconv.ERROR_TYPE: error}
            context = Context({SPAN_KEY: self.span}) if self.recorded else NOTHING
            self.instrumentation.telemetry.sent(elapsed, labels, context=context)
            if self.recorded:
                self._finish_span(self.span, error, reason)
        except Exception:  # noqa: BLE001
            internal_error("end of a send span")
        finally:
            end_span(self.span)

    def raised(self, error: BaseException) -> None:
        """``publish`` itself raised."""
        try:
            if self.span.is_recording():
                self.span.record_exception(error)
        except Exception:  # noqa: BLE001
            internal_error("exception of a send span")
        self.end(error_type(error))

    def _finish_span(self, span: Span, error: str | None, reason: Any) -> None:
        if reason is not None:
            span.set_attribute(REASON_CODE, reason.value)
        if error is not None:
            span.set_attribute(semconv.ERROR_TYPE, error)
            span.set_status(Status(StatusCode.ERROR, error))
        hook = self.instrumentation.options.ack_hook
        if hook is not None and self.info is not None:
            call_hook("an ack hook", hook, span, self.info, reason)


class Pending:
    """The table. Bounded in number and in time: the oldest give way, with an error that says so."""

    def __init__(self, limit: int = MAX_PENDING) -> None:
        self._limit = limit
        self.open: Final[dict[int, Publish]] = {}
        # Refusals that arrived before ``publish`` returned: the info is held, so that its id stays its own.
        self._refused: dict[int, tuple[Any, Any]] = {}
        self._gone: deque[PahoClientState] = deque()

    def __len__(self) -> int:
        return len(self.open)

    def wait(self, publish: Publish, info: Any) -> None:
        """``publish`` returned ``info``: end now what is over, keep the rest until its acknowledgement.

        The acknowledgement may have been read by the network thread before ``publish`` returned. So the publish is
        entered first and looked at second, while the network thread marks the info first and looks into the table
        second: one of the two sees the other.
        """
        publish.info = info
        if self._gone:
            self.give_up_gone()
        if info.rc not in _NO_ERROR:
            # What paho keeps for the next connection (QoS 1 and 2) failed all the same, as the caller was told.
            publish.end(error_of(info.rc))
            return
        # QoS 0, as a rule, which nobody else will hear of. A refusal is noted before the info is marked.
        if _is_published(info) and not self._refused:
            publish.end(error_of(info.rc) if info.rc else None)
        else:
            self.open[id(info)] = publish
            if _is_published(info):
                self.published(info)
        if self.open:
            self._make_room(publish.started - publish.instrumentation.options.ack_timeout)

    def acknowledged(self, info: Any, reason: Any) -> None:
        """The broker's PUBACK or PUBCOMP arrived, with its reason code."""
        publish = self.open.pop(id(info), None)
        if publish is not None:
            publish.end(reason=reason)
        elif reason.value >= _FAILURE:
            while len(self._refused) >= _MAX_REFUSED:
                self._refused.pop(next(iter(self._refused)), None)
            self._refused[id(info)] = (info, reason)

    def published(self, info: Any) -> None:
        """paho marked the info: handed to the socket (QoS 0), acknowledged, or given up with an error in ``rc``."""
        publish = self.open.pop(id(info), None)
        if publish is None:
            return
        _, reason = self._refused.pop(id(info), (None, None)) if self._refused else (None, None)
        publish.end(error_of(info.rc) if info.rc else None, reason)

    def give_up(self, infos: list[Any], error: str) -> None:
        """These will not be acknowledged."""
        for info in infos:
            publish = self.open.pop(id(info), None)
            if publish is not None:
                publish.end(error)

    def give_up_client(self, state: PahoClientState, error: str) -> None:
        """Nothing of this client will be acknowledged any more."""
        self.give_up([each.info for each in list(self.open.values()) if each.state is state], error)

    def client_gone(self, state: PahoClientState) -> None:
        """The client was garbage collected. Remembered only, for the next publish: a collection may run wherever memory
        is asked for, in a thread that holds one of the SDK's locks, and ending a span asks for these.
        """
        self._gone.append(state)

    def give_up_gone(self) -> None:
        """End what clients left behind that are gone."""
        while self._gone:
            try:
                state = self._gone.popleft()
            except IndexError:  # another thread was faster
                return
            self.give_up_client(state, CLIENT_GONE)

    def give_up_all(self, error: str = CLIENT_GONE) -> None:
        """Nothing will be acknowledged any more: the process ends."""
        self.give_up([each.info for each in list(self.open.values())], error)

    def _make_room(self, oldest: float) -> None:
        while self.open:
            try:
                key, publish = next(iter(self.open.items()))
            except (StopIteration, RuntimeError):  # another thread changed the table: the next publish looks again
                return
            if publish.started >= oldest and len(self.open) <= self._limit:
                return
            if self.open.pop(key, None) is not None:
                publish.end(ACK_TIMEOUT if publish.started < oldest else TOO_MANY)


def _is_published(info: Any) -> bool:
    # Not ``is_published()``, which takes a lock, and raises where the message was given up.
    return bool(info._published or info.rc not in _NO_ERROR)


def error_of(rc: int) -> str:
    """``error.type`` of a paho return code: its name."""
    try:
        return MQTTErrorCode(rc).name
    except ValueError:
        return f"MQTT_ERR_{rc}"


PENDING: Final = Pending()
