"""Which entry is written back next: three walks behind one interface.

========  =====================================================================================================
v5        the kernel series of June 2026, bug for bug: the reference for studies (SPEC 5 and 6)
fair      the default: every cgroup of the subtree in turn, from where the last request ended (SPEC 10.2)
coldest   the entry that has waited longest over the whole subtree (SPEC 10.3)
========  =====================================================================================================

A walk decides which LRUs are met next and for how much; the data plane meets the entries.  It is plain Python and runs
once a batch.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.engine.zswap import Zswap
    from uzswap.reclaim.writeback import Request

__all__ = ["Room", "Walk", "make_walks"]


class Room(Enum):
    """What becomes of a page that is over ``memory.zswap.max``, after its cgroup was shrunk."""

    #: store it, and do not test the limit again
    ADMIT = auto()
    #: test the limit again
    TEST_AGAIN = auto()
    #: refuse it
    REFUSE = auto()
    #: refuse it; nothing is left that could make room for those that follow
    REFUSE_ALL = auto()


class Walk(Protocol):
    """One way to choose.  An instance belongs to one engine and may run in several threads at once."""

    @property
    def name(self) -> str: ...

    def run(self, request: Request) -> int:
        """Write back until the request's budget is met; return 0, or the errno that ends it.

        EAGAIN: less was written than asked.  EINTR: ``request.interrupted()``.  ENOSPC, EIO: the device.
        """
        ...

    def make_room(self, zswap: Zswap, memcg: MemCgroup) -> Room:
        """Shrink a cgroup, one of whose pages is over its or an ancestor's ``memory.zswap.max``."""
        ...

    def relieve_pool(self, zswap: Zswap) -> None:
        """Run the shrink worker once: write back until the pool is down to its accept threshold, or nothing can go."""
        ...


def make_walks(tree: CgroupTree) -> dict[str, Walk]:
    """Return one instance of each walk, by name; they follow the tree's removals from now on."""
    from uzswap.reclaim.walks.coldest import Coldest
    from uzswap.reclaim.walks.fair import Fair
    from uzswap.reclaim.walks.v5 import V5

    walks: tuple[Walk, ...] = (V5(tree), Fair(tree), Coldest())
    return {walk.name: walk for walk in walks}
