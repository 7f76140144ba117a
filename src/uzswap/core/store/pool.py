"""Compressed objects in size classes: the role of zsmalloc.

A slab is 64 KiB of objects of one class; an extent is 2 MiB of slabs.  Invariants:

* a slab is in use (``cls`` set), in stock (free, resident: a bit of ``Extent.stock``) or gone (free, its memory given
  back: a bit of ``Extent.gone``), never two of these;
* a class's ``partial`` list holds exactly its slabs with a free object;
* ``pages`` is the number of resident pages: those that carving has reached, and whole extents where they are huge;
* an empty pool holds no memory.

The caller serialises.  The pool does not know who owns an object.
"""

import cython
from cython.cimports.libc.stdint import uint16_t, uint32_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import (
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    ctz,
    madvise,
    munmap,
    popcount,
    uz_discard,
    uz_reserve,
)

# Huge pages make the first touch of pool memory 5 times cheaper a byte and giving it back 10 times (measured: touch
# 25 -> 4.9 us, 1.7 -> 0.34 where the host has the memory at hand; MADV_DONTNEED 0.38 -> 0.013 us a 4 KiB page, Linux
# 6.18, 2026-11), but they count 2 MiB at a time: a pool below 8 MiB stays exact.
EXACT_EXTENTS = cython.declare(cython.int, 4)

# Free slabs kept resident so that a pool in steady state does not go to the kernel for each of them: an eighth of what
# is in use, at least one extent (our choice).
STOCK_SHIFT = cython.declare(cython.int, 3)

# Extents with stock that are looked at for one that is free as a whole: it goes by one call, which takes 0.7 of the
# time of one for each slab (measured, 2026-11).  In a pool that is drained in order it is the second.
LOOKED_AT = cython.declare(cython.int, 4)


def class_of(length):
    """Small classes are close together: what small values are compressed to with a dictionary is often below 100 bytes,
    and steps of 32 bytes would take a fifth of what that saves (records of 160 to 420 bytes, 2026-11).
    """
    if length <= 128:
        return (length - 1) >> 3 if length else 0
    if length <= 512:
        return NR_TINY + ((length - 129) >> 4)
    if length <= 4096:
        return NR_SMALL + ((length - 513) >> 6)
    n = SLAB_BYTES // length
    if ((SLAB_BYTES // n) & ~63) < length:
        n -= 1
    return NR_CLASSES - n


def pool_init(pool, nbytes):
    memset(pool, 0, cython.sizeof(Pool))
    pool.mapping_bytes = nbytes
    # A strict overcommit policy or an address-space limit refuses large reservations: halve until one is granted.
    while True:
        pool.mapping = cython.cast(cython.p_char, uz_reserve(pool.mapping_bytes + EXTENT_BYTES))
        if pool.mapping != cython.NULL:
            break
        pool.mapping_bytes >>= 1
        if pool.mapping_bytes < 4 * EXTENT_BYTES:
            return -1
    start = cython.cast(cython.size_t, pool.mapping)
    pool.base = pool.mapping + ((EXTENT_BYTES - (start & (EXTENT_BYTES - 1))) & (EXTENT_BYTES - 1))
    pool.max_extents = cython.cast(uint32_t, pool.mapping_bytes >> EXTENT_SHIFT)
    pool.slabs = cython.cast(cython.pointer(Slab), calloc(pool.max_extents * EXTENT_SLABS, cython.sizeof(Slab)))
    pool.extents = cython.cast(cython.pointer(Extent), calloc(pool.max_extents, cython.sizeof(Extent)))
    if pool.slabs == cython.NULL or pool.extents == cython.NULL:
        pool_destroy(pool)
        return -1
    pool.closed = pool.stocked = pool.holed = NO_SLAB
    c: uint32_t
    for c in range(NR_CLASSES):
        if c < NR_TINY:
            pool.size[c] = (c + 1) << 3
        elif c < NR_SMALL:
            pool.size[c] = 128 + ((c - NR_TINY + 1) << 4)
        elif c < NR_CLASSES - 15:
            pool.size[c] = 512 + ((c - NR_SMALL + 1) << 6)
        else:
            pool.size[c] = (SLAB_BYTES // (NR_CLASSES - c)) & ~63
        pool.objects_per_slab[c] = cython.cast(uint16_t, SLAB_BYTES // pool.size[c])
        pool.partial[c] = NO_SLAB
    return 0


def pool_destroy(pool):
    if pool.mapping != cython.NULL:
        munmap(pool.mapping, pool.mapping_bytes + EXTENT_BYTES)
    free(pool.slabs)
    free(pool.extents)
    memset(pool, 0, cython.sizeof(Pool))


def relist(pool, x):
    """Put extent x on the list that its slabs ask for: stocked, holed or none."""
    e = cython.address(pool.extents[x])
    want: uint32_t = 1 if e.stock else 2 if e.gone else 0
    if want == e.listed:
        return
    if e.listed:
        if e.prev != NO_SLAB:
            pool.extents[e.prev].next = e.next
        elif e.listed == 1:
            pool.stocked = e.next
        else:
            pool.holed = e.next
        if e.next != NO_SLAB:
            pool.extents[e.next].prev = e.prev
    e.listed = want
    if want:
        e.prev = NO_SLAB
        e.next = pool.stocked if want == 1 else pool.holed
        if e.next != NO_SLAB:
            pool.extents[e.next].prev = x
        if want == 1:
            pool.stocked = x
        else:
            pool.holed = x


def open_extent(pool):
    x: uint32_t
    if pool.closed != NO_SLAB:
        x = pool.closed
        pool.closed = pool.extents[x].next
    elif pool.next_extent < pool.max_extents:
        x = pool.next_extent
        pool.next_extent += 1
    else:
        return NO_SLAB
    e = cython.address(pool.extents[x])
    memory = pool.base + (cython.cast(cython.size_t, x) << EXTENT_SHIFT)
    e.listed = 0
    e.huge = pool.open_extents >= EXACT_EXTENTS and madvise(memory, EXTENT_BYTES, MADV_HUGEPAGE) == 0
    s: cython.int
    if e.huge:
        e.stock = ALL_SLABS
        e.gone = 0
        pool.stock_slabs += EXTENT_SLABS
        pool.pages += EXTENT_PAGES
        for s in range(EXTENT_SLABS):
            pool.slabs[x * EXTENT_SLABS + s].touched = SLAB_PAGES
    else:
        madvise(memory, EXTENT_BYTES, MADV_NOHUGEPAGE)
        e.stock = 0
        e.gone = ALL_SLABS
    pool.open_extents += 1
    relist(pool, x)
    return x


def take_slab(pool):
    x = pool.stocked
    if x == NO_SLAB:
        x = pool.holed
    if x == NO_SLAB:
        x = open_extent(pool)
    if x == NO_SLAB:
        return NO_SLAB
    e = cython.address(pool.extents[x])
    bit: uint32_t
    if e.stock:
        bit = ctz(e.stock)
        e.stock &= ~(cython.cast(uint32_t, 1) << bit)
        pool.stock_slabs -= 1
    else:
        bit = ctz(e.gone)
        e.gone &= ~(cython.cast(uint32_t, 1) << bit)
    pool.used_slabs += 1
    relist(pool, x)
    return x * EXTENT_SLABS + bit


def give_back_slabs(pool, x):
    """Return the memory of the free slabs of an extent that is otherwise in use, neighbours together."""
    e = cython.address(pool.extents[x])
    bit: uint32_t
    n: uint32_t
    i: uint32_t
    while e.stock:
        bit = ctz(e.stock)
        n = 0
        while bit + n < EXTENT_SLABS and (e.stock >> (bit + n)) & 1:
            n += 1
        s = x * EXTENT_SLABS + bit
        uz_discard(pool.base + (cython.cast(cython.size_t, s) << SLAB_SHIFT), n * SLAB_BYTES)
        for i in range(bit, bit + n):
            pool.pages -= pool.slabs[x * EXTENT_SLABS + i].touched
            pool.slabs[x * EXTENT_SLABS + i].touched = 0
            e.stock &= ~(cython.cast(uint32_t, 1) << i)
            e.gone |= cython.cast(uint32_t, 1) << i
        pool.stock_slabs -= n
    relist(pool, x)


def whole_extent(pool):
    """An extent of the stock that is free as a whole, if one of the first is; else NO_SLAB."""
    x = pool.stocked
    i: cython.int
    for i in range(LOOKED_AT):
        if x == NO_SLAB or (pool.extents[x].stock | pool.extents[x].gone) == ALL_SLABS:
            break
        x = pool.extents[x].next
    else:
        return NO_SLAB
    return x


def close_extent(pool, x):
    e = cython.address(pool.extents[x])
    uz_discard(pool.base + (cython.cast(cython.size_t, x) << EXTENT_SHIFT), EXTENT_BYTES)
    s: cython.int
    for s in range(EXTENT_SLABS):
        pool.pages -= pool.slabs[x * EXTENT_SLABS + s].touched
        pool.slabs[x * EXTENT_SLABS + s].touched = 0
    pool.stock_slabs -= popcount(e.stock)
    e.stock = 0
    e.gone = 0
    relist(pool, x)
    e.next = pool.closed
    pool.closed = x
    pool.open_extents -= 1


def put_slab(pool, s):
    """Take back a slab whose last object went, and keep the stock within its bound."""
    x = s // EXTENT_SLABS
    e = cython.address(pool.extents[x])
    pool.slabs[s].cls = NO_CLASS
    e.stock |= cython.cast(uint32_t, 1) << (s & (EXTENT_SLABS - 1))
    pool.stock_slabs += 1
    pool.used_slabs -= 1
    relist(pool, x)
    if pool.used_slabs == 0:
        while pool.stocked != NO_SLAB:
            close_extent(pool, pool.stocked)
        while pool.holed != NO_SLAB:
            close_extent(pool, pool.holed)
        return
    most = pool.used_slabs >> STOCK_SHIFT
    if pool.stock_slabs > (most if most > EXTENT_SLABS else EXTENT_SLABS):
        whole = x if (e.stock | e.gone) == ALL_SLABS else NO_SLAB
        if whole == NO_SLAB and pool.open_extents > EXACT_EXTENTS:
            # A small pool gives back what was freed last, so that each page that is written back counts at once.
            whole = whole_extent(pool)
        if whole != NO_SLAB:
            close_extent(pool, whole)
        else:
            give_back_slabs(pool, x)


def pool_alloc(pool, length):
    cls = class_of(length)
    size = pool.size[cls]
    s = pool.partial[cls]
    if s == NO_SLAB:
        s = take_slab(pool)
        if s == NO_SLAB:
            return cython.NULL
        slab = cython.address(pool.slabs[s])
        slab.cls = cls
        slab.used = slab.carved = slab.free_head = 0
        slab.prev = slab.next = NO_SLAB
        pool.partial[cls] = s
    slab = cython.address(pool.slabs[s])
    obj = pool.base + (cython.cast(cython.size_t, s) << SLAB_SHIFT)
    reached: uint32_t
    if slab.free_head:
        obj += cython.cast(cython.size_t, slab.free_head - 1) * size
        slab.free_head = cython.cast(cython.pointer(uint16_t), obj)[0]
    else:
        obj += cython.cast(cython.size_t, slab.carved) * size
        slab.carved += 1
        reached = (slab.carved * size + 4095) >> 12
        if reached > slab.touched:
            pool.pages += reached - slab.touched
            slab.touched = reached
    slab.used += 1
    if slab.used == pool.objects_per_slab[cls]:
        pool.partial[cls] = slab.next
        if slab.next != NO_SLAB:
            pool.slabs[slab.next].prev = NO_SLAB
    pool.objects += 1
    pool.object_bytes += size
    return obj


def pool_free(pool, obj):
    offset = cython.cast(cython.size_t, obj - pool.base)
    s = cython.cast(uint32_t, offset >> SLAB_SHIFT)
    slab = cython.address(pool.slabs[s])
    cls = slab.cls
    size = pool.size[cls]
    pool.objects -= 1
    pool.object_bytes -= size
    was_full: cython.bint = slab.used == pool.objects_per_slab[cls]
    slab.used -= 1
    if slab.used == 0:
        if not was_full:
            if slab.prev != NO_SLAB:
                pool.slabs[slab.prev].next = slab.next
            else:
                pool.partial[cls] = slab.next
            if slab.next != NO_SLAB:
                pool.slabs[slab.next].prev = slab.prev
        put_slab(pool, s)
        return
    cython.cast(cython.pointer(uint16_t), obj)[0] = slab.free_head
    slab.free_head = cython.cast(uint16_t, (offset & (SLAB_BYTES - 1)) // size + 1)
    if was_full:
        slab.prev = NO_SLAB
        slab.next = pool.partial[cls]
        if slab.next != NO_SLAB:
            pool.slabs[slab.next].prev = s
        pool.partial[cls] = s


def pool_check(pool, objects):
    """The number of invariants that do not hold, given how many objects the owners count."""
    wrong: cython.int = 0
    found: cython.longlong = 0
    found_bytes: cython.longlong = 0
    pages: cython.longlong = 0
    used: uint32_t = 0
    stock: uint32_t = 0
    x: uint32_t
    b: uint32_t
    for x in range(pool.next_extent):
        e = cython.address(pool.extents[x])
        if e.stock & e.gone:
            wrong += 1
        stock += popcount(e.stock)
        for b in range(EXTENT_SLABS):
            slab = cython.address(pool.slabs[x * EXTENT_SLABS + b])
            pages += slab.touched
            if ((e.stock | e.gone) >> b) & 1 or slab.used == 0:
                continue
            used += 1
            found += slab.used
            found_bytes += slab.used * pool.size[slab.cls]
            if slab.used > slab.carved:
                wrong += 1
    if found != pool.objects or found != objects:
        wrong += 1
    if found_bytes != pool.object_bytes:
        wrong += 1
    if pages != pool.pages:
        wrong += 1
    if used != pool.used_slabs or stock != pool.stock_slabs:
        wrong += 1
    if pool.used_slabs == 0 and pool.pages != 0:
        wrong += 1
    return wrong
