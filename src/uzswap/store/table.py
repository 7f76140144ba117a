"""The keys of one store and what they lead to, which lists it is on, what is charged: the steps of every change.

Each method is one step, or a few with nothing foreign in between, unless it says so; slots.py says what holds
between two of them.
"""

import errno

import cython
import numpy as np
from cython.cimports.cpython.object import PyObject
from cython.cimports.cpython.pythread import PyThread_get_thread_ident
from cython.cimports.cpython.ref import Py_DECREF
from cython.cimports.libc.errno import EBADF
from cython.cimports.libc.stdint import int64_t, uint64_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.uzswap.core.boundary.values import (
    charge,
    free_handles,
    swap_cache_forgets,
    swap_cache_keeps,
    uncharge,
)
from cython.cimports.uzswap.store.forms import EXTENTS, RESIDENT, STREAM
from cython.cimports.uzswap.store.lruvec import (
    ACTIVE,
    INACTIVE,
    ISOLATED,
    NR_LISTS,
    UNEVICTABLE,
    add_hottest,
    list_abandon,
    list_init,
    take_off,
)
from cython.cimports.uzswap.store.slot import (
    AGE_MASK,
    AGE_SHIFT,
    AGE_UNIT_SHIFT,
    FORM_MASK,
    GONE,
    Cached,
    Resident,
    Slot,
    form_in,
    own,
    resident_in,
)

from uzswap.engine.host import host_of
from uzswap.errors import os_error
from uzswap.signals import hold_back_signals
from uzswap.store.buffers import Buffers
from uzswap.store.slot import NOTHING
from uzswap.store.weigh import REFERENCED, UNPICKLABLE, estimate, told

# Of what rank() tells: as many as a report shows.
_MOST_RANKED = cython.declare(cython.int, 64)


@cython.cclass
class Table:
    def __cinit__(self):
        i: cython.int
        for i in range(NR_LISTS):
            list_init(cython.address(self._lists[i]))

    def __dealloc__(self):
        # A slot may be referred to for longer, by a copy of the dict.
        i: cython.int
        for i in range(NR_LISTS):
            list_abandon(cython.address(self._lists[i]))
        while self._charging != cython.NULL:
            self._end_charging(self._charging)
        while self._spare != cython.NULL:
            spare = self._spare
            self._spare = spare.next
            free(spare)

    def __init__(self, cgroup, compression, shared=None, sizeof=None, immutable=False):
        self.cgroup = cgroup
        self._immutable = immutable
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
        self._shared_changes = 1
        self._loads = {}
        #: thread -> the loads that it waits for; several when a signal handler needs one while its thread waits
        self._waiting = {}
        self._storing = set()

    def require_open(self):
        """Raise OSError (EBADF) when the store or its engine is closed, RuntimeError in a forked child."""
        if self.forked:
            raise RuntimeError("the store belongs to the parent process: make a new one after the fork")
        if self._zswap.closing:
            self.close()
            raise os_error(errno.EBADF, "the engine of the store is closed: make new ones", self.cgroup.path)
        if self.closed:
            raise os_error(errno.EBADF, "the store is closed: make a new one", self.cgroup.path)

    # Weights

    def _weigh(self, once, blocks):
        """Bytes of the one value in a list, which is emptied, without the blocks that others may have a part of."""
        if self._sizeof is None:
            return estimate(once, blocks, self._buffers.wants_all, self._shared == "copy")
        return told(self._sizeof, once.pop())

    def _leave(self, r):
        """A value gives up its part of memory that others may have a part of.

        Returns the bytes of its weight that stay charged, for these; they are added to what is.
        """
        if r.part is None:
            return 0
        part, r.part = r.part, None
        kept: int64_t = r.more - self._buffers.leave(part, r)
        r.more = 0
        self.resident_bytes += kept
        return kept

    def _own_weight(self, r):
        """Bytes of a value's weight that are no longer charged once it has gone."""
        return r.weight if r.part is None else r.weight - r.more + self._buffers.alone(r.part)

    def _came(self, r, coming):
        """A value is the store's, and with it its part of memory that others may have a part of.  Returns None."""
        if coming is not None:
            r.more, r.part = coming.more, coming.part
            self._buffers.came(coming, r)
            self._shared_changes += 1

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

    # Lists

    def _touch(self, r):
        """Note an access of a resident value."""
        r.version += 1
        r.referenced = 1
        self._shared_changes += r.part is not None
        if r.where == UNEVICTABLE:
            held = r.held
            r.holders = 0
            r.held = r.obstacle = None
            if not r.pins:
                self._take_off(r)
                self._put_on(r, INACTIVE)
            del held

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

    def _put_back(self, r):
        """From a reclaim to the hot end, if it is the value of a key still."""
        if r.slot != cython.NULL:
            self._take_off(r)
            self._put_on(r, UNEVICTABLE if r.pins else INACTIVE)

    def _settle(self, slot, r, value, weight):
        """A packed value is resident from now on; its chunks are the caller's."""
        # How much was evicted since it was, in bytes; what it is compared with is as far off as that at most.
        age = ((self._age >> AGE_UNIT_SHIFT) - (slot.word >> AGE_SHIFT)) & AGE_MASK
        active = self._lists[ACTIVE].nbytes
        if slot.word & FORM_MASK == EXTENTS:
            packed = cython.cast(object, cython.cast(cython.p_void, slot.at))
            r.part, packed.part = packed.part, None
            Py_DECREF(packed)
        r.value = value
        r.weight = weight
        own(slot, r)
        self._put_on(r, ACTIVE if age <= active >> AGE_UNIT_SHIFT and active else INACTIVE)
        self.resident_bytes += weight
        self.loaded += 1

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
        self._forget_chunks(r)
        self._shared_changes += 1
        freed: int64_t = r.weight - self._leave(r)
        self.resident_bytes -= r.weight
        return freed

    # The engine

    def _begin_charging(self):
        mine = self._spare
        if mine != cython.NULL:
            self._spare = mine.next
        else:
            mine = cython.cast(cython.pointer(Charging), malloc(cython.sizeof(Charging)))
            if mine == cython.NULL:
                raise MemoryError
        mine.thread = PyThread_get_thread_ident()
        mine.nbytes = 0
        mine.next = self._charging
        self._charging = mine
        return mine

    def _end_charging(self, mine):
        """Returns what is still charged, which is to be given back."""
        at = cython.address(self._charging)
        while at[0] != mine:
            at = cython.address(at[0].next)
        at[0] = mine.next
        mine.next = self._spare
        self._spare = mine
        return mine.nbytes

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

    def _keep_chunks(self, slot, r, form, at):
        """Have the device keep the chunks that a value was loaded from, if they are the slot's; whether it does.

        Nothing foreign runs after a fresh look at the slot.
        """
        kept: Cached = Cached.__new__(Cached)
        kept.form = form
        kept.chunk = at
        kept.chunks = cython.address(kept.chunk)
        kept.n = 1
        if form == EXTENTS:
            packed = kept.packed = cython.cast(object, cython.cast(cython.p_void, at))
            address: cython.size_t = packed.handles.ctypes.data
            kept.chunks = cython.cast(cython.pointer(uint64_t), address)
            # With what others hold it has more than chunks.
            kept.n = 0 if packed.kept else len(packed.handles)
        if not kept.n or form_in(slot) != form or slot.at != at:
            return False
        if not swap_cache_keeps(self._engine, kept.chunks, kept.n):
            return False
        r.cached = kept
        return True

    def _forget_chunks(self, r):
        """The chunks that the device keeps of a value are not wanted any more."""
        if r.cached is not None:
            swap_cache_forgets(self._engine, r.cached.chunks, r.cached.n)
            r.cached = None

    def _free(self, form, at):
        """Give chunks back; those of a Packed, to which somebody refers still."""
        if form == EXTENTS:
            self._free_packed(cython.cast(object, cython.cast(cython.p_void, at)))
        elif form >= STREAM:
            require_freed(free_handles(self._engine, cython.address(at), 1))

    def _free_packed(self, packed):
        """Give back the chunks of a Packed, and what is charged for its parts, if it has that still; returns these."""
        less: int64_t = 0
        if packed.part is not None:
            part, packed.part = packed.part, None
            less = self._buffers.leave(part)
            self.resident_bytes -= less
            self._release(less)
        self._free_chunks(packed.handles)
        return less

    def _free_chunks(self, handles):
        if len(handles):
            try:
                self._zswap.free_many(handles)
            except OSError as error:
                require_closed(error)

    # Looking inside

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

    def rank(self, most):
        """Return the keys of the heaviest values, of the coldest resident ones, and of those that have to stay."""
        r: Resident
        slot: Slot
        i: cython.Py_ssize_t
        k: cython.int
        n: cython.int = max(0, min(most, _MOST_RANKED))
        heavy: int64_t[64]
        heaviest: cython.Py_ssize_t[64]
        stuck: int64_t[64]
        stuckest: cython.Py_ssize_t[64]
        cold: cython.p_void[64]
        nr_heavy: cython.int = 0
        nr_stuck: cython.int = 0
        nr_cold: cython.int = 0
        self.require_open()
        slots = list(self.by_key.values())
        keys = list(self.by_key)
        for where in (INACTIVE, ACTIVE):
            end = cython.address(self._lists[where].end)
            link = end.next
            while link != end and nr_cold < n:
                cold[nr_cold] = cython.cast(Resident, link.owner).slot
                nr_cold += 1
                link = link.next
        order = [None] * nr_cold
        for i in range(min(len(slots), len(keys))):
            slot = cython.cast(Slot, slots[i])
            form = slot.word & FORM_MASK
            if form == EXTENTS:
                weight: int64_t = cython.cast(object, cython.cast(cython.p_void, slot.at)).weight
            elif form != RESIDENT:
                weight = slot.weight
            else:
                r = resident_in(slot)
                weight = r.weight
                if r.obstacle is not None or r.pins:
                    nr_stuck = rank_in(stuck, stuckest, nr_stuck, n, weight, i)
                for k in range(nr_cold):
                    if cold[k] == cython.cast(cython.p_void, slot):
                        order[k] = i
            nr_heavy = rank_in(heavy, heaviest, nr_heavy, n, weight, i)
        ranked = [heaviest[k] for k in range(nr_heavy)], order, [stuckest[k] for k in range(nr_stuck)]
        # A finalizer may have used the store between the two lists: a key that leads to another slot is not told.
        return [[keys[i] for i in one if i is not None and self.by_key.get(keys[i]) is slots[i]] for one in ranked]

    def lists(self):
        """Return (values, bytes) that have come lately, were used again, and have to stay, as reclaim has them."""
        return [(self._lists[where].length, self._lists[where].nbytes) for where in (INACTIVE, ACTIVE, UNEVICTABLE)]

    def peek(self, key):
        """Return the value of a key if it is resident, else NOTHING, and count no access.  KeyError without it."""
        self.require_open()
        slot: Slot = self.by_key[key]
        self._shared_changes += 1
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
@cython.exceptval(check=False)
def rank_in(
    weights: cython.pointer(int64_t),
    numbers: cython.pointer(cython.Py_ssize_t),
    length: cython.int,
    most: cython.int,
    weight: int64_t,
    number: cython.Py_ssize_t,
) -> cython.int:
    """Put a number among the heaviest, heaviest first; returns how many there are then."""
    if length == most:
        if not most or weight <= weights[most - 1]:
            return length
        length -= 1
    k: cython.int = length
    while k > 0 and weights[k - 1] < weight:
        weights[k], numbers[k] = weights[k - 1], numbers[k - 1]
        k -= 1
    weights[k], numbers[k] = weight, number
    return length + 1


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
    table = cython.cast(Table, cython.cast(cython.p_void, store))
    for i in range(NR_LISTS):
        end = cython.address(table._lists[i].end)
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
    type_of_table = cython.cast(cython.pointer(Traversed), cython.cast(cython.p_void, Table))
    _traverse_fields = type_of_table.tp_traverse
    type_of_table.tp_traverse = _traverse


_show_values()
