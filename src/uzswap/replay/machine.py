"""A cgroup with the pages of a trace in it: a real engine, a front-end without real pages, and a clock that is turned.

What is evicted is compressed, stored, written back and loaded by the engine as ever.  Pages in memory are only numbers:
each is one of a few payloads, so a trace with a footprint of gigabytes takes what its compressed pages take.
"""

from __future__ import annotations

import errno
import math
import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from uzswap import MemCgroup, Zswap
from uzswap.cgroup.surroundings import Reclaimed
from uzswap.client.root import Interrupts, Name, Root
from uzswap.core.boundary.engine import COUNTERS
from uzswap.errors import os_error
from uzswap.replay.traces import PAGE

__all__ = ["Pages", "Virtual", "VirtualRoot"]

_ZSWAP: Final = COUNTERS.index("zswap")
#: pages that are compressed in one call
_BATCH: Final = 256
#: seconds: the ages of Google's histograms, 8 bits in steps of a scan (ASPLOS'19)
AGES: Final = tuple(120.0 * i for i in range(256))
#: a time of day for quiet hours: midnight of a day in UTC
_EPOCH: Final = 1_767_225_600.0


class Virtual:
    """A clock that goes where it is told to; the engine's goes with it, a thousandth faster.  Seconds from 0 on.

    Real time passes meanwhile: an entry that is as old as a limit to the second is then over it, in every run.
    """

    def __init__(self, z: Zswap) -> None:
        self._z = z
        self._start = z.core.now()
        self._now = 0.0

    def set(self, now: float) -> None:
        """Go forward to a time."""
        self._now = now
        behind = int(now * 1.001e9) - (self._z.core.now() - self._start)
        if behind > 0:
            self._z.core.advance(behind)

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return _EPOCH + self._now


class Pages:
    """A front-end of a cgroup: pages that are accessed in order, the least recently used evicted first.

    Parameters
    ----------
    count
        How many pages there can be.
    payloads
        Contents, a row each.
    kind
        Which of them each page has.
    """

    def __init__(
        self, z: Zswap, cgroup: MemCgroup, count: int, payloads: NDArray[np.uint8], kind: NDArray[np.int64]
    ) -> None:
        self._z = z
        self.cgroup = cgroup
        self._payloads = payloads
        self._kind = kind
        #: of pages that are not in memory
        self._handles = np.zeros(count, np.uint64)
        #: in memory, least recently used first -> time of the last access
        self._resident: OrderedDict[int, float] = OrderedDict()
        #: time of the last access before a page left
        self._left: dict[int, float] = {}
        self._touched = 0
        self.promoted = np.zeros(len(AGES), np.int64)
        z.register(self)

    @property
    def resident_bytes(self) -> int:
        """Bytes charged."""
        return len(self._resident) * PAGE

    @property
    def touched_bytes(self) -> int:
        """Bytes of all pages that were ever accessed."""
        return self._touched * PAGE

    def handle(self, page: int) -> int:
        """Return the handle of a page that is not in memory, else 0."""
        return int(self._handles[page])

    @property
    def packed_bytes(self) -> int:
        """Bytes in the pool."""
        return self._z.core.counters(self.cgroup.index)[_ZSWAP]

    def access(self, pages: Iterable[int], times: Iterable[float], costs: Iterable[float], zswap: float) -> _Loads:
        """Access pages in order; returns what was loaded, and the seconds that took by the model.

        Parameters
        ----------
        costs
            Seconds that each takes if it is on the device.
        zswap
            Seconds that one from zswap takes.
        """
        loads = _Loads()
        resident, handles, left = self._resident, self._handles, self._left
        new = 0
        wanted: list[int] = []
        for page, when, cost in zip(pages, times, costs, strict=True):
            if page in resident:
                resident[page] = when
                resident.move_to_end(page)
                continue
            handle = int(handles[page])
            if handle:
                if self._z.where(handle) == "disk":
                    loads.disk += 1
                    loads.disk_seconds += cost
                else:
                    loads.zswap += 1
                    loads.zswap_seconds += zswap
                self.promoted[min(int((when - left.pop(page)) / AGES[1]), len(AGES) - 1)] += PAGE
                wanted.append(handle)
                handles[page] = 0
            else:
                self._touched += 1
            new += 1
            resident[page] = when
        if new:
            self._z.charge(self.cgroup, new * PAGE)
        if wanted:
            self._z.fault_in_many(np.array(wanted, np.uint64))
        return loads

    def reclaim(self, nbytes: int) -> Reclaimed:
        """Evict the least recently used; called by the engine."""
        wanted = min(-(-nbytes // PAGE), len(self._resident))
        freed = 0
        while freed < wanted:
            some = [self._resident.popitem(last=False) for _ in range(min(_BATCH, wanted - freed))]
            numbers = [page for page, _ in some]
            handles = self._z.swap_out_many(self._payloads[self._kind[numbers]], self.cgroup)
            refused = 0
            for (page, when), handle in zip(some, handles.tolist(), strict=True):
                if handle:
                    self._handles[page] = handle
                    self._left[page] = when
                else:
                    self._resident[page] = when
                    self._resident.move_to_end(page, last=False)
                    refused += 1
            freed += len(some) - refused
            if refused:
                break
        self._z.uncharge(self.cgroup, freed * PAGE)
        return Reclaimed(wanted, freed * PAGE)

    def ages(self, now: float) -> NDArray[np.int64]:
        """Return bytes in memory by their age, in the classes of :data:`AGES`."""
        last = np.fromiter(self._resident.values(), float, len(self._resident))
        classes = np.minimum((now - last) / AGES[1], len(AGES) - 1).astype(np.int64)
        return np.bincount(np.maximum(classes, 0), minlength=len(AGES)).astype(np.int64) * PAGE

    def close(self) -> None:
        """Free everything."""
        self._z.free_many(self._handles[self._handles != 0])
        self._z.uncharge(self.cgroup, self.resident_bytes)
        self._resident.clear()
        self._z.unregister(self)


class _Loads:
    """Loads of some accesses: pages, and seconds by the model."""

    def __init__(self) -> None:
        self.zswap = 0
        self.disk = 0
        self.zswap_seconds = 0.0
        self.disk_seconds = 0.0


class _Pressure:
    """A pressure file, from stalls of the model: psi's averages, exact instead of in fixed point."""

    def __init__(self) -> None:
        self.total = 0.0
        self.averages = {10: 0.0, 60: 0.0, 300: 0.0}

    def add(self, stalled: float, elapsed: float) -> None:
        """Add seconds of stall in the seconds since the last call."""
        self.total += stalled
        share = min(100.0, 100 * stalled / elapsed)
        for span, average in self.averages.items():
            self.averages[span] = average + (share - average) * (1 - math.exp(-elapsed / span))

    def text(self) -> str:
        numbers = " ".join(f"avg{span}={average:.2f}" for span, average in self.averages.items())
        return "".join(f"{state} {numbers} total={int(self.total * 1e6)}\n" for state in ("some", "full"))


class VirtualRoot(Root):
    """The control files of the engine, as the agent sees them; those of pressure are the model's.

    ``meminfo`` has a machine with as much RAM as the trace has pages.
    """

    PATH: Final = "/trace"

    def __init__(self, z: Zswap, pages: Pages, clock: Virtual, ram: int) -> None:
        self._z = z
        self._pages = pages
        self._clock = clock
        self._ram = ram
        self.memory = _Pressure()
        self.io = _Pressure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: the engine is its owner's."""

    def again(self) -> VirtualRoot:
        return self

    def read(self, path: str) -> str:
        directory, name = os.path.split(path)
        if directory == f"/cgroup{self.PATH}":
            return self._read_cgroup(name)
        if path == "/meminfo":
            counters = dict(line.split() for line in self._z.root.read("memory.stat").splitlines())
            device = self._z.core.device()
            total = 0 if device is None else device.segments << 20
            used = 0 if device is None else device.live_bytes
            values = {"MemTotal": self._ram, "SwapTotal": total, "SwapFree": total - used}
            values["Zswap"] = int(counters["zswap"])
            return "".join(f"{key}: {value >> 10} kB\n" for key, value in values.items())
        if path.startswith("/zswap/parameters/"):
            return {"max_pool_percent": "20\n", "enabled": "Y\n"}[name]
        raise os_error(errno.ENOENT, "there is no such file in a replay", path)

    def _read_cgroup(self, name: str) -> str:
        if name == "memory.pressure":
            return self.memory.text()
        if name == "io.pressure":
            return self.io.text()
        if name == "uzswap.cold_age":
            return _histogram(self._pages.ages(self._clock.monotonic()))
        if name == "uzswap.promotion_age":
            return _histogram(self._pages.promoted)
        return self._pages.cgroup.read(name)

    def write(
        self, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> None:
        self._pages.cgroup.write(os.path.basename(path), data)

    def names(self, path: str) -> list[Name]:
        if path != f"/cgroup{self.PATH}":
            return [Name(name, True, 0o755, inode) for name, inode in self.directories(path)]
        files = (
            "cgroup.controllers", "io.pressure", "memory.current", "memory.pressure", "memory.reclaim", "memory.stat",
            "memory.zswap.writeback", "uzswap.cold_age", "uzswap.promotion_age",
        )  # fmt: skip
        return [Name(name, False, 0o644, 2 + i) for i, name in enumerate(files)]

    def directories(self, path: str) -> list[tuple[str, int]]:
        return [(self.PATH.strip("/"), 1)] if path == "/cgroup" else []

    def inode(self, path: str) -> int:
        return 1

    def mkdir(self, path: str) -> None:
        raise os_error(errno.EPERM, "a replay has one cgroup", path)

    def rmdir(self, path: str) -> None:
        raise os_error(errno.EPERM, "a replay has one cgroup", path)


def _histogram(counts: NDArray[np.int64]) -> str:
    return "".join(f"{age:g} {count}\n" for age, count in zip(AGES, counts.tolist(), strict=True))
