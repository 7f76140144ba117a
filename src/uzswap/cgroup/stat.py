"""``memory.stat``, ``memory.numa_stat`` and ``cgroup.stat``: what there is to count, and in which order.

:data:`STATS` has every key of the kernel's memory.stat in the kernel's order (mm/memcontrol.c).  Keys of things that
uzswap does not have (page cache, slab, huge pages) are truthfully 0; our own keys come last.  Every reading is exact:
one snapshot of the data plane, descendants included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from uzswap.core.boundary.engine import COUNTERS

__all__ = [
    "CGROUP_STATS",
    "EVENTS",
    "FILE_OF_EVENT",
    "MEMORY_EVENTS",
    "NUMA_STATS",
    "SCANS",
    "STATS",
    "STEALS",
    "SWAP_EVENTS",
    "ZSWAP_ENTRIES",
    "Stat",
    "Unit",
    "flat_keyed",
    "memory_stat",
]

Unit = Literal[
    "bytes", "kB", "pages", "entries", "segments", "events", "cgroups", "percent", "seconds", "us", "ns", "bool", ""
]


@dataclass(frozen=True, slots=True)
class Stat:
    """One key of a file that has ``key value`` lines."""

    name: str
    unit: Unit
    #: it only grows
    counter: bool = False
    help: str = ""
    #: the counter of the data plane that it shows; None for 0 or something of the control plane
    source: str | None = None
    #: memory.numa_stat has it too
    per_node: bool = False


MEMORY_EVENTS: Final = (
    Stat("low", "events", True, "reclaimed although usage was below memory.low"),
    Stat("high", "events", True, "reclaimed because usage was over memory.high"),
    Stat("max", "events", True, "usage was about to go over memory.max"),
    Stat("oom", "events", True, "memory.max was reached and nothing more could be reclaimed: MemoryError"),
    Stat("oom_kill", "events", True, "killed for memory.max; uzswap kills nobody"),
    Stat("oom_group_kill", "events", True, "killed as a group; uzswap kills nobody"),
    Stat("sock_throttled", "events", True, "network sockets throttled; uzswap has none"),
)
SWAP_EVENTS: Final = (
    Stat("high", "events", True, "swap usage was over memory.swap.high"),
    Stat("max", "events", True, "swap usage was about to go over memory.swap.max"),
    Stat("fail", "events", True, "swap space could not be had, for memory.swap.max or because the device is full"),
)
_RECLAIMERS: Final = ("kswapd", "direct", "khugepaged", "proactive")
#: the keys that pgscan and pgsteal are the sums of
SCANS: Final = tuple(f"pgscan_{who}" for who in _RECLAIMERS)
STEALS: Final = tuple(f"pgsteal_{who}" for who in _RECLAIMERS)

#: what MemCgroup.count_event takes
EVENTS: Final = (
    *(stat.name for stat in MEMORY_EVENTS),
    *(f"swap.{stat.name}" for stat in SWAP_EVENTS),
    *STEALS,
    *SCANS,
)
#: event -> the control file that shows it and can be polled for it
FILE_OF_EVENT: Final[Mapping[str, str]] = {stat.name: "memory.events" for stat in MEMORY_EVENTS} | {
    f"swap.{stat.name}": "memory.swap.events" for stat in SWAP_EVENTS
}


def _level(name: str, source: str | None = None, text: str = "", *, node: bool = False) -> Stat:
    return Stat(name, "bytes", False, text, source, node)


def _pages(name: str, source: str | None = None, text: str = "", *, node: bool = False) -> Stat:
    return Stat(name, "pages", True, text, source, node)


def _events(name: str, source: str | None = None, text: str = "", *, node: bool = False) -> Stat:
    return Stat(name, "events", True, text, source, node)


#: memory.stat
STATS: Final = (
    _level("anon", "resident", "resident memory of the front-ends", node=True),
    _level("file", node=True),
    _level("kernel", "zswap", "memory of the engine itself: compressed zswap bytes"),
    _level("kernel_stack", node=True),
    _level("pagetables", node=True),
    _level("sec_pagetables", node=True),
    _level("percpu"),
    _level("sock"),
    _level("vmalloc", node=True),
    _level("shmem", node=True),
    _level("zswap", "zswap", "compressed bytes in the pool"),
    _level("zswapped", "zswapped", "original size of the pages in the pool"),
    _level("zswap_incomp", "zswap_incomp", "of these, pages kept raw because they do not compress"),
    Stat("zswpwb_proactive_b", "bytes", True, "compressed bytes written back by source=zswap", "zswpwb_proactive_b"),
    *(_level(name, node=True) for name in ("file_mapped", "file_dirty", "file_writeback")),
    _level(
        "swapcached",
        "swapcached",
        "memory with a clean copy: of arrays in the pool, of immutable values on the disk",
        node=True,
    ),
    *(_level(name, node=True) for name in ("anon_thp", "file_thp", "shmem_thp")),
    _level("inactive_anon", "resident", "resident memory that reclaim may take: all of it", node=True),
    *(_level(name, node=True) for name in ("active_anon", "inactive_file", "active_file", "unevictable")),
    *(_level(name, node=True) for name in ("slab_reclaimable", "slab_unreclaimable")),
    _level("slab"),
    _level("hugetlb", node=True),
    _events(
        "workingset_refault_anon", "workingset_refault_anon", "pages that came back soon after they left", node=True
    ),
    _events("workingset_refault_file", node=True),
    *(_events(f"workingset_{what}_{kind}", node=True) for what in ("activate", "restore") for kind in ("anon", "file")),
    _events("workingset_nodereclaim", node=True),
    *(_pages(f"pgdemote_{who}", node=True) for who in _RECLAIMERS),
    *(_pages(name, text="resident pages that this kind of reclaim freed") for name in STEALS),
    *(_pages(name, text="resident pages that this kind of reclaim looked at") for name in SCANS),
    *(_pages(f"pgrefill_{who}") for who in _RECLAIMERS),
    _pages("pgpromote_success", node=True),
    _pages("pgscan", text="sum of pgscan_*"),
    _pages("pgsteal", text="sum of pgsteal_*"),
    _pages("pswpin", "pswpin", "pages read from the device"),
    _pages("pswpout", "pswpout", "pages written to the device, writeback included"),
    _events("pgfault", "pgfault", "pages faulted in, from anywhere"),
    _events("pgmajfault", "pgmajfault", "pages faulted in that had been swapped out"),
    *(_pages(name) for name in ("pgrefill", "pgactivate", "pgdeactivate", "pglazyfree", "pglazyfreed")),
    _pages("swpin_zero", "swpin_zero", "all-zero pages loaded"),
    _pages("swpout_zero", "swpout_zero", "all-zero pages stored, which takes no space"),
    _pages("zswpin", "zswpin", "pages loaded from the pool"),
    _pages("zswpout", "zswpout", "pages stored in the pool"),
    _pages("zswpwb", "zswpwb", "pages written back from the pool to the device"),
    *(_events(f"thp_{what}") for what in ("fault_alloc", "collapse_alloc", "swpout", "swpout_fallback")),
    *(_events(f"numa_{what}") for what in ("pages_migrated", "pte_updates", "hint_faults")),
    _level("uzswap.disk", "disk", "compressed bytes on the device"),
    _level("uzswap.clean_copies", "uzswap.clean_copies", "compressed bytes of clean copies"),
    _level(
        "uzswap.metadata_bytes",
        "uzswap.metadata_bytes",
        "the engine's tables: 48 a page or value that is swapped out (pages of one value share), 24 a page of an array",
    ),
    _pages("uzswap.same_filled", "uzswap.same_filled", "pages stored as one repeated word, all zero ones not counted"),
)

_ZEROS: Final = dict.fromkeys((stat.name for stat in STATS), 0)
_FROM_CORE: Final = tuple((stat.name, COUNTERS.index(stat.source)) for stat in STATS if stat.source)
PER_NODE: Final = tuple(stat for stat in STATS if stat.per_node)
ZSWAP_ENTRIES: Final = Stat("uzswap.zswap_entries", "entries", help="entries in the pool")
#: memory.numa_stat
NUMA_STATS: Final = (*PER_NODE, ZSWAP_ENTRIES)


def flat_keyed(values: Mapping[str, int | str]) -> str:
    """Return ``key value`` lines."""
    return "".join([f"{key} {value}\n" for key, value in values.items()])


def memory_stat(counters: Sequence[int], events: Mapping[str, int]) -> dict[str, int]:
    """Return memory.stat as numbers, in its order, from what the data plane counts and what the cgroup does."""
    values = _ZEROS.copy()
    for name, position in _FROM_CORE:
        values[name] = counters[position]
    for name in (*STEALS, *SCANS):
        values[name] = events[name]
    values["pgscan"] = sum(events[name] for name in SCANS)
    values["pgsteal"] = sum(events[name] for name in STEALS)
    return values


CGROUP_STATS: Final = (
    Stat("nr_descendants", "cgroups", help="online cgroups below this one"),
    Stat("nr_dying_descendants", "cgroups", help="removed cgroups that are still held; uzswap has none"),
    Stat("nr_subsys_memory", "cgroups", help="cgroups with the memory controller, this one included"),
    Stat("nr_dying_subsys_memory", "cgroups", help="the same, removed; uzswap has none"),
)
