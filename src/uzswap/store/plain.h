/* What plain objects occupy, read where sys.getsizeof() reads it, without making an int for each. */
#pragma once

#include <Python.h>

#include <numpy/ndarraytypes.h>

/* The collector's header, which sys.getsizeof() counts and __sizeof__ does not. */
static Py_ssize_t gc_header;
static Py_ssize_t zero_bytes; /* of int 0: without a digit until 3.11, with one from 3.12 on */
static PyCFunction dict_sizeof;

/* Called once by the module that uses the three above, walk.py; others that include this use none of them. */
__attribute__((unused)) static int plain_init(void)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)&PyDict_Type, "__sizeof__");
    PyObject *zero = PyLong_FromLong(0);
    PyObject *bare = NULL, *whole = NULL, *sized = NULL, *list = PyList_New(0), *sys = PyImport_ImportModule("sys");
    int done = -1;

    if (!method || !zero || !list || !sys)
        goto out;
    dict_sizeof = ((PyMethodDescrObject *)method)->d_method->ml_meth;
    sized = PyObject_CallMethod(zero, "__sizeof__", NULL);
    bare = PyObject_CallMethod(list, "__sizeof__", NULL);
    whole = PyObject_CallMethod(sys, "getsizeof", "O", list);
    if (!sized || !bare || !whole)
        goto out;
    zero_bytes = PyLong_AsSsize_t(sized);
    gc_header = PyLong_AsSsize_t(whole) - PyLong_AsSsize_t(bare);
    done = PyErr_Occurred() ? -1 : 0;
out:
    Py_XDECREF(method);
    Py_XDECREF(zero);
    Py_XDECREF(list);
    Py_XDECREF(sys);
    Py_XDECREF(sized);
    Py_XDECREF(bare);
    Py_XDECREF(whole);
    return done;
}

static inline Py_ssize_t str_bytes(PyObject *op)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(op);
    Py_ssize_t nbytes;

    if (PyUnicode_IS_COMPACT_ASCII(op))
        return (Py_ssize_t)sizeof(PyASCIIObject) + length + 1;
    nbytes = PyUnicode_IS_COMPACT(op) ? sizeof(PyCompactUnicodeObject) : sizeof(PyUnicodeObject);
    nbytes += (length + 1) * PyUnicode_KIND(op);
    /* somebody asked for its UTF-8, which is kept */
    if (((PyCompactUnicodeObject *)op)->utf8)
        nbytes += ((PyCompactUnicodeObject *)op)->utf8_length + 1;
    return nbytes;
}

static inline Py_ssize_t int_bytes(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030C0000
    /* below the number of digits are two bits of sign and one that tells who is immortal */
    Py_ssize_t digits = (Py_ssize_t)(((PyLongObject *)op)->long_value.lv_tag >> 3);
    Py_ssize_t fixed = offsetof(PyLongObject, long_value.ob_digit);
#else
    Py_ssize_t digits = Py_ABS(Py_SIZE(op));
    Py_ssize_t fixed = offsetof(PyLongObject, ob_digit);
#endif
    return digits ? fixed + digits * (Py_ssize_t)sizeof(digit) : zero_bytes;
}

static inline Py_ssize_t list_bytes(PyObject *op)
{
    return gc_header + PyList_Type.tp_basicsize + ((PyListObject *)op)->allocated * (Py_ssize_t)sizeof(void *);
}

static inline Py_ssize_t tuple_bytes(PyObject *op)
{
    return gc_header + PyTuple_Type.tp_basicsize + PyTuple_GET_SIZE(op) * (Py_ssize_t)sizeof(void *);
}

static inline Py_ssize_t bytes_bytes(PyObject *op)
{
    return PyBytes_Type.tp_basicsize + PyBytes_GET_SIZE(op);
}

/* -1 with an exception */
static inline Py_ssize_t dict_bytes(PyObject *op)
{
    PyObject *sized = dict_sizeof(op, NULL);
    Py_ssize_t nbytes;

    if (!sized)
        return -1;
    nbytes = PyLong_AsSsize_t(sized);
    Py_DECREF(sized);
    return nbytes + gc_header;
}

/* An instance's __dict__, whose values may lie in the instance: from 3.13 on it is the instance that refers to them. */
static inline int is_split(PyObject *op)
{
    return ((PyDictObject *)op)->ma_values != NULL;
}

/* What gc.get_referents() does, without a list. */
static inline void traverse(PyObject *op, visitproc visit, void *arg)
{
    if (PyObject_IS_GC(op) && Py_TYPE(op)->tp_traverse)
        Py_TYPE(op)->tp_traverse(op, visit, arg);
}

static inline int has_weakrefs(PyObject *op)
{
    return Py_TYPE(op)->tp_weaklistoffset && *PyObject_GET_WEAKREFS_LISTPTR(op);
}

/* An address as a number for a hash table: Fibonacci hashing (Knuth, TAOCP 3, 6.4), whose upper bits are good. */
static inline size_t scattered(PyObject *op)
{
    return (size_t)(((uint64_t)(uintptr_t)op >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
}

/* numpy.ndarray itself, not its subclasses.  None of numpy's functions are called. */
static inline int has_no_base(PyObject *op)
{
    return !PyArray_BASE((PyArrayObject *)op);
}

static inline PyObject *base_of(PyObject *op)
{
    return PyArray_BASE((PyArrayObject *)op);
}

static inline int owns_data(PyObject *op)
{
    return (PyArray_FLAGS((PyArrayObject *)op) & NPY_ARRAY_OWNDATA) != 0;
}

static inline int may_hold_objects(PyObject *op)
{
    int type = PyArray_DESCR((PyArrayObject *)op)->type_num;

    return type == NPY_OBJECT || type == NPY_VOID || type > NPY_HALF;
}

/* in a row, so that their places are their numbers */
static inline int holds_plain_objects(PyObject *op)
{
    int flags = PyArray_FLAGS((PyArrayObject *)op);

    return PyArray_DESCR((PyArrayObject *)op)->type_num == NPY_OBJECT && flags & NPY_ARRAY_ALIGNED &&
           flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS);
}

static inline Py_ssize_t nr_elements(PyObject *op)
{
    Py_ssize_t nr = 1;

    for (int i = 0; i < PyArray_NDIM((PyArrayObject *)op); i++)
        nr *= PyArray_DIMS((PyArrayObject *)op)[i];
    return nr;
}

static inline size_t data_of(PyObject *op)
{
    return (size_t)(uintptr_t)PyArray_DATA((PyArrayObject *)op);
}

static inline PyObject *element_at(PyObject *op, Py_ssize_t i)
{
    return ((PyObject **)PyArray_DATA((PyArrayObject *)op))[i];
}
