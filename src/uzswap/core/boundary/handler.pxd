from libc.stdint cimport uint32_t, uint64_t, uint8_t
from numpy cimport PyDataMem_Handler
from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.boundary.memory cimport Memory
from uzswap.core.paging.pagetable cimport Pager

cdef extern from "<malloc.h>" nogil:
    size_t malloc_usable_size(void *p)

cdef extern from "Python.h" nogil:
    int has_gil "PyGILState_Check" ()
    void *let_go_of_gil "PyEval_SaveThread" ()
    void take_gil "PyEval_RestoreThread" (void *state)

cdef extern from "<unistd.h>" nogil:
    int getpid()

# What numpy's functions are given; it lives as long as its Handler.
cdef struct Hook:
    PyDataMem_Handler table
    Pager *p
    char *base
    char *end
    size_t least            # smaller allocations are malloc's
    uint32_t memcg
    uint8_t item            # item size of arrays that do not tell theirs
    int off                 # for good: every allocation is malloc's
    int held                # the same, while the engine closes
    pthread_mutex_t lock    # guards memcg, off and held

cdef class Handler:
    cdef Hook hook
    cdef readonly Memory memory
    cdef readonly object owner
    cdef readonly bint shared
    cdef object __weakref__

cdef bint wanted(Hook *h, size_t nbytes) noexcept nogil
cdef bint ours(Hook *h, void *p) noexcept nogil
cdef char *take(Hook *h, size_t nbytes) noexcept nogil
cdef uint32_t area_at(Pager *p, char *at) noexcept nogil
cdef void give_back(Hook *h, char *at) noexcept nogil
cdef void *hook_malloc(void *ctx, size_t nbytes) noexcept nogil
cdef void *hook_calloc(void *ctx, size_t n, size_t item) noexcept nogil
cdef void *hook_realloc(void *ctx, void *old, size_t nbytes) noexcept nogil
cdef void hook_free(void *ctx, void *old, size_t nbytes) noexcept nogil
cdef bint shrunk(Hook *h, uint32_t area, size_t nbytes) noexcept nogil
cdef void forget(object capsule) noexcept
