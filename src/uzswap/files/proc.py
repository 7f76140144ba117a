"""What a machine has in /proc, of an engine: ``vmstat``, ``meminfo`` and ``swaps``, in the kernel's formats.

Tools that read those of /proc work on these: psutil with ``PROCFS_PATH``, or anything at all in a mount namespace where
they are bound over /proc's, as LXCFS does it.
"""

from __future__ import annotations

import os
import stat as st
from typing import TYPE_CHECKING, Final

from uzswap.cgroup.stat import STATS, Stat, flat_keyed
from uzswap.core.boundary.engine import GLOBALS
from uzswap.engine.parameters import total_ram_pages
from uzswap.files.file import FileType
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.files.view import EngineView

__all__ = ["PROC_FILES"]

_SEGMENT: Final = 1 << 20  # core/device: SEGMENT_BYTES

_VMSTAT: Final = (
    Stat("nr_anon_pages", "pages", help="resident pages of the front-ends", source="resident"),
    Stat("nr_zspages", "pages", help="pages that the pool occupies"),
    Stat("nr_swapcached", "pages", help="resident pages whose compressed copy is kept", source="swapcached"),
    *(stat for stat in STATS if stat.name in ("workingset_refault_anon",)),
    *(stat for stat in STATS if stat.name.startswith(("pgdemote_", "pgsteal_", "pgscan_"))),
    *(stat for stat in STATS if stat.name in ("pswpin", "pswpout", "pgfault", "pgmajfault")),
    *(stat for stat in STATS if stat.name in ("swpin_zero", "swpout_zero", "zswpin", "zswpout", "zswpwb")),
)


def _vmstat(engine: EngineView) -> str:
    """Return the keys of memory.stat that /proc/vmstat has as well, of the whole engine."""
    totals = dict(zip(GLOBALS, engine.core.globals(), strict=True))
    values = {stat.name: totals.get(stat.source or "", 0) for stat in _VMSTAT}
    values["nr_anon_pages"] //= PAGE_SIZE
    values["nr_swapcached"] //= PAGE_SIZE
    values["nr_zspages"] = engine.core.pool_pages()
    events = engine.tree.root.events
    return flat_keyed(values | {name: events[name] for name in values.keys() & events.keys()})


_MEMINFO: Final = (
    Stat("MemTotal", "kB", help="RAM of the machine, that max_pool_percent is taken of"),
    Stat("MemFree", "kB", help="unused RAM of the machine"),
    Stat("MemAvailable", "kB", help="RAM of the machine that new work could have without swapping"),
    *(Stat(key, "kB", help=f"{key} of the machine") for key in ("Buffers", "Cached")),
    Stat("SwapCached", "kB", help="resident memory whose compressed copy is kept"),
    *(Stat(key, "kB", help=f"{key} of the machine") for key in ("Active", "Inactive")),
    Stat("SwapTotal", "kB", help="size of the swap device"),
    Stat("SwapFree", "kB", help="of this, not in use"),
    Stat("Zswap", "kB", help="memory that the pool occupies"),
    Stat("Zswapped", "kB", help="original size of what is in the pool"),
    *(Stat(key, "kB", help=f"{key} of the machine") for key in ("Shmem", "SReclaimable")),
)


def _meminfo(engine: EngineView) -> str:
    with open("/proc/meminfo", encoding="ascii") as file:
        machine = {line.partition(":")[0]: int(line.split()[1]) for line in file}
    total, used = _swap_space(engine)
    values = {stat.name: machine.get(stat.name, 0) for stat in _MEMINFO} | {
        "MemTotal": total_ram_pages() * PAGE_SIZE // 1024,
        "SwapCached": engine.core.globals()[GLOBALS.index("swapcached")] // 1024,
        "SwapTotal": total // 1024,
        "SwapFree": (total - used) // 1024,
        "Zswap": engine.core.pool_pages() * PAGE_SIZE // 1024,
        "Zswapped": engine.core.globals()[GLOBALS.index("zswapped")] // 1024,
    }
    return "".join(f"{key + ':':<16}{value:8} kB\n" for key, value in values.items())


def _swap_space(engine: EngineView) -> tuple[int, int]:
    """Return (size, use) of the swap device in bytes."""
    device = engine.core.device()
    return (device.segments * _SEGMENT, device.live_bytes) if device else (0, 0)


def _swaps(engine: EngineView) -> str:
    """Return what /proc/swaps says: sizes in kB, in mm/swapfile.c's columns."""
    heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    path = engine.swap_path
    if path is None:
        return heading
    try:
        kind = "partition" if st.S_ISBLK(os.stat(path).st_mode) else "file\t"
    except OSError:  # an unnamed file
        kind = "file\t"
    size, used = (nbytes // 1024 for nbytes in _swap_space(engine))
    name = path.translate({ord(blank): f"\\{ord(blank):03o}" for blank in " \t\n\\"})
    columns = f"{size}\t{'' if size >= 10_000_000 else chr(9)}{used}\t{'' if used >= 10_000_000 else chr(9)}"
    return f"{heading}{name}{' ' * max(40 - len(name), 1)}{kind}\t{columns}-2\n"


#: for the table
PROC_FILES: Final = (
    FileType("vmstat", "event counters of the engine", "flat_keyed", keys=_VMSTAT, reader=_vmstat),
    FileType("meminfo", "memory of the machine and of the engine", "flat_keyed", "kB", keys=_MEMINFO, reader=_meminfo),
    FileType("swaps", "the swap device", "table", "kB", reader=_swaps),
)
