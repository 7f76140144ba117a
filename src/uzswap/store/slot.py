"""What stands for the value of one key, and what there is beside a value that is in memory.

Their helpers, which are inlined, are in slot.pxd.
"""

import cython
import numpy as np
from cython.cimports.cpython.ref import Py_DECREF
from cython.cimports.uzswap.store.forms import EXTENTS, RESIDENT
from cython.cimports.uzswap.store.lruvec import NR_LISTS
from cython.cimports.uzswap.store.slabs import allocate_from_slabs

from uzswap.store.packing import Packed


class _Nothing:
    """Stands where a value is not."""


NOTHING = _Nothing()


@cython.final
@cython.cclass
class Slot:
    """The value of one key: where it is."""

    def __dealloc__(self):
        form = self.word & FORM_MASK
        if self.at and form <= EXTENTS:
            Py_DECREF(cython.cast(object, cython.cast(cython.p_void, self.at)))

    @property
    def packed(self):
        """Its chunks; None while it is resident."""
        form = self.word & FORM_MASK
        if form == RESIDENT:
            return None
        if form == EXTENTS:
            return cython.cast(object, cython.cast(cython.p_void, self.at))
        return Packed([(1, np.array([self.at], np.uint64))], 0)


@cython.final
@cython.no_gc
@cython.cclass
class Cached:
    """Where a value in memory is on the device, too, and can go back to."""


@cython.final
@cython.no_gc
@cython.cclass
class Resident:
    """A value in memory."""

    def __cinit__(self):
        self.link.owner = cython.cast(cython.p_void, self)
        self.where = NR_LISTS

    def __dealloc__(self):
        if self.link.next != cython.NULL:
            self.link.prev.next = self.link.next
            self.link.next.prev = self.link.prev


allocate_from_slabs(Slot)
