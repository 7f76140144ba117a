"""The values of one store: which are resident, which are packed, and how they go from one to the other.

Invariants, between two steps of any thread:

* the value of a key is resident, or packed with all its chunks stored, and never neither: a value that is going out
  stays until its chunks exist, and the chunks of a value that is coming back stay until it is there;
* ``lru`` holds, coldest first, the resident values but those that a reclaim is looking at just now;
* what the cgroup was charged is the sum of the weights of the resident values.

There is no lock.  This module is compiled (setup.py, ``UNTORN``), so nobody else runs between two of its steps: neither
a signal handler nor another thread nor a finalizer.  *Foreign code* runs within a step that calls it:

* ``__eq__`` of a key, when the dict is looked into;
* finalizers, when the last reference to a value goes, and when an object is made that the garbage collector follows
  (a list, a Slot; until 3.11): either may use this very store;
* whatever pickles, unpickles, weighs or charges; other threads run meanwhile.

So every change here is a run of steps without any of these, after a fresh look at what the last one may have changed,
and references to values are dropped at its end.  Reclaim may come from any thread, also from within a call of this very
store: a charge that finds the cgroup full reclaims from it.  Long loops call :func:`let_handlers_run`.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from uzswap.cgroup.surroundings import Reclaimed
from uzswap.engine.host import host_of
from uzswap.engine.lifetime import ForkedLifetime, on_fork
from uzswap.errors import os_error
from uzswap.signals import hold_back_signals, let_handlers_run
from uzswap.store.packing import CHUNK, Packed, Refused, pack, unpack
from uzswap.store.weigh import UNPICKLABLE, estimate, examine
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.store.packing import Handles

__all__ = ["NOTHING", "Slot", "Slots"]


class _Nothing:
    """Stands where a value is not."""


NOTHING: Final[Any] = _Nothing()

# Values in a row that the engine refuses until a reclaim gives up: MAX_RECLAIM_RETRIES of mm/internal.h.
_MAX_REFUSALS: Final = 16
# Most values to pass by at once: nobody else runs meanwhile.
_MAX_PASSED: Final = 64
# Every so many reclaims, look thoroughly at what is passed by otherwise.
_THOROUGH_EVERY: Final = 64
# Bytes that go to the engine in one call.  What it refuses is noticed after so many, not after a whole array.
_PUT_BYTES: Final = 4 << 20
# Values dropped until handlers may run: some 50 us.
_DROPPED_AT_ONCE: Final = 64


class _Load:
    """A value's way back, and whose."""

    __slots__ = ("over", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        #: free when it is over
        self.over = threading.Lock()
        self.over.acquire()


class Slot:
    """The value of one key."""

    __slots__ = (
        "evicting",
        "gone",
        "held",
        "holders",
        "load",
        "obstacle",
        "packed",
        "taken",
        "value",
        "version",
        "weight",
    )

    def __init__(self, value: Any, weight: int) -> None:
        self.value = value  # NOTHING unless resident
        self.weight = weight  # bytes charged while resident, and to be charged when it is again
        self.packed: Packed | None = None
        self.version = 0  # counts how often the value was handed out or set
        self.load: _Load | None = None  # what is bringing it back
        self.evicting = False
        self.taken = 0  # threads that are about to delete it and hand the value out: it is not to be evicted
        self.obstacle: str | None = None  # why reclaim left it alone, if it was not accessed since
        self.held: Any = None  # the object in it that was held from outside then,
        self.holders = 0  # and its reference count
        self.gone = False  # no longer the value of a key


class Slots:
    """Keys and their values.  All methods are thread-safe.

    Attributes
    ----------
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
        self.by_key: dict[Any, Slot] = {}
        self.lru: OrderedDict[Slot, None] = OrderedDict()
        self.resident_bytes = 0
        self.evicted = self.loaded = self.refused = 0
        self.closed = self.forked = False
        self._zswap = host_of(cgroup)
        #: thread -> the loads that it waits for; several when a signal handler needs one while its thread waits
        self._waiting: dict[int, list[_Load]] = {}
        self._reclaims = 0
        self._refusing = False  # the engine took nothing of what the last reclaim had for it
        on_fork(self, Slots._forked)

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
        for key, slot in list(self.by_key.items()):
            if slot.gone or slot.load is not None or slot.evicting or slot.taken:
                wrong.append(f"{key!r}: is being worked on")
            if (slot.value is NOTHING) != (slot.packed is not None):
                wrong.append(f"{key!r}: is not in one place")
            if (slot in self.lru) != (slot.packed is None):
                wrong.append(f"{key!r}: reclaim {'sees' if slot in self.lru else 'does not see'} it")
        if not self.lru.keys() <= set(self.by_key.values()):
            wrong.append("reclaim sees values that are gone")
        weights = sum(slot.weight for slot in self.by_key.values() if slot.packed is None)
        if weights != self.resident_bytes:
            wrong.append(f"{self.resident_bytes} bytes are charged, the values weigh {weights}")
        if self._waiting:
            wrong.append(f"threads wait for loads: {list(self._waiting)}")
        return wrong

    def _forked(self) -> None:
        """In a forked child: what threads of the parent's were at with a value is over, and the value where it was."""
        if isinstance(self._zswap.lifetime, ForkedLifetime):
            self.forked = True
            return
        self._waiting.clear()
        for slot in self.by_key.values():
            slot.load = None
            slot.taken = 0
            if slot.evicting:
                slot.evicting = False
                self.lru[slot] = None
                self.lru.move_to_end(slot, last=False)

    def fetch(self, key: Hashable, pop: bool = False) -> Any:
        """Return the value of a key, or NOTHING without one; delete it as well when told so."""
        self.require_open()
        while True:
            slot = self.by_key.get(key)
            if slot is None:
                break
            packed = slot.packed
            if packed is None:
                if pop:
                    if self._remove(key, slot, packed):
                        return slot.value
                    continue
                value = slot.value
                self._touch(slot)
                return value
            if slot.load is not None:
                self._wait(slot.load, key)
                continue
            load = _Load()
            if slot.packed is not packed or slot.load is not None:
                continue
            slot.load = load
            value = self._bring_back(key, slot, packed, load, pop)
            if value is not NOTHING:
                return value
        self.require_open()
        return NOTHING

    def insert(self, key: Hashable, value: Any, replace: bool = True) -> bool:
        """Set a value; False when there is one already that is not to be replaced."""
        self.require_open()
        weight = estimate([value])
        charged = 0
        chunks: Packed | None = None
        _previous: Any = None
        try:
            while True:
                slot = self.by_key.get(key)
                stays = self.closed or (slot is not None and not replace)
                if stays:
                    break
                # What it replaces is given back, unless a reclaim has just taken it.
                had = slot.weight if slot is not None and slot.packed is None else 0
                if weight - had > charged:
                    more = weight - had - charged
                    self._charge(more)
                    charged += more
                elif slot is None:
                    new = Slot(value, weight)
                    if self.by_key.setdefault(key, new) is new:
                        self.lru[new] = None
                        self.resident_bytes += weight
                        charged -= weight
                        break
                elif not slot.gone:
                    _previous, slot.value = slot.value, value
                    packed, slot.packed = slot.packed, None
                    if slot.load is None:
                        chunks = packed
                    slot.load = None  # the loader finds its chunks replaced, and frees them
                    slot.weight = weight
                    self.resident_bytes += weight - had
                    charged -= weight - had
                    self._touch(slot)
                    break
        finally:
            self._release(charged, chunks)
        if self.closed:
            self.clear()  # it came behind the back of close()
        self.require_open()
        return not stays

    def remove(self, key: Hashable) -> None:
        """Delete a key without loading its value; KeyError without one."""
        self.require_open()
        charged, packed = self._forget(self.by_key.pop(key))
        self._release(charged, packed)

    def clear(self) -> None:
        """Delete all keys without loading anything.  Interrupted, it has deleted some."""
        left = len(self.by_key)
        while left > 0 and self.by_key:
            self._drop(min(left, _DROPPED_AT_ONCE))
            left -= _DROPPED_AT_ONCE
            let_handlers_run()

    def _drop(self, number: int) -> None:
        """Delete some keys, the last first."""
        charged = 0
        handles: list[Handles] = []
        while number and self.by_key:
            nbytes, packed = self._forget(self.by_key.popitem()[1])
            charged += nbytes
            if packed is not None:
                handles.append(packed.handles)
            number -= 1
        self._release(charged)
        if handles:
            self._free(np.concatenate(handles))

    def close(self) -> None:
        """Delete all keys, for good.  Interrupted, it can be called again."""
        self.closed = True
        self.clear()

    def reweigh(self, slot: Slot) -> None:
        """Charge a resident value with what it weighs now; MemoryError when that can't be met."""
        if slot.gone or slot.evicting or slot.packed is not None:
            return
        value, before = slot.value, slot.weight
        weight = estimate([value])
        # This variable is an outside reference: a reclaim for the charge leaves the value alone.
        charged = max(weight - before, 0)
        self._charge(charged)
        if not slot.gone and slot.value is value and slot.weight == before:
            slot.weight = weight
            self.resident_bytes += weight - before
            charged -= weight - before
        self._release(charged)

    def reclaim(self, nbytes: int) -> Reclaimed:
        """Swap the coldest values out until ``nbytes`` less are charged, none is left that can go, or a signal comes.

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
        scanned = freed = 0
        # While it goes on refusing, one more tells: a charge that can't be met asks some hundred times.
        refusals = _MAX_REFUSALS - 1 if self._refusing else 0
        left = len(self.lru)
        # An exception of a handler while a value is pickled would pass for one of pickle's.
        with hold_back_signals() as signals:
            while left > 0 and freed < nbytes and refusals < _MAX_REFUSALS and not signals.pending():
                looked_at: list[Slot] = []
                slot = self._coldest(min(left, _MAX_PASSED), looked_at)
                if not looked_at:
                    break
                left -= len(looked_at)
                for one in looked_at:
                    scanned += -(-one.weight // PAGE_SIZE)
                if slot is None:
                    continue
                try:
                    freed += self._evict(slot, slot.version)
                    refusals = 0
                except Refused:
                    refusals += 1
            self._refusing = refusals >= _MAX_REFUSALS
        return Reclaimed(scanned, freed)

    def _coldest(self, most: int, looked_at: list[Slot]) -> Slot | None:
        """Take the coldest value that may go out off the LRU and return it, marked; None when there is none.

        Those before it, at most so many, still have to stay as far as can be told without a thorough look; they are put
        at the hot end.
        """
        thorough = not self._reclaims % _THOROUGH_EVERY
        while len(looked_at) < most:
            slot = next(iter(self.lru), None)
            if slot is None:
                break
            looked_at.append(slot)
            if thorough or not self._stays(slot):
                del self.lru[slot]
                slot.evicting = True
                return slot
            self.lru.move_to_end(slot)
        return None

    def _stays(self, slot: Slot) -> bool:
        """Whether a value still has to stay, for all that is known of it."""
        if slot.obstacle == UNPICKLABLE:
            return True
        return slot.holders > 0 and sys.getrefcount(slot.held) == slot.holders

    def _evict(self, slot: Slot, version: int) -> int:
        """Swap one value out, unless it is held elsewhere, can't be pickled, or is accessed meanwhile.  Bytes freed."""
        packed: Packed | None = None
        nbytes, obstacle, refused, freed = 0, None, False, 0
        try:
            slot.holders = 0
            slot.held = None
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
            slot.evicting = False
            self.refused += refused
            # An access or a new value meanwhile wins: the bytes may be out of date, and the value is hot.
            untouched = not slot.gone and not slot.taken and slot.version == version
            slot.obstacle = obstacle if untouched else None
            if packed is not None and untouched:
                value, slot.value = slot.value, NOTHING
                slot.packed, packed = packed, None
                freed, slot.weight = slot.weight, nbytes
                self.resident_bytes -= freed
                self.evicted += 1
            elif not slot.gone:
                self.lru[slot] = None
            del value
            self._release(freed, packed)
        return freed

    def _bring_back(self, key: Hashable, slot: Slot, packed: Packed, load: _Load, pop: bool) -> Any:
        """Load a value.  NOTHING when it was to be popped, and was deleted or replaced meanwhile."""
        charged = 0
        try:
            if not pop:
                weight = slot.weight
                # What was accepted can be read, whatever the limits: it goes over them where there is no other way.
                self._charge(weight, force=True)
                charged = weight
            value = unpack(packed, self._get)
            if pop:
                if not self._remove(key, slot, packed):
                    return NOTHING
                self.loaded += 1
            elif slot.packed is packed:
                slot.value, slot.packed = value, None
                self.resident_bytes += charged
                charged = 0
                self.loaded += 1
                self._touch(slot)
            return value
        except BaseException as error:
            if slot.packed is packed:
                error.add_note(f"in the store of {self.cgroup.path}, while loading the value of {key!r}: it is kept")
            raise
        finally:
            if slot.load is load:
                slot.load = None
            load.over.release()
            # Whoever takes the chunks away while they are being loaded leaves them to the loader.
            self._release(charged, packed if slot.packed is not packed else None)

    def _wait(self, load: _Load, key: Hashable) -> None:
        """Wait until another thread has loaded a value."""
        me = threading.get_ident()
        mine = self._waiting.setdefault(me, [])
        mine.append(load)
        try:
            if self._waits_for(load, me):
                raise RuntimeError(
                    f"the value of {key!r} in the store of {self.cgroup.path} needs itself to be unpickled, "
                    "or a signal handler needs it while this thread is loading it"
                )
            # Handlers run in here, and may raise.
            with load.over:
                pass
        finally:
            mine.remove(load)
            if not mine:
                del self._waiting[me]

    def _waits_for(self, load: _Load, thread: int) -> bool:
        """Whether a load can't be over before a thread goes on."""
        loads = [load]
        while loads:
            loader = loads.pop().thread
            if loader == thread:
                return True
            loads += self._waiting.get(loader, ())
        return False

    def _touch(self, slot: Slot) -> None:
        """Note an access of a resident value."""
        slot.version += 1
        slot.obstacle = None
        slot.holders = 0
        if not slot.evicting:
            self.lru[slot] = None
            self.lru.move_to_end(slot)
        slot.held = None

    def _remove(self, key: Hashable, slot: Slot, packed: Packed | None) -> bool:
        """Delete a key whose value was found resident (None), or was loaded from these chunks; False if it changed.

        In the latter case the chunks are left to the caller.
        """
        slot.taken += 1
        try:
            popped = self.by_key.pop(key, None)
        finally:
            slot.taken -= 1
        if popped is None:
            return False
        if popped is slot and slot.packed is packed:
            self._release(self._forget(slot)[0])
            return True
        # Another one took its place while __eq__ of a key ran.
        if self.by_key.setdefault(key, popped) is not popped:
            self._release(*self._forget(popped))
        return False

    def _forget(self, slot: Slot) -> tuple[int, Packed | None]:
        """Give up a slot that is no longer the value of a key.

        Returns what is to be released: charged bytes, and chunks unless a loader has them.
        """
        slot.gone = True
        packed, slot.packed = slot.packed, None
        if packed is not None:
            load, slot.load = slot.load, None
            return 0, packed if load is None else None
        self.lru.pop(slot, None)
        self.resident_bytes -= slot.weight
        return slot.weight, None

    # The engine

    def _charge(self, nbytes: int, force: bool = False) -> None:
        if nbytes:
            self._zswap.charge(self.cgroup, nbytes, force=force)

    def _release(self, charged: int, packed: Packed | None = None) -> None:
        if charged:
            try:
                self._zswap.uncharge(self.cgroup, charged)
            except OSError as error:
                _require_closed(error)
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
            try:
                self._zswap.free_many(handles)
            except OSError as error:
                _require_closed(error)


def _require_closed(error: OSError) -> None:
    """What is to be given back went with the engine when that was closed; any other error is raised."""
    if error.errno != errno.EBADF:
        raise error
