"""One engine's state, and the steps that several operations share: an entry leaves the pool, or goes altogether."""

import cython
from cython.cimports.libc.errno import ENODEV
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free
from cython.cimports.libc.string import memset
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.device.device import (
    BLOCK,
    FILE_SHIFT,
    NO_SEGMENT,
    NR_FILES,
    SEGMENT_BYTES,
    SEGMENT_SHIFT,
    device_destroy,
    record_dead,
    segment_begin,
    segment_to_trim,
    segment_trimmed,
    wants_trim,
)
from cython.cimports.uzswap.core.device.device_io import ASK_CALL, device_ask, device_punch, still_ours
from cython.cimports.uzswap.core.device.lending import inherited_close, leases_drop, leases_look
from cython.cimports.uzswap.core.device.read_around import windows_free
from cython.cimports.uzswap.core.device.record import KEY_BYTES, record_bytes
from cython.cimports.uzswap.core.gate import uz_gate_destroy, uz_gate_init, uz_leave, uz_try_enter
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    uz_change_int,
    uz_io_destroy,
    uz_monotonic_ns,
    uz_private_free,
    uz_ram_bytes,
    uz_read_int,
)
from cython.cimports.uzswap.core.paging.uffd import uz_pause
from cython.cimports.uzswap.core.store.codec import ALG_LZ4, Worker, worker_free, worker_new, worker_spare
from cython.cimports.uzswap.core.store.dictionary import dictionaries_free
from cython.cimports.uzswap.core.store.entries import (
    C_CLEAN,
    C_DISK,
    C_INCOMP,
    C_METADATA,
    C_RESIDENT,
    C_SWAP,
    C_SWAPCACHED,
    C_ZSWAP,
    C_ZSWAPPED,
    CLEAN,
    G_STORED,
    G_STORED_INCOMP,
    GOING_TO_DISK,
    IN_POOL,
    MEMCG_ONLINE,
    NO_MEMCG,
    ON_DISK,
    ROOT,
    SHARED,
    WRITING,
    Delta,
    entry_free,
    lru_del,
    lru_unlink,
    owner_of,
    record_of_entry_bytes,
    table_destroy,
    table_init,
)
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply, memcg_alloc, memcg_unref, writeback_allowed
from cython.cimports.uzswap.core.store.pool import pool_destroy, pool_free, pool_init
from cython.cimports.uzswap.core.store.sums import sums_destroy, sums_init

MOST_RESERVE = cython.declare(int64_t, 4 << 20)


def core_init(c, nodes, paranoid):
    memset(c, 0, cython.sizeof(Core))
    if table_init(cython.address(c.t)):
        return -1
    memcg_alloc(cython.address(c.t), NO_MEMCG)
    if (paranoid and sums_init(cython.address(c.t))) or pool_init(cython.address(c.pool), uz_ram_bytes()):
        sums_destroy(cython.address(c.t))
        table_destroy(cython.address(c.t))
        return -1
    c.spare = worker_spare(MOST_READ + 2 * BLOCK)
    if c.spare == cython.NULL:
        pool_destroy(cython.address(c.pool))
        sums_destroy(cython.address(c.t))
        table_destroy(cython.address(c.t))
        return -1
    pthread_mutex_init(cython.address(c.lock), cython.NULL)
    pthread_mutex_init(cython.address(c.cleaning), cython.NULL)
    pthread_mutex_init(cython.address(c.sparing), cython.NULL)
    uz_gate_init(cython.address(c.gate))
    c.lease = -1
    c.pid = getpid()
    c.nodes = nodes
    c.enabled = 1
    c.same_as_value = 1
    c.pool_max = c.pool_accept = cython.cast(int64_t, 1) << 62
    c.codecs[0].algorithm = ALG_LZ4
    c.codecs[0].level = 1
    c.nr_codecs = 1
    return 0


def core_destroy(c):
    k: cython.int
    for k in range(NR_FILES):
        if c.files[k] != cython.NULL:
            inherited_close(c.files[k])
    if c.has_device:
        leases_drop(cython.address(c.device))
        device_destroy(cython.address(c.device))
    uz_private_free(c.keys, NR_FILES * KEY_BYTES)
    idle_free(c.workers, c.streams)
    worker_free(c.spare)
    windows_free(cython.address(c.around))
    i: cython.int
    for i in range(c.nr_codecs):
        dictionaries_free(c.codecs[i].dictionary)
    dictionaries_free(c.retired)
    pool_destroy(cython.address(c.pool))
    sums_destroy(cython.address(c.t))
    table_destroy(cython.address(c.t))
    pthread_mutex_destroy(cython.address(c.lock))
    pthread_mutex_destroy(cython.address(c.cleaning))
    pthread_mutex_destroy(cython.address(c.sparing))
    uz_gate_destroy(cython.address(c.gate))


def stream_free(s):
    i: cython.int
    if s.has_aio:
        uz_io_destroy(s.aio)
    for i in range(NR_FLIGHTS):
        uz_private_free(s.flights[i].buf, SEGMENT_BYTES)
        free(s.flights[i].items)
    free(s.old)
    free(s)


def idle_free(workers, streams):
    """Free workers and streams that no list holds any more."""
    while workers != cython.NULL:
        w = workers
        workers = w.next
        worker_free(w)
    while streams != cython.NULL:
        s = streams
        streams = s.next
        stream_free(s)


def give_back(c):
    """After entries were dropped: blocks to the file system, dictionaries that none is left of, and scratch memory once
    nothing is stored at all.

    One worker stays, so that a store and a load in turn need not make one each time (measured: 3 times as long).
    Called without the lock.
    """
    trim_device(c)
    workers: cython.pointer(Worker) = cython.NULL
    streams: cython.pointer(Stream) = cython.NULL
    pthread_mutex_lock(cython.address(c.lock))
    retired = c.retired
    c.retired = cython.NULL
    if not c.t.live:
        if c.workers != cython.NULL:
            workers = c.workers.next
            c.workers.next = cython.NULL
        streams = c.streams
        c.streams = cython.NULL
        windows_free(cython.address(c.around))
    pthread_mutex_unlock(cython.address(c.lock))
    dictionaries_free(retired)
    idle_free(workers, streams)


def has_to_give(c):
    """Whether give_back() would find anything.  Called with the lock, which who drops entries has anyway."""
    if not c.t.live or c.retired != cython.NULL:
        return 1
    if not c.has_device:
        return 0
    return c.file_unused or c.device.nr_lent or (not c.trimming and wants_trim(cython.address(c.device)))


def core_now(c):
    return uz_monotonic_ns() + c.skew


def born_units(ns):
    return cython.cast(uint32_t, ns >> BORN_SHIFT) if ns > 0 else 0


def worker_get(c):
    pthread_mutex_lock(cython.address(c.lock))
    w = c.workers
    if w != cython.NULL:
        c.workers = w.next
    pthread_mutex_unlock(cython.address(c.lock))
    return w if w != cython.NULL else worker_new()


def worker_put(c, w):
    pthread_mutex_lock(cython.address(c.lock))
    w.next = c.workers
    c.workers = w
    pthread_mutex_unlock(cython.address(c.lock))


def whole_pages(size):
    return (cython.cast(int64_t, size) + 4095) & ~4095


def may_write_back(c, memcg):
    """Whether an entry of memcg could go to a device: SPEC 2.4, and there is one."""
    return c.has_device and (not c.enabled or writeback_allowed(cython.address(c.t), memcg))


def leave_pool(c, d, index, owner):
    """Free the pool object of an entry and take back its charges.  The entry is off the LRU already."""
    t = cython.address(c.t)
    e = cython.address(t.entries[index])
    length = cython.cast(int64_t, e.length_1) + 1
    size = cython.cast(uint32_t, e.size_1) + 1
    pool_free(cython.address(c.pool), cython.cast(cython.p_char, e.data))
    c.codecs[e.codec].entries -= 1
    t.memcgs[owner].stored -= 1
    delta_add(t, d, owner, C_ZSWAP, -length)
    delta_add(t, d, owner, C_ZSWAPPED, -whole_pages(size))
    t.totals[G_STORED] -= whole_pages(size) >> 12
    if length == size:
        delta_add(t, d, owner, C_INCOMP, -whole_pages(size))
        t.totals[G_STORED_INCOMP] -= whole_pages(size) >> 12


def clean_leave(c, d, index, memcg):
    """A copy is one no longer; it is on no list then."""
    t = cython.address(c.t)
    e = cython.address(t.entries[index])
    lru_unlink(t, cython.address(t.memcgs[memcg].clean), index)
    e.flags &= ~CLEAN
    delta_add(t, d, memcg, C_CLEAN, -(cython.cast(int64_t, e.length_1) + 1))
    delta_add(t, d, memcg, C_SWAPCACHED, -whole_pages(cython.cast(uint32_t, e.size_1) + 1))


def cached_leave(c, d, index, memcg):
    """What the device keeps of a value is swap cache no longer; see swap_cache.py."""
    t = cython.address(c.t)
    e = cython.address(t.entries[index])
    lru_unlink(t, cython.address(c.cached), index)
    e.flags &= ~CLEAN
    c.cached_bytes -= cython.cast(int64_t, e.length_1) + 1
    delta_add(t, d, memcg, C_SWAPCACHED, -whole_pages(cython.cast(uint32_t, e.size_1) + 1))


def codec_unref(c, slot):
    """One entry less.  Called with the lock: what becomes free is freed by give_back(), without it."""
    p = cython.address(c.codecs[slot])
    p.refs -= 1
    if p.refs == 0 and p.users == 0 and p.dictionary != cython.NULL:
        retire(c, slot)


def retire(c, slot):
    d = c.codecs[slot].dictionary
    c.codecs[slot].dictionary = cython.NULL
    d.next = c.retired
    c.retired = d


def file_at(c, place, secret, segments):
    """The file in which something on disk is, and what opens its records; NULL when it could not be had."""
    if place >> FILE_SHIFT == c.device.file >> FILE_SHIFT:
        secret[0] = c.device.secret
        segments[0] = c.device.segments
        return cython.address(c.device.io)
    file = c.files[place >> FILE_SHIFT]
    if file == cython.NULL:
        return cython.NULL
    secret[0] = file.secret
    segments[0] = file.segments
    return cython.address(file.io)


def on_disk_dead(c, place, length):
    if place >> FILE_SHIFT == c.device.file >> FILE_SHIFT:
        record_dead(cython.address(c.device), place, length)
        return
    file = c.files[place >> FILE_SHIFT]
    if file != cython.NULL:
        file.live -= record_bytes(length)
        if not file.live:
            c.file_unused = 1


def entry_drop(c, d, index):
    """Release all that an entry has, whatever its state, and the entry itself; of a shared one, one share."""
    t = cython.address(c.t)
    e = cython.address(t.entries[index])
    owner = owner_of(t, e)
    pages = whole_pages(cython.cast(uint32_t, e.size_1) + 1)
    if e.flags & SHARED and e.stamp:
        e.stamp -= 1
        delta_add(t, d, owner, C_SWAP, -pages)
        return
    if e.state == IN_POOL:
        if e.flags & CLEAN:
            clean_leave(c, d, index, owner)
        elif not e.flags & WRITING:
            lru_del(t, index, owner)
        leave_pool(c, d, index, owner)
        codec_unref(c, e.codec)
    elif e.state == ON_DISK:
        if e.flags & CLEAN:
            cached_leave(c, d, index, owner)
        on_disk_dead(c, e.data, cython.cast(uint32_t, e.length_1) + 1)
        delta_add(t, d, owner, C_DISK, -(cython.cast(int64_t, e.length_1) + 1))
        codec_unref(c, e.codec)
    elif e.state == GOING_TO_DISK:
        codec_unref(c, e.codec)
    delta_add(t, d, owner, C_METADATA, -record_of_entry_bytes(t))
    delta_add(t, d, owner, C_SWAP, -pages)
    memcg_unref(t, e.memcg)
    entry_free(t, index)


def reserve_below(limit):
    """What background eviction keeps free below a hard limit, in bytes: the kernel's watermarks, for one memcg.

    So long as it keeps up, no fault waits for an eviction.  A sixteenth, at most 4 MiB: 16 windows of readahead.
    """
    return limit >> 4 if limit >> 4 < MOST_RESERVE else MOST_RESERVE


def core_charge(c, memcg, n, force, charge):
    """Charge n resident bytes, unless that would exceed a hard limit of an ancestor and is not forced.

    Sets, in charge, the nearest memcgs whose limits it meets.  -ENODEV when the memcg is not online.
    """
    d: Delta
    memset(cython.address(d), 0, cython.sizeof(Delta))
    charge.over_max = charge.over_high = charge.near = NO_MEMCG
    charge.excess = charge.resident = 0
    pthread_mutex_lock(cython.address(c.lock))
    if c.t.memcgs[memcg].state != MEMCG_ONLINE:
        pthread_mutex_unlock(cython.address(c.lock))
        return -ENODEV
    m = memcg
    while m != ROOT:
        g = cython.address(c.t.memcgs[m])
        resident = g.counters[C_RESIDENT] + n
        after = resident + g.counters[C_ZSWAP]
        if after > g.memory_high and charge.over_high == NO_MEMCG:
            charge.over_high = m
            charge.excess = after - g.memory_high
        if charge.over_max == NO_MEMCG:
            if (after > g.memory_max or resident > g.resident_max) and not force:
                charge.over_max = m
                charge.resident = after <= g.memory_max
            elif charge.near == NO_MEMCG:
                if after > g.memory_max - reserve_below(g.memory_max) // 2:
                    charge.near = m
                elif resident > g.resident_max - reserve_below(g.resident_max) // 2:
                    charge.near = m
                    charge.resident = 1
        m = g.parent
    if charge.over_max == NO_MEMCG:
        delta_add(cython.address(c.t), cython.address(d), memcg, C_RESIDENT, n)
        delta_apply(cython.address(c.t), cython.address(d))
    pthread_mutex_unlock(cython.address(c.lock))
    return 0


def room_in(c, memcg, resident):
    """Bytes that fit below the hard limits of a memcg alone, the reserve kept, and below its memory.high.

    Sets whether it is the limit of resident memory alone that says so.
    """
    pthread_mutex_lock(cython.address(c.lock))
    g = cython.address(c.t.memcgs[memcg])
    used = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
    room = g.memory_max - reserve_below(g.memory_max) - used
    if g.memory_high - used < room:
        room = g.memory_high - used
    left = g.resident_max - reserve_below(g.resident_max) - g.counters[C_RESIDENT]
    pthread_mutex_unlock(cython.address(c.lock))
    resident[0] = room >= 0
    return left if left < room else room


def trim_device(c):
    """Have blocks of free segments given back to the file system.  Called without the lock; nobody waits for it.

    The device's threads do it: punching is I/O, and who frees an array holds the GIL.
    """
    if not c.has_device:
        return
    pthread_mutex_lock(cython.address(c.lock))
    unused: cython.bint = c.file_unused
    if c.device.nr_lent:
        leases_look(cython.address(c.device))
    ask: cython.bint = not c.trimming and wants_trim(cython.address(c.device))
    if ask:
        uz_change_int(cython.address(c.trimming), 1)
    pthread_mutex_unlock(cython.address(c.lock))
    if unused:
        close_unused(c)
    if ask:
        c.trim.op = ASK_CALL
        c.trim.call = trim_all
        c.trim.arg = c
        device_ask(cython.address(c.device.io), cython.address(c.trim))


def close_unused(c):
    """Close what this process has from those above it, where nothing of it is wanted any more.

    Only in the program's table of descriptors they can be: who has another leaves it to others.
    """
    k: cython.int
    for k in range(NR_FILES):
        pthread_mutex_lock(cython.address(c.lock))
        file = c.files[k]
        take: cython.bint = file != cython.NULL and not file.live and still_ours(cython.address(file.io))
        if take:
            c.files[k] = cython.NULL
            c.file_unused = 0
        pthread_mutex_unlock(cython.address(c.lock))
        if take:
            inherited_close(file)


def trim_all(arg):
    """Called by a thread of the device, which may not wait at the gate: those within may wait for it."""
    c = cython.cast(cython.pointer(Core), arg)
    d = cython.address(c.device)
    failed: cython.int = 0
    s: uint32_t = 0
    while s != NO_SEGMENT:
        if not uz_try_enter(cython.address(c.gate)):
            # Later: a fork is under way.
            uz_pause(1)
            device_ask(cython.address(d.io), cython.address(c.trim))
            return
        pthread_mutex_lock(cython.address(c.lock))
        s = NO_SEGMENT if failed or uz_read_int(cython.address(d.io.closing)) else segment_to_trim(d)
        if s == NO_SEGMENT:
            # In the same hold as the last look: what becomes free from now on asks anew.
            uz_change_int(cython.address(c.trimming), 0)
        pthread_mutex_unlock(cython.address(c.lock))
        if s != NO_SEGMENT:
            begin = segment_begin(d, s)
            where = (cython.cast(uint64_t, s) << SEGMENT_SHIFT) + begin
            failed = device_punch(cython.address(d.io), where, SEGMENT_BYTES - begin)
            pthread_mutex_lock(cython.address(c.lock))
            segment_trimmed(d, s, failed)
            pthread_mutex_unlock(cython.address(c.lock))
        uz_leave(cython.address(c.gate))
