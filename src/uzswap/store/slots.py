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

import errno
import threading
from _pickle import dumps, loads
from collections import deque

import cython
import numpy as np
from cython.cimports.cpython.object import PyObject
from cython.cimports.cpython.ref import Py_DECREF, Py_INCREF
from cython.cimports.libc.errno import EBADF
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.uzswap.core.boundary.values import (
    BATCH_VALUES,
    Batch,
    Span,
    charge,
    free_handles,
    load_spans,
    load_value,
    place_of,
    size_at,
    uncharge,
)
from cython.cimports.uzswap.store.forms import (
    BYTES,
    EXTENTS,
    RESIDENT,
    STREAM,
    blank,
    data_of,
    form_of,
    size_of,
)
from cython.cimports.uzswap.store.lruvec import (
    ACTIVE,
    INACTIVE,
    ISOLATED,
    NR_LISTS,
    UNEVICTABLE,
    add_coldest,
    add_hottest,
    coldest,
    inactive_is_low,
    list_abandon,
    list_init,
    take_off,
)
from cython.cimports.uzswap.store.slabs import allocate_from_slabs

from uzswap.cgroup.surroundings import Reclaimed
from uzswap.engine.host import host_of
from uzswap.engine.lifetime import ForkedLifetime, on_fork
from uzswap.engine.worker import Worker
from uzswap.errors import os_error
from uzswap.locks import Order
from uzswap.signals import hold_back_signals, let_handlers_run
from uzswap.store.buffers import Buffers
from uzswap.store.dictionaries import SMALL
from uzswap.store.packing import CHUNK, Packed, Refused, pack, unpack
from uzswap.store.sharing import Held
from uzswap.store.weigh import REFERENCED, UNPICKLABLE, estimate, examine, told


class _Nothing:
    """Stands where a value is not."""


NOTHING = _Nothing()

# Values in a row that the engine refuses until a reclaim gives up: MAX_RECLAIM_RETRIES of mm/internal.h.
_MAX_REFUSALS = cython.declare(cython.int, 16)
# Most values to pass by at once: nobody else runs meanwhile.
_MAX_PASSED = cython.declare(cython.int, 64)
# Every so many reclaims, look thoroughly at what is passed by otherwise.
_THOROUGH_EVERY = cython.declare(cython.int, 64)
# Of the values that have to stay, a reclaim looks again at so many: at first, when it has nothing else, and thoroughly,
# which is to weigh them.
_RECHECKED_FIRST = cython.declare(cython.int, 32)
_RECHECKED = cython.declare(cython.int, 1024)
_RECHECKED_THOROUGHLY = cython.declare(cython.int, 16)
# Bytes that go to the engine in one call.  What it refuses is noticed after so many, not after a whole array.
_PUT_BYTES = cython.declare(cython.Py_ssize_t, 4 << 20)
# Values dropped until handlers may run: some 50 us.
_DROPPED_AT_ONCE = cython.declare(cython.int, 64)
# A larger value gives up the GIL while it is decompressed: lz4 needs some 10 us for so much.  Giving it up and having
# it again takes 0.2 us alone, and as long as a switch interval (5 ms) among threads that compute.
_DIRECT_BYTES = cython.declare(uint32_t, 16384)
# Loaded together.
_TOGETHER = cython.declare(cython.int, 1024)
_TOGETHER_BYTES = cython.declare(int64_t, 4 << 20)
_LARGEST_CHUNK = cython.declare(cython.Py_ssize_t, 65536)
_PAGE_BYTES = cython.declare(int64_t, 4096)


@cython.final
@cython.cclass
class Slot:
    """The value of one key: where it is."""

    def __dealloc__(self):
        form = self.word & FORM_MASK
        if self.at and form <= EXTENTS:
            Py_DECREF(cython.cast(object, cython.cast(cython.p_void, self.at)))

    @property
    def packed(self):
        """Its chunks; None while it is resident."""
        form = self.word & FORM_MASK
        if form == RESIDENT:
            return None
        if form == EXTENTS:
            return cython.cast(object, cython.cast(cython.p_void, self.at))
        return Packed([(1, np.array([self.at], np.uint64))], 0)


@cython.final
@cython.no_gc
@cython.cclass
class Resident:
    """A value in memory."""

    def __cinit__(self):
        self.link.owner = cython.cast(cython.p_void, self)
        self.where = NR_LISTS

    def __dealloc__(self):
        if self.link.next != cython.NULL:
            self.link.prev.next = self.link.next
            self.link.next.prev = self.link.prev


@cython.final
@cython.no_gc
@cython.cclass
class Load:
    """A value's way back, and whose."""

    def __cinit__(self):
        self.thread = threading.get_ident()


@cython.final
@cython.cclass
class Run:
    """What one reclaim is at."""

    def __cinit__(self):
        self.batch = Batch()
        self.going = []
        self.kept = []  # whose memory the batch is of
        self.most = BATCH_VALUES


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def form_in(slot: Slot) -> cython.int:
    """How the value is kept; with GONE, another number than any form."""
    return slot.word & (FORM_MASK | GONE)


@cython.cfunc
@cython.inline
def resident_in(slot: Slot) -> Resident:
    return cython.cast(Resident, cython.cast(cython.p_void, slot.at))


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def address_of(thing: object) -> uint64_t:
    return cython.cast(uint64_t, cython.cast(cython.size_t, cython.cast(cython.p_void, thing)))


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def pages(nbytes: int64_t) -> int64_t:
    return (nbytes + _PAGE_BYTES - 1) // _PAGE_BYTES


@cython.cclass
class Slots:
    """Keys and their values.  All methods are thread-safe."""

    def __cinit__(self):
        i: cython.int
        for i in range(NR_LISTS):
            list_init(cython.address(self._lists[i]))

    def __dealloc__(self):
        # A slot may be referred to for longer, by a copy of the dict.
        i: cython.int
        for i in range(NR_LISTS):
            list_abandon(cython.address(self._lists[i]))

    def __init__(self, cgroup, compression, shared=None, sizeof=None):
        self.cgroup = cgroup
        self.by_key = {}
        self._compression = compression
        self._dictionaries = compression.dictionaries
        self._shared = shared
        self._sizeof = sizeof
        self._buffers = Buffers(host_of(cgroup).is_paged, host_of(cgroup).has_paged_memory)
        self._zswap = host_of(cgroup)
        with self._zswap.lifetime:
            self._engine = self._zswap.core
        self._memcg = cgroup.index
        self._loads = {}
        #: thread -> the loads that it waits for; several when a signal handler needs one while its thread waits
        self._waiting = {}
        self._wanted = deque()
        self._prefetcher = Worker("uzswap-prefetch", self._prefetch, Order.STORE_WORKER)
        on_fork(self, Slots._forked)

    def require_open(self):
        """Raise OSError (EBADF) when the store or its engine is closed, RuntimeError in a forked child."""
        if self.forked:
            raise RuntimeError("the store belongs to the parent process: make a new one after the fork")
        if self._zswap.closing:
            self.close()
            raise os_error(errno.EBADF, "the engine of the store is closed: make new ones", self.cgroup.path)
        if self.closed:
            raise os_error(errno.EBADF, "the store is closed: make a new one", self.cgroup.path)

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
        for coming in self._buffers.abandoned():
            kept: int64_t = self._buffers.does_not_come(coming)
            self.resident_bytes += kept
            self._release(coming.charged - kept)
        self._prefetcher.forked()
        self._compression.forked()

    def check(self):
        """Return which invariants do not hold, in words; for quiet moments."""
        r: Resident
        wrong = []
        weights: int64_t = 0
        within: int64_t = 0
        lengths: int64_t = 0
        for key, slot in list(self.by_key.items()):
            s = cython.cast(Slot, slot)
            if s.word & GONE or s in self._loads:
                wrong.append(f"{key!r}: is being worked on")
            if form_in(s) == RESIDENT:
                r = resident_in(s)
                weights += r.weight
                within += r.more
                if r.where == ISOLATED or r.taken:
                    wrong.append(f"{key!r}: is being worked on")
                if r.slot != cython.cast(cython.p_void, s) or r.value is NOTHING:
                    wrong.append(f"{key!r}: is not in one place")
                lengths += 1
        on_lists: int64_t = 0
        nbytes: int64_t = 0
        i: cython.int
        for i in range(NR_LISTS):
            l = cython.address(self._lists[i])
            link = l.end.next
            found: int64_t = 0
            while link != cython.address(l.end):
                r = cython.cast(Resident, link.owner)
                if r.where != i or r.slot == cython.NULL:
                    wrong.append("reclaim sees a value that is gone, or that is elsewhere")
                found += 1
                nbytes += r.weight
                link = link.next
            if found != l.length:
                wrong.append(f"list {i} has {found} values, and counts {l.length}")
            on_lists += found
        if on_lists != lengths:
            wrong.append(f"reclaim sees {on_lists} of {lengths} resident values")
        if weights != nbytes:
            wrong.append(f"the values weigh {weights}, on the lists {nbytes}")
        if weights - within + self._buffers.nbytes != self.resident_bytes:
            wrong.append(
                f"{self.resident_bytes} bytes are charged, the values weigh {weights - within}, "
                f"and what several have a part of {self._buffers.nbytes}"
            )
        if self._waiting or self._loads:
            wrong.append(f"threads wait for loads: {list(self._waiting)}")
        return wrong

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

    def _touch(self, r):
        """Note an access of a resident value."""
        r.version += 1
        r.referenced = 1
        if r.where == UNEVICTABLE:
            held = r.held
            r.holders = 0
            r.held = r.obstacle = None
            if not r.pins:
                self._take_off(r)
                self._put_on(r, INACTIVE)
            del held

    def insert(self, key, value, replace=True):
        """Set a value; False when there is one already that is not to be replaced."""
        r: Resident
        slot: Slot
        if self.closed or self.forked or self._engine.core == cython.NULL:
            self.require_open()
        coming = None
        blocks = []
        weight: int64_t = self._weigh([value], blocks)
        if blocks:
            coming = self._buffers.join(blocks)
            weight += coming.more
        charged: int64_t = 0
        had: int64_t
        stays: cython.bint
        form: cython.int = RESIDENT
        at: uint64_t = 0
        _previous = None
        try:
            while True:
                found = self.by_key.get(key)
                stays = self.closed or (found is not None and not replace)
                if stays:
                    break
                slot = cython.cast(Slot, found)
                # What it replaces is given back, unless a reclaim has just taken it.
                had = self._own_weight(resident_in(slot)) if found is not None and form_in(slot) == RESIDENT else 0
                if weight - had > charged:
                    lacking: int64_t = weight - had - charged
                    self._charge(lacking, False)
                    charged += lacking
                    if coming is not None:
                        coming.charged = charged
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
                        charged -= weight
                        break
                    r.slot = cython.NULL
                elif slot.word & GONE:
                    pass
                elif form_in(slot) == RESIDENT:
                    r = resident_in(slot)
                    _previous, r.value = r.value, value
                    kept = self._leave(r)
                    charged -= weight - r.weight + kept
                    self._set_weight(r, weight)
                    coming = self._came(r, coming)
                    self._touch(r)
                    break
                else:
                    r = Resident.__new__(Resident)
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
                    charged -= weight
                    if self._loads.pop(slot, None) is not None:
                        form = RESIDENT  # the loader finds its chunks replaced, and frees them
                    break
        finally:
            self._give_back(charged, coming)
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
            self._free_chunks(packed.handles)

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
        weight: int64_t = self._weigh([value], blocks)
        if blocks:
            coming = self._buffers.join(blocks)
            weight += coming.more
        # This variable is an outside reference: a reclaim for the charge leaves the value alone.
        charged: int64_t = 0
        try:
            while r.slot != cython.NULL and r.value is value and r.weight == before:
                lacking: int64_t = weight - self._own_weight(r) - charged
                if lacking <= 0:
                    charged -= weight - before + self._leave(r)
                    self._set_weight(r, weight)
                    coming = self._came(r, coming)
                    break
                self._charge(lacking, False)
                charged += lacking
                if coming is not None:
                    coming.charged = charged
        finally:
            self._give_back(charged, coming)

    def _came(self, r, coming):
        """A value is the store's, and with it its part of memory that others may have a part of.  Returns None."""
        if coming is not None:
            r.more, r.part = coming.more, coming.part
            self._buffers.came(coming)

    def _give_back(self, charged, coming):
        """Release what was charged for a value and is not needed; with it a part that did not become a value's."""
        if coming is not None:
            kept: int64_t = self._buffers.does_not_come(coming)
            self.resident_bytes += kept
            charged -= kept
        if charged < 0:
            with hold_back_signals():
                self._charge(-charged, True)
        else:
            self._release(charged)

    def _weigh(self, once, blocks):
        """Bytes of the one value in a list, which is emptied, without the blocks that others may have a part of."""
        if self._sizeof is None:
            return estimate(once, blocks, self._buffers.wants_all)
        return told(self._sizeof, once.pop())

    def _leave(self, r):
        """A value gives up its part of memory that others may have a part of.

        Returns the bytes of its weight that stay charged, for these; they are added to what is.
        """
        if r.part is None:
            return 0
        part, r.part = r.part, None
        kept: int64_t = r.more - self._buffers.leave(part)
        r.more = 0
        self.resident_bytes += kept
        return kept

    def _own_weight(self, r):
        """Bytes of a value's weight that are no longer charged once it has gone."""
        return r.weight if r.part is None else r.weight - r.more + self._buffers.alone(r.part)

    # Lists

    def _put_on(self, r, where):
        """At the hot end."""
        r.where = where
        add_hottest(cython.address(self._lists[where]), cython.address(r.link), r.weight)

    def _take_off(self, r):
        if r.where != NR_LISTS:
            take_off(cython.address(self._lists[r.where]), cython.address(r.link), r.weight)
            r.where = NR_LISTS

    def _set_weight(self, r, weight):
        self.resident_bytes += weight - r.weight
        self._lists[r.where].nbytes += weight - r.weight
        r.weight = weight

    # Coming back

    def _load(self, key, slot, pop):
        """Bring a value back.  NOTHING when it is to be looked for anew."""
        if self._loads:
            load = self._loads.get(slot)
            if load is not None:
                self._wait(load, key)
                return NOTHING
        form = form_in(slot)
        if STREAM < form < GONE and not pop:
            value = self._load_plain(slot, form)
            if value is not None:
                return value
        return self._bring_back(key, slot, pop)

    def _load_plain(self, slot, form):
        """Bring back bytes or a str from the pool: in one step, as nothing foreign is needed.

        None when it is too large, or elsewhere, or fails; NOTHING when it is to be looked for anew.
        """
        r: Resident
        at = slot.at
        weight = slot.weight
        size = size_at(self._engine, at)
        if size == 0 or size > _DIRECT_BYTES:
            return None
        r = Resident.__new__(Resident)
        value = blank(form, size)
        if not charge(self._engine, self._memcg, weight):
            self._zswap.charge(self.cgroup, weight, force=True)
            if form_in(slot) != form or slot.at != at or slot in self._loads:
                self._release(weight)
                return NOTHING
        if load_value(self._engine, at, data_of(value, form), size):
            self._release(weight)
            return None
        self._settle(slot, r, value, weight)
        return value

    def _settle(self, slot, r, value, weight):
        """A packed value is resident from now on; its chunks are the caller's."""
        # How much was evicted since it was, in bytes; what it is compared with is as far off as that at most.
        age = ((self._age >> AGE_UNIT_SHIFT) - (slot.word >> AGE_SHIFT)) & AGE_MASK
        active = self._lists[ACTIVE].nbytes
        if slot.word & FORM_MASK == EXTENTS:
            Py_DECREF(cython.cast(object, cython.cast(cython.p_void, slot.at)))
        r.value = value
        r.weight = weight
        own(slot, r)
        self._put_on(r, ACTIVE if age <= active >> AGE_UNIT_SHIFT and active else INACTIVE)
        self.resident_bytes += weight
        self.loaded += 1

    def _bring_back(self, key, slot, pop):
        """Load a value.  NOTHING when it was to be popped, and was deleted or replaced meanwhile."""
        r: Resident
        charged: int64_t = 0
        form = form_in(slot)
        at = slot.at
        if form & GONE or form == RESIDENT or slot in self._loads:
            return NOTHING
        packed = cython.cast(object, cython.cast(cython.p_void, at)) if form == EXTENTS else None
        weight: int64_t = packed.weight if form == EXTENTS else slot.weight
        load = Load.__new__(Load)
        self._loads[slot] = load
        kept: cython.bint = 1
        try:
            r = Resident.__new__(Resident)
            if not pop:
                # What was accepted can be read, whatever the limits: it goes over them where there is no other way.
                self._charge(weight, True)
                charged = weight
            value = unpack(packed, self._get) if form == EXTENTS else self._unpack(form, at)
            if pop:
                if not self._remove(key, slot, at):
                    return NOTHING
                kept = 0
                self.loaded += 1
            elif form_in(slot) == form and slot.at == at:
                self._settle(slot, r, value, weight)
                charged = 0
                kept = 0
            return value
        except BaseException as error:
            if form_in(slot) == form and slot.at == at:
                error.add_note(f"in the store of {self.cgroup.path}, while loading the value of {key!r}: it is kept")
            raise
        finally:
            self._over(slot, load)
            # Whoever takes the chunks away while they are being loaded leaves them to the loader.
            if form_in(slot) != form or slot.at != at:
                kept = 0
            self._release(charged)
            if not kept:
                self._free(form, at)
            del packed

    def _unpack(self, form, at):
        """Load what is in one chunk, which stays."""
        size = size_at(self._engine, at)
        value = blank(form, size)
        span: Span
        span.data = data_of(value, form if form > STREAM else BYTES)
        span.size = size
        disk_ns: int64_t = 0
        with self._zswap.lifetime:
            error = load_spans(self._engine, cython.address(at), 1, cython.address(span), cython.address(disk_ns))
        if error:
            raise self._zswap.load_error(error, at)
        if disk_ns:
            self._count_stall(disk_ns)
        return value if form > STREAM else loads(value)

    def _count_stall(self, disk_ns):
        # A finalizer that the garbage collector finds has bytecodes, and so handlers run, which may want any lock.
        with hold_back_signals():
            self.cgroup.pressure.record(disk_ns)

    def bring_in(self, keys, hold, force: cython.bint = True):
        """Load those of the values that are packed, many at once, in the order in which they lie on the disk.

        Parameters
        ----------
        hold
            A list that gets them, so that they stay until they are used; or None.
        force
            Whether room is made for them, and limits exceeded where that can't be.
        """
        slot: Slot
        s: Slot
        found = []
        large = []
        for key in keys:
            slot = self.by_key.get(key)
            if slot is None:
                continue
            s = cython.cast(Slot, slot)
            form = form_in(s)
            if form == EXTENTS:
                large.append((key, s))
            elif form >= STREAM and not form & GONE:
                found.append((place_of(self._engine, s.at), len(found), s))
        found.sort()
        run = [one[2] for one in found]
        done: cython.Py_ssize_t = 0
        while done < len(run) and not self.closed:
            taken: cython.Py_ssize_t = self._load_run(run[done : done + _TOGETHER], hold, force)
            if taken < 0:
                return
            done += taken
            let_handlers_run()
        if hold is None:
            for key, one in large:
                s = cython.cast(Slot, one)
                packed = s.packed
                if self.closed or packed is None:
                    continue
                weight: int64_t = packed.weight
                if not charge(self._engine, self._memcg, weight):
                    return
                self._release(weight)
                self._bring_back(key, s, False)

    def _load_run(self, run, hold, force):
        """Load the values of some slots; how many were looked at, or -1 when there is no room and none was to be made.

        What can't be read stays as it is: whoever asks for it alone is told why.
        """
        r: Resident
        slot: Slot
        total: int64_t = 0
        charged: int64_t = 0
        nbytes: int64_t = 0
        disk_ns: int64_t = 0
        n: cython.Py_ssize_t = 0
        looked: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        handles = cython.cast(cython.pointer(uint64_t), malloc(len(run) * cython.sizeof(uint64_t)))
        spans = cython.cast(cython.pointer(Span), malloc(len(run) * cython.sizeof(Span)))
        if handles == cython.NULL or spans == cython.NULL:
            free(handles)
            free(spans)
            raise MemoryError
        load: Load = Load.__new__(Load)
        slots = []
        blanks = []
        dropped: cython.Py_ssize_t = 0
        error: cython.int = 0
        try:
            for one in run:
                looked += 1
                slot = cython.cast(Slot, one)
                form = form_in(slot)
                if form < STREAM or form & GONE or slot in self._loads:
                    continue
                size = size_at(self._engine, slot.at)
                value = blank(form, size)
                handles[n] = slot.at
                spans[n].data = data_of(value, form if form > STREAM else BYTES)
                spans[n].size = size
                blanks.append(value)
                slots.append(slot)
                self._loads[slot] = load
                n += 1
                total += slot.weight
                nbytes += size
                if nbytes >= _TOGETHER_BYTES:
                    break
            if n == 0:
                return looked
            if force:
                self._charge(total, True)
            elif not charge(self._engine, self._memcg, total):
                return -1
            charged = total
            with self._zswap.lifetime:
                error = load_spans(self._engine, handles, n, spans, cython.address(disk_ns))
            if error:
                return looked
            for i in range(n):
                slot = cython.cast(Slot, slots[i])
                form = form_in(slot)
                value = blanks[i]
                if form == STREAM:
                    try:
                        value = loads(value)
                    except Exception as failure:
                        if force:
                            # It may be a signal handler's.
                            failure.add_note(f"in the store of {self.cgroup.path}, while loading a value: it is kept")
                            raise
                        continue
                r = Resident.__new__(Resident)
                if self._loads.get(slot) is load and slot.at == handles[i]:
                    charged -= slot.weight
                    self._settle(slot, r, value, slot.weight)
                    del self._loads[slot]
                    if hold is not None:
                        hold.append(value)
        finally:
            for i in range(n):
                slot = cython.cast(Slot, slots[i])
                if self._loads.get(slot) is load:
                    del self._loads[slot]  # it stays packed
                else:
                    handles[dropped] = handles[i]
                    dropped += 1
            load.done = True
            if load.over is not None:
                load.over.release()
            i = 0
            while i < dropped:
                require_freed(free_handles(self._engine, handles + i, dropped - i if dropped - i < 64 else 64))
                i += 64
            free(handles)
            free(spans)
            self._release(charged)
        if disk_ns:
            self._count_stall(disk_ns)
        return looked

    def prefetch(self, keys):
        """Have values brought in by a thread of our own, as far as there is room; nobody waits."""
        self.require_open()
        self._wanted.append(list(keys))
        self._prefetcher.wake()

    def settle(self):
        """Wait until nothing is left to be prefetched."""
        self._prefetcher.flush()

    def _prefetch(self):
        while self._wanted and not self.closed and not self.forked:
            try:
                keys = self._wanted.popleft()
            except IndexError:
                break
            try:
                self.bring_in(keys, None, False)
            except OSError as error:
                if not self._zswap.closing:
                    raise
                require_closed(error)

    def _wait(self, load, key):
        """Wait until another thread has loaded a value."""
        me = threading.get_ident()
        lock = threading.Lock()
        lock.acquire()
        if load.over is None:
            load.over = lock
        mine = self._waiting.setdefault(me, [])
        mine.append(load)
        try:
            if load.done:
                return
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

    def _waits_for(self, load, thread):
        """Whether a load can't be over before a thread goes on."""
        found = [load]
        while found:
            loader = cython.cast(Load, found.pop()).thread
            if loader == thread:
                return True
            found += self._waiting.get(loader, ())
        return False

    def _over(self, slot, load):
        if self._loads.get(slot) is load:
            del self._loads[slot]
        load.done = True
        # Unlocked: in a forked child, the lock of a waiter that was about to take it.
        if load.over is not None and load.over.locked():
            load.over.release()

    # Going out

    def reclaim(self, nbytes):
        """Swap the coldest values out until ``nbytes`` less are charged, none is left that can go, or a signal comes.

        One that has to stay is put at the hot end, as the kernel does with a page that is in use or that zswap refuses.
        When several in a row were refused by the engine, there is no point in trying the others, and the call ends.
        """
        if self.closed or self.forked:
            return Reclaimed(0, 0)
        run: Run = Run.__new__(Run)
        self._reclaims += 1
        run.want = nbytes if nbytes < 1 << 62 else 1 << 62
        unevictable = self._lists[UNEVICTABLE].length
        run.looks = cython.cast(cython.int, unevictable if unevictable < _RECHECKED else _RECHECKED)
        run.thorough_looks = _RECHECKED_THOROUGHLY
        # Each may have to be passed by once before it is looked at.
        run.left = 2 * (self._lists[INACTIVE].length + self._lists[ACTIVE].length)
        if self._refusing:
            # While it goes on refusing, one more tells: a charge that can't be met asks some hundred times.
            run.refusals = _MAX_REFUSALS - 1
            run.most = 1
        # An exception of a handler while a value is pickled would pass for one of pickle's.
        with hold_back_signals() as signals:
            if run.want > 0:
                self._recheck(run, _RECHECKED_FIRST)
            while run.freed < run.want and run.refusals < _MAX_REFUSALS and not signals.pending():
                if not self._gather(run) and not self._recheck(run, _RECHECKED):
                    break
                self._store(run)
                if run.refusals == 0:
                    run.most = BATCH_VALUES
            self._refusing = run.refusals >= _MAX_REFUSALS
        return Reclaimed(run.scanned, run.freed)

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
        run: Run = Run.__new__(Run)
        if r.slot == cython.NULL or r.where == ISOLATED:
            return 0
        self._take_off(r)
        self._put_on(r, ISOLATED)
        with hold_back_signals():
            self._examine(run, r)
            self._store(run)
        return run.freed

    def _recheck(self, run, most):
        """Look again at some of the values that had to stay; how many may go now for all that is known.

        They are put at the cold end of those that can go.
        """
        r: Resident
        thorough: cython.bint = self._reclaims % _THOROUGH_EVERY == 0
        found: int64_t = 0
        if most > run.looks:
            most = run.looks
        run.looks -= most
        while most > 0 and self._lists[UNEVICTABLE].length:
            most -= 1
            r = cython.cast(Resident, coldest(cython.address(self._lists[UNEVICTABLE])).owner)
            self._take_off(r)
            known: cython.bint = r.holders > 0 or r.obstacle is UNPICKLABLE
            stays: cython.bint = r.pins > 0 or (r.holders > 0 and references(r) == r.holders)
            if r.obstacle is UNPICKLABLE or (known and stays):
                stays = not thorough or r.pins > 0
                known = 0
            if not known and not stays:
                stays = run.thorough_looks == 0
                run.thorough_looks -= not stays
            if stays:
                self._put_on(r, UNEVICTABLE)
                continue
            r.where = INACTIVE
            add_coldest(cython.address(self._lists[INACTIVE]), cython.address(r.link), r.weight)
            found += 1
        run.left += found
        return found

    def _coldest(self, run):
        """Isolate the coldest value, past those that were accessed; None when there is none."""
        r: Resident
        passed: cython.int = 0
        inactive = cython.address(self._lists[INACTIVE])
        active = cython.address(self._lists[ACTIVE])
        while run.left > 0:
            if passed == _MAX_PASSED:
                passed = 0
                let_handlers_run()
            passed += 1
            if active.length and (inactive.length == 0 or inactive_is_low(inactive, active)):
                r = cython.cast(Resident, coldest(active).owner)
                r.referenced = 0
                self._take_off(r)
                self._put_on(r, INACTIVE)
                continue
            link = coldest(inactive)
            if link == cython.NULL:
                return None
            r = cython.cast(Resident, link.owner)
            run.left -= 1
            run.scanned += pages(r.weight)
            self._take_off(r)
            if not r.referenced:
                self._put_on(r, ISOLATED)
                return r
            r.referenced = 0
            self._put_on(r, ACTIVE)
            self._age += r.weight
        return None

    def _gather(self, run):
        """Put the coldest values into the batch, as many as are wanted and fit; how many were looked at."""
        r: Resident
        looked: int64_t = 0
        while looked < BATCH_VALUES and run.batch.n < run.most and run.freed + run.pending < run.want:
            r = self._coldest(run)
            if r is None:
                break
            looked += 1
            self._examine(run, r)
        return looked

    def _examine(self, run, r):
        """Pack an isolated value into the batch, unless it has to stay.  One that fills a batch is stored at once."""
        form: cython.int
        item: cython.int
        flags: cython.int
        size: cython.Py_ssize_t
        settled: cython.bint = 0
        obstacle = UNPICKLABLE
        r.seen = r.version
        r.holders = 0
        r.obstacle = None
        r.held = None
        try:
            nbytes, obstacle, found = examine([r.value], self._shared)
            if obstacle is not None:
                if found is not None:
                    r.held, found = found, None
                    r.holders = references(r)
                return 0
            obstacle = UNPICKLABLE
            r.after = nbytes if self._sizeof is None else r.weight
            value = r.value
            form = form_of(value)
            stream = value
            item = flags = 0
            if found is not None:
                stream = None
                size = 0
            elif form == STREAM:
                if type(value) is np.ndarray:
                    item, flags = self._compression.filter_of(value)
                if r.after <= _LARGEST_CHUNK and type(value) is not bytes:
                    stream = dumps(value, 5)
                    size = len(stream)
                else:
                    stream = None
                    size = 0
            else:
                size = size_of(value, form)
            if not 0 < size <= _LARGEST_CHUNK:
                self._store(run)
                settled = 1
                self._store_large(run, r, value, stream if form == STREAM else None, found)
                return 0
            if not run.batch.takes(size) or run.batch.filter != item:
                self._store(run)
                run.batch.filter = item
                run.batch.flags = flags
            run.kept.append(stream)
            run.going.append(r)
            run.forms[run.batch.n] = form
            run.batch.add(data_of(stream, form if form > STREAM else BYTES), cython.cast(uint32_t, size))
            run.pending += r.weight
            settled = 1
            return 1
        except (Refused, MemoryError):
            obstacle = None
            run.refusals += 1
            self.refused += 1
        except Exception:
            pass
        finally:
            if not settled:
                self._put_back(r)
                if r.slot != cython.NULL and r.version == r.seen and obstacle is not None and not r.taken:
                    r.obstacle = obstacle
                    self._take_off(r)
                    self._put_on(r, UNEVICTABLE)
        return 0

    def _store(self, run):
        """Have the batch compressed and stored, and let the values go out that were not accessed meanwhile."""
        r: Resident
        n: cython.int = run.batch.n
        i: cython.int
        unwanted: uint64_t[64]
        dropped: cython.int = 0
        before = run.freed
        if n == 0:
            return
        run.batch.codec = self._compression.codec
        if self._dictionaries is not None:
            run.batch.small = self._dictionaries.slot
            run.batch.small_bytes = SMALL
            if self._dictionaries.sampling:
                for i in range(n):
                    if run.batch.spans[i].size <= SMALL:
                        self._dictionaries.sample(run.batch.spans[i].data[: run.batch.spans[i].size])
        try:
            self._zswap.swap_out_batch(run.batch, self.cgroup)
        except OSError:
            pass  # it took none of them
        finally:
            for i in range(n):
                r = cython.cast(Resident, run.going[i])
                handle = run.batch.handles[i]
                if handle == 0:
                    self.refused += 1
                    run.refusals += 1
                    self._put_back(r)
                else:
                    run.refusals = 0
                    if not self._go_out(run, r, run.forms[i], handle):
                        unwanted[dropped] = handle
                        dropped += 1
            run.batch.empty()
            run.pending = 0
            self._release(run.freed - before)
            if dropped:
                require_freed(free_handles(self._engine, unwanted, dropped))
            # Last: values go with these.
            run.going.clear()
            run.kept.clear()
        if self._dictionaries is not None:
            self._dictionaries.after_batch()

    def _store_large(self, run, r, value, stream, apart):
        """Pack and store an isolated value that is not for a batch; it is put back unless it goes out."""
        packed = None
        before = run.freed
        obstacle = None
        went: cython.bint = 0
        try:
            packed = pack(value, self._put, self._free_chunks, stream, apart)
            run.refusals = 0
        except (Refused, MemoryError):
            run.refusals += 1
            self.refused += 1
        except Held:
            obstacle = REFERENCED
        except Exception:
            obstacle = UNPICKLABLE
        finally:
            if packed is not None:
                packed.weight = r.after
                Py_INCREF(packed)
                went = self._go_out(run, r, EXTENTS, address_of(packed))
                if not went:
                    Py_DECREF(packed)
            else:
                self._put_back(r)
                if obstacle is not None and r.slot != cython.NULL and r.version == r.seen and not r.taken:
                    r.obstacle = obstacle
                    self._take_off(r)
                    self._put_on(r, UNEVICTABLE)
            self._release(run.freed - before)
            if packed is not None and not went:
                self._free_chunks(packed.handles)

    def _go_out(self, run, r, form, at):
        """An isolated value that was stored is packed from now on; accessed meanwhile, it is put back instead.

        An access or a new value wins: the bytes may be out of date, and the value is hot.
        """
        slot: Slot
        if r.slot == cython.NULL or r.taken or r.pins or r.version != r.seen:
            self._put_back(r)
            return 0
        slot = cython.cast(Slot, r.slot)
        self._take_off(r)
        self._age += r.weight
        slot.at = at
        slot.weight = cython.cast(uint32_t, r.after) if form != EXTENTS else 0
        age = cython.cast(uint32_t, (self._age >> AGE_UNIT_SHIFT) & AGE_MASK)
        slot.word = cython.cast(uint32_t, form) | (age << AGE_SHIFT)
        r.slot = cython.NULL
        Py_DECREF(r)  # the slot's
        run.freed += r.weight - self._leave(r)
        self.resident_bytes -= r.weight
        self.evicted += 1
        return 1

    def _put_back(self, r):
        """From a reclaim to the hot end, if it is the value of a key still."""
        if r.slot != cython.NULL:
            self._take_off(r)
            self._put_on(r, UNEVICTABLE if r.pins else INACTIVE)

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

    # Away

    def _remove(self, key, slot, at):
        """Delete a key whose value was found resident, or was loaded from these chunks; False if it changed.

        In the latter case the chunks are left to the caller.
        """
        r: Resident
        owns: cython.bint = 0
        r = resident_in(slot) if form_in(slot) == RESIDENT else None
        if r is not None:
            r.taken += 1
        try:
            popped = self.by_key.pop(key, None)
        finally:
            # Not in a child that a key's code has forked.
            if r is not None and r.taken > 0:
                r.taken -= 1
        if popped is None:
            return False
        if popped is slot and slot.at == at and not slot.word & GONE:
            self._release(self._forget(slot, cython.address(owns)))
            return True
        # Another one took its place while __eq__ of a key ran.
        if self.by_key.setdefault(key, popped) is not popped:
            other = cython.cast(Slot, popped)
            self._release(self._forget(other, cython.address(owns)))
            if owns:
                self._free(other.word & FORM_MASK, other.at)
        return False

    def _forget(self, slot, owns):
        """Give up a slot that is no longer the value of a key.

        Returns the charged bytes that are to be released, and says whether its chunks are: a loader has them else.
        """
        r: Resident
        if slot.word & GONE:
            return 0
        resident: cython.bint = slot.word & FORM_MASK == RESIDENT
        slot.word |= GONE
        if not resident:
            owns[0] = self._loads.pop(slot, None) is None
            return 0
        r = resident_in(slot)
        self._take_off(r)
        r.slot = cython.NULL
        freed: int64_t = r.weight - self._leave(r)
        self.resident_bytes -= r.weight
        return freed

    # The engine

    def _charge(self, nbytes, force):
        if nbytes > 0 and not charge(self._engine, self._memcg, nbytes):
            self._zswap.charge(self.cgroup, nbytes, force=force)

    def _release(self, charged):
        if not charged:
            return
        if not self.closed:
            uncharge(self._engine, self._memcg, charged)
            return
        try:
            # The cgroup may be gone, and its index another's.
            self._zswap.uncharge(self.cgroup, charged)
        except OSError as error:
            require_closed(error)

    def _free(self, form, at):
        """Give chunks back; those of a Packed, to which somebody refers still."""
        if form == EXTENTS:
            self._free_chunks(cython.cast(object, cython.cast(cython.p_void, at)).handles)
        elif form >= STREAM:
            require_freed(free_handles(self._engine, cython.address(at), 1))

    def _put(self, data, array):
        stored = []
        item, flags = (0, 0) if array is None else self._compression.filter_of(array)
        try:
            for start in range(0, data.nbytes, _PUT_BYTES):
                part = data[start : start + _PUT_BYTES]
                handles = self._zswap.swap_out_chunks(part, self.cgroup, CHUNK, self._compression.codec, item, flags)
                stored.append(handles)
                if not handles.all():
                    raise Refused
        except BaseException as error:
            for handles in stored:
                self._free_chunks(handles)
            if isinstance(error, OSError):
                raise Refused from None
            raise
        return np.concatenate(stored) if len(stored) != 1 else stored[0]

    def _get(self, handles, out):
        if len(handles):
            self._zswap.fault_in_many(handles, out, page=CHUNK, consume=False)

    def _free_chunks(self, handles):
        if len(handles):
            try:
                self._zswap.free_many(handles)
            except OSError as error:
                require_closed(error)

    # Looking inside

    def survey(self):
        """Return counts of values, and the handles of all chunks."""
        r: Resident
        slot: Slot
        stuck = {REFERENCED: [0, 0], UNPICKLABLE: [0, 0]}
        resident: int64_t = 0
        packed_bytes: int64_t = 0
        found = list(self.by_key.values())
        handles = np.empty(len(found), np.uint64)
        address: cython.size_t = handles.ctypes.data
        chunks = cython.cast(cython.pointer(uint64_t), address)
        n: cython.Py_ssize_t = 0
        several = []
        for one in found:
            slot = cython.cast(Slot, one)
            form = slot.word & FORM_MASK
            if form == RESIDENT:
                resident += 1
                r = resident_in(slot)
                if r.obstacle is not None:
                    stuck[r.obstacle][0] += 1
                    stuck[r.obstacle][1] += r.weight
            elif form == EXTENTS:
                packed = cython.cast(object, cython.cast(cython.p_void, slot.at))
                packed_bytes += packed.weight
                several.append(packed.handles)
            else:
                packed_bytes += slot.weight
                chunks[n] = slot.at
                n += 1
        return len(found), resident, packed_bytes, stuck, np.concatenate([handles[:n], *several])

    def peek(self, key):
        """Return the value of a key if it is resident, else NOTHING, and count no access.  KeyError without it."""
        self.require_open()
        slot: Slot = self.by_key[key]
        return resident_in(slot).value if form_in(slot) == RESIDENT else NOTHING

    def tell(self, key):
        """Return weight, obstacle, pinned and referenced of the value of a key.  KeyError without it."""
        r: Resident
        self.require_open()
        slot: Slot = self.by_key[key]
        form = slot.word & FORM_MASK
        if form == EXTENTS:
            return cython.cast(object, cython.cast(cython.p_void, slot.at)).weight, None, False, False
        if form != RESIDENT:
            return slot.weight, None, False, False
        r = resident_in(slot)
        return r.weight, r.obstacle, r.pins > 0, bool(r.referenced or r.where == ACTIVE)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def own(slot: Slot, r: Resident) -> cython.void:
    """Let a slot have a resident value; what it had before is the caller's."""
    Py_INCREF(r)
    slot.at = address_of(r)
    slot.weight = 0
    slot.word = RESIDENT
    r.slot = cython.cast(cython.p_void, slot)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def references(r: Resident) -> cython.Py_ssize_t:
    """How many there are to what was found to be held."""
    return cython.cast(cython.pointer(PyObject), cython.cast(cython.p_void, r.held)).ob_refcnt


@cython.cfunc
def require_freed(error: cython.int) -> object:
    """What is to be given back went with the engine when that was closed; any other error is raised."""
    if error and error != EBADF:
        raise os_error(error, "a chunk of a value can't be freed: it is in use, or was freed already")


def require_closed(error):
    """What is to be given back went with the engine when that was closed; any other error is raised."""
    if error.errno != errno.EBADF:
        raise error


# Residents are none of the garbage collector's objects, or each would have 16 bytes more, and making one could run
# finalizers; so a store shows it the values itself.

_traverse_fields = cython.declare(Traverse, cython.NULL)


@cython.cfunc
@cython.exceptval(check=False)
def _traverse(store: cython.pointer(PyObject), visit: Visit, arg: cython.p_void) -> cython.int:
    i: cython.int
    found: cython.int = _traverse_fields(store, visit, arg)
    slots = cython.cast(Slots, cython.cast(cython.p_void, store))
    for i in range(NR_LISTS):
        end = cython.address(slots._lists[i].end)
        link = end.next
        while not found and link != end:
            r = cython.cast(Resident, link.owner)
            found = visit(cython.cast(cython.pointer(PyObject), cython.cast(cython.p_void, r.value)), arg)
            if not found:
                found = visit(cython.cast(cython.pointer(PyObject), cython.cast(cython.p_void, r.held)), arg)
            link = link.next
    return found


@cython.cfunc
def _show_values() -> object:
    global _traverse_fields
    type_of_slots = cython.cast(cython.pointer(Traversed), cython.cast(cython.p_void, Slots))
    _traverse_fields = type_of_slots.tp_traverse
    type_of_slots.tp_traverse = _traverse


allocate_from_slabs(Slot)
_show_values()
