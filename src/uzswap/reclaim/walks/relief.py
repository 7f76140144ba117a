"""Room in the pool, as ``fair`` and ``coldest`` make it: by whole requests of the walk itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uzswap.core.boundary.engine import COUNTERS
from uzswap.reclaim.walks.walk import Room
from uzswap.reclaim.writeback import Request
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.reclaim.state import ReclaimState
    from uzswap.reclaim.walks.walk import Walk

__all__ = ["relieve_pool", "room_below", "shrink_for_store"]

#: How much further than to the limit a cgroup is shrunk, so that the pages that follow find room too: as much as a
#: batch of the series could free (64 raw pages), but only an eighth of a small limit, to keep most of it in use.
ROOM_BYTES: Final = 64 * PAGE_SIZE
ROOM_SHARE: Final = 8

_ZSWAP: Final = COUNTERS.index("zswap")


def room_below(limit: int) -> int:
    """Return how far below a limit to go, in bytes, once it was reached."""
    return min(ROOM_BYTES, limit // ROOM_SHARE)


def shrink_for_store(walk: Walk, state: ReclaimState, memcg: MemCgroup) -> Room:
    """Write back the cgroup's own oldest entries until it and its ancestors are below ``memory.zswap.max``.

    The second chance holds, but costs no refusal: the walk goes round until something can go.  A limit of 0 switches
    zswap off for the subtree, so there nothing is moved.
    """
    excess = 0
    for limited in memcg.ancestry():
        limit = limited.limits["memory.zswap.max"]
        if limit == 0:
            return Room.REFUSE_ALL
        used = state.core.counters(limited.index)[_ZSWAP]
        if used >= limit:
            excess = max(excess, used - (limit - 1) + room_below(limit))
    if excess == 0:
        return Room.TEST_AGAIN
    with Request(state, memcg, excess, descendants=False) as request:
        walk.run(request)
        request.settle()
    return Room.TEST_AGAIN if request.written else Room.REFUSE_ALL


def relieve_pool(walk: Walk, state: ReclaimState) -> None:
    """Write back from the whole tree until the pool is down to its accept threshold.

    Bytes are asked for, but the pool frees whole pages: it may take several requests.
    """
    while (pages := state.pool_over_threshold()) > 0:
        with Request(state, state.tree.root, pages * PAGE_SIZE) as request:
            if walk.run(request):
                return
