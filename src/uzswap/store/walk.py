"""The walk over all that can be reached from a value: what is in it, and how often it is referred to from within.

Plain objects (str, int, float, bytes, list, tuple, dict, bool, None, arrays of numbers) cost some nanoseconds each: no
object is made for them, nothing foreign runs, and their sizes are read from the structures that ``__sizeof__`` reads.
For the others the collector's ``tp_traverse`` says what they refer to, and :mod:`uzswap.store.kinds` what to think of
their types.

* An object with one reference needs no counting: the walk has just come along it.  The others go into a table, with the
  references met, to be compared with their reference counts at the end.
* The walk is iterative, so depth is no matter, and looks at long containers in slices, between which signal handlers
  and other threads may run.
* What the table and the stack hold, they hold with a reference of their own; it is taken off again in comparisons.

An object that changes while handlers or foreign code run may be counted wrongly, as its reader would be served; never
is anything touched that is gone.
"""

import weakref

import cython
import numpy as np
from cython.cimports.cpython.object import PyObject
from cython.cimports.libc.stdlib import calloc, free, malloc, realloc
from cython.cimports.libc.string import memcpy, memset

from uzswap.signals import let_handlers_run
from uzswap.store.arena import Memory
from uzswap.store.kinds import MEMORY, Kind, traits_of
from uzswap.store.measures import size_of

# What memory of an array is loaded into: see arena.py.
_loaded_into = cython.declare(
    cython.pointer(Type), cython.cast(cython.pointer(Type), cython.cast(cython.p_void, Memory))
)

plain_init()

NOT_MET = cython.declare(cython.Py_ssize_t, -1)
#: Elements of a container that are looked at in one go.
SLICE = cython.declare(cython.Py_ssize_t, 4096)
#: References until handlers may run: some milliseconds (20 ns each, 2026-11).
WORK = cython.declare(cython.size_t, 1 << 17)

_weakrefs = weakref.getweakrefcount


@cython.cfunc
@cython.exceptval(check=False)
def visit(op: cython.pointer(PyObject), arg: cython.p_void) -> cython.int:
    walk: Walk = cython.cast(Walk, arg)
    walk.visited += 1
    if op == walk.attributes:
        walk.met_attributes = True
    try:
        walk.meet(op)
    except BaseException:
        walk.no_memory = True
        return -1
    return 0


class Walk:
    """One walk; a thorough one also asks objects for their __dict__, which may make it.

    Parameters
    ----------
    once
        A list of one, the value, which is emptied; one further reference to it is expected.
    thorough
        Whether to look for what the collector is not told of.

    Attributes
    ----------
    alone_bytes
        Bytes of the objects with one reference, and of the attributes of all objects.
    stuck
        How many objects in the graph can't come back as they were.
    """

    def __cinit__(self):
        self.table = self.few_entries
        self.mask = 2 * FEW - 1
        self.stack = self.few_frames
        self.room = FEW
        memset(self.few_entries, 0, cython.sizeof(self.few_entries))

    def __init__(self, once, thorough):
        self.thorough = thorough
        if once is None:
            return
        value = once[0]
        once.clear()
        self.root = cython.cast(cython.pointer(PyObject), value)
        Py_INCREF(self.root)
        value = None
        self.meet(self.root)
        self.walk()

    def __dealloc__(self):
        i: cython.size_t
        for i in range(self.depth):
            Py_DECREF(self.stack[i].thing)
        if self.stack != self.few_frames:
            free(self.stack)
        for i in range(self.mask + 1):
            if self.table[i].thing != cython.NULL:
                Py_DECREF(self.table[i].thing)
        if self.table != self.few_entries:
            free(self.table)
        for i in range(self.nr_types):
            Py_DECREF(cython.cast(cython.pointer(PyObject), self.types[i].cls))
        free(self.types)
        if self.current != cython.NULL:
            Py_DECREF(self.current)
        if self.root != cython.NULL:
            Py_DECREF(self.root)

    # The table and the stack

    def find(self, op):
        """The entry of an object, or the free one where it belongs."""
        at: cython.size_t = scattered(op) & self.mask
        while self.table[at].thing != cython.NULL and self.table[at].thing != op:
            at = (at + 1) & self.mask
        return cython.address(self.table[at])

    def add(self, op):
        """Make the entry of an object that has none."""
        if 3 * self.used > 2 * self.mask:
            self.grow()
        entry = self.find(op)
        Py_INCREF(op)
        entry.thing = op
        entry.edges = 0
        self.used += 1
        return entry

    def grow(self):
        i: cython.size_t
        old = self.table
        slots: cython.size_t = self.mask + 1
        table = cython.cast(cython.pointer(Entry), calloc(4 * slots, cython.sizeof(Entry)))
        if table == cython.NULL:
            raise MemoryError
        self.table = table
        self.mask = 4 * slots - 1
        for i in range(slots):
            if old[i].thing != cython.NULL:
                self.find(old[i].thing)[0] = old[i]
        if old != self.few_entries:
            free(old)
        return 0

    def push(self, op, at):
        if self.depth == self.room:
            frames: cython.pointer(Frame)
            if self.stack == self.few_frames:
                frames = cython.cast(cython.pointer(Frame), malloc(8 * FEW * cython.sizeof(Frame)))
                if frames == cython.NULL:
                    raise MemoryError
                memcpy(frames, self.few_frames, cython.sizeof(self.few_frames))
                self.room = 8 * FEW
            else:
                frames = cython.cast(cython.pointer(Frame), realloc(self.stack, 2 * self.room * cython.sizeof(Frame)))
                if frames == cython.NULL:
                    raise MemoryError
                self.room *= 2
            self.stack = frames
        Py_INCREF(op)
        self.stack[self.depth].thing = op
        self.stack[self.depth].at = at
        self.depth += 1
        return 0

    # What is met.  Nothing foreign runs in the first two.

    def meet(self, op):
        """Take note of a reference, and put on the stack what is to be looked at later."""
        cls = Py_TYPE(op)
        self.work += 1
        if cls == cython.address(PyUnicode_Type):
            return self.count(op, 0, str_bytes(op), ATOM) & 0
        if cls == cython.address(PyLong_Type):
            return self.count(op, 0, int_bytes(op), ATOM) & 0
        if cls == cython.address(PyFloat_Type):
            return self.count(op, 0, PyFloat_Type.tp_basicsize, ATOM) & 0
        if op == Py_None or cls == cython.address(PyBool_Type):
            return 0
        if cls == cython.address(PyDict_Type):
            if self.count(op, 0, dict_bytes(op), CHANGEABLE | IS_DICT):
                self.push(op, 0)
        elif cls == cython.address(PyList_Type):
            if self.count(op, 0, list_bytes(op), CHANGEABLE):
                self.push(op, 0)
        elif cls == cython.address(PyTuple_Type):
            if self.count(op, 0, tuple_bytes(op), TUPLE):
                self.push(op, 0)
        elif cls == cython.address(PyBytes_Type):
            self.count(op, 0, bytes_bytes(op), ATOM)
        else:
            self.push(op, NOT_MET)
        return 0

    def count(self, op, own, nbytes, flags):
        """Count a reference to an object that has ``own`` of ours; return whether it was the first."""
        if Py_REFCNT(op) - own == 1 and op != self.root and not self.all_of_it and not flags & (IS_ARRAY | IS_KNOWN):
            self.alone_bytes += nbytes
        else:
            entry = self.find(op)
            if entry.thing != cython.NULL:
                entry.edges += 1
                return 0
            entry = self.add(op)
            entry.edges = 1
            entry.nbytes = nbytes
            entry.flags = flags
            if self.all_of_it:
                self.limit -= nbytes
        if self.checked and not flags & SHAREABLE:
            self.changeable = True
        return 1

    def walk(self):
        while self.depth and (self.limit >= 0 or not self.all_of_it):
            if self.work > WORK:
                self.work = 0
                let_handlers_run()
            self.depth -= 1
            self.current = self.stack[self.depth].thing
            at = self.stack[self.depth].at
            cls = Py_TYPE(self.current)
            if at == NOT_MET:
                self.meet_other(self.current)
            elif cls == cython.address(PyDict_Type):
                self.follow_dict(self.current, at)
            elif cls == cython.address(PyList_Type):
                self.follow_list(self.current, at)
            else:
                self.follow_tuple(self.current, at)
            op = self.current
            self.current = cython.NULL
            Py_DECREF(op)
        return 0

    def meet_other(self, op):
        known = self.learn(Py_TYPE(op))[0]
        if not known.flags & WEIGHS:
            return 0
        # The size of what was met before is known.
        entry = self.find(op)
        if entry.thing != cython.NULL:
            entry.edges += 1
            return 0
        if known.flags & STUCK:
            self.stuck += 1
        nbytes: cython.Py_ssize_t
        if known.flags & IS_MEASURED:
            nbytes = self.measured(cython.cast(object, op))
        else:
            nbytes = size_of(cython.cast(object, op))
        if known.flags & WEAKLY and has_weakrefs(op):
            known.flags |= IS_KNOWN
        if self.count(op, 1, nbytes, known.flags) and known.flags & FOLLOWED:
            self.follow(op, known.flags)
        return 0

    def measured(self, thing):
        """Bytes of an object that hides some, with those blocks of memory that were not met before."""
        nbytes, blocks = traits_of(type(thing)).measure(thing)
        for address, length in blocks:
            if self.blocks is None:
                self.blocks = {}
            if address not in self.blocks:
                self.blocks[address] = length
                nbytes += length
        return nbytes

    def learn(self, cls):
        """What is known of a type.  What is returned moves with the next call."""
        i: cython.size_t
        for i in range(self.nr_types):
            if self.types[i].cls == cls:
                return cython.address(self.types[i])
        traits = traits_of(cython.cast(object, cython.cast(cython.pointer(PyObject), cls)))
        flags: cython.uint = 0
        kind = traits.kind
        if traits.weighs:
            flags |= WEIGHS
        if traits.followed:
            flags |= FOLLOWED
        if traits.shareable:
            flags |= SHAREABLE
        if traits.stuck:
            flags |= STUCK
        if traits.weakly:
            flags |= WEAKLY
        if traits.attributes:
            flags |= ATTRIBUTES
        if traits.hides_dict:
            flags |= HIDES_DICT
        if traits.measure is not None:
            flags |= IS_MEASURED
        if kind is Kind.DICT:
            flags |= IS_DICT
        elif kind is Kind.ARRAY:
            flags |= IS_ARRAY
        elif kind is Kind.VALUE:
            flags |= IS_VALUE
        elif kind is Kind.FROZEN:
            flags |= IS_FROZEN
        elif kind is Kind.ATOM:
            flags |= IS_ATOM
        thing = cython.cast(object, cython.cast(cython.pointer(PyObject), cls))
        if thing is np.ndarray:
            flags |= IS_NDARRAY
        if thing is weakref.ref:
            flags |= IS_WEAKREF
        if self.nr_types == self.types_room:
            room: cython.size_t = 2 * self.types_room + 4
            types = cython.cast(cython.pointer(Known), realloc(self.types, room * cython.sizeof(Known)))
            if types == cython.NULL:
                raise MemoryError
            self.types = types
            self.types_room = room
        Py_INCREF(cython.cast(cython.pointer(PyObject), cls))
        self.types[self.nr_types].cls = cls
        self.types[self.nr_types].flags = flags
        self.nr_types += 1
        return cython.address(self.types[self.nr_types - 1])

    # What objects refer to

    def follow_list(self, op, at):
        i: cython.Py_ssize_t
        end = min(at + SLICE, Py_SIZE(op))
        if end < Py_SIZE(op):
            self.push(op, end)
        for i in range(at, end):
            self.meet(PyList_GET_ITEM(op, i))
        return 0

    def follow_tuple(self, op, at):
        i: cython.Py_ssize_t
        end = min(at + SLICE, Py_SIZE(op))
        if end < Py_SIZE(op):
            self.push(op, end)
        for i in range(at, end):
            self.meet(PyTuple_GET_ITEM(op, i))
        return 0

    def follow_dict(self, op, at):
        key: cython.pointer(PyObject)
        value: cython.pointer(PyObject)
        left: cython.Py_ssize_t = SLICE
        if is_split(op):
            self.visit_all(op)
            return self.follow_names(op)
        while PyDict_Next(op, cython.address(at), cython.address(key), cython.address(value)):
            self.meet(key)
            self.meet(value)
            left -= 1
            if not left:
                return self.push(op, at)
        return 0

    def visit_all(self, op):
        self.visited = 0
        traverse(op, visit, cython.cast(cython.p_void, self))
        if self.no_memory:
            raise MemoryError
        return 0

    def follow(self, op, flags):
        """Meet what an object of another type refers to.  Foreign code may run."""
        if self.checked and flags & IS_VALUE:
            self.deferred.append(cython.cast(object, op))
            return 0
        if flags & IS_KNOWN:
            if self.weakly_held is None:
                self.weakly_held = {}
            self.weakly_held[cython.cast(cython.size_t, op)] = _weakrefs(cython.cast(object, op))
        if flags & IS_WEAKREF:
            if self.weak is None:
                self.weak = {}
            key = id(cython.cast(object, op)())
            self.weak[key] = self.weak.get(key, 0) + 1
        if flags & IS_DICT:
            self.visit_all(op)
            return self.follow_names(op)
        attributes = None
        if self.thorough and flags & HIDES_DICT:
            attributes = getattr(cython.cast(object, op), "__dict__", None)
            # Anything else is what a property of that name makes up.
            if type(attributes) is not dict:
                attributes = None
            self.attributes = cython.cast(cython.pointer(PyObject), attributes)
            self.met_attributes = False
        self.visit_all(op)
        self.attributes = cython.NULL
        if attributes is not None and not self.met_attributes:
            self.visited += 1
            self.meet(cython.cast(cython.pointer(PyObject), attributes))
        if flags & ATTRIBUTES:
            # Two words and one for each attribute; the class is among the referents (3.11, tracemalloc).
            self.alone_bytes += 8 * (self.visited + 1)
        if flags & IS_ARRAY:
            return self.follow_array(op, flags)
        return 0

    def follow_names(self, op):
        """Meet the keys of a dict that has none but strings: the collector is not told of them.

        Nor is that visible from here.  A string may be met once too often, which does no harm; anything else must not.
        """
        at: cython.Py_ssize_t = 0
        key: cython.pointer(PyObject)
        while PyDict_Next(op, cython.address(at), cython.address(key), cython.NULL):
            if Py_TYPE(key) != cython.address(PyUnicode_Type):
                return 0
        at = 0
        while PyDict_Next(op, cython.address(at), cython.address(key), cython.NULL):
            self.meet(key)
        return 0

    def follow_array(self, op, flags):
        thing = cython.cast(object, op)
        if flags & IS_NDARRAY and has_no_base(op):
            if not owns_data(op):
                self.note_view(op, None, None, False, False)
            if not may_hold_objects(op):
                return 0
            if holds_plain_objects(op):
                i: cython.Py_ssize_t
                for i in range(nr_elements(op)):
                    element = element_at(op, i)
                    if element != cython.NULL:
                        self.meet(element)
                return 0
        base = thing.base
        if base is None:
            if not thing.flags.owndata:
                self.note_view(op, None, None, False, False)
            for one in elements(thing) if thing.dtype.hasobject else ():
                self.meet(cython.cast(cython.pointer(PyObject), one))
            return 0
        owner = base
        ours = False
        while isinstance(owner, (np.ndarray, memoryview)):
            if type(owner) is np.ndarray and owns_memory(cython.cast(cython.pointer(PyObject), owner)):
                ours = True
                break
            below = owner.obj if isinstance(owner, memoryview) else owner.base
            if below is None:
                break
            owner = below
        if not ours:
            ours = owner.flags.owndata if isinstance(owner, np.ndarray) else isinstance(owner, MEMORY)
        self.note_view(op, base, owner, ours, overlaps(thing))
        self.meet(cython.cast(cython.pointer(PyObject), base))
        return 0

    def note_view(self, op, base, owner, ours, overlapping):
        """Addresses say which: a reference would be taken for somebody's."""
        if self.views is None:
            self.views = []
        self.views.append((cython.cast(cython.size_t, op), id(base), id(owner), ours, overlapping))
        return 0

    def enter(self, op, flags):
        """Follow an object that is in the table."""
        cls = Py_TYPE(op)
        if cls == cython.address(PyTuple_Type) or cls == cython.address(PyList_Type):
            return self.push(op, 0)
        if cls == cython.address(PyDict_Type):
            return self.push(op, 0)
        return self.follow(op, flags)

    # What was found

    def outside(self, entry):
        """References to an object that are not from within the value.  Of those that are, a string may have more."""
        if entry.flags & IS_OURS:
            return 0
        return Py_REFCNT(entry.thing) - 1 - (entry.thing == self.root) - entry.edges

    def own_and_shared_bytes(self):
        i: cython.size_t
        nbytes = self.alone_bytes
        for i in range(self.mask + 1):
            if self.table[i].thing != cython.NULL:
                nbytes += self.table[i].nbytes
        return nbytes


def owns_memory(op):
    """Whether nobody sees the memory of a numpy.ndarray but through it: it is its own, or it was loaded into it."""
    if has_no_base(op):
        return owns_data(op)
    base = base_of(op)
    return Py_TYPE(base) == _loaded_into and Py_REFCNT(base) == 1


def elements(holder):
    """The Python objects in an array."""
    things = np.asarray(holder)
    if things.dtype.names is None:
        return things.ravel("K").tolist() if things.dtype.hasobject else []
    return [one for name in things.dtype.names for one in elements(things[name])]


def overlaps(thing):
    """Whether an element may be reached by two indices: sliding windows, broadcast arrays."""
    extent = thing.itemsize
    for stride, length in sorted(
        (abs(stride), length) for stride, length in zip(thing.strides, thing.shape, strict=True)
    ):
        if length > 1:
            if stride < extent:
                return True
            extent += stride * (length - 1)
    return False
