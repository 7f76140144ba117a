"""Pages in and out: what the data plane leaves to policy, and its answers as exceptions.

This module is compiled, so that no signal handler runs between two of its steps (setup.py, ``UNTORN``): an exception of
one leaves no entry that nobody knows of, and takes none whose bytes did not arrive.  Long calls work in batches and let
handlers run in between.

A page that zswap and the device both refuse stays with the caller.  For many pages that is a handle of 0
(:data:`REFUSED`) in the array; for a single one it is an OSError.
"""

from __future__ import annotations

import contextlib
import errno
import operator
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import numpy as np

from uzswap.cgroup.memcg import require_cgroup
from uzswap.core.boundary.engine import (
    COUNTERS,
    DISK,
    DONE,
    MAX_ENTRY,
    OVER_LIMIT,
    OVER_SWAP,
    POOL_FULL,
    REFUSE,
    SKIP_LIMIT,
    ZSWAP,
)
from uzswap.errors import IntegrityError, InvalidArgumentError, StaleHandleError, os_error
from uzswap.reclaim.walks import Room
from uzswap.signals import hold_back_signals, let_handlers_run
from uzswap.units import NO_LIMIT

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.engine import EntryInfo, Handles, StoreResult
    from uzswap.core.boundary.values import Batch
    from uzswap.reclaim.state import ReclaimState
    from uzswap.reclaim.walks import Walk

    #: what has its memory in one piece; arrays are Buffers to a type checker from Python 3.12 on only
    AnyBuffer: TypeAlias = Buffer | NDArray[Any]
    #: stores pages from `start` on, of those up to `end`: (start, end, pages of one decision, flags)
    Put: TypeAlias = Callable[[int, int, int, int], StoreResult]

__all__ = ["Paging", "Place"]

Place = Literal["zero", "zswap", "disk"]

#: Pages refused in one go once nothing can make room for them: their writes to the device become large ones, and a
#: limit that is raised meanwhile is still noticed soon.
NR_REFUSED_AT_ONCE: Final = 512

_SWAP: Final = COUNTERS.index("swap")
#: of a folio: more than any buffer has
_MOST_PAGES: Final = 1 << 52
#: Between two looks for signals: some 5 ms of loads from the pool, 15 of stores (2 cores, 2026-11).
_BATCH_BYTES: Final = 8 << 20


class Paging:
    """Swap-out and fault-in of one engine; any thread."""

    def __init__(
        self, state: ReclaimState, walk: Callable[[], Walk], wake_shrink_worker: Callable[[], object], engine: object
    ) -> None:
        self._state = state
        self._core = state.core
        self._walk = walk
        self._wake_shrink_worker = wake_shrink_worker
        self._engine = engine
        #: what calls are storing or freeing, which nobody but their thread knows of: by id, (thread, handles)
        self._held: dict[int, tuple[int, Handles | Batch]] = {}

    def forked(self) -> None:
        """In a forked child: free what threads that are not here were storing or freeing."""
        self._core.forked()
        me = get_ident()
        for key, (thread, held) in list(self._held.items()):
            if thread == me:
                continue
            del self._held[key]
            if not isinstance(held, np.ndarray):
                held.free(self._core)
                continue
            with contextlib.suppress(StaleHandleError):  # it had done so
                self.free_many(held)

    # Out

    def swap_out(self, data: AnyBuffer, memcg: MemCgroup, node: int, replace: int | None) -> int:
        page = _bytes_of(data)
        if not 1 <= len(page) <= MAX_ENTRY:
            raise InvalidArgumentError(f"an entry has 1 to {MAX_ENTRY} bytes, this has {len(page)}: split it")
        handles: Handles = np.zeros(1, np.uint64)
        self._check(memcg, node)
        if replace is not None:
            self.free(replace)
        number = self._store_all(page, len(page), memcg, node, handles, 1)
        handle = int(handles[0])
        if not handle:
            raise os_error(
                number, _WHY_REFUSED.get(number, "the swap device failed, and zswap refused the data"), memcg.path
            )
        return handle

    def swap_out_many(
        self,
        data: AnyBuffer,
        memcg: MemCgroup,
        node: int,
        page: int,
        folio: int,
        codec: int = -1,
        filter: int = 0,
        flags: int = 0,
    ) -> Handles:
        """``codec``, ``filter`` and ``flags`` are those of :meth:`Engine.store`; the latter for all of the call."""
        buffer = _bytes_of(data)
        page, folio = operator.index(page), min(operator.index(folio), _MOST_PAGES)
        if not 1 <= page <= MAX_ENTRY:
            raise InvalidArgumentError(f"page={page}: an entry has 1 to {MAX_ENTRY} bytes")
        if folio < 1:
            raise InvalidArgumentError(f"folio={folio}: a folio has at least one page")
        self._check(memcg, node)
        handles: Handles = np.zeros(-(-len(buffer) // page), np.uint64)
        self._store_all(buffer, page, memcg, node, handles, folio, codec, filter, flags)
        return handles

    def _check(self, memcg: MemCgroup, node: int) -> None:
        if not require_cgroup(memcg, self._engine).online:
            memcg.require_online()
        if not 0 <= operator.index(node) < self._state.nodes:
            raise InvalidArgumentError(f"node={node}: this engine has nodes 0 to {self._state.nodes - 1}")

    def _store_all(
        self,
        data: NDArray[np.uint8],
        page: int,
        memcg: MemCgroup,
        node: int,
        handles: Handles,
        folio: int,
        codec: int = -1,
        filter: int = 0,
        always: int = 0,
    ) -> int:
        """SPEC 2.2 for every page.  Returns the errno for those that stay with the caller (their handles stay 0)."""
        batch = max(_BATCH_BYTES // page // folio, 1) * folio

        def put(start: int, end: int, step: int, flags: int) -> StoreResult:
            part = data[: end * page]
            return self._core.store(
                part.data, page, memcg.index, node, handles, start, step, flags | always, codec, filter
            )

        self._held[id(handles)] = get_ident(), handles
        try:
            return self._store(put, len(handles), batch, memcg, folio, lambda: int(np.count_nonzero(handles == 0)))
        except BaseException:
            # Nobody will ever know these handles.
            self.free_many(handles)
            raise
        finally:
            del self._held[id(handles)]

    def swap_out_batch(self, batch: Batch, memcg: MemCgroup) -> None:
        core = self._core
        if not memcg.online:
            memcg.require_online()

        def put(start: int, end: int, step: int, flags: int) -> StoreResult:
            return batch.store(core, memcg.index, start, flags)

        self._held[id(batch)] = get_ident(), batch
        try:
            self._store(put, len(batch), len(batch), memcg, 1, batch.refused)
        except BaseException:
            batch.free(core)
            raise
        finally:
            del self._held[id(batch)]

    def _store(self, put: Put, n: int, batch: int, memcg: MemCgroup, folio: int, refused: Callable[[], int]) -> int:
        """Store n pages, with a look for signals after each `batch`; returns as :meth:`_store_all`."""
        start, end = 0, 0 if n > batch else n
        step, flags = folio, 0
        number, over_swap = errno.ENOMEM, 0
        while start < n:
            if start >= end:
                let_handlers_run()
                end = min(start + batch, n)
            try:
                done = put(start, end, step, flags)
            except ValueError:
                memcg.require_online()  # removed between two batches
                raise
            was_at, start, was, step, flags = start, done.next, step, folio, 0
            if done.errno:
                number = done.errno
                if done.next == was_at and done.reason == DONE:
                    # Nothing could be begun: no memory to work with, or the cgroup was just removed.
                    memcg.require_online()
                    break
            if done.reason == OVER_LIMIT:
                step, flags = self._over_limit(memcg, folio)
            elif done.reason == POOL_FULL:
                self._wake_shrink_worker()
            elif done.reason == OVER_SWAP and was > folio:
                flags = REFUSE  # all of them at once are too many; one folio may fit
            elif done.reason == OVER_SWAP:
                # What was too much for this folio is too much for those behind it.
                over_swap = -(-(n - start) // folio)
                memcg.count_event("swap.max", over_swap)
                memcg.count_event("swap.fail", over_swap)
                break
        if number == errno.ENOSPC:
            memcg.count_event("swap.fail", refused() - over_swap)
        self._count_swap_high(memcg)
        return number

    def _over_limit(self, memcg: MemCgroup, folio: int) -> tuple[int, int]:
        """S2: over memory.zswap.max.  Return how the store goes on: (pages that one decision is about, flags)."""
        with hold_back_signals(), memcg.removal_told():
            room = self._walk().shrink_for_store(self._state, memcg)
        if room is Room.ADMIT:
            return folio, SKIP_LIMIT
        if room is Room.TEST_AGAIN:
            return folio, 0
        if room is Room.REFUSE:
            return folio, REFUSE
        return max(folio, NR_REFUSED_AT_ONCE // folio * folio), REFUSE

    def _count_swap_high(self, memcg: MemCgroup) -> None:
        for limited in memcg.ancestry():
            limit = limited.limits["memory.swap.high"]
            if limit == NO_LIMIT:
                continue
            try:
                used = self._core.counters(limited.index)[_SWAP]
            except ValueError:
                return  # removed meanwhile: what was stored is in its parent, and so is this one's limit gone
            if used > limit:
                limited.count_event("swap.high")

    # In

    def fault_in(self, handle: int) -> bytes:
        handles = _one(handle)
        info = self._core.info(handle)
        if info is None:
            raise _stale(handle)
        on_disk = info.state == DISK
        data, done = self._core.load_bytes(handles, info.size, info.size, not on_disk)
        if data is None:
            raise self._load_error(done.errno, handle, info)
        if on_disk:
            self._count_stall(info, done.disk_ns)
            # Last, when nothing can fail any more.
            self.free(handle)
        return data

    def fault_in_many(self, handles: ArrayLike, out: AnyBuffer | None, page: int, consume: bool) -> NDArray[np.uint8]:
        wanted = _handles(handles)
        if not 1 <= operator.index(page) <= MAX_ENTRY:
            raise InvalidArgumentError(f"page={page}: an entry has 1 to {MAX_ENTRY} bytes")
        if out is None:
            target = np.empty(len(wanted) * page, np.uint8)
        else:
            target = _bytes_of(out)
            if not target.flags.writeable:
                raise InvalidArgumentError("out is read-only: give a bytearray or a numpy array")
        if not len(wanted):
            return target
        first = self._core.info(int(wanted[0]))
        batch = max(_BATCH_BYTES // page, 1)
        disk_ns = 0
        for start in range(0, len(wanted), batch):
            if start:
                let_handlers_run()
            some, place = wanted[start : start + batch], target[start * page :]
            done = self._core.load(some, place.data, page, False)
            if done.failed >= 0:
                failed = start + done.failed
                handle = int(wanted[failed])
                raise self._load_error(done.errno, handle, self._core.info(handle), f", number {failed}", page)
            disk_ns += done.disk_ns
        if first is not None:
            self._count_stall(first, disk_ns)
        if consume:
            # Last, when all the bytes have arrived and nothing can fail any more.
            self.free_many(wanted)
        return target

    def _count_stall(self, info: EntryInfo, disk_ns: int) -> None:
        """Waiting for the device is a stall of the cgroup whose data it was, if it was not removed meanwhile."""
        if disk_ns and (memcg := self._state.tree.find_index(info.memcg)) is not None:
            # A finalizer that the garbage collector finds has bytecodes, and so handlers run, which may want any lock.
            with hold_back_signals():
                memcg.pressure.record(disk_ns)

    def load_error(self, number: int, handle: int) -> OSError:
        return self._load_error(number, handle, self._core.info(handle))

    def _load_error(self, number: int, handle: int, info: EntryInfo | None, which: str = "", page: int = 0) -> OSError:
        if info is None or number == errno.ESTALE:
            return _stale(handle, which)
        memcg = self._state.tree.find_index(info.memcg)
        path = "a removed cgroup" if memcg is None else memcg.path
        name = f"handle {handle:#x}{which}"
        if number in (errno.EBADMSG, errno.EILSEQ):
            what = "its checksum is wrong" if number == errno.EBADMSG else "it does not decompress"
            return IntegrityError(f"{path}: {name} is corrupt: {what}; free it and make the data anew", path)
        if number == errno.EINVAL:
            return InvalidArgumentError(f"{name} of {path} has {info.size} bytes: give a page and an out that hold it")
        return os_error(
            number, f"{name} could not be loaded: {_WHY_NOT_LOADED.get(number, 'the swap device failed')}", path
        )

    # Away

    def free(self, handle: int) -> None:
        _, number = self._free(_one(handle))
        if number:
            raise self._free_error(number, handle)

    def free_many(self, handles: ArrayLike) -> None:
        given = _handles(handles)
        given = given[given != 0]
        bad, number = self._free(given)
        if number:
            raise self._free_error(number, int(given[bad]))

    def _free(self, handles: Handles) -> tuple[int, int]:
        self._held[id(handles)] = get_ident(), handles
        try:
            return self._core.free(handles)
        finally:
            del self._held[id(handles)]

    def _free_error(self, number: int, handle: int) -> OSError:
        if number == errno.EBUSY:
            return os_error(number, f"handle {handle:#x} is being loaded by another thread: free it there")
        return _stale(handle)

    def where(self, handle: int) -> Place:
        _one(handle)
        info = self._core.info(handle)
        if info is None:
            raise _stale(handle)
        return _PLACES.get(info.state, "zero")


_PLACES: Final[dict[int, Place]] = {ZSWAP: "zswap", DISK: "disk"}

_WHY_REFUSED: Final = {
    errno.ENOMEM: "zswap refused the data, and it may not go to a swap device: memory.swap.max, "
    "memory.zswap.writeback=0, or no device",
    errno.ENOSPC: "zswap refused the data, and the swap device is full",
}
_WHY_NOT_LOADED: Final = {
    errno.EBUSY: "another thread is loading or freeing it, or it is given twice",
    errno.ENOMEM: "no memory for it",
}


def _bytes_of(data: AnyBuffer) -> NDArray[np.uint8]:
    """Return the memory of any C-contiguous buffer, as bytes."""
    try:
        return np.frombuffer(memoryview(cast("Buffer", data)), np.uint8)
    except (ValueError, BufferError) as error:
        raise InvalidArgumentError(f"the buffer cannot be used: {error}") from None


def _one(handle: int) -> Handles:
    handle = operator.index(handle)
    if not 0 < handle < 1 << 64:
        raise StaleHandleError(f"{handle} is no handle")
    return np.array([handle], np.uint64)


def _handles(handles: ArrayLike) -> Handles:
    try:
        return np.ascontiguousarray(handles, np.uint64)
    except (ValueError, OverflowError) as error:
        raise StaleHandleError(f"these are no handles: {error}") from None


def _stale(handle: int, which: str = "") -> StaleHandleError:
    if not handle:
        return StaleHandleError(f"handle 0{which}: the page was refused and stayed with its owner")
    return StaleHandleError(
        f"handle {handle:#x}{which} is not valid: it was loaded (which consumes it), freed, or made by another engine"
    )
