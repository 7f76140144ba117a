"""Writeback requests: a budget, the batches that a walk runs on it, and what came of them.

Invariants of a :class:`Request`:

- ``taken`` is what was handed to the device; after :meth:`Request.settle` it is what is safely there (``written``).
- An entry that could not be written is in the pool again and counted once, under the errno that says why.
- Leaving the ``with`` block finishes what is in flight, whatever happened inside.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from uzswap.core.boundary.engine import GLOBALS, Writer
from uzswap.errors import os_error, reclaim_error
from uzswap.reclaim.trace import TraceEvent
from uzswap.result import ReclaimResult
from uzswap.signals import hold_back_signals
from uzswap.units import NO_LIMIT

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.engine import Handles, WalkResult
    from uzswap.engine.zswap import Zswap

__all__ = ["Request", "proactive_writeback"]

_IO_ERROR: Final = GLOBALS.index("uzswap.io_error")
_ANY_AGE: Final = (1 << 63) - 1


class Request:
    """One writeback request under way; a context manager, for one thread.

    Parameters
    ----------
    target
        The cgroup whose subtree it is about.
    budget
        Compressed bytes to write.
    descendants
        False restricts it to the target itself.
    proactive
        Count what is written in ``zswpwb_proactive_b`` too.
    min_age
        Seconds; younger entries are no candidates.
    cancel
        Asked between batches; true ends the request.
    spared
        Cgroups for which it is true are left out.
    """

    def __init__(
        self,
        zswap: Zswap,
        target: MemCgroup,
        budget: int = NO_LIMIT,
        *,
        descendants: bool = True,
        proactive: bool = False,
        min_age: int | None = None,
        cancel: Callable[[], bool] | None = None,
        spared: Callable[[MemCgroup], bool] | None = None,
    ) -> None:
        self.core = zswap.core
        self.nodes = zswap.nodes
        self.target = target
        self.budget = budget
        self.taken = 0
        #: safely on the device: bytes, entries
        self.written = 0
        self.entries = 0
        self.scanned = 0
        self.rotated = 0
        #: entries that stayed in the pool, by errno
        self.failures: dict[int, int] = {}
        #: of the device, 0 while it works
        self.errno = 0
        self._zswap = zswap
        self._descendants = descendants
        self._proactive = proactive
        self._cancel = cancel
        self._spared = spared
        self._since = self.core.stamp()
        self._max_born = _ANY_AGE if min_age is None else self.core.now() - min_age * 1_000_000_000
        self._io_errors = self.core.globals()[_IO_ERROR]
        self._writer: Writer | None = None

    # What a walk asks

    @property
    def left(self) -> int:
        """Compressed bytes still to be taken; negative after an overshoot."""
        return self.budget - self.taken

    def unmet(self) -> bool:
        """Whether less than the budget is safely written, and the device works.

        An entry that was loaded while its write was in flight leaves a gap that the next batch fills.
        """
        if self.left <= 0:
            self.settle()
        return self.left > 0 and not self.errno

    def interrupted(self) -> bool:
        """Whether the request should end now with EINTR."""
        return self._zswap.closing or (self._cancel is not None and self._cancel())

    def trouble(self) -> int:
        """Return the errno of the device when it has failed a write of this request, else 0."""
        if not self.errno:
            # Writes are asynchronous; this engine-wide counter tells when it is worth waiting for ours.
            io_errors = self.core.globals()[_IO_ERROR]
            if io_errors != self._io_errors:
                self._io_errors = io_errors
                self.settle()
        return self.errno

    def subtree(self) -> list[MemCgroup]:
        """Return the online cgroups that the request is about, in pre-order."""
        if not self._descendants:
            return [self.target] if self.target.online else []
        return list(self.target.preorder())

    def may_write_back(self, memcg: MemCgroup) -> bool:
        """Whether a cgroup is online and not spared, and its entries may go to the device, and there is one."""
        try:
            if self._spared is not None and self._spared(memcg):
                return False
            return self._zswap.swap is not None and memcg.online and self.core.writeback_allowed(memcg.index)
        except ValueError:  # removed since the test
            return False

    def lru_len(self, memcg: MemCgroup, node: int) -> int:
        try:
            return self.core.lru_len(memcg.index, node)
        except ValueError:  # removed since it was listed
            return 0

    # What a walk does

    def walk(self, lrus: Handles, positions: Handles, nr_to_scan: int, budget: int, flags: int = 0) -> WalkResult:
        """Run one batch over LRUs (memcg index << 8 | node each), coldest head first.

        ``positions`` keeps, from batch to batch, how far the request has come in each LRU; zeros begin at the head.
        """
        return self._walk(self.target, -1, lrus, positions, nr_to_scan, budget, flags)

    def walk_one(
        self,
        memcg: MemCgroup,
        node: int,
        nr_to_scan: int,
        budget: int,
        position: Handles | None = None,
        flags: int = 0,
    ) -> WalkResult:
        """Run one batch over the LRU of one cgroup and node."""
        lru = np.array([memcg.index << 8 | node], np.uint64)
        if position is None:
            position = np.zeros(1, np.uint64)
        return self._walk(memcg, node, lru, position, nr_to_scan, budget, flags)

    def _walk(
        self, memcg: MemCgroup, node: int, lrus: Handles, positions: Handles, nr_to_scan: int, budget: int, flags: int
    ) -> WalkResult:
        if self._writer is None:
            self._writer = Writer(self.core, self._proactive)
        batch = self._writer.walk(lrus, positions, nr_to_scan, budget, self._since, self._max_born, flags)
        self.scanned += batch.scanned
        self.rotated += batch.rotated
        self.taken += batch.nbytes
        if batch.exist:
            self._fail(errno.EEXIST, batch.exist)
        if batch.nospace:
            self._fail(errno.ENOSPC, batch.nospace)
            # Space on the device is taken at writeback, so it is here that it cannot be had.
            memcg.count_event("swap.fail", batch.nospace)
            self.errno = errno.ENOSPC
        if self._zswap.trace is not None:
            self._zswap.trace(
                TraceEvent(
                    walk=self._zswap.walk.name,
                    cgroup=memcg.path,
                    node=node,
                    scanned=batch.scanned,
                    rotated=batch.rotated,
                    entries=batch.entries,
                    nbytes=batch.nbytes,
                    exist=batch.exist,
                    nospace=batch.nospace,
                    left=max(self.left, 0),
                    exhausted=batch.exhausted,
                )
            )
        return batch

    def settle(self) -> None:
        """Wait until everything in flight is on the device, or back in the pool."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        flushed = writer.finish()
        self.written += flushed.nbytes
        self.entries += flushed.entries
        self.taken = self.written
        if flushed.gone:
            self._fail(errno.ENOENT, flushed.gone)
        if flushed.failed:
            self._fail(flushed.errno, flushed.failed)
        if flushed.errno and not self.errno:
            self.errno = flushed.errno

    def _fail(self, number: int, entries: int) -> None:
        self.failures[number] = self.failures.get(number, 0) + entries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()


def proactive_writeback(
    zswap: Zswap,
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
    if not zswap.core.writeback_allowed(memcg.index):
        raise os_error(
            errno.EINVAL,
            "source=zswap: writeback is off here: write 1 to memory.zswap.writeback, up to the root",
            memcg.path,
        )
    if nbytes == 0:
        return ReclaimResult(0)
    started = time.monotonic()
    if zswap.swap is None:
        raise reclaim_error(
            errno.EAGAIN, f"{memcg.path}: nothing can be written back without a swap device", ReclaimResult(nbytes)
        )
    with hold_back_signals() as signals:

        def interrupted() -> bool:
            return (cancel is not None and cancel()) or signals.pending()

        with Request(zswap, memcg, nbytes, proactive=True, min_age=min_age, cancel=interrupted) as request:
            outcome = zswap.walk.run(request)
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
