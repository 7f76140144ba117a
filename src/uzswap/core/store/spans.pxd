"""Where one entry's bytes lie in a caller's memory."""

from libc.stdint cimport uint32_t

cdef struct Span:
    char *data
    uint32_t size           # 1 to MAX_ENTRY_BYTES
