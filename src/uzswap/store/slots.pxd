from uzswap.store.loading cimport Loading

cdef class Slots(Loading):
    cdef object _drop(self, Py_ssize_t number)
