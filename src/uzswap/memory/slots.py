"""The values of one store: which are resident, which are packed, and how they go from one to the other.

Invariants, whenever the lock is free:

* the value of a key is resident, or packed with all its chunks stored, and never neither: a value that is going out
  stays until its chunks exist, and the chunks of a value that is coming back stay until it is there;
* ``lru`` holds, coldest first, the resident values that reclaim may look at: not those it is looking at just now, nor
  those that pickle refused since they were last handed out;
* what the cgroup was charged is the sum of the weights of the resident values.

The lock is held for a few dict operations at a time, and never while the engine is called, a value is pickled, weighed
or dropped, or another thread is waited for.  So reclaim may come from any thread, also from within a call of this very
store: a charge that finds the cgroup full reclaims from it.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from uzswap.errors import os_error
from uzswap.lifetime import on_fork
from uzswap.locks import Order, make_rlock
from uzswap.memory.packing import CHUNK, Packed, Refused, pack, unpack
from uzswap.memory.weigh import UNPICKLABLE, estimate, examine
from uzswap.resident import Reclaimed
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.memory.packing import Handles

__all__ = ["NOTHING", "Slot", "Slots"]


class _Nothing:
    """Stands where a value is not."""


NOTHING: Final[Any] = _Nothing()

# Values in a row that the engine refuses until a reclaim gives up: MAX_RECLAIM_RETRIES of mm/internal.h.
_MAX_REFUSALS: Final = 16
# Most values to pass by at once: the lock is held for it.
_MAX_PASSED: Final = 64
# Every so many reclaims, look thoroughly at what is passed by otherwise.
_THOROUGH_EVERY: Final = 64
# Bytes that go to the engine in one call.  What it refuses is noticed after so many, not after a whole array.
_PUT_BYTES: Final = 4 << 20


class Slot:
    """The value of one key."""

    __slots__ = ("evicting", "gone", "held", "holders", "loader", "obstacle", "packed", "value", "version", "weight")

    def __init__(self, value: Any, weight: int) -> None:
        self.value = value  # NOTHING unless resident
        self.weight = weight  # bytes charged while resident, and to be charged when it is again
        self.packed: Packed | None = None
        self.version = 0  # counts how often the value was handed out
        self.loader = 0  # the thread that is bringing it back
        self.evicting = False
        self.obstacle: str | None = None  # why reclaim left it alone, if it was not accessed since
        self.held: Any = None  # the object in it that was held from outside then,
        self.holders = 0  # and its reference count
        self.gone = False  # no longer the value of a key; whoever is working on it cleans up


class Slots:
    """Keys and their values.  All methods are thread-safe, but for those that say that the caller holds the lock.

    Attributes
    ----------
    lock
        Protects everything here.
    by_key
        In the order in which the keys were added.
    lru
        Coldest first.
    resident_bytes
        The sum of the weights of the resident values.
    evicted, loaded, refused
        How many values went out, came back, or were not taken by the engine.
    """

    def __init__(self, cgroup: MemCgroup) -> None:
        self.cgroup = cgroup
        self.lock = make_rlock(Order.STORE)
        self.by_key: dict[Any, Slot] = {}
        self.lru: OrderedDict[Slot, None] = OrderedDict()
        self.resident_bytes = 0
        self.evicted = self.loaded = self.refused = 0
        self.closed = self.forked = False
        self._zswap = cgroup.zswap
        self._arrival = threading.Condition(self.lock)
        self._waiting: dict[int, Slot] = {}
        self._reclaims = 0
        on_fork(self, Slots._abandon)

    def require_open(self) -> None:
        """Raise OSError (EBADF) when the store or its engine is closed, RuntimeError in a forked child."""
        if self.forked:
            raise RuntimeError("the store belongs to the parent process: make a new one after the fork")
        if self._zswap.closing:
            self.close()
            raise os_error(errno.EBADF, "the engine of the store is closed: make new ones", self.cgroup.path)
        if self.closed:
            raise os_error(errno.EBADF, "the store is closed: make a new one", self.cgroup.path)

    def check(self) -> list[str]:
        """Return which invariants do not hold, in words; for quiet moments."""
        wrong = []
        with self.lock:
            for key, slot in self.by_key.items():
                if slot.gone or slot.loader or slot.evicting:
                    wrong.append(f"{key!r}: is being worked on")
                if (slot.value is NOTHING) != (slot.packed is not None):
                    wrong.append(f"{key!r}: is not in one place")
                if (slot in self.lru) != (slot.packed is None and slot.obstacle != UNPICKLABLE):
                    wrong.append(f"{key!r}: reclaim {'sees' if slot in self.lru else 'does not see'} it")
            if not self.lru.keys() <= set(self.by_key.values()):
                wrong.append("reclaim sees values that are gone")
            weights = sum(slot.weight for slot in self.by_key.values() if slot.packed is None)
            if weights != self.resident_bytes:
                wrong.append(f"{self.resident_bytes} bytes are charged, the values weigh {weights}")
        return wrong

    def _abandon(self) -> None:
        # In a forked child the lock may never become free, so nothing may wait for it.
        self.forked = True

    def fetch(self, key: Hashable, pop: bool = False) -> Any:
        """Return the value of a key, or NOTHING without one; delete it as well when told so."""
        self.require_open()
        while True:
            with self.lock:
                slot = self.by_key.get(key)
                if slot is None:
                    break
                packed = slot.packed
                if packed is None:
                    value = slot.value
                    if not pop:
                        self._touch(slot)
                        return value
                    del self.by_key[key]
                    charged, _ = self._forget(slot)
                elif slot.loader:
                    self._wait(slot, key)
                    continue
                else:
                    slot.loader = threading.get_ident()
            if packed is None:
                self._release(charged)
                return value
            value = self._bring_back(key, slot, packed, pop)
            if value is not NOTHING:
                return value
        self.require_open()
        return NOTHING

    def insert(self, key: Hashable, value: Any, replace: bool = True) -> bool:
        """Set a value; False when there is one already that is not to be replaced."""
        self.require_open()
        slot = Slot(value, estimate([value]))
        charged = 0
        while True:
            with self.lock:
                old = self.by_key.get(key)
                stays = self.closed or (old is not None and not replace)
                # What it replaces is given back, unless a reclaim has just taken it.
                had = old.weight if old is not None and old.packed is None else 0
                wanted = 0 if stays else slot.weight - had
                if wanted <= charged:
                    chunks = self._forget(old)[1] if old is not None and not stays else None
                    if not stays:
                        self.by_key[key] = slot
                        self.lru[slot] = None
                        self.resident_bytes += slot.weight
                    break
            try:
                self._charge(wanted - charged)
            except BaseException:
                self._release(charged)
                raise
            charged = wanted
        self._release(charged - wanted, chunks)
        self.require_open()
        return not stays

    def remove(self, key: Hashable) -> None:
        """Delete a key without loading its value; KeyError without one."""
        self.require_open()
        with self.lock:
            slot = self.by_key.pop(key)
            charged, packed = self._forget(slot)
        self._release(charged, packed)

    def clear(self) -> None:
        """Delete all keys without loading anything."""
        with self.lock:
            slots = list(self.by_key.values())
            self.by_key.clear()
            left = [self._forget(slot) for slot in slots]
        for charged, packed in left:
            self._release(charged, packed)

    def close(self) -> bool:
        """Delete all keys, for good; False when that was done before."""
        with self.lock:
            if self.closed:
                return False
            self.closed = True
        self.clear()
        return True

    def reweigh(self, slot: Slot) -> None:
        """Charge a resident value with what it weighs now; MemoryError when that can't be met."""
        with self.lock:
            if slot.gone or slot.evicting or slot.packed is not None:
                return
            value, before = slot.value, slot.weight
        weight = estimate([value])
        # This variable is an outside reference: a reclaim for the charge leaves the value alone.
        growth = max(weight - before, 0)
        self._charge(growth)
        with self.lock:
            if not slot.gone and slot.packed is None and slot.weight == before:
                slot.weight = weight
                self.resident_bytes += weight - before
                unused = growth - (weight - before)
            else:
                unused = growth
        self._release(unused)

    def reclaim(self, nbytes: int) -> Reclaimed:
        """Swap the coldest values out until ``nbytes`` less are charged, or none is left that can go.

        Each value is looked at once.  One that has to stay is put at the hot end, as the kernel does with a page that
        is in use or that zswap refuses.  When several in a row were refused by the engine, there is no point in trying
        the others, and the call ends.

        Returns
        -------
        Reclaimed
            Pages looked at, and bytes freed: both of them as charged.
        """
        if self.closed or self.forked:
            return Reclaimed(0, 0)
        self._reclaims += 1
        scanned = freed = refusals = 0
        left = len(self.lru)
        while left > 0 and freed < nbytes and refusals < _MAX_REFUSALS:
            with self.lock:
                looked_at = self._coldest(min(left, _MAX_PASSED))
                if not looked_at:
                    break
                slot = looked_at[-1]
                version = slot.version
                ours = slot.evicting = slot not in self.lru
            left -= len(looked_at)
            scanned += sum(-(-slot.weight // PAGE_SIZE) for slot in looked_at)
            if not ours:
                continue
            try:
                freed += self._evict(slot, version)
                refusals = 0
            except Refused:
                refusals += 1
        return Reclaimed(scanned, freed)

    def _coldest(self, most: int) -> list[Slot]:
        """Return the coldest values up to the first that may go out, which is taken off the LRU.

        Those before it, at most so many, are still held from outside as far as can be told from a reference count; they
        are put at the hot end.  The caller holds the lock.
        """
        looked_at: list[Slot] = []
        while self.lru and len(looked_at) < most:
            slot, _ = self.lru.popitem(last=False)
            looked_at.append(slot)
            known = slot.holders and self._reclaims % _THOROUGH_EVERY
            if not known or sys.getrefcount(slot.held) != slot.holders:
                break
            self.lru[slot] = None
        return looked_at

    def _evict(self, slot: Slot, version: int) -> int:
        """Swap one value out, unless it is held elsewhere, can't be pickled, or is accessed meanwhile.  Bytes freed."""
        packed: Packed | None = None
        nbytes, obstacle, refused = 0, None, False
        slot.held, slot.holders = None, 0
        try:
            nbytes, obstacle, slot.held = examine([slot.value])
            if slot.held is not None:
                slot.holders = sys.getrefcount(slot.held)
            if obstacle is None:
                packed = pack(slot.value, self._put, self._free)
        except (Refused, MemoryError):
            refused = True
            raise Refused from None
        except Exception:
            obstacle = UNPICKLABLE
        finally:
            value: Any = None
            with self.lock:
                slot.evicting = False
                self.refused += refused
                # An access or a new value meanwhile wins: the bytes may be out of date, and the value is hot.
                untouched = not slot.gone and slot.version == version
                slot.obstacle = obstacle if untouched else None
                if packed is not None and untouched:
                    value, slot.value = slot.value, NOTHING
                    slot.packed, packed = packed, None
                    freed, slot.weight = slot.weight, nbytes
                    self.resident_bytes -= freed
                    self.evicted += 1
                else:
                    freed = 0
                    if not slot.gone and slot.obstacle != UNPICKLABLE:
                        self.lru[slot] = None
            del value  # without the lock: it may run anybody's code
            self._release(freed, packed)
        return freed

    def _bring_back(self, key: Hashable, slot: Slot, packed: Packed, pop: bool) -> Any:
        """Load a value that this thread is the loader of.  NOTHING when it was to be popped and is gone already."""
        weight = 0 if pop else slot.weight
        charged = False
        try:
            self._charge(weight)
            charged = True
            value = unpack(packed, self._get)
            with self.lock:
                gone = slot.gone
                if not gone:
                    self.loaded += 1
                    if pop:
                        del self.by_key[key]
                        slot.gone = True
                    else:
                        slot.value, slot.packed = value, None
                        self.resident_bytes += weight
                slot.loader = 0
                if not slot.gone:
                    self._touch(slot)
                self._arrival.notify_all()
        except BaseException as error:
            with self.lock:
                slot.loader = 0
                self._arrival.notify_all()
                gone = slot.gone
                here = slot.packed is not packed  # a signal came when all was done
            self._release(weight if charged and not here else 0, packed if gone or here else None)
            if not gone and not here:
                error.add_note(f"in the store of {self.cgroup.path}, while loading the value of {key!r}: it is kept")
            raise
        self._release(weight if gone else 0, packed)
        return NOTHING if pop and gone else value

    def _wait(self, slot: Slot, key: Hashable) -> None:
        """Wait, with the lock given up, until the thread that loads a value is done."""
        me = threading.get_ident()
        holder = slot.loader
        while holder:
            if holder == me:
                raise RuntimeError(
                    f"the value of {key!r} in the store of {self.cgroup.path} needs itself to be unpickled"
                )
            blocked_on = self._waiting.get(holder)
            holder = blocked_on.loader if blocked_on is not None else 0
        self._waiting[me] = slot
        try:
            self._arrival.wait()
        finally:
            del self._waiting[me]

    def _touch(self, slot: Slot) -> None:
        """Note an access.  The caller holds the lock."""
        slot.version += 1
        slot.obstacle = slot.held = None
        slot.holders = 0
        if not slot.evicting:
            self.lru[slot] = None
            self.lru.move_to_end(slot)

    def _forget(self, slot: Slot) -> tuple[int, Packed | None]:
        """Give up a slot that is no longer the value of a key.  The caller holds the lock.

        Returns what is to be released when the lock is free: charged bytes, and chunks unless a loader has them.
        """
        slot.gone = True
        if slot.packed is not None:
            return 0, None if slot.loader else slot.packed
        self.lru.pop(slot, None)
        self.resident_bytes -= slot.weight
        return slot.weight, None

    # The engine: never called with the lock

    def _charge(self, nbytes: int) -> None:
        if nbytes:
            self._zswap.charge(self.cgroup, nbytes)

    def _release(self, charged: int, packed: Packed | None = None) -> None:
        if charged:
            with _closed_is_fine():
                self._zswap.uncharge(self.cgroup, charged)
        if packed is not None:
            self._free(packed.handles)

    def _put(self, data: memoryview) -> Handles:
        stored: list[Handles] = []
        try:
            for start in range(0, data.nbytes, _PUT_BYTES):
                part = data[start : start + _PUT_BYTES]
                stored.append(self._zswap.swap_out_many(part, self.cgroup, page=CHUNK))
                if not stored[-1].all():
                    raise Refused
        except BaseException as error:
            for handles in stored:
                self._free(handles)
            if isinstance(error, OSError):
                raise Refused from None
            raise
        return np.concatenate(stored) if len(stored) != 1 else stored[0]

    def _get(self, handles: Handles, out: memoryview) -> None:
        if len(handles):
            self._zswap.fault_in_many(handles, out, page=CHUNK, consume=False)

    def _free(self, handles: Handles) -> None:
        if len(handles):
            with _closed_is_fine():
                self._zswap.free_many(handles)


@contextlib.contextmanager
def _closed_is_fine() -> Iterator[None]:
    """What is to be given back went with the engine when that was closed."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
