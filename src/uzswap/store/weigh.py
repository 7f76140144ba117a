"""What a Python object occupies, and whether somebody else still holds part of it.

Both questions have one answer: the graph of everything that can be reached from the object, followed once
(:mod:`uzswap.store.survey`), with the references found inside the graph counted against the reference count of each
object in it.  Where an object has more references than the graph accounts for, somebody outside holds it.  That matters
twice:

* evicting it would free nothing, because the outside reference keeps it alive;
* when it can change, evicting it would split it in two: a later change through the outside reference would be missing
  from the copy that comes back.

What then becomes of the value is a matter of ``shared``:

``None``
    It may be turned into bytes only when nothing in it that can change is held from outside, and no two arrays in it
    share memory.
``"pin"``
    The same, but arrays in it that share memory with each other and nobody else come back sharing memory.
``"refer"``
    What is held from outside is left where it is and as it is: the packed value refers to it, and the value that comes
    back has the very same objects.  So no change is lost, whoever makes it.  It is found by whether somebody outside
    can reach it, be it a dict of settings, an index, a bound method, or a list that a thread is just about to append
    to.
``"copy"``
    Everything is copied, also what others hold, and the value that comes back is its own: changes that others make to
    what they hold are missing from it.

Values that cannot change (numbers, strings, bytes, tuples of them) may be shared anyway; they are not counted as memory
that an eviction frees.

What is followed is what the garbage collector sees, and what it does not: the keys of dicts whose keys are all strings,
the elements of object arrays and the memory that an array is a view of.
What pickle stores by name (classes, functions, modules, enum members, loggers) belongs to nobody and is neither
followed nor counted.  Objects of extension types that hide what they hold from the garbage collector are taken at
their word.

Sizes are those of :func:`sys.getsizeof`, in bytes, without the allocator's rounding, and for extension types those of
:mod:`uzswap.store.measures`.

This module is compiled (setup.py, ``UNTORN``): for speed, since every value that is set is weighed.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Container
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from uzswap.store.families import Pieces
from uzswap.store.measures import Block
from uzswap.store.sharing import Apart
from uzswap.store.survey import Survey

__all__ = ["REFERENCED", "UNPICKLABLE", "Shared", "Weight", "estimate", "examine", "pieces", "told"]

#: What becomes of parts that others hold.
Shared: TypeAlias = Literal["refer", "pin", "copy"]

#: An obstacle to eviction: somebody else holds the value, an object in it that can change, or its memory.
REFERENCED: Final = "referenced"
#: An obstacle to eviction: pickle can't bring it back as it was.
UNPICKLABLE: Final = "unpicklable"


class Weight(NamedTuple):
    """What :func:`examine` found."""

    #: Bytes that dropping the value would free: what it alone keeps alive.  0 when it has to stay.  With ``shared``, of
    #: an array that only views in the value lead to, no more than these see: so much comes back.
    nbytes: int
    #: None when it may be evicted, else :data:`REFERENCED` or :data:`UNPICKLABLE`.
    obstacle: str | None
    #: With an obstacle: the object that is held from outside, if it is one: while its reference count stays, so does
    #: the obstacle.  Without: what packing has to know of what is shared, an :class:`uzswap.store.sharing.Apart`, if
    #: it has to know anything.
    held: Any = None


def estimate(once: list[Any], blocks: list[Block] | None = None, all_blocks: bool = False, copied: bool = False) -> int:
    """Return the bytes that a value occupies while its maker still holds it.

    Outside references don't tell yet what is shared, so everything counts but small shared strings, numbers and
    tuples within the value, which are taken for literals.

    Parameters
    ----------
    once
        A list of one, the value.  It is emptied.
    blocks
        Is given the memory of arrays that others hold too: it does not count then.  See
        :class:`uzswap.store.buffers.Buffers`.
    all_blocks
        Also the memory of arrays that nobody else holds.
    copied
        Whether what others hold will be copied: of memory of theirs no more is the value's than it sees.
    """
    survey = Survey(once, False)
    named = survey.blocks_of_arrays(blocks, all_blocks, copied) if blocks is not None else 0
    return survey.estimated_bytes() - named


def told(sizeof: Callable[[Any], Any], value: Any) -> int:
    """Return what the program says that a value occupies.

    Raises
    ------
    TypeError, ValueError
        It says something else than a number of bytes.
    Exception
        Whatever ``sizeof`` raises, with a note of where that was.
    """
    try:
        nbytes = sizeof(value)
    except Exception as error:
        error.add_note("in the store's sizeof, which is to return the bytes that a value occupies")
        raise
    try:
        number = operator.index(nbytes)
    except TypeError:
        raise TypeError(
            f"the store's sizeof returned {nbytes!r:.100} for a {type(value).__qualname__}: it is to return bytes"
        ) from None
    if not 0 <= number <= sys.maxsize:
        raise ValueError(
            f"the store's sizeof returned {number} for a {type(value).__qualname__}: it is to return 0 to {sys.maxsize}"
        )
    return number


def pieces(once: list[Any]) -> Pieces:
    """Return what a value of a store sees of memory that others hold too; see :mod:`uzswap.store.families`.

    Parameters
    ----------
    once
        As in :func:`examine`.
    """
    found: Pieces = Survey(once, True).pieces()
    return found


def examine(once: list[Any], shared: Shared | None = None, own: Container[int] = ()) -> Weight:
    """Return what dropping a value would free, or why it has to stay.

    Parameters
    ----------
    once
        A list of one, the value.  It is emptied.  One further reference is expected, the store's own: write
        ``examine([slot.value])``, because a variable that holds the value is an outside reference.
    shared
        What becomes of parts that others hold.  Any but None needs a packer that heeds :attr:`Weight.held`.
    own
        Ids of arrays that are held by other values of the store only, and of which these see other elements: the value
        takes its own with it.

    Notes
    -----
    Other threads may run meanwhile.  A reference that one of them takes and drops within the call may be found or
    not, so the caller has to make sure that the value was not handed out since.
    """
    survey = Survey(once, True)
    nbytes = survey.plain_bytes()
    if nbytes > 0:
        # Half of the time it takes to call Weight() (3.11, 2026-11).
        return tuple.__new__(Weight, (nbytes, None, None))
    if survey.stuck and shared != "refer":
        return Weight(0, UNPICKLABLE)
    if shared is not None:
        survey.narrow(own, shared == "copy")
    views = survey.views_within()
    if shared == "copy":
        # What comes back is the value's own, so all of it is charged then.
        return Weight(survey.estimated_bytes(), None, Apart({}, {}, views, None, survey.spans) if views else None)
    pinned, held = survey.pinned()
    within, data_bytes = (-1, 0) if pinned else survey.within_shared()
    if within < 0 and shared == "refer":
        nbytes, data_bytes, apart, stuck = survey.refer()
        if survey.stuck > stuck:
            return Weight(0, UNPICKLABLE)
        return _unless_mostly_shared(nbytes, data_bytes, apart) if nbytes >= 0 else Weight(0, REFERENCED, held)
    if survey.stuck:
        return Weight(0, UNPICKLABLE)
    if within < 0 or (views and shared is None):
        return Weight(0, REFERENCED, held)
    apart = Apart({}, {}, views, None, survey.spans) if views else None
    return _unless_mostly_shared(survey.own_bytes() - within, data_bytes, apart)


def _unless_mostly_shared(nbytes: int, data_bytes: int, apart: Apart | None) -> Weight:
    # The compressed copy would hold the shared data a second time: that is worse than leaving the value alone.
    return Weight(nbytes, None, apart) if nbytes > data_bytes else Weight(0, REFERENCED)
