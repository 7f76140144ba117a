"""Sending numpy's own allocations to the engine, so that code which knows nothing of it runs under a budget.

numpy (NEP 49) asks a *data handler* for the memory of arrays, and which handler that is belongs to the context
(:mod:`contextvars`).  So it covers the code inside a block, the asyncio tasks created there, and whatever runs in a
copy of its context.  A new thread begins with an empty context (before Python 3.14), which would cover nothing of a
thread pool; while any :class:`managed` is on, ``threading.Thread.start`` therefore passes it on to threads started
inside.

Not covered: threads that were running before, those that C code or ``_thread`` starts, other processes, and memory that
a library takes without numpy (torch, Arrow, scipy's own buffers).
"""

from __future__ import annotations

import errno
import os
import threading
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from uzswap.arrays.arena import arena_in
from uzswap.cgroup.memcg import require_cgroup
from uzswap.cgroup.surroundings import Reclaimed
from uzswap.core.boundary import handler as hook
from uzswap.engine.host import host_of
from uzswap.engine.lifetime import ForkedLifetime
from uzswap.errors import InvalidArgumentError, os_error
from uzswap.locks import Order, make_lock
from uzswap.units import parse_size

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.memory import Memory

__all__ = ["managed"]

#: What most numbers are; a sample decides for each array whether a byte shuffle of this width pays.
_ITEM: Final = 8


class managed:
    """Every numpy allocation of at least ``min_bytes`` is paged memory of a cgroup, inside a block or between
    :meth:`start` and :meth:`stop`.

    Smaller ones, and everything else that numpy allocates, are left to malloc.  While it is on the cgroup cannot be
    removed.  Arrays made inside may live on, grow and be freed anywhere, at any time; an engine cannot be closed before
    the last one is gone.  Blocks nest: the innermost counts.

    Parameters
    ----------
    cgroup
        Who is charged.
    min_bytes
        Bytes, or text such as "1M".  An array takes whole pages and an entry in a table, so small ones are dear.

    Examples
    --------
    >>> import numpy as np, uzswap
    >>> z = uzswap.Zswap(swap_size="64M")
    >>> with uzswap.managed(z.cgroup("/job"), min_bytes="64K"):
    ...     x = np.arange(100_000) * 2
    >>> uzswap.info(x).cgroup
    '/job'
    >>> del x
    >>> z.close()
    """

    def __init__(self, cgroup: MemCgroup, min_bytes: int | str = "1M") -> None:
        self.cgroup: Final = require_cgroup(cgroup)
        self.min_bytes: Final = parse_size(min_bytes)
        self._handler: hook.Handler | None = None
        self._outer: managed | None = None
        self._previous: object = None

    def __repr__(self) -> str:
        state = "on" if self._handler else "off"
        return f"<managed {self.cgroup.path} min_bytes={self.min_bytes}: {state}>"

    # A member of its cgroup that holds nothing itself: arrays are held without it.

    @property
    def resident_bytes(self) -> int:
        return 0

    def reclaim(self, nbytes: int) -> Reclaimed:
        return Reclaimed(0, 0)

    def start(self) -> Self:
        """Turn it on for this context, and for the threads and tasks that are started from it.

        Raises
        ------
        OSError
            userfaultfd is refused here, with its errno, or system calls would not work (EOPNOTSUPP); ENODEV the cgroup
            was removed; EINVAL it is on already.
        """
        if self._handler is not None:
            raise InvalidArgumentError(f"{self!r} is on already: make another one")
        arena = arena_in(self.cgroup)
        handler = arena.handler(self.cgroup, self.min_bytes, _ITEM, shared=False)
        _require_system_calls(arena.open())
        host_of(self.cgroup).register(self)
        self._handler = handler
        self._outer = _current.get()
        self._previous = handler.install()
        _current.set(self)
        _pass_on_to_threads(1)
        return self

    def stop(self) -> None:
        """Turn it off, everywhere; arrays stay as they are.  Does nothing when it is off."""
        handler, self._handler = self._handler, None
        if handler is None:
            return
        handler.turn_off()
        if _current.get() is self:
            hook.restore(self._previous)
            _current.set(self._outer)
        self._outer = self._previous = None
        _pass_on_to_threads(-1)
        zswap = host_of(self.cgroup)
        if not isinstance(zswap.lifetime, ForkedLifetime):
            zswap.unregister(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def begin_thread(self) -> None:
        """Turn it on in a thread that was started from its context."""
        handler = self._handler
        if handler is not None:
            handler.install()
            _current.set(self)


def _require_system_calls(memory: Memory) -> None:
    """Refuse where system calls into an array may fail.

    Code that was never told that its arrays are paged does not look: numpy's fromfile() takes what was not read for
    zeros.
    """
    found = memory.info()
    if found.user_mode_only and found.calls_trapped != 1:
        raise os_error(
            errno.EOPNOTSUPP,
            "system calls into paged arrays would fail here: the kernel lets this user have userfaultfd in user mode "
            f"only, and they cannot be trapped either (seccomp: {os.strerror(-found.calls_trapped)}).  "
            "Remedy: sudo sysctl vm.unprivileged_userfaultfd=1",
        )


_current: ContextVar[managed | None] = ContextVar("uzswap.managed", default=None)
_thread_start = threading.Thread.start
_lock = make_lock(Order.MANAGED)
_nr_on = 0


def _pass_on_to_threads(more: int) -> None:
    """Count those that are on; with the first one threads inherit, with the last they do not any more."""
    global _nr_on
    with _lock:
        _nr_on += more
        if _nr_on == 1 and more == 1:
            threading.Thread.start = _start  # type: ignore[method-assign, assignment]
        elif _nr_on == 0 and threading.Thread.start is _start:
            threading.Thread.start = _thread_start  # type: ignore[method-assign]


def _start(thread: threading.Thread) -> None:
    """Start a thread that inherits what is on in this context."""
    inherited = _current.get()
    if inherited is None or "run" in vars(thread):
        _thread_start(thread)
        return
    run = thread.run

    def run_managed() -> None:
        del thread.run
        inherited.begin_thread()
        run()

    thread.run = run_managed  # type: ignore[method-assign]
    try:
        _thread_start(thread)
    except BaseException:
        vars(thread).pop("run", None)
        raise
