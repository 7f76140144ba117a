"""Computing what is missing, once per key among threads.

Who misses first computes; the others that ask for the key meanwhile wait for what comes of it, a value or an exception.
The module is compiled, so that no signal handler and no other thread runs between two steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, MutableMapping
from typing import Any, Final, TypeVar

from uzswap.caches.layer import NOTHING, Layer
from uzswap.engine.lifetime import on_fork

__all__ = ["Once"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Computation:
    """A value that is being computed, and by whom."""

    __slots__ = ("error", "over", "superseded", "thread", "value")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        #: free when it is over
        self.over = threading.Lock()
        self.over.acquire()
        self.value: Any = NOTHING  # of both it has none when it was interrupted
        self.error: Exception | None = None
        self.superseded = False  # the key was set or deleted meanwhile


class _Running:
    """The computations of one mapping, by key."""

    def __init__(self) -> None:
        self.by_key: dict[Any, _Computation] = {}
        on_fork(self, _Running.abandon)

    def abandon(self) -> None:
        # The threads that compute are in the parent, and so are those that wait; but the one that forked may, in a
        # handler.
        me = threading.get_ident()
        for one in self.by_key.values():
            if one.thread != me:
                one.over.release()
        self.by_key = {}
        for thread in list(_waiting):
            if thread != me:
                del _waiting[thread]


#: thread -> the computations that it waits for, of whatever mapping; several when a signal handler needs one meanwhile
_waiting: Final[dict[int, list[_Computation]]] = {}


class Once(Layer[K, V]):
    """A mapping with :meth:`get_or_compute`.

    Parameters
    ----------
    below
        Where the values are: a store, or another cache.

    Attributes
    ----------
    hits, misses
        How often :meth:`get_or_compute` found a value, or had one from another thread; and how often it computed.

    Examples
    --------
    >>> import uzswap
    >>> with uzswap.Zswap(swap="auto") as z, uzswap.Store(z.cgroup("/squares")) as store:
    ...     squares = Once(store)
    ...     squares.get_or_compute(12, lambda: 12 * 12), squares.get_or_compute(12, lambda: 1 / 0), squares.misses
    (144, 144, 1)
    """

    def __init__(self, below: MutableMapping[K, V]) -> None:
        self._running = _Running()
        self.hits = self.misses = 0
        super().__init__(below)

    def get_or_compute(self, key: K, compute: Callable[[], V]) -> V:
        """Return the value of ``key``; without one, what ``compute()`` returns, which becomes its value.

        Among the threads that ask for a missing key at the same time one computes, and all get its result, the very
        object.  What is set or deleted in the meantime wins: the result is returned, but not kept.  Nor is it kept when
        there is no room for it (MemoryError of the mapping below).

        Raises
        ------
        Exception
            What ``compute()`` raises, to all threads that wait for it.  It is not kept: who asks later computes again.
            An interrupt (KeyboardInterrupt, any exception that is no Exception) is its own thread's: one of those that
            wait computes in its place.
        RuntimeError
            ``compute()`` needs the value of the same key: asked for by its own thread, or by way of computations in
            others that wait for each other.  A signal handler that asks for what its thread is computing gets it, too.
        """
        while True:
            value: V = self.below.get(key, NOTHING)
            if value is not NOTHING:
                self.hits += 1
                return value
            new = _Computation()
            one = self._running.by_key.setdefault(key, new)
            if one is new:
                return self._compute(key, new, compute)
            self._wait(one, key)
            if one.error is not None:
                raise one.error
            if one.value is not NOTHING:
                self.hits += 1
                return one.value  # type: ignore[no-any-return]

    def _compute(self, key: K, mine: _Computation, compute: Callable[[], V]) -> V:
        try:
            # Another thread may have been done with it since the look.
            value: V = self.below.get(key, NOTHING)
            if value is NOTHING:
                self.misses += 1
                value = compute()
                self._keep(key, mine, value)
            else:
                self.hits += 1
            mine.value = value
            return value
        except Exception as error:
            mine.error = error
            raise
        finally:
            running = self._running.by_key
            try:
                if running.get(key) is mine:
                    del running[key]
            finally:
                mine.over.release()

    def _keep(self, key: K, mine: _Computation, value: V) -> None:
        self._keys.enter(key)
        try:
            if not mine.superseded:
                self.below[key] = value
        except MemoryError:
            pass  # a value too many, or too large: whoever asked for it has it all the same
        finally:
            self._keys.leave(key)

    def _wait(self, one: _Computation, key: K) -> None:
        """Wait until a computation is over."""
        me = threading.get_ident()
        mine = _waiting.setdefault(me, [])
        mine.append(one)
        try:
            if _waits_for(one, me):
                raise RuntimeError(
                    f"the value of {key!r} needs itself to be computed, "
                    "or a signal handler needs it while its thread computes it"
                )
            # Handlers run in here, and may raise.
            with one.over:
                pass
        finally:
            mine.remove(one)
            if not mine:
                del _waiting[me]

    # The mapping

    def __setitem__(self, key: K, value: V) -> None:
        self._keys.enter(key)
        try:
            self._supersede(key)
            self.below[key] = value
        finally:
            self._keys.leave(key)

    def __delitem__(self, key: K) -> None:
        self._keys.enter(key)
        try:
            self._supersede(key)
            del self.below[key]
        finally:
            self._keys.leave(key)

    def _pop(self, key: K) -> V:
        self._supersede(key)
        return self.below.pop(key)  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Delete every key, without loading anything; what is being computed is not kept."""
        for one in list(self._running.by_key.values()):
            one.superseded = True
        self.below.clear()

    def _supersede(self, key: K) -> None:
        one = self._running.by_key.get(key)
        if one is not None:
            one.superseded = True

    def _wrong(self) -> list[str]:
        return [f"{key!r} is being computed" for key in list(self._running.by_key)]


def _waits_for(one: _Computation, thread: int) -> bool:
    """Whether a computation can't be over before a thread goes on."""
    reached = [one]
    seen = {id(one)}
    while reached:
        by = reached.pop().thread
        if by == thread:
            return True
        for other in _waiting.get(by, ()):
            if id(other) not in seen:
                seen.add(id(other))
                reached.append(other)
    return False
