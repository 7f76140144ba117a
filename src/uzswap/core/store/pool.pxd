from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SLAB_SHIFT = 16
    SLAB_BYTES = 65536
    SLAB_PAGES = 16
    EXTENT_SHIFT = 21
    EXTENT_BYTES = 2097152
    EXTENT_SLABS = 32
    EXTENT_PAGES = 512
    NR_TINY = 16        # classes of 8, 16 .. 128 bytes
    NR_SMALL = 40       # then 144, 160 .. 512
    NR_CLASSES = 111    # then 576, 640 .. 4096, then 15, 14 .. 1 objects to a slab
    NO_SLAB = 0xFFFFFFFF
    NO_CLASS = 255
    ALL_SLABS = 0xFFFFFFFF  # of an extent, in Extent.stock and .gone

cdef struct Slab:
    uint32_t prev
    uint32_t next
    uint16_t used
    uint16_t carved
    uint16_t free_head      # index + 1 of the first free object, 0 when there is none
    uint8_t cls
    uint8_t touched         # pages that are resident

cdef struct Extent:
    uint32_t prev
    uint32_t next
    uint32_t stock          # free slabs that are still resident, a bit each
    uint32_t gone           # free slabs whose memory went back to the system
    uint8_t huge
    uint8_t listed

cdef struct Pool:
    char *mapping
    size_t mapping_bytes
    char *base
    uint32_t max_extents
    uint32_t next_extent    # the first that was never opened
    uint32_t closed         # list of extents that were given back whole
    uint32_t stocked        # list of extents with stock
    uint32_t holed          # list of extents in use with given-back slabs only
    Slab *slabs
    Extent *extents
    uint32_t partial[NR_CLASSES]
    uint32_t size[NR_CLASSES]
    uint16_t objects_per_slab[NR_CLASSES]
    uint32_t used_slabs
    uint32_t stock_slabs
    uint32_t open_extents
    int64_t pages           # resident 4096-byte pages
    int64_t objects
    int64_t object_bytes

cdef int pool_init(Pool *pool, size_t nbytes) noexcept nogil
cdef void pool_destroy(Pool *pool) noexcept nogil
cdef char *pool_alloc(Pool *pool, uint32_t length) noexcept nogil
cdef void pool_free(Pool *pool, char *obj) noexcept nogil
cdef uint32_t class_of(uint32_t length) noexcept nogil
cdef uint32_t take_slab(Pool *pool) noexcept nogil
cdef uint32_t open_extent(Pool *pool) noexcept nogil
cdef void put_slab(Pool *pool, uint32_t s) noexcept nogil
cdef void give_back_slabs(Pool *pool, uint32_t x) noexcept nogil
cdef uint32_t whole_extent(const Pool *pool) noexcept nogil
cdef void close_extent(Pool *pool, uint32_t x) noexcept nogil
cdef void relist(Pool *pool, uint32_t x) noexcept nogil
cdef int pool_check(Pool *pool, int64_t objects) noexcept nogil
