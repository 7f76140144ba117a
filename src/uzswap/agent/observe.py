"""One reading of a cgroup: an observation from its files.

Cheap, since it is made of each cgroup in each round: files that are read seldom (limits) are remembered for a while,
and of memory.stat only the numbers that are wanted are made numbers of.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from uzswap.agent.policies.policy import PAGE, Done, Histogram, Observation, Stall
from uzswap.agent.probes import Abilities
from uzswap.agent.tree import Machine
from uzswap.client.root import Root

__all__ = [
    "GONE",
    "STOLEN",
    "WRITTEN",
    "Reader",
    "Reading",
    "histogram_of",
    "number_of",
    "numbers",
    "reclaimed_of",
    "stall_of",
    "written_of",
]

#: keys of memory.stat that tell what a stage did: pages, from 6.13 on; compressed bytes
STOLEN: Final = "pgsteal_proactive"
WRITTEN: Final = "zswpwb_proactive_b"
#: seconds after which memory.min and memory.swap.max are read again: what sets them does so at start-up
_SELDOM: Final = 60.0


def numbers(text: str) -> dict[str, str]:
    """Return ``key value`` lines as texts: most of them nobody wants as numbers.

    >>> numbers("anon 4096\\nzswap 10\\n")
    {'anon': '4096', 'zswap': '10'}
    """
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=False))


def number_of(text: str, key: str) -> int | None:
    """Return one number of ``key value`` lines, not the first; None without it.

    >>> number_of("anon 4096\\nzswap 10\\n", "zswap"), number_of("anon 4096\\nzswap 10\\n", "swap")
    (10, None)
    """
    at = text.find(f"\n{key} ")
    return None if at < 0 else int(text[at + len(key) + 2 : text.find("\n", at + 1)])


def stall_of(text: str | None) -> Stall | None:
    """Return the ``some`` line of a pressure file.

    >>> stall_of("some avg10=0.10 avg60=0.02 avg300=0.00 total=1234\\n")
    Stall(avg10=0.1, avg60=0.02, total=1234)
    """
    words = (text or "").split(None, 5)
    if len(words) < 5 or words[0] != "some":
        return None
    found = dict([word.split("=", 1) for word in words[1:5]])
    return Stall(float(found["avg10"]), float(found["avg60"]), int(found["total"]))


def histogram_of(text: str | None) -> Histogram | None:
    """Return lines of ``SECONDS BYTES``."""
    if text is None:
        return None
    pairs = [(float(age), int(count)) for age, count in numbers(text).items()]
    return Histogram(tuple(age for age, _ in pairs), tuple(count for _, count in pairs))


class Reading(NamedTuple):
    """The texts of a cgroup's files at one time; None are those that it does not have, or nobody wants."""

    stat: str
    current: str | None
    swap: str | None
    memory_pressure: str | None
    io_pressure: str | None
    cpu: str | None
    cold: str | None
    promoted: str | None


@dataclass(slots=True)
class Reader:
    """Reads one cgroup, again and again.

    :meth:`read` may wait for the file system, and is for any thread, one at a time; :meth:`observation` waits for
    nobody.
    """

    #: of the cgroup
    directory: str
    abilities: Abilities
    #: what is read for this policy alone, where there is any: "memory.pressure", "io.pressure", "cpu", "ages"
    wants: frozenset[str] = frozenset()
    _seldom_at: float = float("-inf")
    _minimum: int = 0
    _swap_max: int | None = None
    _writeback: bool = True

    def read(self, root: Root, now: float) -> Reading:
        """Read the files.

        Raises
        ------
        OSError
            ENOENT or ENODEV the cgroup is gone.
        """
        stat = root.read(f"{self.directory}/memory.stat")
        if now - self._seldom_at >= _SELDOM:
            self._read_seldom(root, now)
        can, wants = self.abilities, self.wants

        def if_wanted(word: str, there: bool, file: str) -> str | None:
            return self._read(root, file) if there and word in wants else None

        return Reading(
            stat,
            None if can.engine else self._read(root, "memory.current"),
            None if can.engine else self._read(root, "memory.swap.current"),
            if_wanted("memory.pressure", can.memory_pressure, "memory.pressure"),
            if_wanted("io.pressure", can.io_pressure, "io.pressure"),
            if_wanted("cpu", can.cpu, "cpu.stat"),
            if_wanted("ages", can.ages, "uzswap.cold_age"),
            if_wanted("ages", can.ages, "uzswap.promotion_age"),
        )

    def observation(
        self, told: Reading, now: float, machine: Machine, budget: int, quiet: bool, done: tuple[Done, ...]
    ) -> Observation:
        """Return what the files say."""
        stat = numbers(told.stat)

        def value(key: str) -> int:
            return int(stat.get(key, 0))

        swap = int(told.swap or 0)
        anon, inactive_anon, inactive_file = value("anon"), value("inactive_anon"), value("inactive_file")
        zswap, zswapped, zswpin = value("zswap"), value("zswapped"), value("zswpin")
        resident, faults = anon + value("file"), value("pgmajfault")
        expansion = max(1.0, zswapped / zswap) if zswap and not self.abilities.engine else 1.0
        room = self._room(machine, swap, zswap)
        if not machine.zswap:
            room = min(room, budget)  # stage one writes to the device itself
        return Observation(
            time=now,
            # An engine's is in memory.stat, to the page; a kernel's root has none.  zswap is kernel memory in both.
            current=int(told.current) if told.current else _in_pages(resident + value("kernel")),
            resident=resident,
            inactive=inactive_anon + inactive_file,
            reclaimable=inactive_file + value("active_file") + min(room, inactive_anon + value("active_anon")),
            minimum=self._minimum,
            zswap=zswap,
            zswapped=zswapped,
            disk=value("uzswap.disk") if "uzswap.disk" in stat else max(0, swap - zswapped),
            memory_stall=stall_of(told.memory_pressure),
            io_stall=stall_of(told.io_pressure),
            refaults=_came_back(stat),
            stolen=value("pgsteal") if "pgsteal" in stat else value("pgsteal_kswapd") + value("pgsteal_direct"),
            scanned=value("pgscan") if "pgscan" in stat else value("pgscan_kswapd") + value("pgscan_direct"),
            zswpin=zswpin,
            zswpout=value("zswpout"),
            # Before 6.13 memory.stat has no pswpin: a major fault that zswap did not serve was a read.
            diskin=value("pswpin") if "pswpin" in stat else max(0, faults - zswpin),
            zswpwb=value("zswpwb"),
            faults=faults,
            reclaimed=reclaimed_of(stat),
            written=written_of(stat),
            cpu=_cpu(told.cpu),
            ram=machine.ram,
            pool=min(1.0, machine.pool / machine.pool_max) if machine.pool and machine.pool_max else 0.0,
            swap=1 - machine.swap_free / machine.swap_total if machine.swap_total else 0.0,
            unwritable=self._unwritable(quiet, machine),
            takes_age=self.abilities.min_age,
            takes_recompress=self.abilities.recompress,
            budget=int(budget / expansion),
            expansion=expansion,
            cold=histogram_of(told.cold),
            promoted=histogram_of(told.promoted),
            done=done,
        )

    def _read(self, root: Root, file: str) -> str | None:
        """Return the text of a file, None without it: that the cgroup is there memory.stat has shown."""
        try:
            return root.read(f"{self.directory}/{file}")
        except OSError as error:
            if error.errno in _NOT_HAD:
                return None
            raise

    def _read_seldom(self, root: Root, now: float) -> None:
        self._seldom_at = now
        self._minimum = _limit(self._read(root, "memory.min")) or 0
        self._swap_max = _limit(self._read(root, "memory.swap.max"))
        self._writeback = (self._read(root, "memory.zswap.writeback") or "1").strip() != "0"

    def _room(self, machine: Machine, used: int, zswap: int) -> int:
        """Return how much more anonymous memory has room in swap; an engine takes it at writeback only."""
        free = machine.swap_free if machine.swap_total or not self.abilities.engine else 1 << 62
        if self.abilities.engine and machine.swap_total:
            free = max(0, free - zswap)
        return free if self._swap_max is None else max(0, min(free, self._swap_max - used))

    def _unwritable(self, quiet: bool, machine: Machine) -> str:
        if not self.abilities.source_zswap:
            return "no source"
        if not machine.swap_total:
            return "no swap"
        if not self._writeback:
            return "writeback off"
        if machine.swap_free <= machine.swap_total // 100:
            return "swap full"
        return "quiet hours" if quiet else ""


def reclaimed_of(stat: Mapping[str, str]) -> int:
    """Return bytes that requests for memory have taken, ever; on a kernel that does not count them, before 6.13, what
    makes the same difference."""
    if STOLEN in stat:
        return int(stat[STOLEN]) * PAGE
    return -int(stat.get("anon", 0)) - int(stat.get("file", 0))


def written_of(stat: Mapping[str, str]) -> int:
    """Return compressed bytes that requests have had written to the device, ever."""
    return int(stat.get(WRITTEN, 0))


def _in_pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE


def _limit(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None


def _came_back(stat: Mapping[str, str]) -> int:
    """Return pages that came back soon.

    The kernel's refaults are all that are recognised as such; those that reclaim was wrong about it activates.  An
    engine activates nothing.
    """
    kinds = ("anon", "file")
    if "uzswap.disk" in stat:
        return sum(int(stat.get(f"workingset_refault_{kind}", 0)) for kind in kinds)
    return sum(int(stat.get(f"workingset_activate_{kind}", 0)) for kind in kinds)


def _cpu(text: str | None) -> int | None:
    return int(numbers(text)["usage_usec"]) if text and "usage_usec" in text else None


#: errnos of a file that a cgroup does not have, or not for us; EOPNOTSUPP and EINVAL are pressure without psi=1
_NOT_HAD: Final = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL})
#: errnos of a cgroup that is gone
GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
