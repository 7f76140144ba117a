"""Loading and freeing pages.

A load is exclusive and all or nothing: first every entry is marked HELD and its bytes are brought to the caller,
without the lock; only when all of them are there are the entries dropped.  A handle that is met twice, or that another
thread is loading, is EBUSY: handles have one owner.
"""

import cython
from cython.cimports.libc.errno import EBADMSG, EBUSY, EILSEQ, EINVAL, ENOMEM, ESTALE
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.libc_ext import prefetch, pthread_mutex_lock, pthread_mutex_unlock, uz_monotonic_ns
from cython.cimports.uzswap.core.store.codec import Worker, decompress, fill, worker_new
from cython.cimports.uzswap.core.store.entries import (
    C_PGFAULT,
    C_PGMAJFAULT,
    C_PSWPIN,
    C_REFAULT,
    C_SWPIN_ZERO,
    C_ZSWPIN,
    CHUNK_ENTRIES,
    DOOMED,
    G_CHECKSUM_FAIL,
    G_DECOMPRESS_FAIL,
    G_IO_ERROR,
    GOING_TO_DISK,
    HELD,
    IN_POOL,
    IS_ZERO,
    ON_DISK,
    SHARED,
    Delta,
    entry_at,
    owner_of,
)
from cython.cimports.uzswap.core.store.histogram import H_LOAD_DISK, H_LOAD_ZERO, H_LOAD_ZSWAP, bucket_of_ns, observe
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply
from cython.cimports.uzswap.core.store.reading import STEP_LOADS, read_entries, sort_by_place, target_of, unpack, verify
from cython.cimports.uzswap.core.store.state import (
    entry_drop,
    give_back,
    has_to_give,
    whole_pages,
    worker_get,
    worker_put,
)


def fits(load, i, size):
    """Whether entry i, of so many bytes, fits where the caller wants it."""
    if load.spans != cython.NULL:
        return size == load.spans[i].size
    return size <= load.page and cython.cast(uint64_t, i) * load.page + size <= load.nbytes


def hold_step(c, load, i, k):
    """Mark entries i .. i + k - 1 HELD and note where their bytes are.  How many could be held."""
    t = cython.address(c.t)
    j: cython.int
    pthread_mutex_lock(cython.address(c.lock))
    for j in range(k):
        # Two passes over random handles cost one cache miss each here instead of three in a row below.
        index = cython.cast(uint32_t, load.handles[i + j])
        if index // CHUNK_ENTRIES < t.next_chunk:
            prefetch(cython.address(t.entries[index]))
    held: cython.int = 0
    for j in range(k):
        e = entry_at(t, load.handles[i + j])
        size = cython.cast(uint32_t, e.size_1) + 1 if e != cython.NULL else 0
        if e == cython.NULL:
            load.error = ESTALE
        elif e.flags & HELD or e.state == GOING_TO_DISK:
            load.error = EBUSY
        elif not fits(load, i + j, size):
            load.error = EINVAL
        if load.error:
            load.failed = i + j
            break
        if not e.flags & SHARED:
            e.flags |= HELD
        f = cython.address(load.found[j])
        f.data = e.data
        f.handle = load.handles[i + j]
        f.position = i + j
        f.length = cython.cast(uint32_t, e.length_1) + 1
        f.size = size
        f.state = e.state
        f.codec = e.codec
        if e.state == IN_POOL:
            prefetch(cython.cast(cython.p_void, e.data))
            prefetch(cython.cast(cython.p_void, e.data + 64))
            # Dropping it will touch its neighbours on the LRU.
            prefetch(cython.address(t.entries[e.next]))
            prefetch(cython.address(t.entries[e.prev]))
        held += 1
    pthread_mutex_unlock(cython.address(c.lock))
    return held


def fill_step(c, load, k):
    """Bring the bytes of the k held entries of this step to the caller.  0 or an errno; load.failed says which."""
    j: cython.int
    n: cython.int = 0
    for j in range(k):
        f = cython.address(load.found[j])
        if f.state == ON_DISK:
            load.on_disk[n] = j
            n += 1
        elif f.state == IN_POOL:
            error = unpack(c, load, f, cython.cast(cython.p_char, f.data))
            if error:
                load.failed = f.position
                return error
        else:
            fill(target_of(load, f), f.data, f.size)
            error = verify(c, f.handle, target_of(load, f), f.size)
            if error:
                load.failed = f.position
                return error
    if n == 0:
        return 0
    sort_by_place(load, n)
    return read_entries(c, load, n)


def count_load(c, d, e):
    t = cython.address(c.t)
    owner = owner_of(t, e)
    pages = whole_pages(cython.cast(uint32_t, e.size_1) + 1) >> 12
    if e.state == IN_POOL:
        delta_add(t, d, owner, C_ZSWPIN, pages)
    elif e.state == ON_DISK:
        delta_add(t, d, owner, C_PSWPIN, pages)
        t.memcgs[owner].lru[e.node].disk_swapins += 1
    elif e.state == IS_ZERO:
        delta_add(t, d, owner, C_SWPIN_ZERO, pages)
    delta_add(t, d, owner, C_PGFAULT, pages)
    delta_add(t, d, owner, C_PGMAJFAULT, pages)
    delta_add(t, d, owner, C_REFAULT, pages)


def count_latency(c, load, k, took, disk_ns):
    """Count what each of the k loads of a step took: an equal share of the step; of the device's part, those on it."""
    j: cython.int
    from_pool: int64_t = 0
    from_disk: int64_t = 0
    for j in range(k):
        if load.found[j].state == IN_POOL:
            from_pool += 1
        elif load.found[j].state == ON_DISK:
            from_disk += 1
    share = (took - disk_ns) // k
    with_device = share + (disk_ns // from_disk if from_disk else 0)
    pthread_mutex_lock(cython.address(c.lock))
    h = cython.address(c.histograms[0])
    observe(cython.address(h[H_LOAD_ZSWAP]), bucket_of_ns(share), share, from_pool)
    observe(cython.address(h[H_LOAD_DISK]), bucket_of_ns(with_device), with_device, from_disk)
    observe(cython.address(h[H_LOAD_ZERO]), bucket_of_ns(share), share, k - from_pool - from_disk)
    pthread_mutex_unlock(cython.address(c.lock))


def count_failure(c, error):
    if error == EBADMSG:
        counter = G_CHECKSUM_FAIL
    elif error == EILSEQ:
        counter = G_DECOMPRESS_FAIL
    elif error == ESTALE or error == EBUSY or error == EINVAL or error == ENOMEM:
        return
    else:
        counter = G_IO_ERROR
    pthread_mutex_lock(cython.address(c.lock))
    c.t.totals[counter] += 1
    pthread_mutex_unlock(cython.address(c.lock))


def swap_in(c, load):
    """Load load.n entries; when one can't be, nothing is consumed, and load.failed and load.error say which and why.

    Called without the lock.  It needs no memory that is not there yet: who waits for a page has nothing else to do, and
    may have what others wait for to free some.
    """
    load.worker = worker_get(c)
    load.error = ENOMEM
    if load.worker != cython.NULL:
        swap_in_by(c, load)
        worker_put(c, load.worker)
    if load.error == ENOMEM:
        pthread_mutex_lock(cython.address(c.sparing))
        load.worker = c.spare
        swap_in_by(c, load)
        pthread_mutex_unlock(cython.address(c.sparing))
    if load.error:
        count_failure(c, load.error)
    elif load.gives:
        give_back(c)


def swap_in_by(c, load):
    """swap_in() with the worker that the load has."""
    t = cython.address(c.t)
    load.failed = -1
    load.error = 0
    load.disk_ns = 0
    load.gives = 0
    i: int64_t = 0
    done: int64_t = 0
    k: cython.int
    while i < load.n:
        k = cython.cast(cython.int, load.n - i if load.n - i < STEP_LOADS else STEP_LOADS)
        began = uz_monotonic_ns()
        disk_ns = load.disk_ns
        held = hold_step(c, load, i, k)
        done = i + held
        if load.error:
            break
        load.error = fill_step(c, load, k)
        if load.error:
            break
        count_latency(c, load, k, uz_monotonic_ns() - began, load.disk_ns - disk_ns)
        i += k
    d: Delta
    j: int64_t = 0
    while j < done:
        end = j + STEP_LOADS if j + STEP_LOADS < done else done
        pthread_mutex_lock(cython.address(c.lock))
        memset(cython.address(d), 0, cython.sizeof(Delta))
        while j < end:
            if j + 8 < end:
                prefetch(cython.address(t.entries[cython.cast(uint32_t, load.handles[j + 8])]))
            index = cython.cast(uint32_t, load.handles[j])
            e = cython.address(t.entries[index])
            e.flags &= ~HELD
            if not load.error:
                count_load(c, cython.address(d), e)
                if load.consume:
                    entry_drop(c, cython.address(d), index)
            j += 1
        delta_apply(t, cython.address(d))
        load.gives = load.consume and not load.error and has_to_give(c)
        pthread_mutex_unlock(cython.address(c.lock))


def load_from_pool(c, handle, out, size, consume):
    """Load one entry of exactly so many bytes from the pool, as swap_in() does, with two holds of the lock.

    0, ELSEWHERE when it is not in the pool, or there is not the memory that swap_in() has to spare, or an errno.
    """
    t = cython.address(c.t)
    index = cython.cast(uint32_t, handle)
    began = uz_monotonic_ns()
    w: cython.pointer(Worker) = cython.NULL
    error: cython.int = 0
    pthread_mutex_lock(cython.address(c.lock))
    e = entry_at(t, handle)
    if e == cython.NULL:
        error = ESTALE
    elif e.flags & HELD or e.state == GOING_TO_DISK:
        error = EBUSY
    elif cython.cast(uint32_t, e.size_1) + 1 != size:
        error = EINVAL
    elif e.state != IN_POOL:
        error = ELSEWHERE
    else:
        e.flags |= HELD
        w = c.workers
        if w != cython.NULL:
            c.workers = w.next
    pthread_mutex_unlock(cython.address(c.lock))
    if error:
        return error
    # What is HELD stays where it is.
    bytes = cython.cast("const char *", e.data)
    length = cython.cast(uint32_t, e.length_1) + 1
    if length == size:
        memcpy(out, bytes, size)
    else:
        if w == cython.NULL:
            w = worker_new()
        if w == cython.NULL:
            error = ENOMEM
        else:
            error = decompress(w, cython.address(c.codecs[e.codec]), bytes, length, out, size)
    if not error:
        error = verify(c, handle, out, size)
    d: Delta
    memset(cython.address(d), 0, cython.sizeof(Delta))
    took = uz_monotonic_ns() - began
    gives: cython.bint = False
    pthread_mutex_lock(cython.address(c.lock))
    if w != cython.NULL:
        w.next = c.workers
        c.workers = w
    e.flags &= ~HELD
    if not error:
        count_load(c, cython.address(d), e)
        observe(cython.address(c.histograms[H_LOAD_ZSWAP]), bucket_of_ns(took), took, 1)
        if consume:
            entry_drop(c, cython.address(d), index)
            gives = has_to_give(c)
        delta_apply(t, cython.address(d))
    pthread_mutex_unlock(cython.address(c.lock))
    if error:
        count_failure(c, error)
    elif gives:
        give_back(c)
    return ELSEWHERE if error == ENOMEM else error


def free_entries(c, handles, n, error):
    """Free n entries, all or nothing.  -1, or the index of the first handle that can't be freed, with its errno."""
    t = cython.address(c.t)
    i: int64_t = 0
    j: int64_t = 0
    bad: int64_t = -1
    gives: cython.bint = False
    d: Delta
    error[0] = 0
    while i < n and bad < 0:
        end = i + STEP_LOADS if i + STEP_LOADS < n else n
        pthread_mutex_lock(cython.address(c.lock))
        while i < end:
            e = entry_at(t, handles[i])
            if e == cython.NULL or e.flags & HELD or e.state == GOING_TO_DISK:
                error[0] = ESTALE if e == cython.NULL else EBUSY
                bad = i
                break
            if not e.flags & SHARED:
                e.flags |= DOOMED
            i += 1
        pthread_mutex_unlock(cython.address(c.lock))
    while j < i:
        end = j + STEP_LOADS if j + STEP_LOADS < i else i
        pthread_mutex_lock(cython.address(c.lock))
        memset(cython.address(d), 0, cython.sizeof(Delta))
        while j < end:
            index = cython.cast(uint32_t, handles[j])
            t.entries[index].flags &= ~DOOMED
            if bad < 0:
                entry_drop(c, cython.address(d), index)
            j += 1
        delta_apply(t, cython.address(d))
        gives = has_to_give(c)
        pthread_mutex_unlock(cython.address(c.lock))
    if gives:
        give_back(c)
    return bad
