"""A mapping over a mapping: what all caches have in common.

They are put one over the other, as those of zict are, and each adds one thing: a time to live, bounds, computing once,
a format of the bytes.  Below them all is a :class:`~uzswap.Store`, or any mutable mapping.

Each layer tells those above it what it drops, so that none keeps anything of a key that is gone.  The module is
compiled, so that no signal handler runs between two steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, MutableMapping, ValuesView
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, overload

from uzswap.caches.keys import KeyLocks, OnEvict, Reason, tell
from uzswap.cgroup.memcg import MemCgroup
from uzswap.store.store import ValueInfo

__all__ = ["NOTHING", "Layer", "at_hand", "get_many"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class _Nothing:
    """Stands where a value is not."""


NOTHING: Final[Any] = _Nothing()

#: Bytes that a value in the pool may weigh to be loaded at once: that takes less (37 us) than to hand the work to a
#: thread and back (53 us; 3.11, CPU time, measured in November 2026).
_AT_ONCE: Final = 16 << 10


class _Values(ValuesView[V]):
    """Leaves out what goes while it is iterated over."""

    def __iter__(self) -> Iterator[V]:
        mapping: Any = self._mapping  # type: ignore[attr-defined]
        for key in mapping:
            with contextlib.suppress(KeyError):
                yield mapping[key]


class _Items(ItemsView[K, V]):
    def __iter__(self) -> Iterator[tuple[K, V]]:
        mapping: Any = self._mapping  # type: ignore[attr-defined]
        for key in mapping:
            with contextlib.suppress(KeyError):
                yield key, mapping[key]


def _place(below: MutableMapping[K, Any], key: K) -> str:
    where: Callable[[K], str] | None = getattr(below, "where", None)
    if where is not None:
        return where(key)
    if key in below:
        return "resident"
    raise KeyError(key)


def at_hand(mapping: MutableMapping[K, Any], key: K) -> bool:
    """Whether a read takes next to no time: the value is resident, or small and in the pool, or there is none."""
    if isinstance(mapping, Layer):
        return mapping.at_hand(key)
    info: Callable[[K], Any] | None = getattr(mapping, "info", None)
    try:
        if info is None:
            return _place(mapping, key) == "resident"
        found = info(key)
    except KeyError:
        return True
    return found.place == "resident" or (found.place in ("zswap", "zero") and found.weight <= _AT_ONCE)


def get_many(mapping: MutableMapping[K, V], keys: Iterable[K]) -> dict[K, V]:
    """Return the values of those keys that have one, together if the mapping can do so."""
    together: Callable[[Iterable[K]], dict[K, V]] | None = getattr(mapping, "get_many", None)
    if together is not None:
        return together(keys)
    pairs = [(key, mapping.get(key, NOTHING)) for key in keys]
    return {key: value for key, value in pairs if value is not NOTHING}


class Layer(MutableMapping[K, V], Generic[K, V]):
    """A mapping over another one, which everything goes to that a subclass has no other mind of.

    Parameters
    ----------
    below
        Where the values are.  Use it through this mapping alone.
    on_evict
        Called as ``on_evict(key, value, reason)`` after a value was dropped.  ``value`` is None unless it was at hand,
        resident in its store; ``reason`` is "expired" or "full".  What the program itself deletes or replaces is not
        told.  It is called in the thread whose call dropped the value, before that call returns, and under no lock: it
        may use the cache.  An exception of its own goes to the logger ``uzswap.caches``, with the traceback: the value
        is dropped all the same, and the call that dropped it has nothing to do with it.

    Notes
    -----
    Threads may share it if they may share what is below, as a store.  Keys are iterated over as they are at the
    beginning; ``values()`` and ``items()`` leave out what goes meanwhile.
    """

    def __init__(self, below: MutableMapping[K, Any], on_evict: OnEvict | None = None) -> None:
        if not isinstance(below, MutableMapping):
            raise TypeError(f"a mapping is needed below, such as a uzswap.Store, not {type(below).__name__}")
        if on_evict is not None and not callable(on_evict):
            raise TypeError(f"on_evict is called with a key, a value and a reason: {on_evict!r} can't be")
        self.below = below
        self._on_evict = on_evict
        self._keys = KeyLocks()
        #: of the layers above: each is called, with the key to itself, for what is dropped here
        self._forgetters: list[Callable[[K], None]] = []
        if isinstance(below, Layer):
            below._forgetters.append(self._forget)

    def _forget(self, key: K) -> None:
        """A layer below has dropped a key: forget what is kept of it, without waiting for anything."""
        for forget in self._forgetters:
            forget(key)

    def _drop(self, key: K, reason: Reason) -> bool:
        """Drop a key, which is this thread's alone; return whether it was there."""
        value = None
        try:
            if self._on_evict is not None and _place(self.below, key) == "resident":
                try:
                    value = self.below.pop(key)
                except KeyError:
                    raise
                except Exception:  # of a load= of the user's
                    del self.below[key]
            else:
                del self.below[key]
        except KeyError:
            return False
        self._forget(key)
        if self._on_evict is not None:
            tell(self._on_evict, key, value, reason)
        return True

    # The mapping

    def __getitem__(self, key: K) -> V:
        return self.below[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: K, value: V) -> None:
        self.below[key] = value

    def __delitem__(self, key: K) -> None:
        del self.below[key]

    def __contains__(self, key: object) -> bool:
        """Whether the key is there; loads nothing."""
        return key in self.below

    def __iter__(self) -> Iterator[K]:
        return iter(list(self.below))

    def __len__(self) -> int:
        return len(self.below)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` without one."""
        try:
            return self[key]
        except KeyError:
            return default

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those keys that have one; what the store below can load together it does."""
        return get_many(self.below, keys)

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def pop(self, key: K, default: Any = NOTHING) -> Any:
        """Delete ``key`` and return its value, or ``default`` without one."""
        self._keys.enter(key)
        try:
            return self._pop(key)
        except KeyError:
            if default is NOTHING:
                raise
            return default
        finally:
            self._keys.leave(key)

    def _pop(self, key: K) -> V:
        """Delete a key, which is this thread's alone, and return its value; KeyError without one."""
        return self.below.pop(key)  # type: ignore[no-any-return]

    def popitem(self) -> tuple[K, V]:
        """Delete the key that was added last, where below does so, and return it with its value."""
        while keys := list(self):
            key = keys[-1]
            value = self.pop(key, NOTHING)
            if value is not NOTHING:
                return key, value
        raise KeyError("popitem(): the cache is empty")

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return the value of ``key``; set it to ``default`` before if there is none."""
        self._keys.enter(key)
        try:
            value = self.get(key, NOTHING)
            if value is NOTHING:
                self[key] = value = default
            return value
        finally:
            self._keys.leave(key)

    def discard(self, key: K) -> bool:
        """Delete ``key`` if it is there, without loading its value; say whether it was."""
        try:
            del self[key]
        except KeyError:
            return False
        return True

    def clear(self) -> None:
        """Delete every key, without loading anything.  What another thread sets meanwhile may stay."""
        for key in list(self.below):
            self.discard(key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.below!r})"

    # What is below

    def where(self, key: K) -> str:
        """Return where the value of ``key`` is: see :meth:`uzswap.Store.where`; "resident" below anything else."""
        return _place(self.below, key)

    def info(self, key: K) -> ValueInfo:
        """As :meth:`uzswap.Store.info`.  KeyError without such a key, TypeError without a store at the bottom."""
        return self._of_store("info", key)  # type: ignore[no-any-return]

    def evict(self, key: K) -> int:
        """As :meth:`uzswap.Store.evict`: the value goes out of memory, and stays in the cache."""
        return self._of_store("evict", key)  # type: ignore[no-any-return]

    def pin(self, key: K) -> None:
        """As :meth:`uzswap.Store.pin`.  What is pinned expires and is replaced all the same; bounds pass it by."""
        self._of_store("pin", key)

    def unpin(self, key: K) -> None:
        """As :meth:`uzswap.Store.unpin`."""
        self._of_store("unpin", key)

    def _of_store(self, name: str, key: K) -> Any:
        method: Callable[[K], Any] | None = getattr(self.below, name, None)
        if method is None:
            raise TypeError(f"there is no uzswap.Store below, but {type(self.below).__name__}")
        if key not in self:
            raise KeyError(key)
        return method(key)

    def at_hand(self, key: K) -> bool:
        """Whether a read takes next to no time: the value is resident, or small and in the pool, or there is none."""
        return at_hand(self.below, key)

    @property
    def cgroup(self) -> MemCgroup:
        """Whose memory it is.  TypeError when there is no store at the bottom."""
        found = getattr(self.below, "cgroup", None)
        if not isinstance(found, MemCgroup):
            raise TypeError(f"there is no uzswap.Store below, but {type(self.below).__name__}")
        return found

    def close(self) -> None:
        """Close what is below, if that can be."""
        close: Callable[[], None] | None = getattr(self.below, "close", None)
        if close is not None:
            close()

    def check(self) -> None:
        """Verify every invariant, in quiet moments: AssertionError with all that is off, in words."""
        if wrong := self._keys.check() + self._wrong():
            raise AssertionError("\n".join(wrong))
        check: Callable[[], None] | None = getattr(self.below, "check", None)
        if check is not None:
            check()

    def _wrong(self) -> list[str]:
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
