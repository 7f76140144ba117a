"""How the bytes of a value are had without making others: ``bytes`` and ``str`` are kept as they lie in memory.

A str is kept as CPython has it (PEP 393): one, two or four bytes a character.  So nothing is encoded, it comes back
straight into the memory of a new str, and lone surrogates are characters like any other.
"""

import cython
from cython.cimports.uzswap.core.libc_ext import madvise

# Values from so many bytes on have their pages made at once (MADV_POPULATE_WRITE of asm-generic/mman-common.h, Linux
# 5.14): 1.2 us each instead of 1.5, and bytes of 1 MiB are loaded in 0.87 of the CPU time (virtio guest, Linux 6.18,
# in pairs, 2026-11).
_LARGE = cython.declare(cython.Py_ssize_t, 65536)
_POPULATE_WRITE = cython.declare(cython.int, 23)
_PAGE_BYTES = cython.declare(cython.size_t, 4096)


def form_of(value):
    """BYTES, or one of those of a str; STREAM for what has to be pickled."""
    if PyBytes_CheckExact(value):
        return BYTES if PyBytes_GET_SIZE(value) else STREAM
    # Those of one character at most are CPython's own, one for all.
    if not PyUnicode_CheckExact(value) or PyUnicode_GET_LENGTH(value) < 2:
        return STREAM
    kind = PyUnicode_KIND(value)
    if kind == 1:
        return ASCII if PyUnicode_MAX_CHAR_VALUE(value) < 128 else LATIN1
    return UCS2 if kind == 2 else UCS4 if kind == 4 else STREAM


def size_of(value, form):
    """Bytes of a value that has such a form (not STREAM)."""
    if form == BYTES:
        return PyBytes_GET_SIZE(value)
    return PyUnicode_GET_LENGTH(value) * PyUnicode_KIND(value)


def data_of(value, form):
    return PyBytes_AS_STRING(value) if form == BYTES else cython.cast(cython.p_char, PyUnicode_DATA(value))


def blank(form, nbytes):
    """A new value that is still to be filled; for STREAM, bytes for the stream."""
    if form == ASCII:
        return PyUnicode_New(nbytes, 127)
    if form == LATIN1:
        return PyUnicode_New(nbytes, 255)
    if form == UCS2:
        return PyUnicode_New(nbytes // 2, 65535)
    if form == UCS4:
        return PyUnicode_New(nbytes // 4, 1114111)
    return PyBytes_FromStringAndSize(cython.NULL, nbytes)


@cython.cfunc
@cython.exceptval(check=False)
def make_present(data: cython.p_char, nbytes: cython.Py_ssize_t) -> cython.void:
    """Have the whole pages of memory made that is going to be filled; what can't be done so is done as ever."""
    address = cython.cast(cython.size_t, data)
    first = (address + _PAGE_BYTES - 1) & ~(_PAGE_BYTES - 1)
    end = (address + nbytes) & ~(_PAGE_BYTES - 1)
    with cython.nogil:
        madvise(cython.cast(cython.p_void, first), end - first, _POPULATE_WRITE)


def view_of(value: object) -> tuple:
    form = form_of(value)
    if form == STREAM:
        return form, None
    return form, PyMemoryView_FromMemory(data_of(value, form), size_of(value, form), PyBUF_READ)


def blank_with_view(form: cython.int, nbytes: cython.Py_ssize_t) -> tuple:
    value = blank(form, nbytes)
    if nbytes >= _LARGE:
        make_present(data_of(value, BYTES if form <= BYTES else form), nbytes)
    return value, PyMemoryView_FromMemory(data_of(value, BYTES if form <= BYTES else form), nbytes, PyBUF_WRITE)
