from libc.stdint cimport uint64_t

cdef extern from "calls.h" nogil:
    struct uz_call:
        long nr
        uint64_t args[6]
        uint64_t mask
    ctypedef long (*uz_serve)(uz_call *call) noexcept nogil
    ctypedef int (*uz_fault)(uint64_t address, int to_write, int poisoned) noexcept nogil
