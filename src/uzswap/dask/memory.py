"""The memory of a Dask worker: a mapping with three tiers, as Dask's worker and its dashboards know it."""

from __future__ import annotations

import logging
import tempfile
import threading
import weakref
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import dask.config
from dask.utils import parse_bytes
from distributed.metrics import context_meter
from distributed.sizeof import safe_sizeof
from distributed.spill import SpilledSize

from uzswap.dask.config import setting
from uzswap.dask.limits import Limits, limits_of
from uzswap.dask.tiers import Tiers

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["WorkerMemory"]

_log = logging.getLogger("distributed.worker.memory.uzswap")


class WorkerMemory(MutableMapping[Hashable, object]):
    """Values of a Dask worker: resident, then compressed in memory, then compressed on the disk.

    It is what ``distributed.spill.ManualEvictProto`` asks for, and more of what SpillBuffer has, so that Dask's memory
    monitor, its dashboard and its Prometheus page go on as they are.

    Parameters
    ----------
    worker_local_directory
        Where the swap file is, without a name, unless ``uzswap.directory`` is set.  Dask fills it in.
    memory_limit
        That shares are of, in bytes or as text.  By default that of the worker, from its first heartbeat on.
    target, headroom, pool, compressor, disk
        Instead of ``uzswap.target`` and so on of Dask's configuration.

    Notes
    -----
    A value that a task still holds is not there twice: what comes back is the very object, as long as it lives.
    Serialization is Dask's (``distributed.protocol``), so every registered type works.

    Threads may share it.  ``memory.zswap.max`` and the other control files of :attr:`cgroup` may be written to.

    Examples
    --------
    >>> import numpy as np
    >>> with WorkerMemory(target="8 MiB", headroom=0, pool="4 MiB") as data:
    ...     for i in range(8):
    ...         data[i] = np.full(1 << 18, i)
    ...     len(data.fast), len(data.slow), int(data[0][5])
    (3, 5, 0)
    """

    def __init__(
        self,
        worker_local_directory: str | None = None,
        *,
        memory_limit: str | float | None = None,
        target: str | float | None = None,
        headroom: str | float | None = None,
        pool: str | float | None = None,
        compressor: str | None = None,
        disk: str | float | None = None,
    ) -> None:
        self._given: Final[tuple[Any, ...]] = (target, headroom, pool)
        self._worker: weakref.ref[Worker] | None = None
        limit = None if memory_limit is None else int(parse_bytes(memory_limit))
        limits = limits_of(limit, target, headroom, pool, watch=False)
        #: Dask's: (label, unit) -> ever-increasing value
        self.cumulative_metrics: defaultdict[tuple[str, str], float] = defaultdict(float)
        counted = threading.Lock()
        metrics = self.cumulative_metrics

        def count(label: Hashable, value: float, unit: str) -> None:
            with counted:
                metrics[str(label), unit] += value

        self._count: Final = count
        where = setting("directory") or worker_local_directory or tempfile.gettempdir()
        chosen = str(setting("compressor", compressor))
        self._tiers: Final = Tiers(where, limits, chosen, _disk_limit(disk), count)
        self._close: Final = weakref.finalize(self, self._tiers.close)
        #: What is resident.  True as long as anything in memory can go, in the pool as well.
        self.fast: Final = Fast(self._tiers)
        #: What is in the pool or on the disk.
        self.slow: Final = Slow(self._tiers)
        #: the same, by the names that SpillBuffer has for them
        self.memory: Final = self.fast
        self.disk: Final = self.slow

    def attach(self, worker: Worker) -> None:
        """Have the memory limit of a worker, and look at its process from now on.  Calling it again does nothing.

        Dask's first heartbeat calls it, before there is any value.
        """
        if self._worker is not None and self._worker() is worker:
            return
        self._worker = weakref.ref(worker)
        manager = worker.memory_manager
        limits = limits_of(manager.memory_limit, *self._given)
        self._tiers.watch(limits, _process_of(weakref.ref(worker)))
        _log.info("%s: %s", worker.address, _told(limits))

    # The mapping

    def __getitem__(self, key: Hashable) -> object:
        with context_meter.add_callback(self._count, key=self._tiers):
            return self._tiers.get(key)

    def __setitem__(self, key: Hashable, value: object) -> None:
        """Set a value.

        Raises
        ------
        TypeError
            It alone is more than the target, and can't be serialized.  It is forgotten.
        MemoryError
            ``memory.max`` of :attr:`cgroup` was set, and can't be met.  Nothing changed.
        """
        with context_meter.add_callback(self._count, key=self._tiers):
            self._tiers.set(key, value, max(1, safe_sizeof(value)))

    def __delitem__(self, key: Hashable) -> None:
        self._tiers.delete(key)

    def __contains__(self, key: object) -> bool:
        return key in self._tiers.weights

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._tiers.weights)

    def __len__(self) -> int:
        return len(self._tiers.weights)

    def pop(self, key: Hashable, default: object = None) -> NoReturn:
        """Not to be had: it would load a value that is about to be dropped.  Use ``del``."""
        raise NotImplementedError(f"pop({key!r}) would load what is about to be dropped: use del instead")

    def clear(self) -> None:
        for key in list(self):
            del self[key]

    def __repr__(self) -> str:
        return f"<WorkerMemory: {len(self)} values, {self._tiers.stats()}>"

    # What Dask asks for

    def evict(self) -> int:
        """Have the coldest value go to the next tier: out of memory into the pool, or when none is resident, what the
        pool has longest to the disk.

        Returns
        -------
        int
            Bytes that went, at least 1; -1 when none could, which is logged.  It never raises.
        """
        try:
            freed = self._tiers.push_out()
            return freed if freed > 0 else self._tiers.write_back() if freed == 0 else -1
        except Exception:
            _log.exception("nothing could be evicted; everything is where it was")
            return -1

    @property
    def spilled_total(self) -> SpilledSize:
        """Bytes that are not in memory: as values, and as they lie on the disk.

        What the pool occupies does not count among the first, so that Dask's "managed memory" is what values occupy in
        memory, compressed or not; nor among the second what the disk has of values that are in memory.
        """
        stats = self._tiers.stats()
        outside = max(0, stats["bytes"] - stats["resident"] - stats["zswap"])
        return SpilledSize(outside, max(0, stats["disk"] - stats["cached"]))

    # Ours

    @property
    def cgroup(self) -> Any:
        """Where the values are charged, with its control files."""
        return self._tiers.cgroup

    @property
    def zswap(self) -> Any:
        """The engine."""
        return self._tiers.zswap

    def stats(self) -> dict[str, int]:
        """Return bytes by tier, and pages that came and went."""
        return self._tiers.stats()

    def ages(self, source: str | None = "zswap") -> list[tuple[float, int]]:
        """Return (seconds since it went out, compressed bytes) of each value in the pool; with None, of each resident
        one (seconds since it was used last, bytes)."""
        return self._tiers.ages(source)

    def settle(self) -> None:
        """Wait until no room is being made in the background."""
        self._tiers.settle()

    def check(self) -> None:
        """Verify every invariant, in quiet moments.  AssertionError with what is off."""
        self._tiers.check()

    def close(self) -> None:
        """Drop everything.  Calling it again does nothing; it is called when nobody has the mapping any more, too."""
        self._close()

    def __enter__(self) -> WorkerMemory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Fast(Mapping[Hashable, object]):
    """What is resident, for inspection; reading counts as no access."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    def __bool__(self) -> bool:
        return self._tiers.can_go()

    def __getitem__(self, key: Hashable) -> object:
        for one, held in self._tiers.resident():
            if one == key:
                return held.value
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self._tiers.is_resident(key)

    def __iter__(self) -> Iterator[Hashable]:
        return (key for key, _ in self._tiers.resident())

    def __len__(self) -> int:
        return sum(1 for _ in self._tiers.resident())

    @property
    def weights(self) -> dict[Hashable, int]:
        """Bytes of each."""
        return {key: held.weight for key, held in self._tiers.resident()}

    @property
    def total_weight(self) -> int:
        """Bytes of all."""
        return self._tiers.store.resident_bytes


class Slow(Mapping[Hashable, object]):
    """What is in the pool or on the disk, for inspection; reading a value brings it back."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    def __getitem__(self, key: Hashable) -> object:
        if key not in self:
            raise KeyError(key)
        return self._tiers.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._tiers.weights and not self._tiers.is_resident(key)

    def __iter__(self) -> Iterator[Hashable]:
        resident = {key for key, _ in self._tiers.resident()}
        return (key for key in list(self._tiers.weights) if key not in resident)

    def __len__(self) -> int:
        return len(self._tiers.weights) - sum(1 for _ in self._tiers.resident())


def _disk_limit(given: Any) -> int | None:
    wanted = setting("disk", given)
    if wanted is None:
        wanted = dask.config.get("distributed.worker.memory.max-spill")
    return None if wanted is None or wanted is False else int(parse_bytes(wanted))


def _process_of(worker: weakref.ref[Worker]) -> Any:
    """Return what tells the memory of a worker's process: as Dask's monitor has it."""

    def process() -> int:
        found = worker()
        return 0 if found is None else int(found.monitor.get_process_memory())

    return process


def _told(limits: Limits) -> str:
    def size(nbytes: int | None) -> str:
        return "no limit" if nbytes is None else f"{nbytes / 2**20:.0f} MiB"

    return f"values may occupy {size(limits.target)}, of which {size(limits.pool)} compressed"
