"""System calls on paged memory in user mode only: their pages are brought in, held while the call runs, and let go.

Called by the handler of SIGSYS (trap.py) and by the wrappers that ``uzswap run`` preloads (preload.c), in the thread
that makes the call: it may hold the GIL or any lock of the program's, but none of ours, since no code of ours makes a
system call on paged memory while it holds one.  All signals are blocked, except while the call itself is made.

A page that is held is on no list, so nothing evicts it; it counts those who hold it, beside ``uzswap.resident()``.  A
transfer that is larger than its cgroup can spare is cut where that makes no difference to what the kernel promises:
of a file all parts follow each other, of a stream what is there is given out; a datagram and what is appended to a file
are held whole, over the limit when need be.
"""

import cython
from cython.cimports.libc.errno import EEXIST
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.paging.areas import area_of, touched
from cython.cimports.uzswap.core.paging.frames import put_copy
from cython.cimports.uzswap.core.paging.page_in import TO_WRITE
from cython.cimports.uzswap.core.paging.pagetable import (
    P_KEPT,
    P_LISTED,
    P_LOST,
    P_RESIDENT,
    PAGE_BYTES,
    memcg_of,
    work_get,
    work_put,
)
from cython.cimports.uzswap.core.paging.ranges import bring_range
from cython.cimports.uzswap.core.paging.trap import arena_at, is_userfaultfd, make, may_cut, touch, which_are_there
from cython.cimports.uzswap.core.paging.workingset import list_add, list_del
from cython.cimports.uzswap.core.store.entries import ROOT

# Held for one call at most: a part of the tightest limit above the array, as readahead takes one, and no more than what
# makes the cost of a part (a few us) nothing against its transfer; no less than what a pipe holds.
LIMIT_PART = cython.declare(int64_t, 8)
MOST_HELD = cython.declare(int64_t, 1 << 20)
LEAST_HELD = cython.declare(int64_t, 1 << 16)

# What an ioctl's argument may point to, whose size only the driver knows: _IOC_SIZEMASK.
IOCTL_BYTES = cython.declare(uint64_t, 1 << 14)


def serve_call(call):
    """Make a call on buffers of which some may be arrays'.  Its result: a count, or -errno."""
    t: Transfer
    if call.nr == SYS_recvmmsg or call.nr == SYS_sendmmsg:
        return serve_messages(call)
    if not describe(cython.address(t), call):
        return make(call, 0)
    return transfer(cython.address(t))


def describe(t, call):
    """What a call transfers; 0 when it is not one of those that are known."""
    nr = call.nr
    t.call = call
    t.message = cython.NULL
    t.pointer = t.offset = -1
    t.flags = 0
    t.inward = nr in (SYS_read, SYS_pread64, SYS_recvfrom, SYS_readv, SYS_preadv, SYS_preadv2, SYS_recvmsg)
    if nr in (SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2):
        # -1: of the two that have flags, where the file is.
        t.offset = 3 if cython.cast(int64_t, call.args[3]) >= 0 else -1
    if nr in (SYS_readv, SYS_writev, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2):
        t.vector = cython.cast(cython.pointer(iovec), call.args[1])
        t.n = call.args[2]
        return 1
    if nr in (SYS_recvmsg, SYS_sendmsg):
        t.message = cython.cast(cython.pointer(msghdr), call.args[1])
        t.vector = t.message.msg_iov
        t.n = t.message.msg_iovlen
        t.flags = cython.cast(cython.int, call.args[2])
        return 1
    t.pointer = 1
    t.length = 2
    if nr in (SYS_recvfrom, SYS_sendto):
        t.flags = cython.cast(cython.int, call.args[3])
    elif nr == SYS_getrandom:
        t.inward = 1
        t.pointer = 0
        t.length = 1
    elif nr == SYS_ioctl:
        t.inward = 1
        t.pointer = 2
        t.length = -1
    elif nr not in (SYS_read, SYS_write, SYS_pread64, SYS_pwrite64):
        return 0
    t.one.iov_base = cython.cast(cython.p_void, call.args[t.pointer])
    t.one.iov_len = call.args[t.length] if t.length >= 0 else IOCTL_BYTES
    t.vector = cython.address(t.one)
    t.n = 1
    return 1


def transfer(t):
    parts: iovec[64]
    total: int64_t = 0
    nbytes: uint64_t = 0
    i: uint64_t = 0
    begun: uint64_t = 0  # bytes of vector[i] that are done
    got: cython.long
    if t.n > MOST_VECTOR:
        return make(t.call, 0)
    how: cython.int = WHOLE
    for i in range(t.n):
        nbytes += t.vector[i].iov_len
    most: uint64_t = most_at_once(t) if nbytes > LEAST_HELD else LEAST_HELD
    if nbytes > most and t.call.nr == SYS_getrandom:
        how = ALL_PARTS
    elif nbytes > most and t.call.nr != SYS_ioctl:
        control: cython.bint = t.message != cython.NULL and t.message.msg_controllen != 0
        how = may_cut(cython.cast(cython.int, t.call.args[0]), t.inward, t.flags, control)
    if how == WHOLE:
        got = make(t.call, hold(t.vector, t.n, t.inward))
        release(t.vector, t.n)
        return got
    i = 0
    while True:
        k: uint64_t = 0
        asked: uint64_t = 0
        while k < MOST_PARTS and i < t.n and asked < most:
            size = t.vector[i].iov_len - begun
            size = size if size < most - asked else most - asked
            parts[k].iov_base = cython.cast(cython.p_char, t.vector[i].iov_base) + begun
            parts[k].iov_len = size
            asked += size
            begun += size
            k += 1
            if begun == t.vector[i].iov_len:
                i += 1
                begun = 0
        got = part(t, parts, k, hold(parts, k, t.inward))
        release(parts, k)
        if got < 0:
            return total if total else got
        total += got
        if cython.cast(uint64_t, got) < asked or i == t.n or how == ONE_PART:
            return total
        if t.offset >= 0:
            t.call.args[t.offset] += got


def part(t, vector, n, waited):
    """Make the call for a part of its buffers."""
    call: uz_call = t.call[0]
    message: msghdr
    if t.message != cython.NULL:
        message = t.message[0]
        message.msg_iov = vector
        message.msg_iovlen = n
        call.args[1] = cython.cast(uint64_t, cython.cast(cython.size_t, cython.address(message)))
        got = make(cython.address(call), waited)
        t.message.msg_namelen = message.msg_namelen
        t.message.msg_flags = message.msg_flags
        return got
    if t.pointer < 0:
        call.args[1] = cython.cast(uint64_t, cython.cast(cython.size_t, vector))
        call.args[2] = n
    else:
        call.args[t.pointer] = cython.cast(uint64_t, cython.cast(cython.size_t, vector[0].iov_base))
        call.args[t.length] = vector[0].iov_len
    return make(cython.address(call), waited)


def serve_messages(call):
    """Make a recvmmsg() or sendmmsg(): all of its messages are held."""
    i: uint64_t
    waited: cython.int = 0
    messages = cython.cast(cython.pointer(uz_mmsghdr), call.args[1])
    n: uint64_t = call.args[2] if call.args[2] < MOST_VECTOR else MOST_VECTOR  # as the kernel has it
    for i in range(n):
        waited |= hold(messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen, call.nr == SYS_recvmmsg)
    got = make(call, waited)
    for i in range(n):
        release(messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen)
    return got


def most_at_once(t):
    """Bytes that may be held for a call; without limit when nothing of it is an array's."""
    h: Held
    i: uint64_t
    for i in range(t.n):
        if locate(cython.address(h), cython.address(t.vector[i])):
            break
    else:
        return cython.cast(uint64_t, -1)
    p = h.p
    pthread_mutex_lock(cython.address(p.lock))
    a = area_of(p, h.first)
    m: uint32_t = memcg_of(p, a) if a else ROOT
    pthread_mutex_lock(cython.address(p.c.lock))
    most: int64_t = MOST_HELD * LIMIT_PART
    while m != ROOT:
        g = cython.address(p.c.t.memcgs[m])
        most = g.memory_max if g.memory_max < most else most
        most = g.memory_high if g.memory_high < most else most
        most = g.resident_max if g.resident_max < most else most
        m = g.parent
    pthread_mutex_unlock(cython.address(p.c.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    # Whole multiples, also of the blocks that O_DIRECT asks for.
    most = most // LIMIT_PART // LEAST_HELD * LEAST_HELD
    return most if most > LEAST_HELD else LEAST_HELD


def locate(h, buffer):
    """The pages that a buffer is in, as far as they are an arena's; 0 when they are nobody's."""
    at = cython.cast(uint64_t, cython.cast(cython.size_t, buffer.iov_base))
    p = cython.cast(cython.pointer(Pager), arena_at(at))
    if p == cython.NULL or p.broken or not buffer.iov_len:
        return 0
    base = cython.cast(uint64_t, cython.cast(cython.size_t, p.base))
    left: uint64_t = base + p.nr_pages * PAGE_BYTES - at
    nbytes: uint64_t = buffer.iov_len if buffer.iov_len < left else left
    h.p = p
    h.first = (at - base) // PAGE_BYTES
    h.n = (at - base + nbytes - 1) // PAGE_BYTES + 1 - h.first
    return 1


def hold(vector, n, inward):
    """Bring the pages of buffers in, and hold them.  Whether any had to be brought.

    Those that cannot be had stay away: the kernel then says what it says of an address where nothing is.
    """
    h: Held
    i: uint64_t
    k: uint64_t
    waited: cython.int = 0
    for i in range(n):
        if not locate(cython.address(h), cython.address(vector[i])):
            continue
        while h.n:
            k = h.n if h.n < LOOK_PAGES else LOOK_PAGES
            waited |= hold_pages(h.p, h.first, k, inward)
            h.first += k
            h.n -= k
    return waited


def hold_pages(p, first, n, inward):
    x: uint64_t
    missing: cython.int = 0
    uz_enter(cython.address(p.gate))
    pthread_mutex_lock(cython.address(p.lock))
    touched(p, first, n)
    for x in range(first, first + n):
        page = cython.address(p.pages[x])
        if not page.area:
            n = x - first  # behind the array
            break
        page.held += 1
        p.nr_held += 1
        if page.state == P_RESIDENT:
            list_del(p, cython.cast(uint32_t, x))
        else:
            missing = 1
    # What the program has closed, the threads that serve faults still have.
    w = work_get(p) if missing and is_userfaultfd(p.fd) else cython.NULL
    pthread_mutex_unlock(cython.address(p.lock))
    if w != cython.NULL:
        bring_range(p, w, first, n, TO_WRITE if inward else 0)
        pthread_mutex_lock(cython.address(p.lock))
        work_put(p, w)
        pthread_mutex_unlock(cython.address(p.lock))
    uz_leave(cython.address(p.gate))
    put_what_is_missing(p, first, n)
    return missing


def put_what_is_missing(p, first, n):
    """Pages that are not there though they could be: the program has dropped them itself (madvise), so they are zeros
    as for any access; or they could not be brought by this thread, and are touched for others to bring them.
    """
    present: cython.uchar[256]
    i: uint64_t
    base = cython.cast(uint64_t, cython.cast(cython.size_t, p.base))
    if which_are_there(base + first * PAGE_BYTES, n, present):
        for i in range(n):
            # Nothing can be put where the program has unmapped it.
            if which_are_there(base + (first + i) * PAGE_BYTES, 1, cython.address(present[i])):
                present[i] = 1
    for i in range(n):
        if present[i] & 1:
            continue
        at = p.base + (first + i) * PAGE_BYTES
        got: int64_t = 0
        pthread_mutex_lock(cython.address(p.lock))
        state = p.pages[first + i].state
        if state == P_RESIDENT:
            got = put_copy(p, at, p.zeros, PAGE_BYTES)
        pthread_mutex_unlock(cython.address(p.lock))
        if state != P_LOST and got <= 0 and got != -EEXIST:
            touch(at)


def release(vector, n):
    """Undo hold()."""
    h: Held
    i: uint64_t
    k: uint64_t
    for i in range(n):
        if not locate(cython.address(h), cython.address(vector[i])):
            continue
        while h.n:
            k = h.n if h.n < LOOK_PAGES else LOOK_PAGES
            release_pages(h.p, h.first, k)
            h.first += k
            h.n -= k


def release_pages(p, first, n):
    x: uint64_t
    uz_enter(cython.address(p.gate))
    pthread_mutex_lock(cython.address(p.lock))
    for x in range(first, first + n):
        page = cython.address(p.pages[x])
        if not page.area:
            break
        if not page.held:
            continue  # another array's by now
        page.held -= 1
        p.nr_held -= 1
        if not page.held and page.state == P_RESIDENT and not page.flags & (P_KEPT | P_LISTED):
            list_add(p, cython.cast(uint32_t, x))
    pthread_mutex_unlock(cython.address(p.lock))
    uz_leave(cython.address(p.gate))
