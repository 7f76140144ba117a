cimport cython
from cpython.object cimport PyObject

cdef extern from "plain.h":
    int plain_init() except -1
    Py_ssize_t str_bytes(PyObject *op) noexcept
    Py_ssize_t int_bytes(PyObject *op) noexcept
    Py_ssize_t list_bytes(PyObject *op) noexcept
    Py_ssize_t tuple_bytes(PyObject *op) noexcept
    Py_ssize_t bytes_bytes(PyObject *op) noexcept
    Py_ssize_t dict_bytes(PyObject *op) except -1
    bint is_split(PyObject *op) noexcept
    ctypedef int (*visitproc)(PyObject *op, void *arg) noexcept
    void traverse(PyObject *op, visitproc visit, void *arg) noexcept
    bint has_weakrefs(PyObject *op) noexcept
    size_t scattered(PyObject *op) noexcept
    bint has_no_base(PyObject *op) noexcept
    PyObject *base_of(PyObject *op) noexcept
    bint owns_data(PyObject *op) noexcept
    bint may_hold_objects(PyObject *op) noexcept
    bint holds_plain_objects(PyObject *op) noexcept
    Py_ssize_t nr_elements(PyObject *op) noexcept
    size_t data_of(PyObject *op) noexcept
    PyObject *element_at(PyObject *op, Py_ssize_t i) noexcept

cdef extern from "Python.h":
    ctypedef struct Type "PyTypeObject":
        Py_ssize_t tp_basicsize
    Type PyUnicode_Type, PyLong_Type, PyFloat_Type, PyBytes_Type, PyBool_Type
    Type PyList_Type, PyTuple_Type, PyDict_Type
    PyObject *Py_None
    Type *Py_TYPE(PyObject *op) noexcept
    Py_ssize_t Py_REFCNT(PyObject *op) noexcept
    Py_ssize_t Py_SIZE(PyObject *op) noexcept
    void Py_INCREF(PyObject *op) noexcept
    void Py_DECREF(PyObject *op)
    PyObject *PyList_GET_ITEM(PyObject *op, Py_ssize_t i) noexcept
    PyObject *PyTuple_GET_ITEM(PyObject *op, Py_ssize_t i) noexcept
    bint PyDict_Next(PyObject *op, Py_ssize_t *at, PyObject **key, PyObject **value) noexcept

# What is known of a type, from kinds.Traits.
cdef struct Known:
    Type *cls       # a reference of ours
    unsigned int flags

# An object with several references.
cdef struct Entry:
    PyObject *thing         # a reference of ours
    Py_ssize_t edges        # references met
    Py_ssize_t nbytes       # 0 for what weighs nothing
    unsigned int flags      # of its type

# An object that is still to be followed.
cdef struct Frame:
    PyObject *thing         # a reference of ours
    Py_ssize_t at           # how far it was; NOT_MET when its type is still to be looked at

cdef enum:
    # Of a type, from kinds.Traits.
    WEIGHS = 1
    FOLLOWED = 2
    SHAREABLE = 4
    STUCK = 8
    WEAKLY = 16
    ATTRIBUTES = 32
    HIDES_DICT = 64
    IS_DICT = 128
    IS_ARRAY = 256
    IS_NDARRAY = 512
    IS_WEAKREF = 1024
    IS_VALUE = 2048
    IS_FROZEN = 4096
    IS_ATOM = 8192
    IS_MEASURED = 16384
    # Of an object: has weak references, and is put into the table, to be found again, as arrays are.
    IS_KNOWN = 32768
    # Of memory: all others that hold it are values of the same store, and see other elements of it.
    IS_OURS = 65536
    # Of the plain types.
    ATOM = 8197             # WEIGHS | SHAREABLE | IS_ATOM
    TUPLE = 4103            # WEIGHS | FOLLOWED | SHAREABLE | IS_FROZEN
    CHANGEABLE = 3          # WEIGHS | FOLLOWED

    # A shared string, number or tuple of fewer bytes is taken for a literal, an interned name or a cached number, which
    # weighs nothing; from one page on it is taken for data.
    DATA_BYTES = 4096

cdef enum:
    FEW = 32

# Making one is not to start a garbage collection.
@cython.no_gc
cdef class Walk:
    cdef Entry *table       # open addressing, of a power of two
    cdef size_t mask, used
    cdef Entry few_entries[2 * FEW]
    cdef Frame *stack
    cdef size_t depth, room
    cdef Frame few_frames[FEW]
    cdef Known *types       # all that were met but the plain ones
    cdef size_t nr_types, types_room
    cdef PyObject *root     # a reference of ours
    cdef PyObject *current  # what was taken off the stack, with its reference
    cdef PyObject *attributes   # what a visit is to take note of
    cdef Py_ssize_t visited
    cdef bint met_attributes
    cdef bint no_memory
    cdef bint thorough
    cdef bint checked       # note whether anything that is met can change
    cdef bint all_of_it     # whatever is met goes into the table
    cdef Py_ssize_t limit   # bytes that are too many, when all of it is wanted
    cdef size_t work        # references met since handlers ran
    cdef readonly Py_ssize_t alone_bytes
    cdef readonly Py_ssize_t stuck
    cdef bint changeable
    cdef list deferred
    cdef dict weakly_held
    cdef dict weak
    cdef list views
    cdef dict blocks        # of memory: address -> bytes

    cdef int meet(self, PyObject *op) except -1
    cdef int push(self, PyObject *op, Py_ssize_t at) except -1
    cdef Entry *find(self, PyObject *op) noexcept
    cdef Entry *add(self, PyObject *op) except NULL
    cdef int grow(self) except -1
    cdef int count(self, PyObject *op, Py_ssize_t own, Py_ssize_t nbytes, unsigned int flags) except -1
    cdef int walk(self) except -1
    cdef int note_view(self, PyObject *op, object base, object owner, bint ours, bint overlapping) except -1
    cdef int meet_other(self, PyObject *op) except -1
    cdef Py_ssize_t measured(self, object thing) except -1
    cdef Known *learn(self, Type *cls) except NULL
    cdef int follow(self, PyObject *op, unsigned int flags) except -1
    cdef int follow_list(self, PyObject *op, Py_ssize_t at) except -1
    cdef int follow_tuple(self, PyObject *op, Py_ssize_t at) except -1
    cdef int follow_dict(self, PyObject *op, Py_ssize_t at) except -1
    cdef int follow_array(self, PyObject *op, unsigned int flags) except -1
    cdef int follow_names(self, PyObject *op) except -1
    cdef int enter(self, PyObject *op, unsigned int flags) except -1
    cdef Py_ssize_t own_and_shared_bytes(self) noexcept
    cdef int visit_all(self, PyObject *op) except -1
    cdef Py_ssize_t outside(self, Entry *entry) noexcept

cdef bint owns_memory(PyObject *op) noexcept
