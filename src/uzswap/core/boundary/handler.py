"""numpy's data memory from paged areas: the data handler of NEP 49.

numpy keeps a handler with each array that it allocated for, and calls that one's free() and realloc(), from whatever
thread, however long after.  So a handler lives as long as the last array made with it, and so does the engine.
Its functions touch nothing of Python's: numpy may call them without the GIL, and with it they may fault, because who
serves faults never takes it.

A pointer tells by its address whose it is, so it does not matter which of two handlers, or malloc, an array began with.
In a forked child that has no arrays of its parent's (forking.py) nothing is allocated here, and freeing one does
nothing: there is no such mapping, and malloc is given nothing of these addresses.
"""

import cython
from cython.cimports.cpython.pycapsule import PyCapsule_GetContext, PyCapsule_New, PyCapsule_SetContext
from cython.cimports.cpython.ref import Py_DECREF, Py_INCREF, PyObject
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc, realloc
from cython.cimports.libc.string import memcpy
from cython.cimports.numpy import PyDataMem_SetHandler, import_array
from cython.cimports.uzswap.core.boundary.forking import home
from cython.cimports.uzswap.core.boundary.memory import Memory
from cython.cimports.uzswap.core.boundary.paged import pager_lock, pager_unlock
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave, uz_try_enter
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    uz_change_int,
    uz_read_int,
)
from cython.cimports.uzswap.core.paging.areas import area_new, area_of
from cython.cimports.uzswap.core.paging.pagetable import PAGE_BYTES, Area
from cython.cimports.uzswap.core.paging.ranges import area_free, drop_range
from cython.cimports.uzswap.core.paging.uffd import uz_pause

import_array()

# Smaller areas are freed with the GIL held, if it is held: getting it back can take a thread's whole turn of 5 ms
# (sys.getswitchinterval), and freeing 1 MiB takes 0.1 ms, with all of it on a device 3.4 ms (Linux 6.18, 2026-11).
LONG_PAGES = cython.declare(uint64_t, 256)


def wanted(h, nbytes):
    return nbytes >= h.least and not uz_read_int(cython.address(h.off)) and getpid() == home()


def ours(h, p):
    return h.base <= cython.cast(cython.p_char, p) < h.end


def take(h, nbytes):
    """A new area's address; NULL without address space, or from an engine that closes."""
    at: cython.p_char = cython.NULL
    shut: cython.bint = True
    while shut:
        shut = False
        pthread_mutex_lock(cython.address(h.lock))
        p = h.p
        if not h.off and not h.held and not p.broken and not p.away:
            # A child would find the lock taken for ever: it is not kept where a fork is waited for.
            shut = not uz_try_enter(cython.address(p.gate))
            if not shut:
                a = area_new(p, nbytes, h.memcg, h.item)
                if a:
                    at = p.base + p.areas[a].first * PAGE_BYTES
                uz_leave(cython.address(p.gate))
        pthread_mutex_unlock(cython.address(h.lock))
        if shut:
            uz_pause(1)
    return at


def area_at(p, at):
    """The area that an address of the reservation belongs to; 0 when it is free, or nobody may know any more."""
    if p.broken or p.away:
        return 0
    pthread_mutex_lock(cython.address(p.lock))
    a = area_of(p, (at - p.base) // PAGE_BYTES)
    pthread_mutex_unlock(cython.address(p.lock))
    return a


def give_back(h, at):
    a = area_at(h.p, at)
    state: cython.p_void = cython.NULL
    if not a:
        return
    # What is long takes no other thread of Python along.
    if h.p.areas[a].pages >= LONG_PAGES and has_gil():
        state = let_go_of_gil()
    uz_enter(cython.address(h.p.gate))
    area_free(h.p, a)
    uz_leave(cython.address(h.p.gate))
    if state != cython.NULL:
        take_gil(state)


def hook_malloc(ctx, nbytes):
    h = cython.cast(cython.pointer(Hook), ctx)
    if wanted(h, nbytes):
        return take(h, nbytes)
    return malloc(nbytes)


def hook_calloc(ctx, n, item):
    h = cython.cast(cython.pointer(Hook), ctx)
    nbytes = n * item
    if item and nbytes // item != n:
        return cython.NULL
    if wanted(h, nbytes):
        return take(h, nbytes)  # pages that nobody touched are zeros, and cost nothing
    return calloc(n, item)


def shrunk(h, area, nbytes):
    """Whether an area is, or could be made, as small as nbytes where it is."""
    p = h.p
    pages: uint64_t = (nbytes + PAGE_BYTES - 1) // PAGE_BYTES
    if nbytes < h.least or pages > p.areas[area].pages:
        return 0
    if pages == p.areas[area].pages:
        return 1
    # What the kernel keeps of it, nobody reads.
    uz_enter(cython.address(p.gate))
    drop_range(p, p.areas[area].first + pages, p.areas[area].pages - pages, 0)
    uz_leave(cython.address(p.gate))
    return 1


def hook_realloc(ctx, old, nbytes):
    h = cython.cast(cython.pointer(Hook), ctx)
    had: cython.size_t
    new: cython.p_void
    if old == cython.NULL:
        return hook_malloc(ctx, nbytes)
    mine: cython.bint = ours(h, old)
    if mine:
        if getpid() != home():
            return cython.NULL
        a = area_at(h.p, cython.cast(cython.p_char, old))
        if not a:
            return cython.NULL
        if shrunk(h, a, nbytes):
            return old
        had = h.p.areas[a].pages * PAGE_BYTES
    elif not wanted(h, nbytes):
        return realloc(old, nbytes)
    else:
        had = malloc_usable_size(old)
    new = hook_malloc(ctx, nbytes)
    if new == cython.NULL:
        return cython.NULL
    memcpy(new, old, had if had < nbytes else nbytes)
    hook_free(ctx, old, had)
    return new


def hook_free(ctx, old, nbytes):
    h = cython.cast(cython.pointer(Hook), ctx)
    if not ours(h, old):
        free(old)
    elif getpid() == home():
        give_back(h, cython.cast(cython.p_char, old))


def forget(capsule):
    Py_DECREF(cython.cast(object, cython.cast(cython.pointer(PyObject), PyCapsule_GetContext(capsule))))


@cython.cclass
class Handler:
    """A data handler that allocates in one memcg; see handler.pyi."""

    def __cinit__(
        self, memory: Memory, owner, memcg: uint32_t, least: cython.size_t, item: uint8_t, shared: cython.bint
    ):
        p = memory._enter()
        memory._leave()
        self.memory = memory
        self.owner = owner
        self.shared = shared
        h = cython.address(self.hook)
        memcpy(h.table.name, b"uzswap", 7)
        h.table.version = 1
        h.table.allocator.ctx = h
        h.table.allocator.malloc = hook_malloc
        h.table.allocator.calloc = hook_calloc
        h.table.allocator.realloc = hook_realloc
        h.table.allocator.free = hook_free
        h.p = p
        h.base = p.base
        h.end = p.base + p.nr_pages * PAGE_BYTES
        h.least = least
        h.memcg = memcg
        h.item = item
        pthread_mutex_init(cython.address(h.lock), cython.NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(cython.address(self.hook.lock))

    def install(self):
        """Make this context's numpy allocate here.  The handler that it had, for :func:`restore`."""
        capsule = PyCapsule_New(cython.address(self.hook.table), b"mem_handler", forget)
        PyCapsule_SetContext(capsule, cython.cast(cython.p_void, self))
        Py_INCREF(self)
        return PyDataMem_SetHandler(capsule)

    def turn_off(self):
        """Leave every later allocation to malloc."""
        h = cython.address(self.hook)
        with cython.nogil:
            pthread_mutex_lock(cython.address(h.lock))
            uz_change_int(cython.address(h.off), 1)
            pthread_mutex_unlock(cython.address(h.lock))

    def hold(self, held: cython.bint):
        """Refuse every allocation, as long as held."""
        h = cython.address(self.hook)
        with cython.nogil:
            pthread_mutex_lock(cython.address(h.lock))
            h.held = held
            pthread_mutex_unlock(cython.address(h.lock))

    def move(self, memcg: uint32_t):
        h = cython.address(self.hook)
        with cython.nogil:
            pthread_mutex_lock(cython.address(h.lock))
            h.memcg = memcg
            pthread_mutex_unlock(cython.address(h.lock))


def restore(previous):
    """Undo Handler.install() in this context."""
    PyDataMem_SetHandler(previous)


def find(memory: Memory, address: cython.size_t):
    """The area of a memory that an address is in, or 0; also when the memory was closed."""
    at = cython.cast(cython.p_char, address)
    a: uint32_t = 0
    try:
        p = memory._enter()
    except (ValueError, OSError):  # closed, or broken: nobody may know any more
        return 0
    if p.base <= at < p.base + p.nr_pages * PAGE_BYTES:
        with cython.nogil:
            a = area_at(p, at)
    memory._leave()
    return a


def set_item(memory: Memory, area: uint32_t, item: uint8_t):
    """Tell the item size of an area's array, for the byte shuffle."""
    p = memory._enter()
    with cython.nogil:
        pager_lock(p)
        if area < p.next_area:
            p.areas[area].item = item
        pager_unlock(p)
    memory._leave()


def alive(memory: Memory):
    """(memcg, bytes) of every area in use."""
    p = memory._enter()
    a: Area
    number: uint32_t = 0
    found = []
    try:
        while True:
            number += 1
            used = memory._look(p, number, cython.address(a))
            if used < 0:
                break
            if used:
                found.append((a.memcg, a.pages * PAGE_BYTES))
    finally:
        memory._leave()
    return found
