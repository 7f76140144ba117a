"""One thread at a time at a key, and callbacks when a thread has let go of all of them.

A mapping over a mapping keeps something of its own for each key: a deadline, a place in an order.  So that both agree,
who changes a key has it to itself, from the look at the one to the change of the other.  Keys are told apart by their
hash, so that none of their code runs here; two of one hash share a lock, which only makes one wait for the other.

The lock is reentrant: a finalizer, a signal handler or the pickling of a value may use the same mapping, in the thread
that is just setting a value.

Callbacks of users are called when their thread has no key any more, of whatever mapping: a mapping over this one may
have one.  This module is compiled (setup.py, ``UNTORN``): no signal handler and no other thread runs between two steps.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final, Literal

from uzswap.engine.lifetime import on_fork

__all__ = ["KeyLocks", "OnEvict", "Reason", "tell"]

#: Why a value was dropped: its time had come, or there was no more room.
Reason = Literal["expired", "full"]
#: ``on_evict(key, value, reason)``; the value is None when it would have to be loaded for it
OnEvict = Callable[[Any, Any, Reason], object]

_log: Final = logging.getLogger("uzswap.caches")


class _Mine(threading.local):
    """What a thread has."""

    def __init__(self) -> None:
        self.keys = 0  # how many keys it has, of all mappings
        self.untold: deque[tuple[OnEvict, Hashable, Any, Reason]] = deque()
        self.telling = False


_mine: Final = _Mine()


class _Lock:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0  # threads that have it or wait for it


class KeyLocks:
    """A lock for each key that somebody is at."""

    def __init__(self) -> None:
        #: by hash of the key
        self._locks: dict[int, _Lock] = {}
        on_fork(self, KeyLocks._abandon)

    def _abandon(self) -> None:
        # The threads that are at keys are in the parent.
        self._locks = {}

    def enter(self, key: Hashable) -> None:
        """Wait until no other thread is at a key, and keep others from it until :meth:`leave`."""
        number = hash(key)
        new = _Lock()
        one = self._locks.setdefault(number, new)
        one.users += 1
        try:
            # Handlers run in here, and may raise.
            one.lock.acquire()
        except BaseException:
            self._give_up(number, one)
            raise
        _mine.keys += 1

    def attempt(self, key: Hashable) -> bool:
        """:meth:`enter` unless another thread is at the key; return whether it is this one's."""
        number = hash(key)
        new = _Lock()
        one = self._locks.setdefault(number, new)
        if not one.lock.acquire(blocking=False):
            return False
        one.users += 1
        _mine.keys += 1
        return True

    def leave(self, key: Hashable) -> None:
        """Let others at the key; if it was the last of this thread's, call the callbacks that are due."""
        number = hash(key)
        one = self._locks.get(number)
        if one is not None:  # in a child that was forked meanwhile there is none
            one.lock.release()
            self._give_up(number, one)
        _mine.keys -= 1
        if not _mine.keys and _mine.untold:
            _tell_all()

    def _give_up(self, number: int, one: _Lock) -> None:
        one.users -= 1
        if not one.users:
            del self._locks[number]

    def check(self) -> list[str]:
        """Return what is wrong in a quiet moment, in words."""
        return [f"a thread is at a key of hash {number}" for number in list(self._locks)]


def tell(on_evict: OnEvict, key: Hashable, value: Any, reason: Reason) -> None:
    """Have a callback called as soon as this thread, which has a key, has none any more."""
    _mine.untold.append((on_evict, key, value, reason))


def _tell_all() -> None:
    """Call the callbacks that are due, in order, also those that become due meanwhile.

    The first exception that is no :class:`Exception`, such as KeyboardInterrupt, is raised when all were called.
    """
    if _mine.telling:
        return
    _mine.telling = True
    raised: BaseException | None = None
    try:
        while _mine.untold:
            on_evict, key, value, reason = _mine.untold.popleft()
            try:
                on_evict(key, value, reason)
            except Exception:
                _log.exception("on_evict failed for the key %r (%s); it is dropped all the same", key, reason)
            except BaseException as error:
                raised = raised or error
            del on_evict, key, value
    finally:
        _mine.telling = False
    if raised is not None:
        raise raised
