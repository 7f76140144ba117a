cdef extern from "Python.h":
    char *PyBytes_AS_STRING(object value) noexcept
    Py_ssize_t PyBytes_GET_SIZE(object value) noexcept
    object PyBytes_FromStringAndSize(const char *data, Py_ssize_t size)
    bint PyBytes_CheckExact(object value) noexcept
    bint PyUnicode_CheckExact(object value) noexcept
    object PyUnicode_New(Py_ssize_t length, Py_UCS4 maxchar)
    int PyUnicode_KIND(object value) noexcept
    void *PyUnicode_DATA(object value) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object value) noexcept
    Py_UCS4 PyUnicode_MAX_CHAR_VALUE(object value) noexcept
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    int PyBUF_READ, PyBUF_WRITE

cdef enum:
    # How a value is kept.
    RESIDENT = 0            # as it is
    EXTENTS = 1             # in several chunks: see packing.Packed
    STREAM = 2              # its pickle, in one chunk
    BYTES = 3               # its own bytes, in one chunk
    ASCII = 4               # its characters, in one chunk, of one byte each
    LATIN1 = 5
    UCS2 = 6                # of two bytes each
    UCS4 = 7

cdef int form_of(object value) noexcept
cdef Py_ssize_t size_of(object value, int form) noexcept
cdef char *data_of(object value, int form) noexcept
cdef object blank(int form, Py_ssize_t nbytes)
