"""What a cgroup uses, from the files that the kernel and uzswap have in common; and how fast that changes."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from uzswap.client.root import Cgroup
from uzswap.units import PAGE_SIZE

__all__ = ["Usage", "parse_flat", "some_avg10"]


@dataclass(frozen=True, slots=True)
class Usage:
    """One cgroup at one time, its descendants included.  Sizes are bytes."""

    cgroup: str
    #: time.monotonic()
    when: float
    #: uncompressed, in RAM: anon and file of memory.stat
    resident: int
    #: compressed, in RAM
    zswap: int
    #: what that was before it was compressed
    zswapped: int
    #: on the device: compressed bytes of an engine's, uncompressed ones of the kernel's
    disk: int
    #: pages that came back soon after they left, ever
    refaults: int
    #: pages written to the device, ever
    pswpout: int
    #: percent of the last 10 s in which some thread waited for memory; None where the kernel has no PSI
    pressure: float | None

    @classmethod
    def of_subtree(cls, top: Cgroup, depth: int | None = None) -> Iterator[tuple[int, Cgroup, Usage]]:
        """Yield (level, cgroup, its usage) of a cgroup and those below it, with one request where that can be.

        Raises
        ------
        OSError
            As :meth:`of`, for the first; others that are gone meanwhile are left out.
        """
        told = top.stats(depth)
        if told is not None:
            for level, cgroup, files in told:
                yield level, cgroup, cls._of_files(cgroup, files)
            return
        for level, cgroup in top.preorder(depth):
            try:
                usage = cls.of(cgroup)
            except OSError as error:
                if level and error.errno in (errno.ENOENT, errno.ENODEV):
                    continue
                raise
            yield level, cgroup, usage

    @classmethod
    def of(cls, cgroup: Cgroup) -> Usage:
        """Read it.

        Raises
        ------
        OSError
            ENOENT or ENODEV there is no such cgroup, or it has no memory controller.
        """
        stat = parse_flat(cgroup.read("memory.stat"))
        disk = stat.get("uzswap.disk")
        if disk is None:
            swap = cgroup.read_if_there("memory.swap.current")
            disk = max(0, int(swap) - stat.get("zswapped", 0)) if swap else 0
        return cls._of(cgroup, stat, disk, some_avg10(cgroup.read_if_there("memory.pressure")))

    @classmethod
    def _of_files(cls, cgroup: Cgroup, files: Mapping[str, Any]) -> Usage:
        stat = files.get("memory.stat", {})
        pressure = files.get("memory.pressure", {}).get("some", {}).get("avg10", 0.0)
        return cls._of(cgroup, stat, stat.get("uzswap.disk", 0), pressure)

    @classmethod
    def _of(cls, cgroup: Cgroup, stat: Mapping[str, int], disk: int, pressure: float | None) -> Usage:
        return cls(
            cgroup=cgroup.name,
            when=time.monotonic(),
            resident=stat.get("anon", 0) + stat.get("file", 0),
            zswap=stat.get("zswap", 0),
            zswapped=stat.get("zswapped", 0),
            disk=disk,
            refaults=stat.get("workingset_refault_anon", 0),
            pswpout=stat.get("pswpout", stat.get("zswpwb", 0)),
            pressure=pressure,
        )

    @property
    def ratio(self) -> float | None:
        """Of compression; None when nothing is compressed."""
        return self.zswapped / self.zswap if self.zswap else None

    def refaults_per_second(self, before: Usage | None) -> float | None:
        """Pages a second since ``before``."""
        return self._rate(before, "refaults")

    def written_per_second(self, before: Usage | None) -> float | None:
        """Bytes a second that were written to the device since ``before``, as they are uncompressed."""
        pages = self._rate(before, "pswpout")
        return None if pages is None else pages * PAGE_SIZE

    def _rate(self, before: Usage | None, counter: str) -> float | None:
        if before is None or self.when <= before.when:
            return None
        # A cgroup that was removed and made again begins at 0.
        more: int = getattr(self, counter) - getattr(before, counter)
        return max(0, more) / (self.when - before.when)


def parse_flat(text: str) -> dict[str, int]:
    """Read ``key value`` lines; those whose value is no whole number are left out.

    >>> parse_flat("anon 4096\\nzswap 10\\n")
    {'anon': 4096, 'zswap': 10}
    """
    pairs: Iterable[list[str]] = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def some_avg10(text: str | None) -> float | None:
    """Return the number of that name in memory.pressure."""
    for line in (text or "").splitlines():
        state, *numbers = line.split()
        if state == "some":
            return float(dict(number.split("=", 1) for number in numbers)["avg10"])
    return None
