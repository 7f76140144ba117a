"""Paged memory: areas of zeros whose pages the data plane brings in on a fault and evicts under limits.

Every method may be called from any thread; they release the GIL while they work.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uzswap.core.boundary.engine import Engine

# wait_events() and take_events(): what fault threads met since they were last asked
HIGH: Final[int]  # memory.high of a memcg was exceeded
MAX: Final[int]  # memory.max made a fault wait for eviction
OOM: Final[int]  # nothing more could go: the fault was served over the limit
POOL_FULL: Final[int]  # the pool limit refused pages: wake the shrink worker
LOW: Final[int]  # what memory.low protects was evicted, since there was nothing else
SWAP: Final[int]  # memory.swap.high or memory.swap.max was met, or the device was full
STALL: Final[int]  # a thread waits for memory: take_counts() tells for how long

# hint()
NORMAL: Final[int]
SEQUENTIAL: Final[int]
RANDOM: Final[int]

class Place(NamedTuple):
    address: int
    pages: int
    memcg: int  # online memcg that owns it now

class AreaInfo(NamedTuple):
    address: int
    pages: int
    memcg: int  # online memcg that owns it now
    resident: int  # pages
    zswap: int
    disk: int
    zero: int  # never touched, or all one word: no bytes anywhere
    lost: int
    clean_copies: int  # compressed bytes in the pool of pages that are resident
    faults: int
    loads: int  # pages that were brought back

class MemoryInfo(NamedTuple):
    user_mode_only: bool  # the kernel does not wait for a page that is not resident: its access fails with EFAULT
    calls_trapped: int  # then: 1, system calls are trapped and work, or the -errno with which that failed; else 0
    by_signal: bool  # faults are served in the threads that they are in, by a handler of SIGBUS
    can_move: bool  # UFFDIO_MOVE
    can_poison: bool
    threads: int  # that serve faults
    workers: int  # that read ahead and evict
    areas: int  # alive
    resident: int  # pages
    faults: int
    evicted: int  # pages
    evicted_clean: int  # of these, by a copy that was still good
    swap_tokens: int  # times that a thread was given the swap token of a memcg
    read_ahead: int  # pages
    broken: bool  # a thread was killed: see Memory

class Counts(NamedTuple):
    low: int  # evictions of what memory.low protects
    high: int  # faults that met memory.high
    max: int  # evictions that faults waited for
    oom: int
    swap_high: int  # evictions after which memory.swap.high was exceeded
    swap_max: int  # pages that could not be evicted for memory.swap.max
    swap_fail: int  # pages that could not, for that or because the device is full
    some_ns: int  # time in which some thread of the subtree waited for a page or an eviction
    full_ns: int  # time in which all did that had faults in the last two seconds
    over_high: bool  # memory.high was met since somebody last acted on it

class Memory:
    #: One an engine.  OSError: userfaultfd is refused.  old_kernel: nothing is used that kernels before 6.8 lack.
    #: When one of its threads is killed all that is not resident is SIGBUS, and every method an OSError (EIO).
    #: by_signal: OSError as well where that cannot be (EOPNOTSUPP), or the calling thread blocks SIGBUS (EBUSY).
    def __init__(
        self, engine: Engine, user_mode_only: bool = False, old_kernel: bool = False, by_signal: bool = False
    ) -> None: ...
    def close(self) -> None: ...  # no area may be in use; before Engine.close(); waits for calls that are under way
    def forked(self) -> bool: ...  # in a child: whether the arrays came along
    def alloc(self, nbytes: int, memcg: int, item: int = 0) -> tuple[int, int]: ...  # number, address (page-aligned);
    #   item: size of the array's numbers in bytes, for a byte shuffle before compression where a sample says it pays
    def free(self, area: int) -> None: ...  # access afterwards is SIGBUS; pages, pool and disk bytes go back at once
    def bring(self, area: int, first: int, pages: int, keep: bool = False) -> int: ...  # 0, -EIO when one is lost;
    #   tries again what was lost before
    def unkeep(self, area: int, first: int, pages: int) -> None: ...
    def evict(self, area: int, first: int, pages: int) -> int: ...  # pages that went
    def drop(self, area: int, first: int, pages: int) -> None: ...  # they read as zero; OSError: as they were
    #: copies spans of `length` bytes that begin at these bytes of an area to memory + places, each, or with `into` from
    #: there, in order; without faults, and without displacing anything.  (errno, page of the area) when bytes cannot be
    #: read, and some spans may have been written; else (0, 0).
    def exchange(
        self, area: int, begins: NDArray[np.uint64], places: NDArray[np.uint64], length: int, memory: int, into: bool
    ) -> tuple[int, int]: ...
    def reclaim(self, memcg: int, pages: int) -> int: ...  # oldest of the subtree; pages that went
    def place(self, area: int) -> Place: ...  # as long as it takes to ask
    def area(self, area: int) -> AreaInfo: ...  # counts its pages
    def info(self) -> MemoryInfo: ...
    def wait_events(self) -> int: ...  # sleeps; 0 when the memory is being closed
    def take_events(self, memcg: int) -> int: ...
    def settle(self) -> None: ...  # waits until all is done that faults have set off
    def reclaim_own(self, memcg: int, pages: int) -> int: ...  # as reclaim(), without the memcg's children
    def own_pages(self, memcg: int) -> int: ...  # that reclaim_own() could evict
    def take_counts(self, memcg: int, acts: bool = True) -> Counts: ...  # since the last call; take_events() is then
    #   empty too.  Without acts over_high stays, and wait_events() returns for it
    def remove_memcg(self, memcg: int) -> None: ...  # what Engine.memcg_remove() does when there is paged memory
    def hint(self, area: int, kind: int) -> None: ...  # NORMAL, SEQUENTIAL (reads ahead at once), RANDOM (never)
    def name(self, area: int, label: bytes) -> None: ...  # what the array is, where a message names it
    def name_memcg(self, memcg: int, label: bytes) -> None: ...
    def cool(self, area: int, first: int, pages: int) -> None: ...  # what is resident of it goes next

#: Numbers of the threads of this process that block SIGBUS, those of engines apart; 64 at most.
def sigbus_blockers() -> list[int]: ...
