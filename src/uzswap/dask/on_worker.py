"""What runs on a worker for the cluster: small functions, by ``client.run`` and ``scheduler.broadcast``.

What takes long runs in a thread, not in the worker's event loop.  Errors come back as values, with errno and words, and
not as what the client's Dask would make of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from uzswap import ReclaimError
from uzswap.cgroup.reclaim import ReclaimRequest, parse
from uzswap.dask.memory import WorkerMemory
from uzswap.dask.plan import by_age
from uzswap.serve.virtual_tree import ControlTree, Directory, File

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["Answer", "ages", "configure", "interrupt", "listing", "read", "reclaim", "stat", "write"]

#: ("ok", what came of it), or ("error", errno, words, ReclaimResult or None); None is a worker with another memory
Answer = tuple[Any, ...] | None

#: where the values are in a worker's engine
CGROUP: Final = "/cgroup/dask"

#: writes under way that can be interrupted, by their token
_under_way: Final[dict[str, threading.Event]] = {}
#: of those that were interrupted when they were over, or before they began
_REMEMBERED: Final = 64


async def _answer(worker: Worker, act: Callable[[WorkerMemory], Any]) -> Answer:
    memory = worker.data
    if not isinstance(memory, WorkerMemory):
        return None
    try:
        return "ok", await asyncio.to_thread(act, memory)
    except OSError as error:
        words = error.strerror or str(error)
        return "error", error.errno or errno.EIO, words, error.result if isinstance(error, ReclaimError) else None


async def stat(dask_worker: Worker) -> Answer:
    """Bytes by tier, what the process has, and what limits it."""

    def act(memory: WorkerMemory) -> dict[str, Any]:
        return {
            **memory.stats(),
            "rss": dask_worker.monitor.get_process_memory(),
            "limit": dask_worker.memory_manager.memory_limit or 0,
            "status": dask_worker.status.name,
        }

    return await _answer(dask_worker, act)


async def ages(source: str | None, min_age: int, dask_worker: Worker) -> Answer:
    """Bytes by class of age: compressed ones in the pool, or resident ones by when they were used last."""

    def act(memory: WorkerMemory) -> dict[int, int]:
        return by_age((seconds, nbytes) for seconds, nbytes in memory.ages(source) if seconds >= min_age)

    return await _answer(dask_worker, act)


async def reclaim(
    shares: dict[str, int], request: ReclaimRequest, within: float | None, token: str, dask_worker: Worker
) -> Answer:
    """Reclaim this worker's share of a request; nothing when it has none.  It is interrupted as a write is."""
    share = shares.get(dask_worker.address, 0)
    if not share:
        return None
    with _interruptible(within, token) as is_over:
        return await _answer(
            dask_worker, lambda memory: memory.cgroup.reclaim_request(replace(request, nbytes=share), cancel=is_over)
        )


async def configure(files: dict[str, str], dask_worker: Worker) -> Answer:
    """Write control files of the cgroup that has the values."""

    def act(memory: WorkerMemory) -> None:
        for name, text in files.items():
            memory.cgroup.write(name, text)

    return await _answer(dask_worker, act)


# The tree, for clients of control files


async def read(path: str, dask_worker: Worker) -> Answer:
    """Read a file of the engine's tree."""

    def act(memory: WorkerMemory) -> str:
        node = ControlTree(memory.zswap).lookup(path)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        node.check_access(reading=True, writing=False)
        return node.read()

    return await _answer(dask_worker, act)


async def write(path: str, data: bytes, within: float | None, token: str, dask_worker: Worker) -> Answer:
    """Write to a file of the engine's tree; a reclaim can be interrupted by its token, and ends after ``within`` s."""

    def act(memory: WorkerMemory) -> int:
        node = ControlTree(memory.zswap).lookup(path)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        node.check_access(reading=False, writing=True)
        if node.type.name == "memory.reclaim":
            node.owner.reclaim_request(parse(data.decode()), cancel=is_over)
            return len(data)
        return node.write(data)

    with _interruptible(within, token) as is_over:
        return await _answer(dask_worker, act)


@contextlib.contextmanager
def _interruptible(within: float | None, token: str) -> Iterator[Callable[[], bool]]:
    """Yield what tells whether a request is over, by its token or its time."""
    over = _under_way.setdefault(token, threading.Event())
    until = None if within is None else time.monotonic() + within
    try:
        yield lambda: over.is_set() or (until is not None and time.monotonic() >= until)
    finally:
        _under_way.pop(token, None)


async def interrupt(token: str, dask_worker: Worker) -> None:
    """End a write with EINTR, also one that comes only now."""
    _under_way.setdefault(token, threading.Event()).set()
    for one in list(_under_way)[:-_REMEMBERED]:  # it was over before
        if _under_way[one].is_set():
            del _under_way[one]


async def listing(path: str, dask_worker: Worker) -> Answer:
    """Names, whether they are directories, modes and inodes of what is in a directory; and its own inode, first."""

    def act(memory: WorkerMemory) -> tuple[int, list[tuple[str, bool, int, int]]]:
        node = ControlTree(memory.zswap).lookup(path)
        if not isinstance(node, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return node.inode, [(name, isinstance(one, Directory), one.mode, one.inode) for name, one in node.nodes()]

    return await _answer(dask_worker, act)
