"""How values go out: which are the coldest, and their way into the engine, many in a batch.

*Which go first* is in slots.py.
"""

import threading
from _pickle import dumps

import cython
import numpy as np
from cython.cimports.cpython.ref import Py_DECREF, Py_INCREF
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.uzswap.core.boundary.values import BATCH_VALUES, Batch, free_handles, swap_cache_gives
from cython.cimports.uzswap.store.forms import BYTES, EXTENTS, STREAM, data_of, form_of, size_of
from cython.cimports.uzswap.store.lruvec import (
    ACTIVE,
    INACTIVE,
    ISOLATED,
    UNEVICTABLE,
    add_coldest,
    coldest,
    inactive_is_low,
)
from cython.cimports.uzswap.store.slot import (
    AGE_MASK,
    AGE_SHIFT,
    AGE_UNIT_SHIFT,
    Resident,
    Slot,
    address_of,
    references,
)
from cython.cimports.uzswap.store.table import Table, require_freed

from uzswap.cgroup.surroundings import Reclaimed
from uzswap.signals import hold_back_signals, let_handlers_run
from uzswap.store.dictionaries import SMALL
from uzswap.store.families import owned_alone
from uzswap.store.packing import CHUNK, Refused, pack
from uzswap.store.sharing import Held
from uzswap.store.weigh import REFERENCED, UNPICKLABLE, examine, pieces

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
# Most families of values that share memory to be looked at in one reclaim.
_FAMILIES = cython.declare(cython.int, 16)
# One of more values that was refused is looked at again every so many reclaims, as often as a charge tries, or when so
# many bytes are wanted: it takes 8 us a value (3.11, 2026-11).
_FAMILY_AT_ONCE = cython.declare(cython.Py_ssize_t, 1024)
_FAMILY_EVERY = cython.declare(cython.int, 16)
_FAMILY_BYTES = cython.declare(int64_t, 1 << 20)
# Bytes that go to the engine in one call.  What it refuses is noticed after so many, not after a whole array.
_PUT_BYTES = cython.declare(cython.Py_ssize_t, 4 << 20)
_LARGEST_CHUNK = cython.declare(cython.Py_ssize_t, 65536)
_PAGE_BYTES = cython.declare(int64_t, 4096)


@cython.final
@cython.cclass
class Eviction:
    """What one reclaim is at."""

    def __cinit__(self, table: Table):
        self.table = table
        self.batch = Batch()
        self.going = []
        self.kept = []  # whose memory the batch is of
        self.parts = []
        self.most = BATCH_VALUES
        self.families = {}
        self.family_walks = _FAMILIES

    def reclaim(self, want):
        """Swap the coldest values out until so many bytes less are charged; see :meth:`Slots.reclaim`."""
        table = self.table
        table._reclaims += 1
        self.want = want
        unevictable = table._lists[UNEVICTABLE].length
        self.looks = cython.cast(cython.int, unevictable if unevictable < _RECHECKED else _RECHECKED)
        self.thorough_looks = _RECHECKED_THOROUGHLY
        # Each may have to be passed by once before it is looked at.
        self.left = 2 * (table._lists[INACTIVE].length + table._lists[ACTIVE].length)
        if table._refusing:
            # While it goes on refusing, one more tells: a charge that can't be met asks some hundred times.
            self.refusals = _MAX_REFUSALS - 1
            self.most = 1
        # An exception of a handler while a value is pickled would pass for one of pickle's.
        with hold_back_signals() as signals:
            if self.want > 0:
                self._recheck(_RECHECKED_FIRST)
            while self.freed < self.want and self.refusals < _MAX_REFUSALS and not signals.pending():
                if not self._gather() and not self._recheck(_RECHECKED):
                    break
                self._store()
                if self.refusals == 0:
                    self.most = BATCH_VALUES
            table._refusing = self.refusals >= _MAX_REFUSALS
        return Reclaimed(self.scanned, self.freed)

    def evict(self, r):
        """Swap one resident value out that is on a list; the bytes freed."""
        self.table._take_off(r)
        self.table._put_on(r, ISOLATED)
        with hold_back_signals():
            self._examine(r)
            self._store()
        return self.freed

    def _recheck(self, most):
        """Look again at some of the values that had to stay; how many may go now for all that is known.

        They are put at the cold end of those that can go.
        """
        r: Resident
        thorough: cython.bint = self.table._reclaims % _THOROUGH_EVERY == 0
        found: int64_t = 0
        if most > self.looks:
            most = self.looks
        self.looks -= most
        while most > 0 and self.table._lists[UNEVICTABLE].length:
            most -= 1
            r = cython.cast(Resident, coldest(cython.address(self.table._lists[UNEVICTABLE])).owner)
            self.table._take_off(r)
            known: cython.bint = r.holders > 0 or r.obstacle is UNPICKLABLE
            stays: cython.bint = r.pins > 0 or (r.holders > 0 and references(r) == r.holders)
            if r.obstacle is UNPICKLABLE or (known and stays):
                stays = not thorough or r.pins > 0
                known = 0
            if not known and not stays:
                stays = self.thorough_looks == 0
                self.thorough_looks -= not stays
            if stays:
                self.table._put_on(r, UNEVICTABLE)
                continue
            r.where = INACTIVE
            add_coldest(cython.address(self.table._lists[INACTIVE]), cython.address(r.link), r.weight)
            found += 1
        self.left += found
        return found

    def _coldest(self):
        """Isolate the coldest value, past those that were accessed; None when there is none."""
        r: Resident
        passed: cython.int = 0
        inactive = cython.address(self.table._lists[INACTIVE])
        active = cython.address(self.table._lists[ACTIVE])
        while self.left > 0:
            if passed == _MAX_PASSED:
                passed = 0
                let_handlers_run()
            passed += 1
            if active.length and (inactive.length == 0 or inactive_is_low(inactive, active)):
                r = cython.cast(Resident, coldest(active).owner)
                r.referenced = 0
                self.table._take_off(r)
                self.table._put_on(r, INACTIVE)
                continue
            link = coldest(inactive)
            if link == cython.NULL:
                return None
            r = cython.cast(Resident, link.owner)
            self.left -= 1
            self.scanned += pages(r.weight)
            self.table._take_off(r)
            if not r.referenced:
                self.table._put_on(r, ISOLATED)
                return r
            r.referenced = 0
            self.table._put_on(r, ACTIVE)
            self.table._age += r.weight
        return None

    def _gather(self):
        """Put the coldest values into the batch, as many as are wanted and fit; how many were looked at."""
        r: Resident
        looked: int64_t = 0
        while looked < BATCH_VALUES and self.batch.n < self.most and self.freed + self.pending < self.want:
            # What is not for a batch is stored, or refused, at once.
            if self.refusals >= _MAX_REFUSALS:
                break
            r = self._coldest()
            if r is None:
                break
            looked += 1
            self._examine(r)
        return looked

    def _examine(self, r):
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
        r.shared_seen = 0
        try:
            own = self._own(r) if r.part is not None and self.table._shared != "copy" else None
            nbytes, obstacle, found = examine([r.value], self.table._shared, own or ())
            if obstacle is not None:
                # What a family shares is held by all of it, and that by how many says nothing.
                if found is not None and own is None:
                    r.held, found = found, None
                    r.holders = references(r)
                return 0
            obstacle = UNPICKLABLE
            if own:
                r.shared_seen = self.families_at
            r.after = nbytes if self.table._sizeof is None else r.weight
            if r.cached is not None and found is None:
                settled = 1
                if self._go_back(r):
                    return 1
                settled = 0
            value = r.value
            form = form_of(value)
            stream = value
            item = flags = 0
            if found is not None:
                stream = None
                size = 0
            elif form == STREAM:
                if type(value) is np.ndarray:
                    item, flags = self.table._compression.filter_of(value)
                if r.after <= _LARGEST_CHUNK and type(value) is not bytes:
                    stream = dumps(value, 5)
                    size = len(stream)
                else:
                    stream = None
                    size = 0
            else:
                size = size_of(value, form)
            if not 0 < size <= _LARGEST_CHUNK:
                self._store()
                settled = 1
                self._store_large(r, value, stream if form == STREAM else None, found)
                return 0
            if not self.batch.takes(size) or self.batch.filter != item:
                self._store()
                self.batch.filter = item
                self.batch.flags = flags
            self.kept.append(stream)
            self.going.append(r)
            self.forms[self.batch.n] = form
            self.batch.add(data_of(stream, form if form > STREAM else BYTES), cython.cast(uint32_t, size))
            self.pending += r.weight
            settled = 1
            return 1
        except (Refused, MemoryError):
            obstacle = None
            self.refusals += 1
            self.table.refused += 1
        except Exception:
            pass
        finally:
            if not settled:
                self.table._put_back(r)
                if r.slot != cython.NULL and r.version == r.seen and obstacle is not None and not r.taken:
                    r.obstacle = obstacle
                    self.table._take_off(r)
                    self.table._put_on(r, UNEVICTABLE)
        return 0

    def _own(self, r):
        """The arrays that own memory of which a value takes its part along; None when it shares none with another."""
        if self.families_at != self.table._shared_changes:
            self.families.clear()
            self.families_at = self.table._shared_changes
        own = self.families.get(address_of(r), 0)
        if (
            self.table._refused_family > _FAMILY_AT_ONCE
            and 0 < self.want < _FAMILY_BYTES
            and self.table._reclaims % _FAMILY_EVERY
        ):
            return own or ()
        if own == 0 and self.family_walks:
            self.family_walks -= 1
            self._meet_family(r)
            own = self.families.get(address_of(r))
        # Too many for one reclaim: a later one looks at it, whoever holds what then.
        return () if own == 0 else own

    def _meet_family(self, r):
        """Find out of all that share memory with a value whether anybody else sees it."""
        m: Resident
        members = self.table._buffers.members(r.part)
        at = self.families_at
        if len(members) < 2:
            self.families[address_of(r)] = None
            return
        for member in members:
            m = cython.cast(Resident, member)
            # It may be what they share.
            m.held = None
            m.holders = 0
        found = []
        for member in members:
            m = cython.cast(Resident, member)
            found.append(pieces([m.value]))
        owned = owned_alone(found)
        self.table._refused_family = 0 if any(owned) else len(members)
        if at != self.table._shared_changes:
            return
        for i in range(len(members)):
            m = cython.cast(Resident, members[i])
            self.families[address_of(m)] = owned[i]
            if owned[i] and m.where == UNEVICTABLE and not m.pins and m.slot != cython.NULL:
                self.table._take_off(m)
                m.where = INACTIVE
                add_coldest(cython.address(self.table._lists[INACTIVE]), cython.address(m.link), m.weight)
                self.left += 1

    def _store(self):
        """Have the batch compressed and stored, and let the values go out that were not accessed meanwhile."""
        r: Resident
        n: cython.int = self.batch.n
        i: cython.int
        unwanted: uint64_t[64]
        dropped: cython.int = 0
        before = self.freed
        if n == 0:
            return
        self.batch.codec = self.table._compression.codec
        try:
            if self.table._dictionaries is not None:
                self.batch.small = self.table._dictionaries.slot
                self.batch.small_bytes = SMALL
                if self.table._dictionaries.sampling:
                    for i in range(n):
                        if self.batch.spans[i].size <= SMALL:
                            self.table._dictionaries.sample(self.batch.spans[i].data[: self.batch.spans[i].size])
            self.table._zswap.swap_out_batch(self.batch, self.table.cgroup)
        except OSError:
            pass  # it took none of them
        finally:
            for i in range(n):
                r = cython.cast(Resident, self.going[i])
                handle = self.batch.handles[i]
                if handle == 0:
                    self.table.refused += 1
                    self.refusals += 1
                    self.table._put_back(r)
                else:
                    self.refusals = 0
                    if not self._go_out(r, self.forms[i], handle):
                        unwanted[dropped] = handle
                        dropped += 1
            self.batch.empty()
            self.pending = 0
            self.table._release(self.freed - before)
            if dropped:
                require_freed(free_handles(self.table._engine, unwanted, dropped))
            # Last: values go with these.
            self.going.clear()
            self.kept.clear()
        if self.table._dictionaries is not None:
            self.table._dictionaries.after_batch()

    def _go_back(self, r):
        """Have an isolated value go out to the chunks that the device has kept of it; whether that settles it."""
        went: cython.bint
        before = self.freed
        kept = r.cached
        r.cached = None
        if not swap_cache_gives(self.table._engine, kept.chunks, kept.n):
            return False
        if kept.packed is not None:
            kept.packed.weight = r.after
            Py_INCREF(kept.packed)
        went = self._go_out(r, kept.form, kept.chunk)
        self.table._release(self.freed - before)
        if not went:
            if kept.packed is not None:
                Py_DECREF(kept.packed)
            self.table._free(kept.form, kept.chunk)
        return True

    def _store_large(self, r, value, stream, apart):
        """Pack and store an isolated value that is not for a batch; it is put back unless it goes out."""
        packed = None
        before = self.freed
        obstacle = None
        went: cython.bint = 0
        more: int64_t = 0
        try:
            self.parts = []
            self.thread = threading.get_ident()
            self.table._storing.add(self)
            packed = pack(value, self._put, self.table._free_chunks, stream, apart)
            self.refusals = 0
        except (Refused, MemoryError):
            self.refusals += 1
            self.table.refused += 1
        except Held:
            obstacle = REFERENCED
        except Exception:
            obstacle = UNPICKLABLE
        finally:
            if packed is None:
                self.table._put_back(r)
            else:
                packed.weight = r.after
                if apart is not None and apart.closure is not None:
                    more, packed.part = self.table._buffers.join_closure(*apart.closure)
                    self.table.resident_bytes += more
                    self.freed -= more
                if more < r.weight:
                    Py_INCREF(packed)
                    went = self._go_out(r, EXTENTS, address_of(packed))
                    if went:
                        self.parts = []
                    else:
                        Py_DECREF(packed)
                else:
                    # More would be charged than before.
                    obstacle = REFERENCED
                    self.table._put_back(r)
            if obstacle is not None and r.slot != cython.NULL and r.version == r.seen and not r.taken:
                r.obstacle = obstacle
                self.table._take_off(r)
                self.table._put_on(r, UNEVICTABLE)
            self.table._release(self.freed - before)
            if packed is not None and not went:
                less: int64_t = self.table._free_packed(packed)
                self.freed += less
            self.table._storing.discard(self)

    def _go_out(self, r, form, at):
        """An isolated value that was stored is packed from now on; accessed meanwhile, it is put back instead.

        An access or a new value wins: the bytes may be out of date, and the value is hot.
        """
        slot: Slot
        if (
            r.slot == cython.NULL
            or r.taken
            or r.pins
            or r.version != r.seen
            or (r.shared_seen and r.shared_seen != self.table._shared_changes)
        ):
            self.table._put_back(r)
            return 0
        slot = cython.cast(Slot, r.slot)
        self.table._take_off(r)
        self.table._age += r.weight
        slot.at = at
        slot.weight = cython.cast(uint32_t, r.after) if form != EXTENTS else 0
        age = cython.cast(uint32_t, (self.table._age >> AGE_UNIT_SHIFT) & AGE_MASK)
        slot.word = cython.cast(uint32_t, form) | (age << AGE_SHIFT)
        r.slot = cython.NULL
        Py_DECREF(r)  # the slot's
        self.freed += r.weight - self.table._leave(r)
        self.table.resident_bytes -= r.weight
        self.table.evicted += 1
        return 1

    def _put(self, data, array):
        table = self.table
        stored = []
        item, flags = (0, 0) if array is None else self.table._compression.filter_of(array)
        try:
            for start in range(0, data.nbytes, _PUT_BYTES):
                part = data[start : start + _PUT_BYTES]
                handles = table._zswap.swap_out_chunks(part, table.cgroup, CHUNK, table._compression.codec, item, flags)
                stored.append(handles)
                self.parts.append(handles)
                if not handles.all():
                    raise Refused
        except BaseException as error:
            for handles in stored:
                self.table._free_chunks(handles)
            if isinstance(error, OSError):
                raise Refused from None
            raise
        return np.concatenate(stored) if len(stored) != 1 else stored[0]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def pages(nbytes: int64_t) -> int64_t:
    return (nbytes + _PAGE_BYTES - 1) // _PAGE_BYTES
