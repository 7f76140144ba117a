from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.boundary.engine cimport Engine
from uzswap.core.store.spans cimport Span

cdef enum:
    BATCH_VALUES = 64
    BATCH_BYTES = 131072        # STEP_BYTES of core/store/codec

cdef class Batch:
    cdef readonly int n
    cdef readonly int64_t nbytes
    cdef public int codec           # slots of codecs that the caller holds, or -1: as core/store/swap_out.pxd has them
    cdef public int small
    cdef public uint32_t small_bytes
    cdef public int filter          # item size of the arrays that the batch is of, or 0
    cdef public int flags           # TRY_FILTER, or 0
    cdef Span spans[BATCH_VALUES]
    cdef uint64_t handles[BATCH_VALUES]
    cdef bint takes(self, int64_t nbytes) noexcept
    cdef void add(self, char *data, uint32_t size) noexcept
    cdef void empty(self) noexcept

cdef bint charge(Engine engine, uint32_t memcg, int64_t nbytes) noexcept
cdef bint uncharge(Engine engine, uint32_t memcg, int64_t nbytes) noexcept
cdef uint32_t size_at(Engine engine, uint64_t handle) noexcept
cdef uint64_t place_of(Engine engine, uint64_t handle) noexcept
cdef int load_value(Engine engine, uint64_t handle, char *out, uint32_t size) noexcept
cdef int load_spans(
    Engine engine, const uint64_t *handles, int64_t n, const Span *spans, int64_t *disk_ns
) noexcept
cdef bint swap_cache_keeps(Engine engine, const uint64_t *handles, int64_t n) noexcept
cdef bint swap_cache_gives(Engine engine, const uint64_t *handles, int64_t n) noexcept
cdef void swap_cache_forgets(Engine engine, const uint64_t *handles, int64_t n) noexcept
cdef int free_handles(Engine engine, const uint64_t *handles, int64_t n) noexcept
