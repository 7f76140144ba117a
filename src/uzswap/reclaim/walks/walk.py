"""What a walk is: one way to choose which entry is written back next."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.reclaim.state import ReclaimState
    from uzswap.reclaim.writeback import Request

__all__ = ["Room", "Walk"]


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

    def shrink_for_store(self, state: ReclaimState, memcg: MemCgroup) -> Room:
        """Shrink a cgroup, one of whose pages is over its or an ancestor's ``memory.zswap.max``."""
        ...

    def relieve_pool(self, state: ReclaimState) -> None:
        """Run the shrink worker once: write back until the pool is down to its accept threshold, or nothing can go."""
        ...
