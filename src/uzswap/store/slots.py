"""The values of one store: which are resident, which are packed, and how they go from one to the other.

A :class:`Slot` stands for the value of one key, as a page table entry for a page: it says where the value is and has 32
bytes, since millions of them outlive what they stand for.  Only a value that is in memory has a :class:`Resident`
beside it.  The dict of a store leads to slots, which stay when their values come and go: so it is never written to, and
no ``__eq__`` of a key called, when one goes out.

Invariants, between two steps of any thread:

* the value of a key is resident, or packed with all its chunks stored, and never neither: a value that is going out
  stays until its chunks exist, and the chunks of a value that is coming back stay until it is there;
* every resident value of a key is on one of the four lists (lruvec.pxd);
* what the cgroup was charged is the sum of the weights of the resident values.

There is no lock.  This module is compiled, so nobody else runs between two of its steps: neither a signal handler nor
another thread nor a finalizer.  *Foreign code* runs within a step that calls it:

* ``__eq__`` of a key, when the dict is looked into;
* finalizers, when the last reference to a value goes, and when an object is made that the garbage collector follows
  (a list, a tuple; until 3.11): either may use this very store.  Slots, residents, bytes and strings are none of these;
* whatever pickles, unpickles, weighs, or charges where a limit is met; other threads run meanwhile.

So every change here is a run of steps without any of these, after a fresh look at what the last one may have changed,
and references to values are dropped at its end.  Reclaim may come from any thread, also from within a call of this very
store: a charge that finds the cgroup full reclaims from it.  Long loops call :func:`let_handlers_run`.

*Which go first* is told as the kernel does it, with two lists and a bit.  A value that comes is on the inactive list.
An access only sets the bit.  Reclaim takes from the cold end of the inactive list; a value found with its bit set moves
to the active list instead, which gives values back when the inactive list has become low (shrink_active_list() and
inactive_is_low() of mm/vmscan.c).  So what is used once, however much of it, passes through the inactive list and
leaves the active one alone.  A value that was gone for less than the active list is long is active at once when it
comes back (workingset_refault() of mm/workingset.c).  Values that have to stay are put apart, on the unevictable list,
of which each reclaim looks at a few again.
"""

import threading

import cython
from cython.cimports.cpython.ref import Py_DECREF
from cython.cimports.libc.stdint import int64_t, uint64_t
from cython.cimports.uzswap.core.boundary.values import free_handles
from cython.cimports.uzswap.store.eviction import Eviction
from cython.cimports.uzswap.store.forms import BYTES, EXTENTS, RESIDENT
from cython.cimports.uzswap.store.loading import Load, Loading
from cython.cimports.uzswap.store.lruvec import INACTIVE, ISOLATED, NR_LISTS, UNEVICTABLE, add_coldest
from cython.cimports.uzswap.store.slot import FORM_MASK, GONE, Resident, Slot, form_in, own, resident_in
from cython.cimports.uzswap.store.table import require_freed

from uzswap.cgroup.surroundings import Reclaimed
from uzswap.engine.lifetime import ForkedLifetime, on_fork
from uzswap.errors import StaleHandleError
from uzswap.signals import let_handlers_run
from uzswap.store.slot import NOTHING

# Values dropped until handlers may run: some 50 us.
_DROPPED_AT_ONCE = cython.declare(cython.int, 64)
_OF_A_VIEW = (
    "the value is a view, and weighs {} bytes with the memory that it keeps alive: with shared='copy' a store takes a "
    "part of another's array for a value of its own"
)


@cython.cclass
class Slots(Loading):
    """Keys and their values.  All methods are thread-safe."""

    def __init__(self, cgroup, compression, shared=None, sizeof=None, immutable=False):
        Loading.__init__(self, cgroup, compression, shared, sizeof, immutable)
        on_fork(self, Slots._forked)

    def _forked(self):
        """In a forked child: what other threads were at with a value is over, and the value where it was.

        Nothing foreign runs: no key is compared, and no reference but to what keeps a wait goes.
        """
        r: Resident
        load: Load
        i: cython.int
        if isinstance(self._zswap.lifetime, ForkedLifetime):
            self.forked = True
            return
        me = threading.get_ident()
        isolated = cython.address(self._lists[ISOLATED])
        while isolated.length:
            # Hottest first, so that the coldest is the coldest.
            r = cython.cast(Resident, isolated.end.prev.owner)
            self._take_off(r)
            r.where = UNEVICTABLE if r.pins else INACTIVE
            add_coldest(cython.address(self._lists[r.where]), cython.address(r.link), r.weight)
        for i in range(NR_LISTS):
            end = cython.address(self._lists[i].end)
            link = end.next
            while link != end:
                cython.cast(Resident, link.owner).taken = 0
                link = link.next
        for slot, found in list(self._loads.items()):
            load = cython.cast(Load, found)
            if load.thread != me:
                # They stay packed.  A handler may have forked while its thread waits for one of them.
                self._over(cython.cast(Slot, slot), load)
        for thread in list(self._waiting):
            if thread != me:
                del self._waiting[thread]
        charged: int64_t = 0
        charging = self._charging
        while charging != cython.NULL:
            following = charging.next
            if charging.thread != me:
                charged += self._end_charging(charging)
            charging = following
        for coming in self._buffers.abandoned():
            kept: int64_t = self._buffers.does_not_come(coming)
            self.resident_bytes += kept
            charged -= kept
        self._release(charged)
        for storing in list(self._storing):
            eviction = cython.cast(Eviction, storing)
            if eviction.thread != me:
                self._storing.discard(eviction)
                for handles in eviction.parts:
                    try:
                        self._zswap.free_many(handles)
                    except StaleHandleError:
                        pass  # it was about to go on without these
        self._prefetcher.forked()
        self._compression.forked()

    # Access

    def fetch(self, key):
        """Return the value of a key, or NOTHING without one."""
        r: Resident
        slot: Slot
        if self.closed or self.forked or self._engine.core == cython.NULL:
            self.require_open()
        while True:
            found = self.by_key.get(key)
            if found is None:
                break
            slot = cython.cast(Slot, found)
            if form_in(slot) == RESIDENT:
                r = resident_in(slot)
                value = r.value
                self._touch(r)
                return value
            value = self._load(key, slot, False)
            if value is not NOTHING:
                return value
        self.require_open()
        return NOTHING

    def fetch_part(self, key, where):
        """Return a slice of the bytes that a key has, or NOTHING without one; of what is large only chunks are loaded.

        Once as much of it was asked for as it has, it is loaded as a whole: so never more than twice of it is.
        """
        slot: Slot
        while True:
            found = self.by_key.get(key)
            slot = cython.cast(Slot, found) if found is not None else None
            packed = slot.packed if slot is not None and form_in(slot) == EXTENTS and slot not in self._loads else None
            if packed is None or packed.stream or packed.form != BYTES or packed.asked > packed.lengths[0]:
                value = self.fetch(key)
                return value if value is NOTHING else bytes(memoryview(value)[where])
            start, stop, _ = slice(where.start, where.stop).indices(packed.lengths[0])
            if start >= stop:
                return b""
            value = self._load_part(key, slot, packed, start, stop)
            if value is not NOTHING:
                return value

    def take(self, key):
        """Delete a key and return its value, or NOTHING without one."""
        r: Resident
        slot: Slot
        self.require_open()
        while True:
            found = self.by_key.get(key)
            if found is None:
                break
            slot = cython.cast(Slot, found)
            if form_in(slot) == RESIDENT:
                r = resident_in(slot)
                if self._remove(key, slot, slot.at):
                    return r.value
                continue
            value = self._load(key, slot, True)
            if value is not NOTHING:
                return value
        self.require_open()
        return NOTHING

    def insert(self, key, value, replace=True, same: cython.bint = False):
        """Set a value; False when there is one already that is not to be replaced.

        With same it is what the key has, and is to be in memory again: so what the device has of it may stay there.
        """
        r: Resident
        slot: Slot
        if self.closed or self.forked or self._engine.core == cython.NULL:
            self.require_open()
        coming = None
        blocks = []
        had: int64_t
        stays: cython.bint
        cached: cython.bint
        form: cython.int = RESIDENT
        at: uint64_t = 0
        _previous = None
        mine = self._begin_charging()
        try:
            weight: int64_t = self._weigh([value], blocks)
            if blocks:
                coming = self._buffers.join(blocks)
                weight += coming.more
            while True:
                found = self.by_key.get(key)
                stays = self.closed or (found is not None and not replace)
                if stays:
                    break
                slot = cython.cast(Slot, found)
                # What it replaces is given back, unless a reclaim has just taken it.
                had = self._own_weight(resident_in(slot)) if found is not None and form_in(slot) == RESIDENT else 0
                if weight - had > mine.nbytes:
                    lacking: int64_t = weight - had - mine.nbytes
                    try:
                        self._charge(lacking, False)
                    except MemoryError as error:
                        if coming is not None and self._shared != "copy" and getattr(value, "base", None) is not None:
                            error.add_note(_OF_A_VIEW.format(weight))
                        raise
                    mine.nbytes += lacking
                    if coming is not None:
                        coming.charged = mine.nbytes
                elif found is None:
                    r = Resident.__new__(Resident)
                    slot = Slot.__new__(Slot)
                    r.value = value
                    r.weight = weight
                    own(slot, r)
                    if self.by_key.setdefault(key, slot) is slot:
                        coming = self._came(r, coming)
                        self._put_on(r, INACTIVE)
                        self.resident_bytes += weight
                        mine.nbytes -= weight
                        break
                    r.slot = cython.NULL
                elif slot.word & GONE:
                    pass
                elif form_in(slot) == RESIDENT:
                    r = resident_in(slot)
                    self._forget_chunks(r)
                    _previous, r.value = r.value, value
                    kept = self._leave(r)
                    mine.nbytes -= weight - r.weight + kept
                    self._set_weight(r, weight)
                    coming = self._came(r, coming)
                    self._touch(r)
                    break
                else:
                    r = Resident.__new__(Resident)
                    cached = same and self._immutable and slot not in self._loads
                    cached = cached and self._keep_chunks(slot, r, form_in(slot), slot.at)
                    if slot.word & GONE or form_in(slot) == RESIDENT:
                        continue
                    form, at = form_in(slot), slot.at
                    if form == EXTENTS:
                        _previous = cython.cast(object, cython.cast(cython.p_void, at))
                        Py_DECREF(_previous)
                    r.value = value
                    r.weight = weight
                    coming = self._came(r, coming)
                    own(slot, r)
                    self._put_on(r, INACTIVE)
                    self.resident_bytes += weight
                    mine.nbytes -= weight
                    if cached or self._loads.pop(slot, None) is not None:
                        form = RESIDENT  # or the loader finds its chunks replaced, and frees them
                    break
        finally:
            self._give_back(self._end_charging(mine), coming)
            self._free(form, at)
        if self.closed:
            self.clear()  # it came behind the back of close()
        if self.closed or self.forked or self._engine.core == cython.NULL:
            self.require_open()
        return not stays

    def remove(self, key):
        """Delete a key without loading its value; KeyError without one."""
        self.require_open()
        slot: Slot = self.by_key.pop(key)
        owns: cython.bint = 0
        self._release(self._forget(slot, cython.address(owns)))
        if owns:
            self._free(slot.word & FORM_MASK, slot.at)

    def clear(self):
        """Delete all keys without loading anything.  Interrupted, it has deleted some."""
        left = len(self.by_key)
        while left > 0 and self.by_key:
            self._drop(left if left < _DROPPED_AT_ONCE else _DROPPED_AT_ONCE)
            left -= _DROPPED_AT_ONCE
            let_handlers_run()

    def _drop(self, number):
        """Delete some keys, the last first."""
        slot: Slot
        charged: int64_t = 0
        owns: cython.bint
        handles: uint64_t[64]
        n: cython.int = 0
        extents = []
        gone = []
        while number and self.by_key:
            _, found = self.by_key.popitem()
            slot = cython.cast(Slot, found)
            gone.append(slot)
            owns = 0
            charged += self._forget(slot, cython.address(owns))
            if owns and slot.word & FORM_MASK == EXTENTS:
                extents.append(cython.cast(object, cython.cast(cython.p_void, slot.at)))
            elif owns:
                handles[n] = slot.at
                n += 1
            number -= 1
        self._release(charged)
        if n:
            require_freed(free_handles(self._engine, handles, n))
        for packed in extents:
            self._free_packed(packed)

    def close(self):
        """Delete all keys, for good.  Interrupted, it can be called again."""
        self.closed = True
        self._wanted.clear()
        self.clear()
        self._compression.close()

    def reweigh(self, slot: Slot):
        """Charge a resident value with what it weighs now; MemoryError when that can't be met."""
        r: Resident
        if form_in(slot) != RESIDENT:
            return
        r = resident_in(slot)
        if r.where == ISOLATED:
            return
        value = r.value
        before = r.weight
        coming = None
        blocks = []
        # The variable `value` is an outside reference: a reclaim for the charge leaves the value alone.
        mine = self._begin_charging()
        try:
            weight: int64_t = self._weigh([value], blocks)
            if blocks:
                coming = self._buffers.join(blocks)
                weight += coming.more
            while r.slot != cython.NULL and r.value is value and r.weight == before:
                lacking: int64_t = weight - self._own_weight(r) - mine.nbytes
                if lacking <= 0:
                    mine.nbytes -= weight - before + self._leave(r)
                    self._set_weight(r, weight)
                    coming = self._came(r, coming)
                    break
                self._charge(lacking, False)
                mine.nbytes += lacking
                if coming is not None:
                    coming.charged = mine.nbytes
        finally:
            self._give_back(self._end_charging(mine), coming)

    # Going out

    def reclaim(self, nbytes):
        """Swap the coldest values out until ``nbytes`` less are charged, none is left that can go, or a signal comes.

        One that has to stay is put at the hot end, as the kernel does with a page that is in use or that zswap refuses.
        When several in a row were refused by the engine, there is no point in trying the others, and the call ends.
        """
        if self.closed or self.forked:
            return Reclaimed(0, 0)
        eviction: Eviction = Eviction(self)
        return eviction.reclaim(nbytes if nbytes < 1 << 62 else 1 << 62)

    def evict(self, key):
        """Swap the value of one key out; return the bytes freed.  KeyError without the key."""
        r: Resident
        self.require_open()
        slot: Slot = self.by_key[key]
        if form_in(slot) != RESIDENT:
            return 0
        r = resident_in(slot)
        if r.where == ISOLATED or r.pins:
            return 0
        eviction: Eviction = Eviction(self)
        if r.slot == cython.NULL or r.where == ISOLATED:
            return 0
        return eviction.evict(r)

    def family(self, key):
        """Of the resident value of a key: the ids of arrays of whose memory it takes its part along when it goes, and
        how many other values share memory with it.  KeyError without the key."""
        r: Resident
        self.require_open()
        slot: Slot = self.by_key[key]
        r = resident_in(slot) if form_in(slot) == RESIDENT else None
        if r is None or r.part is None or self._shared == "copy":
            return (), 0
        eviction: Eviction = Eviction(self)
        return eviction._own(r) or (), max(len(self._buffers.members(r.part)) - 1, 0)

    # Staying

    def pin(self, key):
        """Keep a value resident until it is unpinned as often as pinned; KeyError without one."""
        r: Resident
        while self.fetch(key) is not NOTHING:
            found = self.by_key.get(key)
            if found is not None and form_in(cython.cast(Slot, found)) == RESIDENT:
                r = resident_in(cython.cast(Slot, found))
                r.pins += 1
                if r.where != ISOLATED:
                    self._take_off(r)
                    self._put_on(r, UNEVICTABLE)
                return
        raise KeyError(key)

    def unpin(self, key):
        """Undo one :meth:`pin`; KeyError without the key, ValueError when it is not pinned."""
        r: Resident
        self.require_open()
        slot: Slot = self.by_key[key]
        r = resident_in(slot) if form_in(slot) == RESIDENT else None
        if r is None or r.pins == 0:
            raise ValueError(f"the value of {key!r} in the store of {self.cgroup.path} is not pinned")
        r.pins -= 1
        if r.pins == 0 and r.where == UNEVICTABLE:
            self._take_off(r)
            self._put_on(r, INACTIVE)
