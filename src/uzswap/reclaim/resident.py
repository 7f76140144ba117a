"""Ordinary reclaim: front-ends give up resident memory, which goes to zswap, or to the device where zswap refuses it.

The shape is the kernel's (mm/vmscan.c): priorities from 12, where a 4096th of each cgroup is looked at, down to 0,
where all of it is; ``memory.min`` is never touched, ``memory.low`` only when nothing else is left; the dynamic shrinker
runs beside.  All resident memory is anonymous, so ``swappiness=0`` leaves nothing to take.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from uzswap.core.boundary.engine import COUNTERS, GLOBALS, LRU, RESIDENT
from uzswap.errors import reclaim_error
from uzswap.reclaim.state import MAX_RECLAIM_RETRIES, ReclaimState
from uzswap.reclaim.walks.cursor import Cursors
from uzswap.reclaim.walks.relief import room_below
from uzswap.reclaim.writeback import Request
from uzswap.result import ReclaimResult
from uzswap.signals import hold_back_signals
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.reclaim import ReclaimRequest
    from uzswap.cgroup.surroundings import Member
    from uzswap.core.boundary.engine import Engine
    from uzswap.reclaim.shrinker import DynamicShrinker
    from uzswap.reclaim.walks import Walk

__all__ = ["OnBehalfOf", "ResidentReclaim"]

DEF_PRIORITY: Final = 12  # include/linux/mmzone.h
SWAP_CLUSTER_MAX: Final = 32  # include/linux/swap.h, pages
#: Asked of a front-end at once: large enough to be compressed in batches, small enough to look for signals in between.
SHRINK_BYTES: Final = 4 << 20

_CLEAN_COPIES: Final = COUNTERS.index("uzswap.clean_copies")
_RESIDENT: Final = COUNTERS.index("resident")
_ZSWAP: Final = COUNTERS.index("zswap")
_IO_ERROR: Final = GLOBALS.index("uzswap.io_error")


class OnBehalfOf(StrEnum):
    """On whose behalf: the last part of the pgscan_* and pgsteal_* counters."""

    PROACTIVE = "proactive"
    DIRECT = "direct"
    KSWAPD = "kswapd"  # in the background


def _never() -> bool:
    return False


class _Scan:
    """One attempt: what is wanted, what was freed, and why something was left alone (struct scan_control)."""

    def __init__(
        self, target: MemCgroup, want: int, kind: OnBehalfOf, anonymous: bool, stop: Callable[[], bool]
    ) -> None:
        self.target = target
        self.want = want
        self.kind = kind
        self.anonymous = anonymous
        self.stop = stop
        self.freed = 0
        self.low_reclaim = False
        self.low_skipped = False

    @property
    def over(self) -> bool:
        return self.freed >= self.want or self.stop()


class _Retries:
    """How often an attempt that frees nothing is made again.

    As often as the kernel does it, but not on a device that fails writes: the next would fail as well, and there are
    priorities * retries of them for each value (4420 for ten, measured in November 2026).
    """

    def __init__(self, core: Engine, left: int) -> None:
        self._core = core
        self._left = left
        self._io_errors: int | None = None

    @property
    def over(self) -> bool:
        return self._left < 0

    def use(self) -> None:
        """An attempt has freed nothing."""
        io_errors = self._core.globals()[_IO_ERROR]
        fails = self._io_errors not in (None, io_errors)
        self._left = -1 if fails else self._left - 1
        self._io_errors = io_errors


class ResidentReclaim:
    """Reclaim of resident memory in one engine; may run in several threads at once."""

    def __init__(self, state: ReclaimState, walk: Callable[[], Walk], shrinker: DynamicShrinker) -> None:
        self._state = state
        self._walk = walk
        self._shrinker = shrinker
        self._cursors = Cursors(state.tree)

    def once(
        self,
        target: MemCgroup,
        nbytes: int,
        kind: OnBehalfOf,
        *,
        swappiness: int | str | None = None,
        copies: bool = True,
        stop: Callable[[], bool] = _never,
    ) -> int:
        """try_to_free_mem_cgroup_pages(): make one attempt to free ``nbytes``; return how many were freed.

        Clean copies are the first to go, unless it is resident memory alone that has to become less.
        """
        scan = _Scan(target, max(nbytes, SWAP_CLUSTER_MAX * PAGE_SIZE), kind, swappiness != 0, stop)
        if copies:
            scan.freed = self._state.core.drop_clean(target.index, scan.want)
            if scan.freed >= scan.want:
                return scan.freed
        while True:
            for priority in range(DEF_PRIORITY, -1, -1):
                self._shrink_subtree(scan, priority)
                if scan.over:
                    return scan.freed
            if scan.freed or scan.low_reclaim or not scan.low_skipped:
                return scan.freed
            scan.low_reclaim = True

    def proactive(
        self, memcg: MemCgroup, request: ReclaimRequest, cancel: Callable[[], bool] | None = None
    ) -> ReclaimResult:
        """``memory.reclaim`` without a source (SPEC 6.3).

        Raises
        ------
        ReclaimError
            EAGAIN less could be freed than asked for; EINTR a signal came, or ``cancel()`` was true.
        """
        started = time.monotonic()
        want = request.nbytes - request.nbytes % PAGE_SIZE
        freed = outcome = 0
        retries = _Retries(self._state.core, MAX_RECLAIM_RETRIES)
        with hold_back_signals() as signals:

            def stop() -> bool:
                return self._state.closing or (cancel is not None and cancel()) or signals.pending()

            while freed < want:
                if stop():
                    outcome = errno.EINTR
                    break
                share = (want - freed) // PAGE_SIZE // 4 * PAGE_SIZE
                progress = self.once(memcg, share, OnBehalfOf.PROACTIVE, swappiness=request.swappiness, stop=stop)
                freed += progress
                if not progress:
                    retries.use()
                    if retries.over or not self._anything_to_take(memcg, copies=True):
                        outcome = errno.EAGAIN
                        break
            self._state.heap.after(freed)
            result = ReclaimResult(request.nbytes, reclaimed=freed, seconds=time.monotonic() - started)
            if outcome:
                why = "reclaim was interrupted" if outcome == errno.EINTR else "less could be reclaimed than asked for"
                raise reclaim_error(outcome, f"{memcg.path}: {why}, {freed} of {request.nbytes} bytes freed", result)
        return result

    def shrink_to(
        self,
        memcg: MemCgroup,
        name: str,
        kind: OnBehalfOf,
        *,
        more: int = 0,
        stop: Callable[[], bool] = _never,
        retries: int = MAX_RECLAIM_RETRIES,
    ) -> bool:
        """Reclaim until ``more`` bytes fit below a limit of the cgroup; False when nothing more can go, or on stop.

        The order is the one of all reclaim (:mod:`uzswap.reclaim`).
        """
        copies = name != "uzswap.resident.max"
        left = _Retries(self._state.core, retries)
        while (excess := memcg.usage_under(name) + more - memcg.limits[name]) > 0:
            if stop():
                return False
            room = excess + room_below(memcg.limits[name])
            if copies and self._pool_has_more_than_its_share(memcg) and self._shrink_zswap(memcg, room, stop):
                continue
            if not left.over and self._anything_to_take(memcg, copies):
                if not self.once(memcg, excess, kind, copies=copies, stop=stop):
                    left.use()
            elif not copies or not self._write_back(memcg, room, stop):
                return False
        return True

    def _shrink_zswap(self, memcg: MemCgroup, nbytes: int, stop: Callable[[], bool]) -> bool:
        """Bring down what is compressed: clean copies, or else the coldest entries; whether anything went."""
        return self._state.core.drop_clean(memcg.index, nbytes) > 0 or self._write_back(memcg, nbytes, stop)

    def _write_back(self, memcg: MemCgroup, nbytes: int, stop: Callable[[], bool]) -> bool:
        """Write compressed bytes of the subtree back, what memory.low protects last; whether anything was written."""
        if not self._state.has_device or self._state.walk == "v5":
            # What shrinker_enabled writes back in v5 is the shrinker's affair: see _shrink_memcg().
            return False
        for low_too in (False, True):

            def spared(member: MemCgroup) -> bool:
                minimum, low = member.effective_protection(memcg)
                return 0 < member.usage() <= (minimum if low_too else max(minimum, low))  # noqa: B023  used at once

            with Request(self._state, memcg, nbytes, cancel=stop, spared=spared) as request:
                self._walk().run(request)
            if request.written or stop():
                break
        return request.written > 0

    def _pool_has_more_than_its_share(self, target: MemCgroup) -> bool:
        """Whether what is compressed takes more than what is resident of a limit on both.

        If it could only grow, a limit would end up all compressed, and every access would evict what the one before had
        brought.  make_room.make_some_room() has the same rule, for faults.
        """
        counters = self._state.core.counters(target.index)
        return counters[_ZSWAP] > counters[_RESIDENT]

    def _anything_to_take(self, target: MemCgroup, copies: bool) -> bool:
        """Whether a retry can find more than nothing."""
        if self._state.shrinker_enabled:
            return True
        if copies and self._state.core.counters(target.index)[_CLEAN_COPIES]:
            return True
        there = self._state.with_something(target, RESIDENT)
        return any(holder.resident_bytes for memcg in there for holder in self._state.holders(memcg))

    def _shrink_subtree(self, scan: _Scan, priority: int) -> None:
        """shrink_node_memcgs()"""
        for memcg in self._in_turn(scan.target):
            try:
                self._shrink_memcg(scan, memcg, priority)
            except (OSError, ValueError):
                # Removed while we were at it; an error of its own is its to raise.
                if memcg.online:
                    raise
            self._cursors.set(scan.target, memcg)
            if scan.over:
                return

    def _in_turn(self, target: MemCgroup) -> Iterator[MemCgroup]:
        """Yield those of the subtree who have something, once round, from behind the one that was served last."""
        there = self._state.with_something(target, RESIDENT | LRU if self._state.shrinker_enabled else RESIDENT)
        first = self._cursors.behind(target, there)
        yield from there[first:]
        yield from there[:first]

    def _shrink_memcg(self, scan: _Scan, memcg: MemCgroup, priority: int) -> None:
        minimum, low = memcg.effective_protection(scan.target)
        usage = memcg.usage()
        if minimum and usage <= minimum:
            return
        if low and usage <= low:
            if not scan.low_reclaim:
                scan.low_skipped = True
                return
            memcg.count_event("low")
        protection = minimum
        if low > minimum and not scan.low_reclaim:
            scan.low_skipped = True
            protection = low
        if scan.anonymous:
            for owner in self._state.holders(memcg):
                resident = owner.resident_bytes
                unprotected = resident - resident * protection // (max(usage, protection) + 1)
                self._shrink_owner(scan, memcg, owner, unprotected >> priority)
                if scan.over:
                    return
        self._shrinker.shrink(memcg, priority)

    def _shrink_owner(self, scan: _Scan, memcg: MemCgroup, owner: Member, quota: int) -> None:
        quota = min(max(quota, SWAP_CLUSTER_MAX * PAGE_SIZE), owner.resident_bytes)
        while quota > 0 and not scan.over:
            with self._state.heap:
                done = owner.reclaim(min(quota, scan.want - scan.freed, SHRINK_BYTES))
            if done.scanned_pages:
                memcg.count_event(f"pgscan_{scan.kind}", done.scanned_pages)
            if done.freed_bytes <= 0:
                return
            memcg.count_event(f"pgsteal_{scan.kind}", -(-done.freed_bytes // PAGE_SIZE))
            scan.freed += done.freed_bytes
            quota -= done.freed_bytes
