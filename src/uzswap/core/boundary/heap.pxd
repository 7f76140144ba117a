cdef extern from *:
    """
    #include <stddef.h>
    /* What only glibc has: elsewhere the address of a weak symbol is NULL. */
    extern int malloc_trim(size_t pad) __attribute__((weak));
    static inline int uz_can_trim(void) { return malloc_trim != NULL; }
    """
    int malloc_trim(size_t pad) nogil
    int uz_can_trim() nogil
