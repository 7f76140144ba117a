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
    #: what limits are about: resident and compressed
    current: int
    #: memory.max; None for no limit
    limit: int | None
    #: of the process that the engine is in, told for the root; None elsewhere
    rss: int | None

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
        current, limit = (cgroup.read_if_there(file) for file in ("memory.current", "memory.max"))
        pressure = some_avg10(cgroup.read_if_there("memory.pressure"))
        return cls._of(cgroup, stat, disk, pressure, int(current or 0), limit and limit.strip())

    @classmethod
    def _of_files(cls, cgroup: Cgroup, files: Mapping[str, Any]) -> Usage:
        stat = files.get("memory.stat", {})
        pressure = files.get("memory.pressure", {}).get("some", {}).get("avg10", 0.0)
        current, limit = files.get("memory.current", 0), files.get("memory.max")
        return cls._of(cgroup, stat, stat.get("uzswap.disk", 0), pressure, current, limit)

    @classmethod
    def _of(
        cls,
        cgroup: Cgroup,
        stat: Mapping[str, int],
        disk: int,
        pressure: float | None,
        current: int,
        limit: int | str | None,
    ) -> Usage:
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
            current=current,
            limit=None if limit in (None, "", "max") else int(limit),
            rss=_rss(cgroup),
        )

    @property
    def ratio(self) -> float | None:
        """Of compression; None when nothing is compressed."""
        return self.zswapped / self.zswap if self.zswap else None

    @property
    def share(self) -> float | None:
        """Of the limit, in percent; None without one."""
        return 100 * self.current / self.limit if self.limit else None

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


def _rss(cgroup: Cgroup) -> int | None:
    """Return the resident bytes of the process that an engine is in, for its root cgroup."""
    if cgroup.pid is None or cgroup.path not in ("/cgroup", "/cgroup/"):
        return None
    try:
        with open(f"/proc/{cgroup.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE_SIZE
    except (OSError, IndexError, ValueError):  # it has ended
        return None


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
