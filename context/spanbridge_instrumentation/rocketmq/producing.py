"""Messages that are sent: ``send``, ``send_async``, transactions, recalls."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Link, SpanContext, SpanKind, get_current_span
from rocketmq import TransactionChecker

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.registry import MessageRegistry
from spanbridge_instrumentation._shared.safety import call_hook, internal_error

from .active import (
    RocketMQClientState,
    RocketMQInstrumentation,
    instrumentation_of,
    instrumentation_of_state,
    new_state,
    state_of,
)
from .attributes import of_outgoing
from .carriers import Written, given_by_user, read, write
from .operations import Operation, Original, call, watch

SHUT_DOWN: Final = "shutdown"
"""``error.type`` of a message that the broker had not answered when its producer was shut down."""


class Sending(Operation):
    """One ``send``: its context is in the message until it ends."""

    __slots__ = ("state", "written")

    sends = True

    def __init__(
        self, instrumentation: RocketMQInstrumentation, state: RocketMQClientState, message: Any,
        given: SpanContext | None, parent: Context, *, transaction: bool,
    ) -> None:  # fmt: skip
        destination = state.destination("send", "send", message.topic)
        # PRODUCER only where it is the creation context (messaging spans convention, "Span kind").
        kind = SpanKind.PRODUCER if given is None else SpanKind.CLIENT
        links = () if given is None else (Link(given),)
        # What is said at a span's start costs least. Whether this one will be recorded, the last one tells, as a rule.
        attributes = None
        if state.recorded:
            attributes = {**destination.attributes, **of_outgoing(message, transaction=transaction)}
        super().__init__(instrumentation, destination, kind, parent, links, attributes=attributes)
        self.state = state
        self.written: Written | None = None
        recorded = self.span.is_recording()
        if recorded:
            if not state.recorded:
                self.span.set_attributes(of_outgoing(message, transaction=transaction))
            if instrumentation.options.send_hook is not None:
                call_hook("a send hook", instrumentation.options.send_hook, self.span, message)
        state.recorded = recorded

    def _release(self) -> None:
        """The message is the user's again."""
        self.state.unanswered.discard(self)
        if self.written is not None:
            try:
                self.written.take_back()
            except Exception:  # noqa: BLE001
                internal_error("restoring a message")

    def sent(self, receipt: Any) -> None:
        """The broker has it."""
        try:
            if self.span.is_recording():
                self.span.set_attribute(semconv.MESSAGE_ID, receipt.message_id)
                hook = self.instrumentation.options.receipt_hook
                if hook is not None:
                    call_hook("a receipt hook", hook, self.span, receipt)
        except Exception:  # noqa: BLE001
            internal_error("a receipt")
        self.end()


@dataclass(frozen=True, slots=True)
class _Half:
    """What commit and rollback say of the half message."""

    state: RocketMQClientState
    topic: str
    message_id: str
    span: SpanContext


_halves: Final[MessageRegistry[_Half]] = MessageRegistry()


def replace_send(original: Original) -> Original:
    """``Producer.send``: the span ends with the broker's answer. With a transaction it is a half message."""

    def send(producer: Any, message: Any, transaction: Any = None, **kwargs: Any) -> Any:
        sending = _begin(producer, message, transaction is not None)
        receipt = call(sending, original, producer, message, transaction, **kwargs)
        if sending is not None:
            if transaction is not None:
                _remember_half(producer, message, transaction, sending)
            sending.sent(receipt)
        return receipt

    return send


def replace_send_async(original: Original) -> Original:
    """``Producer.send_async``: the span ends when the future is done, not when the message is queued."""

    def send_async(producer: Any, message: Any, **kwargs: Any) -> Any:
        sending = _begin(producer, message, False)
        future = call(sending, original, producer, message, **kwargs)
        if sending is not None:

            def done(receipt: Any, error: BaseException | None) -> None:
                if receipt is None:
                    sending.end(error or CancelledError())
                else:
                    sending.sent(receipt)

            sending.state.unanswered.add(sending)
            if not watch(future, done):
                sending.end()
        return future

    return send_async


def replace_shutdown(original: Original) -> Original:
    """``Producer.shutdown``: the client drops the futures of what is under way, so its spans end here."""

    def shutdown(producer: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(producer, *args, **kwargs)
        finally:
            _give_up(producer)

    return shutdown


def replace_recall(original: Original) -> Original:
    """``Producer.recall_message``, which takes a delayed message back."""

    def recall_message(producer: Any, topic: Any, recall_handle: Any, **kwargs: Any) -> Any:
        operation = _recall(producer, topic)
        message_id = call(operation, original, producer, topic, recall_handle, **kwargs)
        if operation is not None:
            _recalled(operation, message_id)
        return message_id

    return recall_message


def replace_recall_async(original: Original) -> Original:
    """``Producer.recall_message_async``."""

    def recall_message_async(producer: Any, topic: Any, recall_handle: Any, **kwargs: Any) -> Any:
        operation = _recall(producer, topic)
        future = call(operation, original, producer, topic, recall_handle, **kwargs)
        if operation is not None:

            def done(message_id: Any, error: BaseException | None) -> None:
                if message_id is None:
                    operation.end(error or CancelledError())
                else:
                    _recalled(operation, message_id)

            if not watch(future, done):
                operation.end()
        return future

    return recall_message_async


def replace_commit(original: Original) -> Original:
    """``Transaction.commit``."""
    return _replace_resolution(original, "commit")


def replace_rollback(original: Original) -> Original:
    """``Transaction.rollback``."""
    return _replace_resolution(original, "rollback")


def replace_producer_init(original: Original) -> Original:
    """``Producer.__init__``: in the transaction checker, the half message's context is current."""

    def __init__(  # noqa: N807
        producer: Any, client_configuration: Any, topics: Any = None, checker: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        if isinstance(checker, TransactionChecker) and not isinstance(checker, _Checker):
            checker = _Checker(checker, new_state(producer))
        original(producer, client_configuration, topics, checker, *args, **kwargs)
        new_state(producer).identify(producer)

    return __init__


class _Checker(TransactionChecker):  # type: ignore[misc]
    """Stands before the user's checker: no span of its own, since the broker, not the application, started this."""

    def __init__(self, checker: Any, state: RocketMQClientState) -> None:
        self._checker = checker
        self._state = state

    def check(self, message: Any) -> Any:
        token = None
        try:
            ambient = get_current()
            if instrumentation_of_state(self._state, ambient) is not None:
                found = read(message, ambient).context
                token = None if found is None else attach(found)
        except Exception:  # noqa: BLE001
            internal_error("a transaction check")
        try:
            return self._checker.check(message)
        finally:
            if token is not None:
                detach(token)


def _begin(producer: Any, message: Any, transaction: bool) -> Sending | None:
    """The sending that begins, with its context in the message. Never raises; None: not instrumented."""
    sending = None
    try:
        parent = get_current()
        instrumentation = instrumentation_of(producer, parent)
        if instrumentation is None:
            return None
        given = given_by_user(message, parent)
        if given is not None and not get_current_span(parent).get_span_context().is_valid:
            parent = given[1]
        link = None if given is None else given[0]
        sending = Sending(instrumentation, state_of(producer), message, link, parent, transaction=transaction)
        if given is None and sending.span.get_span_context().is_valid:
            sending.written = write(message, sending.span, parent)
    except Exception:  # noqa: BLE001  the message goes as it is
        internal_error("start of a send span")
    return sending


def _give_up(producer: Any) -> None:
    try:
        for sending in list(state_of(producer).unanswered):
            sending.end(SHUT_DOWN)
    except Exception:  # noqa: BLE001
        internal_error("the end of a producer")


def _remember_half(producer: Any, message: Any, transaction: Any, sending: Sending) -> None:
    try:
        half = _Half(state_of(producer), message.topic, message.message_id, sending.span.get_span_context())
        _halves.put(transaction, half)
    except Exception:  # noqa: BLE001
        internal_error("a transaction")


def _replace_resolution(original: Original, name: str) -> Original:
    def resolve(transaction: Any, *args: Any, **kwargs: Any) -> Any:
        operation = _resolution(transaction, name)
        result = call(operation, original, transaction, *args, **kwargs)
        if operation is not None:
            operation.end()
        return result

    return resolve


def _resolution(transaction: Any, name: str) -> Operation | None:
    """The span of a commit or rollback: the convention has no type for it. It links to the half message's send span."""
    try:
        half = _halves.get(transaction)
        ambient = get_current()
        instrumentation = None if half is None else instrumentation_of_state(half.state, ambient)
        if half is None or instrumentation is None:
            return None
        destination = half.state.destination(name, None, half.topic)
        links = (Link(half.span),) if half.span.is_valid else ()
        operation = Operation(instrumentation, destination, SpanKind.CLIENT, ambient, links)
        if operation.span.is_recording():
            operation.span.set_attribute(semconv.MESSAGE_ID, half.message_id)
    except Exception:  # noqa: BLE001
        internal_error("the end of a transaction")
        return None
    return operation


def _recall(producer: Any, topic: Any) -> Operation | None:
    try:
        ambient = get_current()
        instrumentation = instrumentation_of(producer, ambient)
        if instrumentation is None:
            return None
        destination = state_of(producer).destination("recall", None, topic)
        operation = Operation(instrumentation, destination, SpanKind.CLIENT, ambient)
    except Exception:  # noqa: BLE001
        internal_error("a recall")
        return None
    return operation


def _recalled(operation: Operation, message_id: Any) -> None:
    if isinstance(message_id, str):
        operation.span.set_attribute(semconv.MESSAGE_ID, message_id)
    operation.end()
