"""Bounds in bytes, of memory and of the disk, above which the least recently used values are dropped.

The bounds are those of the store's cgroup: ``memory.max``, and what of it lies on the device.  So the one mechanism of
reclaim decides what is compressed and what goes to the disk, as for everybody, and counts it; a set costs nothing more
as long as there is room.  Only when a new value can't be admitted, because nothing more can be reclaimed, values are
dropped instead, and it is tried again.

``_order`` has the keys that were set or read here, the least recently used first.  It knows them by objects of its own,
so that no code of keys runs while it changes; the module is compiled (setup.py, ``UNTORN``), so it needs no lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, MutableMapping
from typing import Final, SupportsIndex, TypeVar

from uzswap.caches.keys import OnEvict
from uzswap.caches.layer import Layer
from uzswap.core.boundary.engine import COUNTERS
from uzswap.store.weigh import estimate
from uzswap.units import NO_LIMIT, parse_size

__all__ = ["Bounded"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_DISK: Final = COUNTERS.index("disk")
_SWAP_MEMORY: Final = (COUNTERS.index("resident"), COUNTERS.index("zswap"), _DISK)
#: A set that finds no room makes this part of the bound free, and twice as much at each further try.  A refused charge
#: has all tried that could be reclaimed, so it is dear: with 1 MiB and values of 6 KB a set takes 60 % of the time that
#: it takes with a 64th, and with 40 KB that do not compress a half (3.11, measured in November 2026).
_ROOM: Final = 16


class _Use:
    """A key in the order."""

    __slots__ = ("key", "within")

    def __init__(self, key: object) -> None:
        self.key = key
        self.within = True


class Bounded(Layer[K, V]):
    """A mapping over a store that drops the least recently used values instead of growing.

    Parameters
    ----------
    below
        A store, or a cache with one at the bottom.  Its cgroup should be its own: the bounds are set there, and what
        else is in it counts.
    memory
        Bytes, or text such as "1G", of resident and compressed values together: ``memory.max``.  None: as the cgroup
        has it.
    disk
        Bytes of compressed values on the device.  0: nothing goes there (``memory.zswap.writeback`` 0).  None: as much
        as there is.
    on_evict
        As of :class:`~uzswap.caches.Layer`; the reason is "full".

    Raises
    ------
    TypeError
        There is no store at the bottom.
    InvalidArgumentError
        A bound is not a size.

    Notes
    -----
    Values are compressed before one is dropped, and written to the disk as far as its bound allows.  Access of a value
    brings it back even where that goes over the bound of memory, as with any limit; the next set drops what is too
    much.  The bound of the disk is looked at after each set, so it is met between two of them.

    What is pinned is not dropped; where nothing else is left, a set is a MemoryError.

    The order is that of reads and sets; ``in``, iteration and :meth:`~uzswap.Store.where` are no use of a value.  A key
    in it takes some 250 bytes.  Who changes ``memory.max`` of the cgroup changes the bound.

    Examples
    --------
    >>> import os, uzswap
    >>> with uzswap.Zswap(swap="auto") as z, uzswap.Store(z.cgroup("/pages")) as store:
    ...     pages = Bounded(store, memory="1M", disk=0)
    ...     for number in range(100):
    ...         pages[number] = os.urandom(40_000)
    ...     0 in pages, 99 in pages, store.cgroup.usage() <= 1 << 20
    (False, True, True)
    """

    def __init__(
        self,
        below: MutableMapping[K, V],
        *,
        memory: str | SupportsIndex | None = None,
        disk: str | SupportsIndex | None = None,
        on_evict: OnEvict | None = None,
    ) -> None:
        new_memory = None if memory is None else parse_size(memory)
        self._disk = NO_LIMIT if disk is None else parse_size(disk)
        self._uses: dict[K, _Use] = {}
        self._order: OrderedDict[_Use, None] = OrderedDict()
        super().__init__(below, on_evict)
        group = self.cgroup
        if self._disk == 0:
            group.write("memory.zswap.writeback", "0")
        for key in list(below):
            self._use(key)
        if new_memory is not None:
            group.write("memory.max", new_memory)
        self.trim()

    @property
    def memory(self) -> int | None:
        """Bytes of memory at most, as the cgroup has it; None: no bound."""
        limit = self.cgroup.limits["memory.max"]
        return None if limit == NO_LIMIT else limit

    @property
    def disk(self) -> int | None:
        """Bytes on the device at most; None: no bound."""
        return None if self._disk == NO_LIMIT else self._disk

    def trim(self) -> int:
        """Drop the least recently used values until all is within the bounds, or none is left; return how many.

        For what was brought back over the bound, and after a bound was written to the control file.
        """
        dropped = 0
        while self._is_over() and self._drop_coldest(None):
            dropped += 1
        return dropped

    def _is_over(self) -> bool:
        group = self.cgroup
        limit = group.limits["memory.max"]
        return self._disk_bytes() > self._disk or (limit != NO_LIMIT and group.usage() > limit)

    def _disk_bytes(self) -> int:
        group = self.cgroup
        with group.removal_told():
            return group.zswap.core.counters(group.index)[_DISK]

    def _held(self) -> int:
        """Bytes in memory and on the disk."""
        group = self.cgroup
        with group.removal_told():
            counters = group.zswap.core.counters(group.index)
        return sum([counters[i] for i in _SWAP_MEMORY])

    def _drop_coldest(self, but: object) -> bool:
        """Drop the value that was not used for longest, but for the one that is being set; False if there is none.

        One that is pinned, or that another thread is just at, is passed by.
        """
        for _ in range(len(self._order)):
            use = next(iter(self._order), None)
            if use is None:
                break
            key: K = use.key  # type: ignore[assignment]
            self._order.move_to_end(use)
            if use is but or self._is_pinned(key) or not self._keys.attempt(key):
                continue
            try:
                dropped = use.within and self._drop(key, "full")
                self._forget(key)
            finally:
                self._keys.leave(key)
            if dropped:
                return True
        return False

    def _is_pinned(self, key: K) -> bool:
        try:
            return self.info(key).pinned
        except KeyError:
            return False

    def _use(self, key: K) -> _Use:
        """Note that a key is used."""
        new = _Use(key)
        use = self._uses.setdefault(key, new)
        if use.within:
            self._order[use] = None
            self._order.move_to_end(use)
        return use

    def _forget(self, key: K) -> None:
        use = self._uses.pop(key, None)
        if use is not None:
            use.within = False
            self._order.pop(use, None)
        super()._forget(key)

    # The mapping

    def __getitem__(self, key: K) -> V:
        value: V = self.below[key]
        self._touch(key)
        return value

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        found = super().get_many(keys)
        for key in found:
            self._touch(key)
        return found

    def _touch(self, key: K) -> None:
        use = self._uses.get(key)
        if use is not None and use.within:
            self._order.move_to_end(use)

    def __setitem__(self, key: K, value: V) -> None:
        """Set a value; drop others where there is no room for it.

        Raises
        ------
        MemoryError
            It does not fit into the bound of memory, even alone.  What it would have replaced is still there.  What
            weighs more than the bound by itself has nothing dropped for it.
        """
        self._keys.enter(key)
        try:
            use = self._use(key)
            try:
                self._admit(key, value, use)
                self._use(key)  # a signal handler may have dropped what was there, in between
            finally:
                if key not in self.below:
                    self._forget(key)
        finally:
            self._keys.leave(key)
        self.trim()

    def _admit(self, key: K, value: V, use: _Use) -> None:
        room = 0
        while True:
            try:
                self.below[key] = value
                return
            except MemoryError:
                limit = self.memory
                if not room and limit is not None and estimate([value]) > limit:
                    raise
                room = 2 * room or max((limit or self._held()) // _ROOM, 1)
                if not self._make_room(room, use):
                    raise

    def _make_room(self, nbytes: int, but: _Use) -> bool:
        """Drop values until so many bytes are free; return whether any was dropped."""
        before = self._held()
        dropped = False
        while before - self._held() < nbytes and self._drop_coldest(but):
            dropped = True
        return dropped

    def __delitem__(self, key: K) -> None:
        self._keys.enter(key)
        try:
            del self.below[key]
            self._forget(key)
        finally:
            self._keys.leave(key)

    def _pop(self, key: K) -> V:
        value: V = self.below.pop(key)
        self._forget(key)
        return value

    def _wrong(self) -> list[str]:
        wrong = [f"{use.key!r} is in the order, and has no value" for use in self._order if use.key not in self.below]
        if set(self._order) != set(self._uses.values()):
            wrong.append("the order and the keys are not of the same")
        return wrong
