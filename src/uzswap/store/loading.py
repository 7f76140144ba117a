"""How values come back: one that is asked for, many at once, and by a thread of our own before anybody asks."""

import threading
from _pickle import loads
from collections import deque

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.uzswap.core.boundary.values import (
    Span,
    charge,
    free_handles,
    load_spans,
    load_value,
    place_of,
    size_at,
)
from cython.cimports.uzswap.store.forms import BYTES, EXTENTS, RESIDENT, STREAM, blank, data_of
from cython.cimports.uzswap.store.slot import GONE, Resident, Slot, address_of, form_in
from cython.cimports.uzswap.store.table import Table, require_freed

from uzswap.engine.worker import Worker
from uzswap.locks import Order
from uzswap.signals import hold_back_signals, let_handlers_run
from uzswap.store.packing import CHUNK, unpack
from uzswap.store.slot import NOTHING
from uzswap.store.table import require_closed

# A larger value gives up the GIL while it is decompressed: lz4 needs some 10 us for so much.  Giving it up and having
# it again takes 0.2 us alone, and as long as a switch interval (5 ms) among threads that compute.
_DIRECT_BYTES = cython.declare(uint32_t, 16384)
# Stalls of a store are told together from so many ns on: the kernel's triggers see no less (a jiffy), and to tell of
# one takes 8 to 25 us, as much as a read of the device (2026-11).
_TOLD_NS = cython.declare(int64_t, 1000000)
# Loaded together.
_TOGETHER = cython.declare(cython.int, 1024)
_TOGETHER_BYTES = cython.declare(int64_t, 4 << 20)
_LARGEST_CHUNK = cython.declare(cython.Py_ssize_t, 65536)
_PAGE_BYTES = cython.declare(int64_t, 4096)


@cython.final
@cython.no_gc
@cython.cclass
class Load:
    """A value's way back, and whose."""

    def __cinit__(self):
        self.thread = threading.get_ident()


@cython.cclass
class Loading(Table):
    def __init__(self, cgroup, compression, shared=None, sizeof=None, immutable=False):
        Table.__init__(self, cgroup, compression, shared, sizeof, immutable)
        self._wanted = deque()
        self._prefetcher = Worker("uzswap-prefetch", self._prefetch, Order.STORE_WORKER)

    # One value

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

    def _bring_back(self, key, slot, pop):
        """Load a value.  NOTHING when it was to be popped, and was deleted or replaced meanwhile."""
        r: Resident
        form = form_in(slot)
        at = slot.at
        if form & GONE or form == RESIDENT or slot in self._loads:
            return NOTHING
        packed = cython.cast(object, cython.cast(cython.p_void, at)) if form == EXTENTS else None
        weight: int64_t = packed.weight if form == EXTENTS else slot.weight
        load = Load.__new__(Load)
        mine = self._begin_charging()
        self._loads[slot] = load
        kept: cython.bint = 1
        stays: cython.bint = 0
        try:
            r = Resident.__new__(Resident)
            if not pop:
                # What was accepted can be read, whatever the limits: it goes over them where there is no other way.
                self._charge(weight, True)
                mine.nbytes = weight
            value = unpack(packed, self._get) if form == EXTENTS else self._unpack(form, at)
            if self._immutable and not pop:
                stays = self._keep_chunks(slot, r, form, at)
            if pop:
                if not self._remove(key, slot, at):
                    return NOTHING
                kept = 0
                self.loaded += 1
            elif form_in(slot) == form and slot.at == at:
                self._settle(slot, r, value, weight)
                mine.nbytes = 0
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
            self._release(self._end_charging(mine))
            if not kept and not stays:
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

    def _get(self, handles, out):
        if len(handles):
            self._zswap.fault_in_many(handles, out, page=CHUNK, consume=False)

    def _load_part(self, key, slot, packed, start, stop):
        """Load some bytes of a value that stays packed.  NOTHING when it is to be looked for anew."""
        first: cython.Py_ssize_t = start // _LARGEST_CHUNK
        last: cython.Py_ssize_t = (stop + _LARGEST_CHUNK - 1) // _LARGEST_CHUNK
        begin: cython.Py_ssize_t = first * _LARGEST_CHUNK
        memory = bytearray(min(packed.lengths[0], last * _LARGEST_CHUNK) - begin)
        handles = packed.handles[first:last]
        load = Load.__new__(Load)
        if form_in(slot) != EXTENTS or slot.at != address_of(packed) or slot in self._loads:
            return NOTHING
        self._loads[slot] = load
        packed.asked += stop - start
        try:
            self._get(handles, memory)
        except BaseException as error:
            error.add_note(f"in the store of {self.cgroup.path}, while loading a part of the value of {key!r}")
            raise
        finally:
            self._over(slot, load)
            # Whoever takes the chunks away meanwhile leaves them to the loader.
            if form_in(slot) != EXTENTS or slot.at != address_of(packed):
                self._free_packed(packed)
        with memoryview(memory) as view:
            return bytes(view[start - begin : stop - begin])

    def _count_stall(self, disk_ns):
        self._stalled += disk_ns
        if self._stalled < _TOLD_NS:
            return
        stalled = self._stalled
        self._stalled = 0
        # A finalizer that the garbage collector finds has bytecodes, and so handlers run, which may want any lock.
        with hold_back_signals():
            self.cgroup.pressure.record(stalled)

    # Many

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
        nbytes: int64_t = 0
        disk_ns: int64_t = 0
        n: cython.Py_ssize_t = 0
        looked: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        mine = self._begin_charging()
        handles = cython.cast(cython.pointer(uint64_t), malloc(len(run) * cython.sizeof(uint64_t)))
        spans = cython.cast(cython.pointer(Span), malloc(len(run) * cython.sizeof(Span)))
        if handles == cython.NULL or spans == cython.NULL:
            free(handles)
            free(spans)
            self._end_charging(mine)
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
            mine.nbytes = total
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
                    mine.nbytes -= slot.weight
                    if self._immutable and self._keep_chunks(slot, r, form, handles[i]):
                        handles[i] = 0
                    self._settle(slot, r, value, slot.weight)
                    del self._loads[slot]
                    if hold is not None:
                        hold.append(value)
        finally:
            for i in range(n):
                slot = cython.cast(Slot, slots[i])
                if self._loads.get(slot) is load:
                    del self._loads[slot]  # it stays packed
                elif handles[i]:
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
            self._release(self._end_charging(mine))
        if disk_ns:
            self._count_stall(disk_ns)
        return looked

    def prefetch(self, keys):
        """Have values brought in by a thread of our own, as far as there is room; nobody waits."""
        self.require_open()
        self._wanted.append(list(keys))
        self._prefetcher.wake()

    def settle(self):
        """Wait until nothing is left to be prefetched, and no dictionary is being made."""
        self._prefetcher.flush()
        if self._dictionaries is not None:
            self._dictionaries.flush()

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

    # Waiting

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
