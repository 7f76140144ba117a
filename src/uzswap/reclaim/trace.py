"""Every step of every walk, visible: what :attr:`uzswap.Zswap.trace` is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Trace", "TraceEvent"]


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One batch of one walk, told right after it."""

    #: name of the walk: v5, fair or coldest
    walk: str
    #: path of the cgroup whose LRU was walked; the request's target where several were merged
    cgroup: str
    #: NUMA node of the LRU, or -1 where several were merged
    node: int
    #: entries met that were candidates
    scanned: int
    #: of these, entries whose referenced bit was cleared
    rotated: int
    #: of these, entries handed to the device
    entries: int
    #: their compressed bytes
    nbytes: int
    #: entries that could not be written: being loaded just then (EEXIST)
    exist: int
    #: entries that could not be written: the device is full (ENOSPC)
    nospace: int
    #: compressed bytes that the request may still write
    left: int
    #: nothing is left in the LRUs of this batch for this request
    exhausted: bool


#: Called in the thread that walks, with that thread's signals held back; an exception of it ends the request.
Trace = Callable[[TraceEvent], object]
