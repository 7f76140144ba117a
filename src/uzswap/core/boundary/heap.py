"""The C library's heap: see heap.pyi."""

import cython

CAN_TRIM = bool(uz_can_trim())


def trim():
    if not uz_can_trim():
        return False
    given: cython.int
    with cython.nogil:
        given = malloc_trim(0)
    return given != 0
