"""Stage one and a half: what stayed cold in the pool is compressed again with a slower codec, before it goes to disk.

Entries are taken as writeback takes them (:mod:`uzswap.reclaim.writeback`): coldest of each LRU first, round-robin over
the cgroups of the subtree a batch at a time; places on the LRUs and ages stay.  One that was referenced has its second
chance until the next request.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uzswap.cgroup.recompress import RecompressRequest, RecompressResult
from uzswap.core.boundary.engine import LRU
from uzswap.errors import os_error
from uzswap.signals import hold_back_signals

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.reclaim.state import ReclaimState

__all__ = ["recompress"]

#: candidates met in one call of the data plane: as many as writeback's batches (SWAP_CLUSTER_MAX, 64 in the series)
_BATCH: Final = 64
_ANY_AGE: Final = (1 << 63) - 1


def recompress(
    state: ReclaimState,
    memcg: MemCgroup,
    request: RecompressRequest,
    codec: int,
    level: int,
    cancel: Callable[[], bool] | None = None,
) -> RecompressResult:
    """Compress up to ``request.nbytes`` compressed bytes of a cgroup's subtree again.

    Parameters
    ----------
    codec, level
        What ``request.codec`` names, for the data plane.
    cancel
        Asked between batches; returning true ends the request as a signal does.

    Returns
    -------
    RecompressResult
        Less than was asked for is no error: what is not there cannot be compressed.

    Raises
    ------
    OSError
        EINTR a signal came, or ``cancel()`` was true; ENOMEM.  What was done until then stays done, and is told.
    """
    core = state.core
    max_born = _ANY_AGE if request.min_age is None else core.now() - request.min_age * 1_000_000_000
    started, since = time.monotonic(), core.stamp()
    #: (memcg, node) -> position
    left = {(each.index, node): 0 for each in state.with_something(memcg, LRU) for node in range(state.nodes)}
    taken = scanned = rotated = entries = before = after = refused = 0
    error = 0
    with hold_back_signals() as signals:
        while left and taken < request.nbytes and not error:
            for index, node in list(left):
                if signals.pending() or (cancel is not None and cancel()):
                    error = errno.EINTR
                    break
                try:
                    done = core.recompress(
                        index, node, codec, level, _BATCH, request.nbytes - taken, since, left[index, node], max_born
                    )
                except ValueError:  # the cgroup was removed: its entries are its parent's now
                    del left[index, node]
                    continue
                taken += done.nbytes
                scanned += done.scanned
                rotated += done.rotated
                entries += done.entries
                before += done.bytes_before
                after += done.bytes_after
                refused += done.refused
                left[index, node] = done.position
                if done.exhausted:
                    del left[index, node]
                error = done.errno
                if error or taken >= request.nbytes:
                    break
        result = RecompressResult(
            request.nbytes, taken, scanned, rotated, entries, before, after, refused, time.monotonic() - started
        )
        memcg.last_recompress = result
        if error:
            why = "recompression was interrupted" if error == errno.EINTR else os.strerror(error)
            raise os_error(error, f"{memcg.path}: {why}, {taken} of {request.nbytes} bytes taken up")
    return result
