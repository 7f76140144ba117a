"""The values of one worker: resident, in the pool, on the disk, and how they go from one to the next.

A :class:`~uzswap.store.store.Store` has them, in an engine of the worker's own whose swap file has no name.  Here is
what Dask knows better: which go first (strictly those not used for longest, and what a running task still holds last),
and when: by the worker's memory limit, and by the memory of its process.

As the kernel has kswapd and direct reclaim, a thread makes room as soon as there is too much, and whoever sets a value
helps when that does not keep up: so producers slow down, and memory does not run away.

Invariants, between two calls:

* ``weights`` has the keys of the store;
* a value whose key is in ``_order`` is resident, or was until a moment ago; one that is not there is going out, or out.

Threads: any.  ``_lock`` guards the maps and is held neither across a call of the store nor while a value is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final

from distributed.metrics import context_meter
from distributed.utils import RateLimiterFilter

from uzswap import ReclaimError, Store, Zswap
from uzswap.dask.held import Held
from uzswap.dask.limits import Limits, Pressure
from uzswap.engine.worker import Worker

__all__ = ["FAILED", "NOTHING", "Tiers"]

#: Below Dask's own, so that its configuration shows it, and ``client.get_worker_logs()``.
log = logging.getLogger("distributed.worker.memory.uzswap")
log.addFilter(RateLimiterFilter("no room for more"))

#: what :meth:`Tiers.push_out` says when nothing went
NOTHING: Final = 0
FAILED: Final = -1

#: At the cold end, so many are looked at for one that no task holds.
_LOOKED_AT: Final = 64
#: Compressed bytes that are written back at once where the pool has to shrink: eight segments of the swap file.
_WRITTEN_AT_ONCE: Final = 8 << 20
#: The least that a swap file can have.
_SMALLEST_DISK: Final = 4 << 20
#: What keeps more than so much of its size, and a page, in the pool frees too little: as much is written back.
_BAD: Final = 0.75
_PAGE: Final = 4096


def _references(held: Held) -> int:
    return sys.getrefcount(held.value)


#: What nobody else holds has so many references while they are counted.
_ALONE: Final = _references(Held(None, object(), 1))


class Tiers:
    """The values of a worker by their keys.

    Parameters
    ----------
    directory
        Where the swap file is.
    limits
        As far as they are known yet.
    compressor
        "lz4", "zstd", or with a level.
    disk
        Most compressed bytes on the disk; None is what is free there.
    count
        Is told ``(label, number, unit)`` of what is done, in whichever thread does it.
    """

    def __init__(
        self,
        directory: str,
        limits: Limits,
        compressor: str,
        disk: int | None,
        count: Callable[[Hashable, float, str], None],
    ) -> None:
        os.makedirs(directory, exist_ok=True)
        status = os.statvfs(directory)
        size = max(_SMALLEST_DISK, status.f_bavail * status.f_frsize if disk is None else disk)
        path = os.path.join(directory, f"uzswap-{os.getpid()}-{id(self):x}")
        # What bounds the pool is the share of the worker's memory limit.
        # A file that has lost its name is no more encrypted than one that never had one.
        self.zswap: Final = Zswap(swap=path, swap_size=size, max_pool="90%", compressor=compressor, encrypt=False)
        os.unlink(path)  # whatever ends the process, nothing is left
        self.cgroup: Final = self.zswap.cgroup("/dask")
        # Dask's serialization makes a copy, whatever a task still holds of the value; and no task may change it.
        self.store: Final[Store[Hashable, Held]] = Store(
            self.cgroup, shared="copy", sizeof=lambda held: held.weight, immutable=True
        )
        self.pressure: Final = Pressure(limits, self.cgroup.usage)
        self._limit_pool(limits)
        #: bytes of each value, as Dask's sizeof has it
        self.weights: Final[dict[Hashable, int]] = {}
        self.total = 0
        self._count = count
        self._closing = False
        self._lock = threading.Lock()
        #: the resident ones, least recently used first
        self._order: dict[Hashable, weakref.ref[Held]] = {}
        #: what went out and somebody may hold still
        self._alive: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()
        #: keys of what can't be serialized
        self._stuck: set[Hashable] = set()
        #: when each went out, and when each was used last: time.monotonic()
        self._left: dict[Hashable, float] = {}
        self._used: dict[Hashable, float] = {}
        self._thread = Worker("uzswap-dask", self._make_room_behind)

    def watch(self, limits: Limits, process: Callable[[], int]) -> None:
        """Have the limits of the worker that it is for, and look at the memory of its process."""
        self.pressure.watch(limits, process)
        self._limit_pool(limits)

    def _limit_pool(self, limits: Limits) -> None:
        if limits.pool is not None:
            self.cgroup.write("memory.zswap.max", limits.pool)

    def close(self) -> None:
        """Drop everything.  Calling it again does nothing."""
        self._closing = True
        self._thread.close()
        self.zswap.close()

    # Values

    def set(self, key: Hashable, value: object, weight: int) -> None:
        """Set a value, and make room.

        Raises
        ------
        TypeError
            It alone is more than the target, and can't be serialized.  Its key is gone.
        MemoryError
            ``memory.max`` was set on the engine's cgroup, and can't be met.  Nothing changed.
        """
        self._keep(key, value, weight)
        target = self.pressure.limits.target
        if target is not None and weight > target:
            # It would push everything else out, and go then.
            failure = self._push(key)
            if failure is not None:
                self.delete(key)
                raise TypeError(f"Failed to pickle {key!r}") from failure
        else:
            self.make_room(key)

    def _keep(self, key: Hashable, value: object, weight: int, *, same: bool = False) -> None:
        """Make a value resident, the most recently used; it may be the same that went out."""
        held = Held(key, value, weight)
        if same:
            self.store.put_back(key, held)
        else:
            self.store[key] = held
        with self._lock:
            self.total += weight - self.weights.get(key, 0)
            self.weights[key] = weight
            self._order.pop(key, None)
            self._order[key] = self._refer(held)
            self._left.pop(key, None)
            self._used[key] = time.monotonic()
            self._stuck.discard(key)
        with contextlib.suppress(TypeError):  # of a type that takes no weak references
            self._alive[key] = value
            return
        self._alive.pop(key, None)

    def _refer(self, held: Held) -> weakref.ref[Held]:
        """Return what tells whether a value is resident, and notes when it goes, whoever has it go."""
        key = held.key

        def gone(_: object) -> None:  # no lock: it is called wherever the last reference is dropped
            if key in self.weights:
                self._left.setdefault(key, time.monotonic())

        return weakref.ref(held, gone)

    def get(self, key: Hashable) -> object:
        """Return a value; KeyError without the key."""
        with self._lock:
            reference = self._order.pop(key, None)
            if reference is not None:
                self._order[key] = reference
            weight = self.weights[key]
            self._used[key] = time.monotonic()
        held = None if reference is None else reference()
        if held is not None:
            context_meter.digest_metric("memory-read", 1, "count")
            context_meter.digest_metric("memory-read", weight, "bytes")
            if self.store[key] is not held:  # it went out just now: the copy is dropped again
                self._keep(key, held.value, weight, same=True)
            return held.value
        live = self._alive.get(key)
        target = self.pressure.limits.target
        if live is not None:
            if target is None or weight <= target:
                self._keep(key, live, weight, same=True)
                self.make_room(key)
            return live
        value = self._load(key)
        if target is not None and weight > target:
            self._push(key)
        else:
            self.make_room(key)
        return value

    def _load(self, key: Hashable) -> object:
        info = self.store.info(key)
        tier = "disk-read" if "disk" in info.place else "zswap-read"
        with context_meter.meter(tier):
            held = self.store[key]
        if info.place != "resident":
            context_meter.digest_metric(tier, 1, "count")
            context_meter.digest_metric(tier, info.stored_bytes, "bytes")
        value = held.value
        with self._lock:
            if key in self.weights:
                self._order.pop(key, None)
                self._order[key] = self._refer(held)
                self._left.pop(key, None)
        with contextlib.suppress(TypeError):
            self._alive[key] = value
        return value

    def delete(self, key: Hashable) -> None:
        """Delete a value without loading it; KeyError without the key."""
        with self._lock:
            self.total -= self.weights.pop(key)
            self._order.pop(key, None)
            self._left.pop(key, None)
            self._used.pop(key, None)
            self._stuck.discard(key)
        self._alive.pop(key, None)
        self.store.discard(key)

    def resident(self) -> Iterator[tuple[Hashable, Held]]:
        """Iterate over what is resident, the least recently used first; counts as no access."""
        with self._lock:
            order = list(self._order.items())
        for key, reference in order:
            held = reference()
            if held is not None:
                yield key, held

    def is_resident(self, key: Hashable) -> bool:
        with self._lock:
            reference = self._order.get(key)
        return reference is not None and reference() is not None

    def can_go(self) -> bool:
        """Whether there is anything in memory: resident, or in the pool."""
        return self.cgroup.usage() > 0

    # Going out

    def make_room(self, newest: Hashable) -> None:
        """Make room after a value came: here and now for what is above the headroom, for the rest behind us."""
        while (excess := self.pressure.excess()) > 0:
            if excess <= self.pressure.limits.headroom:
                self._thread.wake()
                return
            if self.push_out(newest) <= 0 and not (self.pressure.process_excess() and self.write_back() > 0):
                return

    def _make_room_behind(self) -> None:
        """Make room, in a thread of our own."""
        while not self._closing and self.pressure.excess() > 0:
            if self.push_out() <= 0 and not (self.pressure.process_excess() and self.write_back() > 0):
                return

    def settle(self) -> None:
        """Wait until no room is being made behind us."""
        self._thread.flush()

    def push_out(self, newest: Hashable = None) -> int:
        """Have the value go that was not used for longest.

        Parameters
        ----------
        newest
            A key that is left alone: it has just come.

        Returns
        -------
        int
            What it weighed; :data:`NOTHING` when there was none, :data:`FAILED` when it had to stay.  That is logged.
        """
        while (chosen := self._choose(newest)) is not None:
            key, reference = chosen
            weight = self.weights.get(key, 0)
            failure = self._push(key, reference, instead=True)
            if failure is not None:
                log.error("Failed to pickle %r; it stays in memory", key, exc_info=failure)
                return FAILED
            with self._lock:
                if key in self._left:
                    return weight
                if key not in self.weights or key in self._order:
                    continue  # it was deleted, or used, meanwhile
            # The engine has refused it.
            self._put_back(key)
            log.warning("Spill file on disk reached capacity, and the pool has no room for more; %s", _STAYS)
            return FAILED
        return NOTHING

    def _choose(self, newest: Hashable) -> tuple[Hashable, weakref.ref[Held]] | None:
        """Take the next one off the order."""
        chosen: Hashable = None
        gone = []
        looked: list[Held] = []  # so that none is dropped with the lock
        with self._lock:
            for key, reference in self._order.items():
                if key == newest or key in self._stuck:
                    continue
                held = reference()
                if held is None:  # reclaim of the engine's own took it
                    gone.append(key)
                    continue
                looked.append(held)
                if chosen is None:
                    chosen = key
                # What somebody holds frees nothing yet.
                if _references(held) <= _ALONE:
                    chosen = key
                    break
                if len(looked) == _LOOKED_AT:
                    break
            for key in gone:
                del self._order[key]
            return None if chosen is None else (chosen, self._order.pop(chosen))

    def _push(
        self, key: Hashable, reference: weakref.ref[Held] | None = None, *, instead: bool = False
    ) -> Exception | None:
        """Have one value go; return what serializing it raised, if that did.

        Parameters
        ----------
        reference
            Of a key that has been taken off the order.
        instead
            Whether as much is to leave the pool when it compresses badly: else next to nothing would be freed.
        """
        with self._lock:
            reference = self._order.pop(key, reference)
        held = None if reference is None else reference()
        with self._counted(), self.zswap.heap:
            try:
                with context_meter.meter("disk-write" if self.pressure.limits.pool == 0 else "zswap-write"):
                    freed = self.store.evict(key)
                if not freed:
                    return self._failure(key)
                info = self.store.info(key)
            except KeyError:
                return None
            tier = "disk-write" if "disk" in info.place else "zswap-write"
            if held is None or held.serialized:  # else its bytes were there still
                context_meter.digest_metric(tier, 1, "count")
                context_meter.digest_metric(tier, info.stored_bytes, "bytes")
            del held
        self._note_gone(key)
        if instead and tier == "zswap-write" and info.stored_bytes > _BAD * info.weight and info.stored_bytes >= _PAGE:
            self.write_back(info.stored_bytes)
        return None

    def _failure(self, key: Hashable) -> Exception | None:
        if self.store.where(key) != "resident":  # reclaim of the engine's own took it
            self._note_gone(key)
            return None
        failure = self.store[key].failure
        if failure is not None:
            self._put_back(key)
            with self._lock:
                self._stuck.add(key)
        return failure

    def _note_gone(self, key: Hashable) -> None:
        with self._lock:
            if key in self.weights and key not in self._order:
                self._left.setdefault(key, time.monotonic())

    def _put_back(self, key: Hashable) -> None:
        """At the hot end, as the kernel does with what can't go."""
        try:
            reference = self._refer(self.store[key])
        except KeyError:
            return
        with self._lock:
            if key in self.weights:
                self._order.setdefault(key, reference)

    def write_back(self, nbytes: int = _WRITTEN_AT_ONCE) -> int:
        """Write the coldest of the pool to the disk; return compressed bytes, :data:`FAILED` when none could be."""
        with self._counted(), context_meter.meter("disk-write"):
            try:
                written = self.cgroup.reclaim(nbytes, source="zswap").written
            except ReclaimError as error:
                written = error.result.written
                if not written and error.result.failed:
                    log.warning("writing back failed, there is no room for more (%s); %s", error.strerror, _STAYS)
            if written:
                context_meter.digest_metric("disk-write", written, "bytes")
        return written or FAILED

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with context_meter.add_callback(self._count, key=self):
            yield

    # Telling

    def check(self) -> None:
        """Verify every invariant, in quiet moments.  AssertionError with what is off."""
        self.zswap.check()
        self.store.check()
        resident = dict(self.resident())
        found = {key: self.store.where(key) == "resident" for key in self.store}
        assert set(found) == set(self.weights), set(found) ^ set(self.weights)
        assert {key for key, here in found.items() if here} == set(resident), (found, set(resident))
        assert self.total == sum(self.weights.values()), (self.total, self.weights)
        assert self.store.resident_bytes == sum(held.weight for held in resident.values())

    def ages(self, source: str | None) -> list[tuple[float, int]]:
        """Return (seconds since it went out, compressed bytes) of each value in the pool, or without a source, of each
        resident one (seconds since it was used, bytes).

        Looks at each of them.
        """
        now = time.monotonic()
        if source is None:
            return [(now - self._used.get(key, now), held.weight) for key, held in self.resident()]
        found = []
        for key in list(self.weights):
            if self.is_resident(key):
                continue
            try:
                info = self.store.info(key)
            except KeyError:
                continue
            if "zswap" in info.place:
                with self._lock:
                    left = self._left.setdefault(key, now)
                found.append((now - left, info.stored_bytes))
        return found

    def stats(self) -> dict[str, int]:
        """Return where the bytes are, and what came and went, in a form that Dask's heartbeat takes."""
        stat = self.cgroup.stats()
        device = self.zswap.core.device()
        return {
            "values": len(self.weights),
            "bytes": self.total,
            "resident": stat["anon"],
            "zswap": stat["zswap"],
            "zswapped": stat["zswapped"],
            "disk": stat["uzswap.disk"],
            # of it: of values that are in memory, too
            "cached": 0 if device is None else device.cached_bytes,
            "swapcached": stat["swapcached"],
            "evicted": stat["zswpout"] + stat["pswpout"] - stat["zswpwb"],
            "written": stat["pswpout"],
            "zswpin": stat["zswpin"],
            "pswpin": stat["pswpin"],
        }


_STAYS: Final = "what can't go stays in memory"
