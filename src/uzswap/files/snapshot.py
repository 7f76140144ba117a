"""What the files of all cgroups tell, at one moment, in columns: for who reads thousands of them.

A column is one number of one file, of every cgroup.  The numbers are those that the files have as text, which test and
table both hold together; the data plane copies its own in one call that keeps nobody waiting
(:mod:`uzswap.core.boundary.snapshot`).
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from uzswap.cgroup.pressure import STATES
from uzswap.cgroup.stat import (
    EVENTS,
    MEMORY_EVENTS,
    SCANS,
    STATS,
    STEALS,
    SWAP_EVENTS,
    ZSWAP_ENTRIES,
    Stat,
)
from uzswap.core.boundary.snapshot import COLUMNS, UNLIMITED, ages, snapshot
from uzswap.errors import os_error
from uzswap.files.cgroup import FILES, inode_of
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.files.file import FileType

__all__ = ["AGES", "Column", "Snapshot", "ages_of", "take"]

_COLUMN: Final = {name: position for position, name in enumerate(COLUMNS)}
_EVENT: Final = {name: position for position, name in enumerate(EVENTS)}
#: what a limit is that nobody set, by file
_UNSET: Final = dict.fromkeys((name for name, row in FILES.items() if row.shape == "limit"), UNLIMITED) | {
    "memory.min": 0,
    "memory.low": 0,
}
#: what has been there is told when it is gone, so that its curve has an end
_LEVELS: Final = frozenset(("memory.swap.current", "memory.zswap.current", "uzswap.disk", "uzswap.resident.current"))
_AVERAGES: Final = ("avg10", "avg60", "avg300")
_TOTAL: Final = Stat("", "us", True, "time in which some, or all, threads waited for memory")


#: seconds: the steps that a person would choose a min_age from, up to a day
AGES: Final = (0, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)


class Column(NamedTuple):
    """One number of one file, of every cgroup."""

    file: FileType[MemCgroup]
    #: which of the file; without a name when it has only one
    key: Stat
    #: what else tells it from others of that key: ("state", "some") of memory.pressure, ("node", "0")
    label: tuple[str, str] | None
    #: one for each cgroup; infinite is "max"
    numbers: NDArray[np.int64] | NDArray[np.float64]
    #: for each cgroup, whether there is something to tell: it has the file, and the number is not 0 and never was, or
    #: a limit that nobody set
    told: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All cgroups of a subtree, in pre-order, children in creation order."""

    #: CLOCK_MONOTONIC of the engine, ns; seconds since 1970
    when: int
    wall: float
    cgroups: list[MemCgroup]
    #: a row for each, as COLUMNS says
    counted: NDArray[np.int64]
    #: a row for each, as EVENTS says: of the subtree, and of the cgroup alone
    events: NDArray[np.int64]
    local_events: NDArray[np.int64]
    #: how many cgroups each subtree has, its root included
    subtree: NDArray[np.int64]

    def counter(self, name: str) -> NDArray[np.int64]:
        """Return what the data plane counts under a name of COLUMNS."""
        return self.counted[:, _COLUMN[name]]

    def columns(self, names: Collection[str] = tuple(FILES)) -> Iterator[Column]:
        """Yield every number of some files, by default of all, that is not what another file tells."""
        has = {
            True: np.ones(len(self.cgroups), bool),
            False: np.array([cgroup.parent is not None for cgroup in self.cgroups], bool),
        }
        used = (self.counter("memory.peak") > 0) | (self.counter("memory.swap.peak") > 0)
        for file in (FILES[name] for name in names):
            on = has[file.on_root]
            for key, label, numbers in self._numbers(file):
                if file.shape == "limit":
                    told = numbers != _UNSET[file.name]
                    if (numbers >= UNLIMITED).any():
                        numbers = np.where(numbers >= UNLIMITED, np.inf, numbers)
                elif file.name == "memory.current":
                    told = on
                elif file.name == "memory.zswap.writeback":
                    told = numbers == 0
                elif file.name in _LEVELS:
                    told = (numbers != 0) | used
                else:
                    told = numbers != 0
                yield Column(file, key, label, numbers, told & on)

    def _numbers(
        self, file: FileType[MemCgroup]
    ) -> Iterator[tuple[Stat, tuple[str, str] | None, NDArray[np.int64] | NDArray[np.float64]]]:
        """Yield the numbers of a file."""
        alone = Stat("", file.unit, file.counter, file.help)
        if file.sources:
            total = sum(self.counter(source) for source in file.sources)
            assert not isinstance(total, int)
            yield alone, None, total if len(file.sources) == 1 else -(-total // PAGE_SIZE) * PAGE_SIZE
        elif file.shape == "limit":
            yield alone, None, self.counter(file.name)
        elif file.name in ("memory.peak", "memory.swap.peak"):
            yield alone, None, -(-self.counter(file.name) // PAGE_SIZE) * PAGE_SIZE
        elif file.name == "memory.zswap.writeback":
            yield alone, None, self.counter(file.name)
        elif file.name == "memory.oom.group":
            yield alone, None, self._each(cgroup.oom_group for cgroup in self.cgroups)
        elif file.name == "memory.stat":
            yield from ((stat, None, numbers) for stat, numbers in self._memory_stat())
        elif file.name == "memory.events":
            yield from ((stat, None, self.events[:, _EVENT[stat.name]]) for stat in MEMORY_EVENTS)
        elif file.name == "memory.events.local":
            yield from ((stat, None, self.local_events[:, _EVENT[stat.name]]) for stat in MEMORY_EVENTS)
        elif file.name == "memory.swap.events":
            yield from ((stat, None, self.events[:, _EVENT[f"swap.{stat.name}"]]) for stat in SWAP_EVENTS)
        elif file.name == "memory.pressure":
            yield from self._pressure()
        elif file.name == "memory.numa_stat":
            yield from self._by_node()
        elif file.name == "cgroup.events":
            yield file.keys[0], None, self._each(cgroup.populated() for cgroup in self.cgroups)
        elif file.name == "cgroup.stat":
            yield file.keys[0], None, self.subtree - 1
            yield file.keys[2], None, np.where(self.subtree > 1, self.subtree, 0)
        elif file.name in ("uzswap.last_reclaim", "uzswap.recompress"):
            yield from self._last(file)

    def _memory_stat(self) -> Iterator[tuple[Stat, NDArray[np.int64]]]:
        for stat in STATS:
            if stat.source:
                yield stat, self.counter(stat.source)
            elif stat.name in _EVENT:
                yield stat, self.events[:, _EVENT[stat.name]]
            elif stat.name in ("pgscan", "pgsteal"):
                parts = SCANS if stat.name == "pgscan" else STEALS
                yield stat, self.events[:, [_EVENT[part] for part in parts]].sum(axis=1)

    def _pressure(self) -> Iterator[tuple[Stat, tuple[str, str], NDArray[np.int64] | NDArray[np.float64]]]:
        each = np.array([cgroup.pressure.numbers() for cgroup in self.cgroups], float).reshape(len(self.cgroups), 2, 4)
        for state, name in enumerate(STATES):
            label = ("state", name)
            yield _TOTAL, label, each[:, state, 3].astype(np.int64)
            for position, average in enumerate(_AVERAGES):
                seconds = average.removeprefix("avg")
                text = f"share of such time, over {seconds} s"
                yield Stat(average, "percent", False, text), label, each[:, state, position]

    def _by_node(self) -> Iterator[tuple[Stat, tuple[str, str], NDArray[np.int64]]]:
        nodes = self.cgroups[0].zswap.nodes if self.cgroups else 1
        if nodes > 1:  # else memory.stat tells it all
            for node in range(nodes):
                yield ZSWAP_ENTRIES, ("node", str(node)), self._sums(self.counter(f"node.{node}"))

    def _sums(self, own: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sums over the subtrees, which lie together in pre-order."""
        before = np.concatenate(([0], np.cumsum(own)))
        first = np.arange(len(own))
        sums: NDArray[np.int64] = before[first + self.subtree] - before[first]
        return sums

    def _last(self, file: FileType[MemCgroup]) -> Iterator[tuple[Stat, None, NDArray[np.float64]]]:
        """Yield what the last requests did, of those cgroups that had one."""
        if file.name == "uzswap.last_reclaim":
            told = [dict(one.last_reclaim.items()) if one.last_reclaim else {} for one in self.cgroups]
        else:
            told = [asdict(one.last_recompress) if one.last_recompress else {} for one in self.cgroups]
        stats = {stat.name: stat for stat in file.keys}
        for name in dict.fromkeys(name for one in told for name in one):
            if name in stats or name.startswith("failed."):
                stat = stats.get(name) or Stat(name, "entries", help=file.help)
                # As the file has it, in microseconds.
                yield stat, None, np.round([float(one.get(name, 0)) for one in told], 6)

    def _each(self, values: Iterable[bool]) -> NDArray[np.int64]:
        return np.fromiter(values, np.int64, len(self.cgroups))

    def as_json(self, names: Collection[str] = tuple(FILES)) -> list[dict[str, Any]]:
        """Return an object for each cgroup: what is told, by file and key, as ``uzswap stat --json`` has it.

        And its path and inode.

        Raises
        ------
        OSError
            EINVAL: cgroups have no file of one of the names.
        """
        if unknown := [name for name in names if name not in FILES]:
            raise os_error(errno.EINVAL, f"cgroups have no file {unknown[0]!r}")
        found: list[dict[str, Any]] = [{"cgroup": one.path, "inode": inode_of(one)} for one in self.cgroups]
        for file, key, label, numbers, told in self.columns(names):
            where = [file.name, *([label[1]] if label else []), *([key.name or "total"] if key.name or label else [])]
            values: list[Any] = numbers[told].tolist()
            if file.shape == "limit":
                values = ["max" if number == np.inf else int(number) for number in values]
            *above, last = where
            for position, number in zip(np.flatnonzero(told).tolist(), values, strict=True):
                place = found[position]
                for name in above:
                    place = place.setdefault(name, {})
                place[last] = number
        return found

    def as_text(self, names: Collection[str] = tuple(FILES)) -> str:
        """Return :meth:`as_json` and the time, as one line of text."""
        return json.dumps({"time": self.wall, "cgroups": self.as_json(names)}, separators=(",", ":")) + "\n"


def take(root: MemCgroup, *, recursive: bool = True) -> Snapshot:
    """Return what the files of a subtree tell now, or of its root alone.

    Cgroups that are removed meanwhile are left out.

    Threads: from any.  The rows are of one moment each, up to 64 that follow one another of the same.

    Raises
    ------
    OSError
        ENODEV when the cgroup was removed; EBADF when the engine was closed.
    """
    engine = root.zswap
    engine.count_faults(root)
    with root.in_use():
        cgroups = list(root.preorder())
        subtree = _subtrees(cgroups)
        if not recursive:
            cgroups, subtree = cgroups[:1], subtree[:1]
        indexes = np.fromiter((cgroup.index for cgroup in cgroups), np.uint32, len(cgroups))
    with engine.lifetime:
        counted = snapshot(engine.core, indexes)
        when, wall = engine.core.now(), time.time()
    gone = counted[:, 0] < 0
    if gone.any():
        if gone[0]:
            root.require_online()  # it was removed just now, and says so
        cgroups = [cgroup for cgroup, is_gone in zip(cgroups, gone, strict=True) if not is_gone]
        subtree = _subtrees(cgroups)
        counted = counted[~gone]
    return Snapshot(
        when,
        wall,
        cgroups,
        counted,
        _table(cgroup.events for cgroup in cgroups),
        _table(cgroup.local_events for cgroup in cgroups),
        subtree,
    )


def ages_of(root: MemCgroup) -> tuple[tuple[int, ...], list[int], list[int]]:
    """Return what a subtree has in the pool by age: seconds, and compressed bytes and entries from each of them on.

    Each is below the next second; the sum from a second on is what a request with that ``min_age`` could take.

    Raises
    ------
    OSError
        As :func:`take`.
    """
    engine = root.zswap
    with root.in_use():
        indexes = np.fromiter((cgroup.index for cgroup in root.preorder()), np.uint32)
    with engine.lifetime:
        found = ages(engine.core, indexes, np.array(AGES, np.int64) * 1_000_000_000).sum(axis=1)
    return AGES, found[0].tolist(), found[1].tolist()


def _table(events: Iterable[dict[str, int]]) -> NDArray[np.int64]:
    return np.array([list(one.values()) for one in events], np.int64).reshape(-1, len(EVENTS))


def _subtrees(cgroups: list[MemCgroup]) -> NDArray[np.int64]:
    """Return how many cgroups each subtree has, of cgroups in pre-order."""
    sizes = np.ones(len(cgroups), np.int64)
    depths = [len(cgroup.order) for cgroup in cgroups]
    above: list[int] = []
    for position, depth in enumerate(depths):
        while above and depths[above[-1]] >= depth:
            above.pop()
        for ancestor in above:
            sizes[ancestor] += 1
        above.append(position)
    return sizes
