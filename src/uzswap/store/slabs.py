"""Memory for objects that are small, many and long-lived: slabs of their own, as the kernel's.

Where Python's allocator has them, each keeps a whole arena of megabytes in use that the values around it have left long
ago.  Whoever calls has the GIL, which is all the locking there is.
"""

import cython
from cython.cimports.libc.stdint import uint32_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    mmap,
    munmap,
)

_with_room = cython.declare(cython.pointer(Slab), cython.NULL)
_slabs = cython.declare(cython.Py_ssize_t, 0)
# Objects in one: the header takes the place of two.
_ROOM = cython.declare(uint32_t, SLAB_BYTES // OBJECT_BYTES - 2)


@cython.cfunc
@cython.exceptval(check=False)
def _slab_new() -> cython.pointer(Slab):
    """An empty slab with room, aligned to its size; NULL without memory."""
    global _with_room, _slabs
    size: cython.size_t = SLAB_BYTES
    memory = cython.cast(
        cython.size_t, mmap(cython.NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    )
    if memory == cython.cast(cython.size_t, -1):
        return cython.NULL
    aligned = (memory + size - 1) & ~(size - 1)
    if aligned > memory:
        munmap(cython.cast(cython.p_void, memory), aligned - memory)
    if aligned < memory + size:
        munmap(cython.cast(cython.p_void, aligned + size), memory + size - aligned)
    slab = cython.cast(cython.pointer(Slab), aligned)
    slab.prev = slab.next = cython.NULL
    _with_room = slab
    _slabs += 1
    return slab


@cython.cfunc
@cython.exceptval(check=False)
def _alloc(cls: cython.pointer(SlabType), nitems: cython.Py_ssize_t) -> cython.pointer(PyObject):
    global _with_room
    slab = _with_room
    if slab == cython.NULL:
        slab = _slab_new()
        if slab == cython.NULL:
            return PyErr_NoMemory()
    if slab.first_free != cython.NULL:
        memory = slab.first_free
        slab.first_free = cython.cast(cython.pp_void, memory)[0]
    else:
        memory = cython.cast(cython.p_char, slab) + (2 + slab.carved) * OBJECT_BYTES
        slab.carved += 1
    slab.live += 1
    if slab.live == _ROOM:
        _with_room = slab.next
        if slab.next != cython.NULL:
            slab.next.prev = cython.NULL
    memset(memory, 0, OBJECT_BYTES)
    return PyObject_Init(cython.cast(cython.pointer(PyObject), memory), cls)


@cython.cfunc
@cython.exceptval(check=False)
def _free(memory: cython.p_void) -> cython.void:
    global _with_room, _slabs
    slab = cython.cast(
        cython.pointer(Slab), cython.cast(cython.size_t, memory) & ~cython.cast(cython.size_t, SLAB_BYTES - 1)
    )
    cython.cast(cython.pp_void, memory)[0] = slab.first_free
    slab.first_free = memory
    if slab.live == _ROOM:
        slab.prev = cython.NULL
        slab.next = _with_room
        if _with_room != cython.NULL:
            _with_room.prev = slab
        _with_room = slab
    slab.live -= 1
    # One stays, or a number that hovers at a boundary would call the kernel for each object.
    if slab.live == 0 and (slab.prev != cython.NULL or slab.next != cython.NULL):
        prev, next = slab.prev, slab.next
        if munmap(slab, SLAB_BYTES) == 0:  # refused where it would take one mapping more than there may be
            _slabs -= 1
            if prev != cython.NULL:
                prev.next = next
            else:
                _with_room = next
            if next != cython.NULL:
                next.prev = prev


def slab_bytes():
    return _slabs * SLAB_BYTES


@cython.cfunc
@cython.exceptval(check=True)
def allocate_from_slabs(cls: type) -> cython.void:
    """Have the objects of a final extension type without garbage collection allocated here from now on."""
    slots = cython.cast(cython.pointer(SlabType), cython.cast(cython.p_void, cls))
    if slots.tp_basicsize > OBJECT_BYTES or cython.sizeof(Slab) > 2 * OBJECT_BYTES:
        raise TypeError(f"{cls.__name__} has {slots.tp_basicsize} bytes: there are slabs for {OBJECT_BYTES}")
    slots.tp_alloc = _alloc
    slots.tp_free = _free
