"""Timers over the CPU time of single threads: timer_create(2) and signalfd(2), by ctypes. Linux only.

Such a timer counts while its thread is on a processor. A process that does nothing is therefore never woken.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time

SIGNAL = signal.SIGPROF
END = signal.SIGURG
"""Ends the waiting for ticks. Not the timers' own signal: a second one of a kind is left out while one is pending, and
the pending one is dropped by the kernel when its timer is deleted. Nobody would be woken."""

_SIGEV_THREAD_ID = 4  # sigevent(3type): the signal goes to one thread
_SFD_CLOEXEC = os.O_CLOEXEC
_EVENT_SIZE = 128  # struct signalfd_siginfo (signalfd(2)), the same on every machine
_VALUE_AT = 44  # ssi_int: the value given to timer_create
_CODE_AT = 8
_SI_TIMER = -2
_MOST_EVENTS = 64
_WORD = 8 * ctypes.sizeof(ctypes.c_ulong)


class _Value(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("pointer", ctypes.c_void_p))


class _Event(ctypes.Structure):
    _fields_ = (
        ("value", _Value),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("first", _Time))


class ClocksUnavailable(Exception):  # noqa: N818 - a state of the machine rather than a fault
    """This system has no such timers. The message says what is missing."""


def _library() -> ctypes.CDLL:
    """The C library; the timers have a library of their own in glibc before 2.34.

    :raises ClocksUnavailable: neither has them.
    """
    for name in (None, "librt.so.1"):
        try:
            found = ctypes.CDLL(name, use_errno=True)
            found.timer_create, found.timer_settime, found.timer_delete  # noqa: B018 - looked up by name
        except (OSError, AttributeError):
            continue
        return found
    raise ClocksUnavailable("the C library has no timer_create")


def clock_of(thread: int) -> int:
    """The CPU clock of a thread, by its kernel identifier (``threading.get_native_id()``).

    pthread_getcpuclockid(3) makes the same number, but may crash for a thread that has ended. Here the kernel checks.
    """
    return (~thread << 3) | 6


def cpu_ns(clock: int) -> int:
    """CPU time of a clock's thread, in nanoseconds.

    :raises OSError: the thread has ended.
    """
    return time.clock_gettime_ns(clock)


class Timers:
    """Makes timers, and reads the ticks that go to the calling thread."""

    def __init__(self) -> None:
        """Find the system's functions.

        :raises ClocksUnavailable: it has none.
        """
        if os.name != "posix" or not hasattr(time, "pthread_getcpuclockid"):
            raise ClocksUnavailable("the system has no CPU clocks of threads")
        self._timers = _library()
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "signalfd"):
            raise ClocksUnavailable("the system has no signalfd")

    def start(self, clock: int, period_ns: int, *, told: int, value: int = 0) -> ctypes.c_void_p:
        """Signal the thread ``told`` after each ``period_ns`` of the clock; ``value`` comes with the signal.

        :raises OSError: the clock's thread has ended, or there are too many timers.
        """
        event = _Event(_Value(number=value), SIGNAL, _SIGEV_THREAD_ID, told, b"")
        timer = ctypes.c_void_p()
        self._check(self._timers.timer_create(clock, ctypes.byref(event), ctypes.byref(timer)))
        period = _Time(*divmod(period_ns, 1_000_000_000))
        setting = _Setting(period, period)
        self._check(self._timers.timer_settime(timer, 0, ctypes.byref(setting), None))
        return timer

    def delete(self, timer: ctypes.c_void_p) -> None:
        """End a timer."""
        self._timers.timer_delete(timer)

    def open(self) -> int:
        """A file descriptor from which a thread reads its ticks; the thread has to block both signals.

        :raises OSError: the process has too many open files.
        """
        words = (ctypes.c_ulong * (1024 // _WORD))()
        for bit in (SIGNAL - 1, END - 1):
            words[bit // _WORD] |= 1 << (bit % _WORD)
        descriptor = self._libc.signalfd(-1, ctypes.byref(words), _SFD_CLOEXEC)
        self._check(min(descriptor, 0))
        return int(descriptor)

    @staticmethod
    def _check(result: int) -> None:
        if result:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def read_ticks(descriptor: int) -> set[int]:
    """Wait for ticks; the values of their timers. Signals of other origin end the waiting and give nothing."""
    events = os.read(descriptor, _EVENT_SIZE * _MOST_EVENTS)
    return {
        struct.unpack_from("i", events, at + _VALUE_AT)[0]
        for at in range(0, len(events), _EVENT_SIZE)
        if struct.unpack_from("i", events, at + _CODE_AT)[0] == _SI_TIMER
    }
