"""Writeback requests: a budget, the batches that a walk runs on it, and what came of them.

Invariants of a :class:`Request`:

- ``taken`` is what was handed to the device; after :meth:`Request.settle` it is what is safely there (``written``).
- An entry that could not be written is in the pool again and counted once, under the errno that says why.
- Leaving the ``with`` block finishes what is in flight, whatever happened inside.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from uzswap.core.boundary.engine import GLOBALS, LRU
from uzswap.core.boundary.writer import Writer
from uzswap.reclaim.trace import TraceEvent
from uzswap.units import NO_LIMIT

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.engine import Handles, WalkResult
    from uzswap.reclaim.state import ReclaimState

__all__ = ["Request"]

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
        state: ReclaimState,
        target: MemCgroup,
        budget: int = NO_LIMIT,
        *,
        descendants: bool = True,
        proactive: bool = False,
        min_age: int | None = None,
        cancel: Callable[[], bool] | None = None,
        spared: Callable[[MemCgroup], bool] | None = None,
    ) -> None:
        self.core = state.core
        self.nodes = state.nodes
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
        self._state = state
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
        return self._state.closing or (self._cancel is not None and self._cancel())

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
        """Return the cgroups that the request is about and that have entries to write, in pre-order.

        What may not be written back may still be among them: see :meth:`may_write_back`.
        """
        if not self._descendants:
            return [self.target] if self.target.online else []
        return self._state.with_something(self.target, LRU)

    def may_write_back(self, memcg: MemCgroup) -> bool:
        """Whether a cgroup is online and not spared, and its entries may go to the device, and there is one."""
        try:
            if self._spared is not None and self._spared(memcg):
                return False
            return self._state.has_device and memcg.online and self.core.writeback_allowed(memcg.index)
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
        if self._state.trace is not None:
            self._state.trace(
                TraceEvent(
                    walk=self._state.walk,
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
