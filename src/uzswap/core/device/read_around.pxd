from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    WINDOW_BYTES = 32768    # as the kernel reads around a page: 8 pages, page_cluster = 3 (mm/swap.c)
    NR_WINDOWS = 32         # 1 MiB in all

# A piece of the device that was read for something in it.
cdef struct Window:
    char *memory
    uint64_t start          # place of its first byte
    uint64_t nbytes
    uint64_t uses           # since it was read, beside that for which it was
    uint64_t used           # ReadAround.clock at its last use
    uint64_t seen           # ReadAround.writes when the read began
    uint32_t pins           # who is looking at its bytes, or reading them
    int filled

cdef struct ReadAround:
    char *memory
    uint64_t clock
    uint64_t writes         # that have ended
    uint64_t reads
    int idle                # windows that went unused, in excess of those that did not
    Window windows[NR_WINDOWS]

cdef Window *window_find(ReadAround *around, uint64_t begin, uint64_t end) noexcept nogil
cdef Window *window_take(ReadAround *around, uint64_t begin, uint64_t end) noexcept nogil
cdef void window_put(ReadAround *around, Window *w, int valid) noexcept nogil
cdef void windows_forget(ReadAround *around, uint64_t start, uint64_t nbytes) noexcept nogil
cdef void windows_free(ReadAround *around) noexcept nogil
