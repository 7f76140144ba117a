"""The keeper: the thread that starts the others of paged memory, looks after them, and sees them end."""

import cython
from cython.cimports.libc.errno import EAGAIN, ENOMEM
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.posix.unistd import read, write
from cython.cimports.uzswap.core.device.device import NR_FILES
from cython.cimports.uzswap.core.device.device_io import still_ours
from cython.cimports.uzswap.core.gate import uz_gate_tell, uz_leave, uz_open, uz_try_enter
from cython.cimports.uzswap.core.libc_ext import (
    MADV_DONTFORK,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    uz_is_still,
    uz_monotonic_ns,
)
from cython.cimports.uzswap.core.paging.frames import each_run
from cython.cimports.uzswap.core.paging.handlers import look
from cython.cimports.uzswap.core.paging.page_in import try_failed_again
from cython.cimports.uzswap.core.paging.pager import serve, toil
from cython.cimports.uzswap.core.paging.pagetable import MOST_THREADS, MOST_WORKERS, PAGE_BYTES, work_new, work_put
from cython.cimports.uzswap.core.paging.uffd import (
    pthread_cond_broadcast,
    pthread_cond_wait,
    pthread_join,
    uz_allowed_cpus,
    uz_cond_wait_ms,
    uz_kill_self_with_sigbus,
    uz_own_descriptors,
    uz_pause,
    uz_say_broken,
    uz_thread_lives,
    uz_thread_runs,
    uz_thread_start,
    uz_uffd_poison,
    uz_uffd_wait_ms,
    uz_uffd_wake,
)

# Longer than a fork takes where there is a CPU for it.
RELENT_NS = cython.declare(int64_t, 1_000_000_000)

# Who forks sleeps for a moment now and then, for a lock: it waits for somebody when it is met asleep so often.
LOOKS = cython.declare(cython.int, 5)
LOOK_MS = cython.declare(cython.int, 10)

# Between two tries to start the first thread of a child.
RETRY_MS = cython.declare(cython.int, 10)

# How often the keeper looks whether all threads live: nothing tells it, and nobody should wait much longer than this.
WATCH_MS = cython.declare(cython.int, 1000)


def pager_start(p):
    """Start all threads.  0 or -errno."""
    failed = keeper_start(p)
    if failed:
        return failed
    pthread_mutex_lock(cython.address(p.lock))
    while not p.started:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    if p.started < 0:
        pager_close(p)
        pager_stop(p)
        return p.started
    return 0


def keeper_start(p):
    """Start the keeper; when it has a table of descriptors of its own the program may close its own.  0 or -errno."""
    failed = uz_thread_start(cython.address(p.keeper), watch, p, -1)
    if failed:
        return failed
    pthread_mutex_lock(cython.address(p.lock))
    while not p.keeper_ready:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    return 0


def pager_close(p):
    """Send away all who wait for what the pager does."""
    pthread_mutex_lock(cython.address(p.watching))
    pthread_mutex_lock(cython.address(p.lock))
    p.closing = 1
    pthread_cond_broadcast(cython.address(p.told))
    pthread_cond_broadcast(cython.address(p.work))
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))
    pthread_cond_broadcast(cython.address(p.watch))
    pthread_mutex_unlock(cython.address(p.watching))
    if p.lazy and uz_is_still(p.stop_write, p.identities[2]):
        write(p.stop_write, b"x", 1)


def pager_stop(p):
    """End all threads; after pager_close(), when nobody uses the pager any more."""
    pthread_join(p.keeper, cython.NULL)


def own_table(p):
    """Called in the keeper: what it starts shares its descriptors."""
    keep: cython.int[260]  # as many as there are files, and four
    i: cython.int
    j: cython.int
    k: cython.int = 3
    keep[0] = p.fd
    keep[1] = p.stop_read
    keep[2] = p.stop_write
    # So that those who serve faults need not ask for what they read; where the program has closed it they do.
    if p.c.has_device and p.c.device.nr and still_ours(cython.address(p.c.device.io)):
        keep[k] = p.c.device.io.fd
        k += 1
    for i in range(NR_FILES):
        if p.c.files[i] != cython.NULL and still_ours(cython.address(p.c.files[i].io)):
            keep[k] = p.c.files[i].io.fd
            k += 1
    for i in range(1, k):
        j = i
        while j > 0 and keep[j - 1] > keep[j]:
            kept = keep[j]
            keep[j] = keep[j - 1]
            keep[j - 1] = kept
            j -= 1
    # Refused by old kernels and by some filters; then the descriptors are everybody's.
    uz_own_descriptors(keep, k)
    pthread_mutex_lock(cython.address(p.lock))
    p.keeper_ready = 1
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))


def rouse(p):
    """Have the threads of a forked child started at once: its keeper waits for messages, and who waits sends none.

    Called with the lock.
    """
    if p.lazy and p.roused < 2 and uz_is_still(p.stop_write, p.identities[2]):
        write(p.stop_write, b"x", 1)
    p.roused = 2


def awake(p):
    """Called in the keeper of a forked child: what it was roused by must not end the threads that it starts."""
    ignored: cython.char
    pthread_mutex_lock(cython.address(p.lock))
    p.roused = 2
    pthread_mutex_unlock(cython.address(p.lock))
    if not p.closing and uz_uffd_wait_ms(p.fd, p.stop_read, 0) < 0:
        read(p.stop_read, cython.address(ignored), 1)


def start_threads(p):
    """Called in the keeper.  0 or -errno."""
    cpus: cython.int[MOST_THREADS]
    i: cython.int
    allowed = uz_allowed_cpus(cpus, MOST_THREADS)
    n: cython.int = allowed if 0 < allowed <= MOST_THREADS and not p.by_signal else 1
    for i in range(p.nr_servers, n):
        if not work_ready(p, 1):
            if i == 0:
                return -ENOMEM
            break
        # With more CPUs than threads none is pinned: waking all of them for each fault would cost more than it saves.
        failed = uz_thread_start(cython.address(p.threads[i]), serve, p, cpus[i] if n == allowed else -1)
        if failed:
            if i == 0:
                return failed
            break
        p.nr_servers += 1
    for i in range(allowed if 0 < allowed < MOST_WORKERS else MOST_WORKERS):
        # Without workers everything is done by those that serve.
        if not work_ready(p, 1) or uz_thread_start(cython.address(p.threads[p.nr_servers + i]), toil, p, -1):
            break
        p.nr_workers += 1
    if p.by_signal:
        # Who faults works in this memory, and leaves to workers what is long, or what there is none for.
        work_ready(p, allowed if 0 < allowed < MOST_THREADS else MOST_THREADS)
        return 0 if p.nr_workers else -EAGAIN
    return 0


def work_ready(p, spare):
    """Whether there is working memory for so many more threads, which thread_begins() will find.

    In a child that which its parent had is used again: a fault waits for it, whatever memory there is.
    """
    pthread_mutex_lock(cython.address(p.lock))
    missing: cython.int = spare + p.nr_servers + p.nr_workers - p.nr_begun
    w = p.works
    while w != cython.NULL and missing > 0:
        missing -= 1
        w = w.next
    while missing > 0:
        w = work_new(p)
        if w == cython.NULL:
            break
        work_put(p, w)
        missing -= 1
    pthread_mutex_unlock(cython.address(p.lock))
    return missing <= 0


def watch(arg):
    """The keeper: starts the other threads, looks after them, and sees them end."""
    p = cython.cast(cython.pointer(Pager), arg)
    i: cython.int
    own_table(p)
    # The parent's were many, and most children need none.
    while p.lazy and not p.closing and not p.roused and uz_uffd_wait_ms(p.fd, p.stop_read, WATCH_MS) == 0:
        relent(p)
    if p.lazy:
        awake(p)
    failed: cython.int = 0
    if not p.lazy or not p.closing:
        failed = start_threads(p)
    while failed and p.lazy and not p.closing:
        # Somebody waits already, and a thread can be had again when others have ended.
        uz_pause(RETRY_MS)
        failed = start_threads(p)
    pthread_mutex_lock(cython.address(p.lock))
    # Until all have their working memory nobody else may ask for any.
    while p.nr_begun < p.nr_servers + p.nr_workers:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    p.started = failed if failed else 1
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))
    while not p.closing and not p.broken:
        # Not Pager.lock: a thread that was killed may have taken it along.
        pthread_mutex_lock(cython.address(p.watching))
        if not p.closing:
            uz_cond_wait_ms(cython.address(p.watch), cython.address(p.watching), WATCH_MS)
        pthread_mutex_unlock(cython.address(p.watching))
        if not p.closing and not all_live(p):
            give_up(p)
            continue
        relent(p)
        if p.by_signal:
            look(p.faults != p.looked_at)
            p.looked_at = p.faults
        if uz_try_enter(cython.address(p.gate)):
            # Without waiting for it: who holds it may have been killed.
            if pthread_mutex_trylock(cython.address(p.lock)) == 0:
                if p.failed.length:
                    try_failed_again(p)
                pthread_mutex_unlock(cython.address(p.lock))
            uz_leave(cython.address(p.gate))
    # From here, where the descriptor is still what it was: the program may have closed its own.
    write(p.stop_write, b"x", 1)
    for i in range(p.nr_servers + p.nr_workers):
        if not p.broken:
            pthread_join(p.threads[i], cython.NULL)
    return cython.NULL


def relent(p):
    """Have a fork that does not come be waited for no longer: its child has nothing of this.

    Libraries may end threads of theirs when a process forks (OpenBLAS), and wait for what these are at: a page.
    """
    pthread_mutex_lock(cython.address(p.watching))
    if p.rested and uz_monotonic_ns() >= p.rested + RELENT_NS and waits_for_somebody(p.forker):
        # In this order: a child that has the memory has it at rest.
        each_run(p, MADV_DONTFORK, 0)
        p.relented = 1
        p.rested = 0
        open_again(p)
    pthread_mutex_unlock(cython.address(p.watching))


def waits_for_somebody(thread):
    """A thread that is only slow is met running: on a busy machine, or where all was stopped for a while."""
    look: cython.int
    for look in range(LOOKS):
        if uz_thread_runs(thread):
            return 0
        uz_pause(LOOK_MS)
    return 1


def open_again(p):
    """Let everybody go on, with what they would have begun."""
    uz_open(cython.address(p.gate))
    pthread_mutex_lock(cython.address(p.lock))
    pthread_cond_broadcast(cython.address(p.work))
    pthread_mutex_unlock(cython.address(p.lock))


def all_live(p):
    i: cython.int
    for i in range(MOST_THREADS + MOST_WORKERS):
        if p.thread_ids[i] and not uz_thread_lives(p.thread_ids[i]):
            return 0
    return 1


def give_up(p):
    """A thread was killed in the midst of its work: nobody knows what it held.

    All that is not resident is poisoned, which ends every wait for it; what is resident can be used on.
    """
    a: uint32_t
    p.broken = 1
    uz_say_broken()
    # Who forks waits for nobody here any more.
    uz_gate_tell(cython.address(p.gate))
    uz_gate_tell(cython.address(p.c.gate))
    pthread_cond_broadcast(cython.address(p.told))
    pthread_cond_broadcast(cython.address(p.changed))
    if not p.can_poison:
        uz_kill_self_with_sigbus()
    for a in range(1, p.next_area):
        page: uint64_t = p.areas[a].first
        end: uint64_t = page + p.areas[a].pages
        while p.areas[a].used and page < end:
            done = uz_uffd_poison(p.fd, p.base + page * PAGE_BYTES, (end - page) * PAGE_BYTES)
            page += done // PAGE_BYTES if done > 0 else 1
    uz_uffd_wake(p.fd, p.base, p.nr_pages * PAGE_BYTES)
