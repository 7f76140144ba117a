from libc.stdint cimport uint8_t, uint32_t

cdef extern from "shuffle.h" nogil:
    void uz_shuffle(const uint8_t *src, uint8_t *dst, uint32_t size, uint32_t item)
    void uz_unshuffle(const uint8_t *src, uint8_t *dst, uint32_t size, uint32_t item)
