"""The table of the control files of a cgroup.

One row a file, for every interface there is; :mod:`uzswap.files.engine` has those of the engine.  Formats, units,
defaults, errors and what the root lacks are the kernel's; names with ``uzswap.`` are ours.

Two things are simpler than in the kernel.  The only controller is ``memory``, and it is always on: it can be taken out
of ``cgroup.subtree_control`` while there are no children, and the first child brings it back.  And the members of a
cgroup are front-ends, not processes, so there is no ``cgroup.procs``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uzswap.cgroup import recompress
from uzswap.cgroup.reclaim import parse
from uzswap.cgroup.stat import (
    CGROUP_STATS,
    MEMORY_EVENTS,
    NUMA_STATS,
    PER_NODE,
    STATS,
    SWAP_EVENTS,
    ZSWAP_ENTRIES,
    Stat,
    Unit,
    flat_keyed,
)
from uzswap.core.boundary.engine import COUNTERS
from uzswap.errors import os_error
from uzswap.files.file import ControlFile, FileType
from uzswap.files.sessions import EventSession, PeakSession, PressureSession
from uzswap.units import NO_LIMIT, WHITESPACE, kstrtoint, page_counter_memparse, round_up_to_page

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["CGROUP_FILES", "FILES", "INODES", "cgroup_file", "inode_of"]

#: inodes of one cgroup, its directory's first; the first block is for what there is one of
INODES: Final = 1 << 16


def inode_of(cgroup: MemCgroup) -> int:
    """Return the inode of a cgroup's directory: its own, and no other's after it is gone."""
    return (cgroup.id + 1) * INODES


def cgroup_file(cgroup: MemCgroup, name: str) -> FileType[MemCgroup]:
    """Return a file of a cgroup; raises ENOENT when it has none of that name."""
    filetype = FILES.get(name)
    if filetype is None:
        raise os_error(errno.ENOENT, f"cgroups have no file {name!r}", cgroup.path)
    if cgroup.parent is None and not filetype.on_root:
        raise os_error(errno.ENOENT, f"the root cgroup has no {name}: its children have", cgroup.path)
    return filetype


# Rows that several files have in common


def _numa_stat(cgroup: MemCgroup) -> str:
    """Return memory.numa_stat.

    Front-ends do not say which node their resident memory is on, so it is all on node 0.  The last line, which the
    kernel does not have, tells where the zswap entries are.
    """
    nodes = range(cgroup.zswap.nodes)
    values = cgroup.stats()
    others = "".join([f" N{node}=0" for node in nodes[1:]])
    lines = [f"{stat.name} N0={values[stat.name]}{others}\n" for stat in PER_NODE]
    lru_len = cgroup.zswap.core.lru_len
    subtree = list(cgroup.preorder())
    entries = [sum(lru_len(member.index, node) for member in subtree) for node in nodes]
    lines.append(ZSWAP_ENTRIES.name + "".join([f" N{node}={entries[node]}" for node in nodes]) + "\n")
    return "".join(lines)


def _cgroup_stat(cgroup: MemCgroup) -> str:
    """Return cgroup.stat."""
    subtree = sum(1 for _ in cgroup.preorder())
    return flat_keyed(dict(zip((stat.name for stat in CGROUP_STATS), (subtree - 1, 0, subtree, 0), strict=True)))


def _sum(
    name: str, text: str, *sources: str, unit: Unit = "bytes", counter: bool = False, on_root: bool = False
) -> FileType[MemCgroup]:
    """A file with one number: the sum of counters of the data plane.

    With several sources it is what the kernel has a page counter for, which goes by whole pages; Senpai relies on it.
    """
    positions = [COUNTERS.index(source) for source in sources]

    def read(cgroup: MemCgroup) -> str:
        counters = cgroup.zswap.core.counters(cgroup.index)
        value = sum(counters[position] for position in positions)
        return f"{value if len(positions) == 1 else round_up_to_page(value)}\n"

    return FileType(name, text, "value", unit, counter, sources=sources, reader=read, on_root=on_root)


def _limit(name: str, text: str, *, enforced: bool = False) -> FileType[MemCgroup]:
    """A file with a size in whole pages, or max."""

    def read(cgroup: MemCgroup) -> str:
        nbytes = cgroup.limits[name]
        return "max\n" if nbytes == NO_LIMIT else f"{nbytes}\n"

    def write(cgroup: MemCgroup, text: str) -> None:
        cgroup.set_limit(name, page_counter_memparse(text))

    def enforce(cgroup: MemCgroup) -> None:
        cgroup.zswap.limit_changed(cgroup, name)

    return FileType(
        name, text, "limit", "bytes", reader=read, writer=write, enforce=enforce if enforced else None, on_root=False
    )


def _flag(name: str, text: str, attribute: str, *, on_root: bool = False) -> FileType[MemCgroup]:
    """A file with 0 or 1."""

    def read(cgroup: MemCgroup) -> str:
        return f"{int(getattr(cgroup, attribute))}\n"

    def write(cgroup: MemCgroup, text: str) -> None:
        value = kstrtoint(text.strip(WHITESPACE))
        if value not in (0, 1):
            raise os_error(errno.EINVAL, f"{value} is neither 0 nor 1")
        with cgroup.in_use():
            setattr(cgroup, attribute, bool(value))

    return FileType(name, text, "flag", "bool", reader=read, writer=write, on_root=on_root)


def _events(
    name: str, text: str, keys: tuple[Stat, ...], reader: Callable[[MemCgroup], str], *, on_root: bool = False
) -> FileType[MemCgroup]:
    """A file of key-value lines that can be polled."""
    return FileType(
        name,
        text,
        "flat_keyed",
        keys=keys,
        reader=reader,
        session=EventSession,
        on_root=on_root,
    )


def _peak(name: str, text: str, *, swap: bool) -> FileType[MemCgroup]:
    def read(cgroup: MemCgroup) -> str:
        return f"{round_up_to_page(cgroup.zswap.core.watermark(cgroup.index, swap)[0])}\n"

    return FileType(name, text, "value", "bytes", reader=read, session=PeakSession, writes_per_open=True, on_root=False)


# Files of their own kind


def _write_reclaim(cgroup: MemCgroup, text: str) -> None:
    cgroup.reclaim_request(parse(text))


def _pressure(cgroup: MemCgroup) -> str:
    cgroup.zswap.count_faults(cgroup)
    return cgroup.pressure.read()


def _memory_events(cgroup: MemCgroup) -> str:
    cgroup.zswap.count_faults(cgroup)
    return flat_keyed({stat.name: cgroup.events[stat.name] for stat in MEMORY_EVENTS})


def _memory_events_local(cgroup: MemCgroup) -> str:
    cgroup.zswap.count_faults(cgroup)
    return flat_keyed({stat.name: cgroup.local_events[stat.name] for stat in MEMORY_EVENTS})


def _swap_events(cgroup: MemCgroup) -> str:
    cgroup.zswap.count_faults(cgroup)
    return flat_keyed({stat.name: cgroup.events[f"swap.{stat.name}"] for stat in SWAP_EVENTS})


def _cgroup_events(cgroup: MemCgroup) -> str:
    return flat_keyed({"populated": int(cgroup.populated()), "frozen": 0})


def _controllers(cgroup: MemCgroup) -> str:
    return "memory\n"


def _subtree_control(cgroup: MemCgroup) -> str:
    return "memory\n" if cgroup.controls_children else ""


#: what the kernel could be built with; none of them but memory is here (include/linux/cgroup_subsys.h)
_KERNEL_CONTROLLERS: Final = frozenset(
    {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc", "dmem", "perf_event"}
)


def _write_subtree_control(cgroup: MemCgroup, text: str) -> None:
    """Take ``+memory -io``: the last sign of each name wins, and an unknown name spoils it all."""
    wanted: dict[str, bool] = {}
    for word in text.strip(WHITESPACE).split(" "):
        if not word:
            continue
        sign, name = word[0], word[1:]
        if sign not in "+-" or name not in _KERNEL_CONTROLLERS:
            raise os_error(errno.EINVAL, f"{word!r} is not + or - and a controller: there is memory")
        wanted[name] = sign == "+"
    missing = [name for name, on in wanted.items() if on and name != "memory"]
    if missing:
        raise os_error(errno.ENOENT, f"there is no controller {' '.join(missing)} here, only memory")
    with cgroup.in_use():
        enable = wanted.get("memory", cgroup.controls_children)
        if cgroup.children and not enable:
            raise os_error(errno.EBUSY, "children use the controller memory: remove them first")
        cgroup.controls_children = enable


def _last_reclaim(cgroup: MemCgroup) -> str:
    result = cgroup.last_reclaim
    if result is None:
        return ""
    return "".join(
        f"{key} {value:.6f}\n" if isinstance(value, float) else f"{key} {value}\n" for key, value in result.items()
    )


_LAST_RECLAIM_STATS: Final = (
    Stat("asked", "bytes", help="bytes requested"),
    Stat("written", "bytes", help="compressed bytes written back"),
    Stat("entries", "entries", help="entries written back"),
    Stat("scanned", "entries", help="entries met that were candidates"),
    Stat("rotated", "entries", help="entries that used up their second chance"),
    Stat("reclaimed", "bytes", help="resident bytes freed, by reclaim without a source"),
    Stat("failed.<errno>", "entries", help="entries that could not be written back, by reason"),
    Stat("seconds", "seconds", help="wall time"),
)


def _write_recompress(cgroup: MemCgroup, text: str) -> None:
    cgroup.zswap.recompress(cgroup, recompress.parse(text))


def _last_recompress(cgroup: MemCgroup) -> str:
    result = cgroup.last_recompress or recompress.RecompressResult(0)
    return flat_keyed({stat.name: getattr(result, stat.name) for stat in _RECOMPRESS_STATS})


_RECOMPRESS_STATS: Final = (
    Stat("asked", "bytes", help="compressed bytes that were to be taken up"),
    Stat("taken", "bytes", help="of these, how many there were"),
    Stat("scanned", "entries", help="entries met that were candidates"),
    Stat("rotated", "entries", help="entries that used up their second chance"),
    Stat("entries", "entries", help="entries compressed again"),
    Stat("bytes_before", "bytes", help="their compressed bytes before"),
    Stat("bytes_after", "bytes", help="and after"),
    Stat("refused", "entries", help="entries that would not have become smaller"),
)

_ROWS: Final[tuple[FileType[MemCgroup], ...]] = (
    _sum(
        "memory.current",
        "memory in use, in whole pages: resident and compressed zswap bytes of the subtree",
        "resident",
        "zswap",
    ),
    _peak("memory.peak", "highest memory.current since creation, or since a write to this open file", swap=False),
    _limit("memory.min", "memory that ordinary reclaim never takes from the subtree"),
    _limit("memory.low", "memory that ordinary reclaim takes only when nothing else is left"),
    _limit("memory.high", "usage above it is reclaimed in the background", enforced=True),
    _limit("memory.max", "usage never goes above it: reclaim, then MemoryError", enforced=True),
    _sum("uzswap.resident.current", "resident memory of the subtree, compressed bytes not counted", "resident"),
    _limit("uzswap.resident.max", "the same never goes above it: a budget that leaves the pool out", enforced=True),
    FileType(
        "memory.reclaim",
        "reclaim a number of bytes: <size> [swappiness=0..200|max], or <size> source=zswap [min_age=<seconds>]",
        "command",
        "bytes",
        writer=_write_reclaim,
    ),
    _flag("memory.oom.group", "whether an oom would kill the whole group; uzswap kills nobody", "oom_group"),
    FileType(
        "memory.stat",
        "what the memory of the subtree is used for, and what happened to it",
        "flat_keyed",
        keys=STATS,
        reader=lambda cgroup: flat_keyed(cgroup.stats()),
    ),
    FileType("memory.numa_stat", "the same by node", "nested_keyed", "bytes", keys=NUMA_STATS, reader=_numa_stat),
    _events("memory.events", "times that limits of the subtree were met", MEMORY_EVENTS, _memory_events),
    _events("memory.events.local", "times that limits of this cgroup were met", MEMORY_EVENTS, _memory_events_local),
    _sum("memory.swap.current", "uncompressed bytes swapped out: to zswap, to disk, or all zero", "swap"),
    _peak(
        "memory.swap.peak", "highest memory.swap.current since creation, or since a write to this open file", swap=True
    ),
    _limit("memory.swap.high", "swap usage above it counts as an event"),
    _limit("memory.swap.max", "swap usage never goes above it: what would is not swapped out"),
    _events("memory.swap.events", "times that swap limits of the subtree were met", SWAP_EVENTS, _swap_events),
    _sum("memory.zswap.current", "compressed bytes in the pool", "zswap"),
    _limit("memory.zswap.max", "compressed bytes in the pool never go above it; 0 turns zswap off"),
    _flag(
        "memory.zswap.writeback",
        "whether zswap entries may be written to the device; an ancestor's 0 counts too",
        "writeback",
        on_root=True,
    ),
    FileType(
        "memory.pressure",
        "share of time in which threads waited for memory; write 'some|full <stall us> <window us>' and poll for it",
        "nested_keyed",
        reader=_pressure,
        session=PressureSession,
        writes_per_open=True,
    ),
    FileType("cgroup.type", "always domain", "word", reader=lambda cgroup: "domain\n", on_root=False),
    FileType("cgroup.controllers", "controllers that there are", "list", reader=_controllers),
    FileType(
        "cgroup.subtree_control",
        "controllers that children have; write +memory or -memory",
        "list",
        reader=_subtree_control,
        writer=_write_subtree_control,
    ),
    _events(
        "cgroup.events",
        "whether there are front-ends in the subtree",
        (Stat("populated", "bool", help="a front-end is in the subtree"), Stat("frozen", "bool", help="always 0")),
        _cgroup_events,
    ),
    FileType("cgroup.stat", "how many cgroups there are", "flat_keyed", keys=CGROUP_STATS, reader=_cgroup_stat),
    FileType(
        "uzswap.last_reclaim",
        "what the last write to memory.reclaim did; empty before the first",
        "flat_keyed",
        keys=_LAST_RECLAIM_STATS,
        reader=_last_reclaim,
    ),
    FileType(
        "uzswap.recompress",
        "compress what stayed cold in the pool again: <size> [codec=zstd[:<level>]] [min_age=<seconds>]; "
        "read, it tells what the last write did",
        "flat_keyed",
        keys=_RECOMPRESS_STATS,
        reader=_last_recompress,
        writer=_write_recompress,
    ),
    _sum(
        "uzswap.same_filled",
        "pages stored as one repeated word, all zero ones not counted",
        "uzswap.same_filled",
        unit="pages",
        counter=True,
        on_root=True,
    ),
    _sum("uzswap.disk", "compressed bytes on the device", "disk", on_root=True),
    _sum(
        "uzswap.clean_copies",
        "compressed bytes in the pool of pages that are in memory too, unmodified; the first to go under pressure",
        "uzswap.clean_copies",
        on_root=True,
    ),
)

#: the files of a cgroup, by name
FILES: Final[dict[str, FileType[MemCgroup]]] = {row.name: row for row in _ROWS}


class _ControlFiles:
    """The table as cgroups use it: a :class:`uzswap.cgroup.control_files.ControlFiles`."""

    def __contains__(self, name: object) -> bool:
        return name in FILES

    def read(self, cgroup: MemCgroup, name: str) -> str:
        return cgroup_file(cgroup, name).read(cgroup, cgroup)

    def open(self, cgroup: MemCgroup, name: str, *, nonblock: bool, privileged: bool | None) -> ControlFile[MemCgroup]:
        return cgroup_file(cgroup, name).open(cgroup, cgroup, nonblock=nonblock, privileged=privileged)


CGROUP_FILES: Final = _ControlFiles()
