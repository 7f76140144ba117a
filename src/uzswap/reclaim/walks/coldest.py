"""The entry that has waited longest over the whole subtree, whosever it is (SPEC 10.3).

How long is told by the stamp of an entry's store or last rotation.  The data plane merges the LRUs by the stamps of
their heads, a run of entries at a time; a cgroup that goes away or comes in meanwhile is noticed at the next run.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import numpy as np

from uzswap.reclaim.walks.relief import relieve_pool, shrink_for_store
from uzswap.reclaim.walks.walk import Room

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.engine import Handles
    from uzswap.reclaim.state import ReclaimState
    from uzswap.reclaim.writeback import Request

__all__ = ["NR_BATCH", "Coldest"]

#: Entries met in one batch at most; a signal waits for one.  Writing 12 MiB of 930-byte entries from 1, 10 and 100
#: cgroups took 22.7, 19.4 and 27.3 ms with 64, 15.7, 16.0 and 23.0 with 512, and no less with 1024 (2 cores, 2026-11).
NR_BATCH: Final = 512


class Coldest:
    """A merge over the heads of all LRUs of the subtree."""

    name: Final = "coldest"

    def run(self, request: Request) -> int:
        merge = _Merge(request)
        while request.unmet():
            if request.interrupted():
                return errno.EINTR
            merge.refresh()
            if not len(merge.lrus):
                return errno.EAGAIN
            batch = request.walk(merge.lrus, merge.positions, NR_BATCH, request.left)
            if request.trouble():
                return request.errno
            if batch.exhausted and not batch.scanned and request.unmet():
                return errno.EAGAIN
        return request.errno

    def shrink_for_store(self, state: ReclaimState, memcg: MemCgroup) -> Room:
        return shrink_for_store(self, state, memcg)

    def relieve_pool(self, state: ReclaimState) -> None:
        relieve_pool(self, state)


class _Merge:
    """The LRUs of a request's subtree, and how far the request has come in each."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._memcgs: list[MemCgroup] = []
        self.lrus: Handles = np.empty(0, np.uint64)
        self.positions: Handles = np.empty(0, np.uint64)

    def refresh(self) -> None:
        """Follow the tree: what was reached in LRUs that are still there is kept."""
        request = self._request
        memcgs = [memcg for memcg in request.subtree() if request.may_write_back(memcg)]
        if memcgs == self._memcgs:
            return
        nodes = request.nodes
        reached = {}
        if all(memcg.online for memcg in self._memcgs):
            # Else one was removed, and its entries are at the head of its parent's LRUs: all begin anew.
            reached = {memcg.id: self.positions[i * nodes : (i + 1) * nodes] for i, memcg in enumerate(self._memcgs)}
        anew = np.zeros(nodes, np.uint64)
        self.lrus = np.array([memcg.index << 8 | node for memcg in memcgs for node in range(nodes)], np.uint64)
        self.positions = np.concatenate([anew[:0], *(reached.get(memcg.id, anew) for memcg in memcgs)])
        self._memcgs = memcgs
