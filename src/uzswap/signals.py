"""Signals during a long call: it ends soon after one, as a system call does, and with nothing left in flight.

A Python signal handler runs in the main thread, between two bytecodes, and may raise there.  A writeback request must
not be torn at an arbitrary place, and it has to know that a signal came even when the handler raises nothing.  So
handlers are put off while a request runs, the request looks between batches whether a signal came, and the handlers run
when it is over.

What counts as "came" is the kernel's ``signal_pending()``: in the main thread whatever was sent to the process, in
others what was sent to that very thread.

* In the main thread the Python handlers are replaced for the time being.  Blocking the signals there would not do: the
  kernel would give them to any other thread that does not block them (OpenBLAS has some), and the handler would run
  here all the same.
* In other threads the signals are blocked and those that wait are looked at.  Their handlers run in the main thread.

This module is compiled (setup.py, ``UNTORN``): for speed, since values are evicted under a guard.
"""

from __future__ import annotations

# The module behind signal.  That one turns every number it returns into an enum: 170 us to look at the handlers of all
# signals, where this takes 4, and as much for a set of signals (CPython 3.11, measured).
import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Protocol, Self

__all__ = ["SignalGuard", "block_all_signals", "hold_back_signals", "let_handlers_run", "on_behalf_of"]

#: Raised by what a thread itself does.  The kernel kills a process that blocks the signal of its own fault, instead of
#: calling its handler (faulthandler, for one).
_SYNCHRONOUS: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGABRT}
)
#: Job control: the process stops at once, and goes on with the request when it is continued.
_STOPPING: Final = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT})
_HELD_BACK: Final = frozenset(map(int, signal.valid_signals())) - _SYNCHRONOUS - _STOPPING - {signal.SIGKILL}
#: signal(7): ignored by default, so they interrupt only where there is a handler.
_IGNORED_BY_DEFAULT: Final = frozenset({signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH})

_Handler = Callable[[int, FrameType | None], Any]


class SignalGuard(Protocol):
    """Holds handlers back for the length of a ``with`` block.

    They run when the block is left, and one that raises (Ctrl-C) raises out of it, with the block's own exception as
    its context.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def pending(self) -> bool:
        """Whether a signal came that would end a system call of this thread."""
        ...


def hold_back_signals() -> SignalGuard:
    """Return a guard for the calling thread."""
    served: Callable[[], bool] | None = getattr(_served, "pending", None)
    if served is not None:
        return _ServedGuard(served)
    return _HandlerGuard() if threading.current_thread() is threading.main_thread() else _MaskGuard()


_served = threading.local()


@contextmanager
def on_behalf_of(pending: Callable[[], bool]) -> Iterator[None]:
    """Let the calling thread do somebody else's request in the block: ``pending()`` tells whether they want it to end.

    A thread of a file system does the system calls of other processes: it is their signals that interrupt.
    """
    _served.pending = pending
    try:
        yield
    finally:
        del _served.pending


class _ServedGuard:
    """For a thread that serves somebody else.  It leaves this process's signals to the threads that they are for."""

    def __init__(self, pending: Callable[[], bool]) -> None:
        self.pending = pending

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _HandlerGuard:
    """For the main thread.  Signals without a Python handler do what they always do, at once."""

    def __enter__(self) -> Self:
        self._came: dict[int, FrameType | None] = {}
        self._handlers: dict[int, _Handler] = {}
        try:
            for number in _HELD_BACK:
                handler = _signal.getsignal(number)
                if callable(handler):  # SIG_DFL and SIG_IGN are numbers here, and None is one that is not Python's
                    self._handlers[number] = handler
                    _signal.signal(number, self._record)
        except BaseException:  # of a handler that was not replaced yet
            self._put_back(list(self._handlers))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._put_back(list(self._handlers))
        finally:
            self._run_handlers(list(self._came.items()))

    # A handler that is in place again may raise between any two steps that follow: the rest is done all the same.

    def _put_back(self, numbers: list[int]) -> None:
        if numbers:
            try:
                if _signal.getsignal(numbers[0]) == self._record:
                    _signal.signal(numbers[0], self._handlers[numbers[0]])
            finally:
                self._put_back(numbers[1:])

    def _run_handlers(self, came: list[tuple[int, FrameType | None]]) -> None:
        if came:
            number, frame = came[0]
            try:
                # Called, and not sent again: whoever reads signal.set_wakeup_fd() has heard of it already.
                self._handlers[number](number, frame)
            finally:
                self._run_handlers(came[1:])

    def _record(self, number: int, frame: FrameType | None) -> None:
        self._came.setdefault(number, frame)

    def pending(self) -> bool:
        return bool(self._came)


class _MaskGuard:
    """For any other thread.  Signals that it had blocked before stay blocked and do not count."""

    def __enter__(self) -> Self:
        self._blocked_before: set[int] = _signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked_before)

    def pending(self) -> bool:
        waiting = _signal.sigpending() - self._blocked_before
        return bool(waiting) and any(map(_interrupts, waiting))


def _interrupts(number: int) -> bool:
    """Whether a system call would end for this signal: it has a handler, or its default action ends the process."""
    disposition = signal.getsignal(number)
    if disposition is signal.SIG_IGN:
        return False
    return disposition is not signal.SIG_DFL or number not in _IGNORED_BY_DEFAULT


#: Runs the handlers of the signals that came, if any; what they raise is raised.  In the main thread.  For compiled
#: code that takes long, which has no bytecodes for handlers to run between: this is one that does nothing.
let_handlers_run: Final[Callable[[], None]] = eval("lambda: None")


def block_all_signals() -> None:
    """Keep every signal away from the calling thread, for good: background threads leave them to the program's own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK | _STOPPING)
