"""A time to live for each key: a mapping whose values are gone when their time has come.

Invariants, in quiet moments: what has a deadline and no value is dropped at its time, without a word; what has a value
and was given a time to live has a deadline.  So a key is set below before its deadline is: a reader sees the old
deadline, which is not over, or the new one.  And a deadline is removed after its value is gone.

No thread is needed: what has expired is dropped when it is asked for, and every set drops a few more.  The module is
compiled, so that no signal handler runs between two steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, MutableMapping
from typing import Any, Final, TypeVar

from uzswap.caches.deadlines import Deadlines
from uzswap.caches.keys import OnEvict
from uzswap.caches.layer import Layer
from uzswap.errors import InvalidArgumentError

__all__ = ["DEFAULT", "TTL"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: What a set drops at most of what has expired.  Two would keep pace, since a set adds one; four catch up.
_DROPPED_A_SET: Final = 4


class _Default:
    """Stands for the mapping's own time to live."""


DEFAULT: Final[Any] = _Default()


class TTL(Layer[K, V]):
    """A mapping whose values expire.

    Parameters
    ----------
    below
        Where the values are: a store, or another cache.
    ttl
        Seconds that a value lives from when it is set; None: for ever, unless :meth:`set` says otherwise.  Reading does
        not prolong it, :meth:`touch` does.
    clock
        Seconds that never go back, as :func:`time.monotonic`.
    on_evict
        As of :class:`~uzswap.caches.Layer`; the reason is "expired".

    Notes
    -----
    A value is never returned when its time has come.  It is dropped, and told of, when it is asked for, by ``len``, by
    :meth:`expire`, and by sets, four at most by each: so memory of what has expired comes back as long as the cache is
    used.  ``in`` and iteration leave out what has expired, and drop nothing; ``len`` drops it first, so that it is the
    number of keys that iteration gives.

    A deadline takes some 200 bytes.  Values that were below before, or that are set there by others, never expire.

    Examples
    --------
    >>> import uzswap
    >>> now = 0.0
    >>> with uzswap.Zswap(swap="auto") as z, uzswap.Store(z.cgroup("/sessions")) as store:
    ...     sessions = TTL(store, ttl=60, clock=lambda: now, on_evict=lambda key, value, reason: print(key, reason))
    ...     sessions["a"] = ["some", "data"]
    ...     sessions.set("b", ["more"], ttl=3600)
    ...     now = 61.0
    ...     "a" in sessions, sessions.get("a"), list(sessions), sessions.expires_in("b")
    a expired
    (False, None, ['b'], 3539.0)
    """

    def __init__(
        self,
        below: MutableMapping[K, V],
        ttl: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_evict: OnEvict | None = None,
    ) -> None:
        self._ttl = _lifetime(ttl)
        self._clock = clock
        self._deadlines: Deadlines[K] = Deadlines()
        super().__init__(below, on_evict)

    @property
    def ttl(self) -> float | None:
        """Seconds that a value lives unless it was set with a time of its own; None: for ever."""
        return None if self._ttl == math.inf else self._ttl

    def set(self, key: K, value: V, ttl: float | None = DEFAULT) -> None:
        """Set a value that lives for ``ttl`` seconds, or for ever (None).

        Raises
        ------
        InvalidArgumentError
            ``ttl`` is not above 0.
        Exception
            What setting it below raises: then an older value is still there, with the time that it has.
        """
        lifetime = self._ttl if ttl is DEFAULT else _lifetime(ttl)
        deadline = self._clock() + lifetime
        self._keys.enter(key)
        try:
            self._drop_expired(key)
            try:
                self.below[key] = value
            except Exception:
                raise
            except BaseException:
                # An interrupt: it may be set, or not.
                self._deadlines.set(key, min(deadline, self._deadlines.get(key)))
                raise
            self._deadlines.set(key, deadline)
        finally:
            self._keys.leave(key)
        self.expire(_DROPPED_A_SET)

    def touch(self, key: K, ttl: float | None = DEFAULT) -> None:
        """Have a value live for ``ttl`` seconds from now, or for ever (None), without loading it; KeyError without."""
        lifetime = self._ttl if ttl is DEFAULT else _lifetime(ttl)
        self._keys.enter(key)
        try:
            if key not in self:
                raise KeyError(key)
            self._deadlines.set(key, self._clock() + lifetime)
        finally:
            self._keys.leave(key)

    def expires_in(self, key: K) -> float | None:
        """Return the seconds that a value has left; None: it does not expire.  KeyError without one."""
        left = self._deadlines.get(key) - self._clock()
        if left <= 0 or key not in self.below:
            raise KeyError(key)
        return None if left == math.inf else left

    def expire(self, most: int | None = None) -> int:
        """Drop what has expired, the first to expire first, at most so many keys; return how many were dropped.

        One that another thread is just at is left for the next time, with those behind it.
        """
        dropped = seen = 0
        while (first := self._deadlines.first()) is not None and first[1] <= self._clock():
            if seen == most or not self._keys.attempt(first[0]):
                break
            seen += 1
            try:
                dropped += self._drop_expired(first[0])
            finally:
                self._keys.leave(first[0])
        return dropped

    def _is_over(self, key: Any) -> bool:
        return self._deadlines.get(key) <= self._clock()

    def _drop_expired(self, key: K) -> bool:
        """Drop a key, which is this thread's alone, if it has expired; return whether it was there."""
        if not self._is_over(key):
            return False
        dropped = self._drop(key, "expired")
        self._deadlines.remove(key)
        return dropped

    def _forget(self, key: K) -> None:
        self._deadlines.remove(key)
        super()._forget(key)

    # The mapping

    def __getitem__(self, key: K) -> V:
        if self._is_over(key):
            self._miss(key)
        value: V = self.below[key]
        return value

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        return super().get_many([key for key in keys if not self._is_over(key)])

    def _miss(self, key: K) -> None:
        # Whoever is at it is setting, deleting or dropping it.
        if self._keys.attempt(key):
            try:
                self._drop_expired(key)
            finally:
                self._keys.leave(key)
        raise KeyError(key)

    def __setitem__(self, key: K, value: V) -> None:
        """Set a value that lives for the mapping's own time.  Raises as :meth:`set`."""
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        self._keys.enter(key)
        try:
            if self._drop_expired(key):
                raise KeyError(key)
            del self.below[key]
            self._deadlines.remove(key)
        finally:
            self._keys.leave(key)

    def _pop(self, key: K) -> V:
        if self._drop_expired(key):
            raise KeyError(key)
        value: V = self.below.pop(key)
        self._deadlines.remove(key)
        return value

    def __contains__(self, key: object) -> bool:
        """Whether the key is there and has not expired; loads and drops nothing."""
        return key in self.below and not self._is_over(key)

    def __iter__(self) -> Iterator[K]:
        now = self._clock()
        return iter([key for key in list(self.below) if self._deadlines.get(key) > now])

    def __len__(self) -> int:
        """How many have not expired; what has is dropped."""
        self.expire()
        return len(self.below)

    def where(self, key: K) -> str:
        """Return where the value is, as :meth:`uzswap.Store.where`; KeyError when it has expired."""
        if self._is_over(key):
            raise KeyError(key)
        return super().where(key)

    def _wrong(self) -> list[str]:
        return self._deadlines.check()


def _lifetime(ttl: float | None) -> float:
    if ttl is None:
        return math.inf
    try:
        seconds = float(ttl)
    except (TypeError, ValueError):
        raise TypeError(f"ttl is seconds, or None for ever, not {ttl!r}") from None
    if not seconds > 0:
        raise InvalidArgumentError(f"ttl={ttl!r}: give seconds above 0, or None for ever")
    return seconds
