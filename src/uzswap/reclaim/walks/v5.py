"""The walk of the draft kernel series "source=zswap", version 5 of June 2026, with all that its reviewers objected to.

The series was not merged: this models a draft, whose constants are those below.

Names are the kernel's.  Functions return what the kernel's return: compressed bytes, or a negative errno.  SPEC 5.1 to
5.4 and 6.4 describe it; 202 steps recorded on a patched 7.1.5 kernel agree.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uzswap.core.boundary.engine import LRU, RETRY_FAILED, STOP_ON_EXIST
from uzswap.reclaim.state import MAX_RECLAIM_RETRIES, ReclaimState
from uzswap.reclaim.walks.cursor import Cursors
from uzswap.reclaim.walks.walk import Room
from uzswap.reclaim.writeback import Request
from uzswap.units import NO_LIMIT

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.tree import CgroupTree

__all__ = ["MAX_RECLAIM_RETRIES", "NR_ZSWAP_WB_BATCH", "V5", "ShrinkState", "shrink_memcg", "shrink_one_memcg"]

NR_ZSWAP_WB_BATCH: Final = 64  # v5 3/6, entries


@dataclass(slots=True)
class ShrinkState:
    """What one call has behind it.  ``failures`` is never reset: neither by success nor by a new pass."""

    scans: int = 0
    failures: int = 0

    def fail(self) -> int:
        self.failures += 1
        return -errno.EBUSY if self.failures >= MAX_RECLAIM_RETRIES else 0


def shrink_memcg(request: Request, memcg: MemCgroup, nr_to_scan: int) -> int:
    """Meet up to ``nr_to_scan`` of the oldest entries of one cgroup, node 0 first; return the bytes written.

    -ENOENT when there is nothing to meet.  0 means that entries were met, but only lost their second chance or failed.
    """
    if not request.may_write_back(memcg):
        return -errno.ENOENT
    remaining = nr_to_scan
    scanned = written = 0
    for node in range(request.nodes):
        # No more than the list is long: an entry that is rotated now must not be met again in the same call.
        nr = min(remaining, request.lru_len(memcg, node))
        if nr == 0:
            continue
        batch = request.walk_one(memcg, node, nr, NO_LIMIT, flags=STOP_ON_EXIST | RETRY_FAILED)
        scanned += batch.scanned
        written += batch.nbytes
        remaining -= batch.scanned
        if remaining == 0:
            break
    return written if scanned else -errno.ENOENT


def shrink_one_memcg(request: Request, memcg: MemCgroup | None, state: ShrinkState) -> int:
    """Shrink the next cgroup of a pass by one batch; None is the end of a pass.

    Returns the bytes written, 0, or -EBUSY when the failures of the call have reached MAX_RECLAIM_RETRIES.
    """
    if memcg is None:
        if state.scans == 0 and state.fail():
            return -errno.EBUSY
        state.scans = 0
        return 0
    written = shrink_memcg(request, memcg, NR_ZSWAP_WB_BATCH)
    if written == -errno.ENOENT:
        return 0
    state.scans += 1
    if written <= 0 and state.fail():
        return -errno.EBUSY
    return written


def _passes(request: Request) -> Iterator[MemCgroup | None]:
    """Go round the subtree without end: pre-order, the target first, None at the end of each pass."""
    while True:
        yield from request.subtree()
        yield None


class V5:
    """``source=zswap`` and the shrink worker as in the series."""

    name: Final = "v5"

    def __init__(self, tree: CgroupTree) -> None:
        self._next_shrink = Cursors(tree)

    def run(self, request: Request) -> int:
        shrinking = ShrinkState()
        memcgs = _passes(request)
        while request.left > 0:
            if request.interrupted():
                return errno.EINTR
            if shrink_one_memcg(request, next(memcgs), shrinking) == -errno.EBUSY:
                return errno.EAGAIN
        request.settle()
        # The kernel calls a page written as soon as it is submitted.  Here one that fails afterwards is still in the
        # pool, so it is a failure like any other.
        return errno.EAGAIN if request.errno and request.left > 0 else 0

    def shrink_for_store(self, state: ReclaimState, memcg: MemCgroup) -> Room:
        with Request(state, memcg) as request:
            written = shrink_memcg(request, memcg, request.nodes)
        if written == -errno.ENOENT:
            return Room.REFUSE_ALL
        return Room.ADMIT if written > 0 else Room.REFUSE

    def relieve_pool(self, state: ReclaimState) -> None:
        """shrink_worker(): one batch from each cgroup in turn, root included, from where the last run ended."""
        shrinking = ShrinkState()
        root = state.tree.root
        while state.pool_over_threshold() > 0:
            memcg = self._next_shrink.advance(root, state.with_something(root, LRU))
            # A request of its own for each batch: what it wrote has left the pool when the threshold is looked at.
            with Request(state, root) as request:
                if shrink_one_memcg(request, memcg, shrinking) == -errno.EBUSY:
                    return
