"""A cache for asyncio: nothing blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterable, MutableMapping
from concurrent.futures import Executor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Final, Generic, ParamSpec, SupportsIndex, TypeVar, overload

from uzswap.caches.layer import NOTHING, at_hand, get_many
from uzswap.cgroup.memcg import MemCgroup
from uzswap.result import ReclaimResult

__all__ = ["Async"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")


class _Computation:
    """A value that is being computed by a task of its own."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.waiters = 0
        self.superseded = False
        #: the computations that this one waits for, as often as it does
        self.needs: list[_Computation] = []

    def waits_for(self, other: _Computation) -> bool:
        reached, seen = [self], {self}
        while reached:
            one = reached.pop()
            if one is other:
                return True
            fresh = set(one.needs) - seen
            seen |= fresh
            reached += fresh
        return False


#: the computation that the current task is part of
_current: Final[ContextVar[_Computation | None]] = ContextVar("uzswap.caches.computation", default=None)


class Async(Generic[K, V]):
    """The awaitable face of a cache, or of a store.

    What is resident, or small and in the pool, is answered at once; all that may take longer, reading from the disk,
    setting, which may have to reclaim, and ``dump=`` and ``load=`` of the user's, is done in a thread.

    Parameters
    ----------
    mapping
        A store or a cache; threads may use it meanwhile.
    executor
        Where what may block is done; None: the event loop's own threads.

    Attributes
    ----------
    hits, misses
        How often :meth:`aget_or_compute` found a value, or had one from another task; and how often it computed.

    Notes
    -----
    It may be used from several event loops.  A task that is cancelled while a thread does something for it does not
    wait for that, and it is done all the same; but for reclaim, which then ends between two batches.

    A value that goes out between the look where it is and the read is loaded in the event loop: some microseconds, or a
    read of the disk.

    Examples
    --------
    >>> import asyncio, uzswap
    >>> async def main(store):
    ...     pages = Async(store)
    ...     async def fetch():
    ...         await asyncio.sleep(0)
    ...         return "text of a page " * 1000
    ...     texts = await asyncio.gather(*(pages.aget_or_compute("/index", fetch) for _ in range(3)))
    ...     same = texts[0] is texts[1] is texts[2]
    ...     del texts  # what is held elsewhere stays resident
    ...     result = await pages.areclaim("4K")
    ...     return same, pages.misses, store.where("/index"), len(await pages.aget("/index"))
    >>> with uzswap.Zswap(swap="auto") as z, uzswap.Store(z.cgroup("/web")) as store:
    ...     asyncio.run(main(store))
    (True, 1, 'zswap', 15000)
    """

    def __init__(self, mapping: MutableMapping[K, V], executor: Executor | None = None) -> None:
        self.mapping = mapping
        self.hits = self.misses = 0
        self._executor = executor
        #: by event loop and key
        self._running: dict[tuple[asyncio.AbstractEventLoop, K], _Computation] = {}

    async def _in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        # Taken out by the thread: what is set would be held by the executor for a moment longer, and could not go.
        work = [partial(copy_context().run, function, *args, **kwargs)]
        del args, kwargs
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work.pop()())

    @overload
    async def aget(self, key: K) -> V | None: ...
    @overload
    async def aget(self, key: K, default: D) -> V | D: ...
    async def aget(self, key: K, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` without one; what loading it raises is raised."""
        if at_hand(self.mapping, key):
            return self.mapping.get(key, default)
        return await self._in_thread(self.mapping.get, key, default)

    async def aget_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those keys that have one."""
        return await self._in_thread(get_many, self.mapping, list(keys))

    async def aset(self, key: K, value: V) -> None:
        """Set a value.  Raises as setting it in the mapping does: MemoryError where a limit can't be met."""
        self._supersede(key)
        await self._in_thread(self.mapping.__setitem__, key, value)

    async def adelete(self, key: K) -> bool:
        """Delete ``key`` if it is there, without loading its value; return whether it was."""

        def delete() -> bool:
            try:
                del self.mapping[key]
            except KeyError:
                return False
            return True

        self._supersede(key)
        return await self._in_thread(delete)

    async def areclaim(self, size: str | SupportsIndex, *, source: str | None = None) -> ReclaimResult:
        """Reclaim memory of the cgroup, as :meth:`uzswap.MemCgroup.reclaim`; cancelled, it ends between two batches.

        Raises
        ------
        OSError
            As :meth:`uzswap.MemCgroup.reclaim`, :class:`uzswap.ReclaimIncomplete` when less was done than asked.
        TypeError
            There is no store at the bottom.
        """
        group = getattr(self.mapping, "cgroup", None)
        if not isinstance(group, MemCgroup):
            raise TypeError(f"there is no uzswap.Store below, but {type(self.mapping).__name__}")
        cancelled = False
        try:
            return await self._in_thread(group.reclaim, size, source=source, cancel=lambda: cancelled)
        except asyncio.CancelledError:
            cancelled = True
            raise

    async def aget_or_compute(self, key: K, compute: Callable[[], Awaitable[V]]) -> V:
        """Return the value of ``key``; without one, what ``await compute()`` gives, which becomes its value.

        Among the tasks of an event loop that ask for a missing key at the same time one computation is made, in a task
        of its own, and all get its result, the very object.  A task that is cancelled leaves it to the others; with the
        last of them it is cancelled, too.  What is set or deleted here in the meantime wins: the result is returned,
        but not kept.  Nor is it kept when there is no room for it (MemoryError of the mapping).

        Raises
        ------
        Exception
            What ``compute()`` raises, to all tasks that wait for it.  It is not kept: who asks later computes again.
        RuntimeError
            ``compute()`` needs the value of the same key, itself or by way of others that it waits for.
        """
        value = await self.aget(key, NOTHING)
        if value is not NOTHING:
            self.hits += 1
            return value
        where = (asyncio.get_running_loop(), key)
        one = self._running.get(where)
        if one is None:
            one = self._running[where] = _Computation()
            one.task = asyncio.create_task(self._compute(where, one, compute))
        else:
            self.hits += 1
        mine = _current.get()
        if mine is not None and one.waits_for(mine):
            raise RuntimeError(f"the value of {key!r} needs itself to be computed")
        task = one.task
        assert task is not None
        one.waiters += 1
        if mine is not None:
            mine.needs.append(one)
        try:
            # Not shield(): a circle of its futures holds the value until garbage is collected, so that it could not go.
            await asyncio.wait([task])
            return task.result()  # type: ignore[no-any-return]
        finally:
            one.waiters -= 1
            if mine is not None:
                mine.needs.remove(one)
            if not one.waiters and not task.done():
                self._forget(where, one)
                task.cancel()

    async def _compute(
        self, where: tuple[asyncio.AbstractEventLoop, K], one: _Computation, compute: Callable[[], Awaitable[V]]
    ) -> V:
        _current.set(one)  # in the context of this task
        try:
            self.misses += 1
            value = await compute()
            if not one.superseded:
                with contextlib.suppress(MemoryError):
                    await self._in_thread(self.mapping.__setitem__, where[1], value)
            return value
        finally:
            self._forget(where, one)

    def _forget(self, where: tuple[asyncio.AbstractEventLoop, K], one: _Computation) -> None:
        # The task's context has it, and the task has the value, which would be held until garbage is collected.
        one.task = None
        if self._running.get(where) is one:
            del self._running[where]

    def _supersede(self, key: K) -> None:
        for (_, other), one in list(self._running.items()):
            if other == key:
                one.superseded = True

    def clear(self) -> None:
        """Delete every key; what is being computed is not kept."""
        for one in list(self._running.values()):
            one.superseded = True
        self.mapping.clear()
