"""``memory.reclaim`` with ``source=zswap``: a budget of compressed bytes, written back by the walk in use."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uzswap.errors import os_error, reclaim_error
from uzswap.reclaim.writeback import Request
from uzswap.result import ReclaimResult
from uzswap.signals import hold_back_signals

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.reclaim.state import ReclaimState
    from uzswap.reclaim.walks import Walk

__all__ = ["proactive_writeback"]


def proactive_writeback(
    state: ReclaimState,
    walk: Walk,
    memcg: MemCgroup,
    nbytes: int,
    *,
    min_age: int | None = None,
    cancel: Callable[[], bool] | None = None,
) -> ReclaimResult:
    """Write ``nbytes`` compressed bytes of a cgroup's subtree to the device: ``memory.reclaim`` with ``source=zswap``.

    Raises
    ------
    OSError
        EINVAL when writeback is off for the cgroup or an ancestor.
    ReclaimError
        EAGAIN less was written than asked for; EINTR a signal came, or ``cancel()`` was true; ENOSPC and EIO the device
        failed (not with ``v5``, where that is EAGAIN).  ``.result`` tells how far it came.
    """
    if not state.core.writeback_allowed(memcg.index):
        raise os_error(
            errno.EINVAL,
            "source=zswap: writeback is off here: write 1 to memory.zswap.writeback, up to the root",
            memcg.path,
        )
    if nbytes == 0:
        return ReclaimResult(0)
    started = time.monotonic()
    if not state.has_device:
        raise reclaim_error(
            errno.EAGAIN, f"{memcg.path}: nothing can be written back without a swap device", ReclaimResult(nbytes)
        )
    with hold_back_signals() as signals:

        def interrupted() -> bool:
            return (cancel is not None and cancel()) or signals.pending()

        with Request(state, memcg, nbytes, proactive=True, min_age=min_age, cancel=interrupted) as request:
            outcome = walk.run(request)
        result = ReclaimResult(
            asked=nbytes,
            written=request.written,
            entries=request.entries,
            scanned=request.scanned,
            rotated=request.rotated,
            failed={errno.errorcode[number]: entries for number, entries in request.failures.items()},
            seconds=time.monotonic() - started,
        )
        if outcome:
            # Inside the guard: a handler that raises when the signals are let go has this as its context.
            raise reclaim_error(outcome, f"{memcg.path}: {_WHY.get(outcome, _DEVICE)}, {_amount(result)}", result)
    return result


_WHY: Final = {
    errno.EAGAIN: "less could be written back than asked for",
    errno.EINTR: "writeback was interrupted",
    errno.ENOSPC: "the swap device is full: give it more room (swap_size=) or free something",
}
_DEVICE: Final = "the swap device failed"


def _amount(result: ReclaimResult) -> str:
    return f"{result.written} of {result.asked} bytes written"
