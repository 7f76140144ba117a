"""One reading of a cgroup: an observation from its files, or from what an engine tells of all of them at once.

Cheap, since it is made of each cgroup in each round: files that are read seldom (limits) are remembered for a while,
and of memory.stat only the numbers that are wanted are made numbers of.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from uzswap.agent.policies.policy import PAGE, Done, Histogram, Observation, Stall
from uzswap.agent.probes import Abilities
from uzswap.agent.tree import Machine
from uzswap.client.root import Root

__all__ = [
    "GONE",
    "STOLEN",
    "TOLD",
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
#: the files that :meth:`Reader.of_told` goes by
TOLD: Final = (
    "memory.stat", "memory.pressure", "memory.min", "memory.swap.current", "memory.swap.max", "memory.zswap.writeback",
)  # fmt: skip
#: what may be wanted and is in none of these
_UNTOLD: Final = {"io.pressure": "io_pressure", "cpu": "cpu", "ages": "ages"}
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
    """A cgroup's files at one time; None is what it does not have, or nobody wants."""

    #: memory.stat; what is 0 may be missing where the tree is an engine's
    stat: Mapping[str, str | int]
    current: int | None
    swap: int
    minimum: int
    swap_max: int | None
    writeback: bool
    memory_stall: Stall | None
    io_stall: Stall | None
    cpu: int | None
    cold: Histogram | None
    promoted: Histogram | None


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

        # An engine's are in its memory.stat, but for what counts against a limit.
        current = None if can.engine else self._read(root, "memory.current")
        swap = None if can.engine and self._swap_max is None else self._read(root, "memory.swap.current")
        return Reading(
            numbers(stat),
            int(current) if current else None,
            int(swap or 0),
            self._minimum,
            self._swap_max,
            self._writeback,
            stall_of(if_wanted("memory.pressure", can.memory_pressure, "memory.pressure")),
            stall_of(if_wanted("io.pressure", can.io_pressure, "io.pressure")),
            _cpu(if_wanted("cpu", can.cpu, "cpu.stat")),
            histogram_of(if_wanted("ages", can.ages, "uzswap.cold_age")),
            histogram_of(if_wanted("ages", can.ages, "uzswap.promotion_age")),
        )

    def is_told(self) -> bool:
        """Whether all that is wanted is in :data:`TOLD`."""
        can = self.abilities
        return can.engine and not any(word in self.wants and getattr(can, there) for word, there in _UNTOLD.items())

    def of_told(self, told: Mapping[str, Any]) -> Reading:
        """Return what an engine told: see :meth:`uzswap.client.root.Root.stat`.  The same as :meth:`read`'s."""
        swap_max = _number(told.get("memory.swap.max", "max"))
        stall = None
        if self.abilities.memory_pressure and "memory.pressure" in self.wants:
            some = told.get("memory.pressure", _CALM).get("some", _CALM)
            stall = Stall(some.get("avg10", 0.0), some.get("avg60", 0.0), some.get("total", 0))
        return Reading(
            stat=told.get("memory.stat", _CALM),
            current=None,
            swap=0 if swap_max is None else told.get("memory.swap.current", 0),
            minimum=_number(told.get("memory.min", 0)) or 0,
            swap_max=swap_max,
            writeback=told.get("memory.zswap.writeback", 1) != 0,
            memory_stall=stall,
            io_stall=None,
            cpu=None,
            cold=None,
            promoted=None,
        )

    def observation(
        self, told: Reading, now: float, machine: Machine, budget: int, quiet: bool, done: tuple[Done, ...]
    ) -> Observation:
        """Return what the files say."""
        stat, engine = told.stat, self.abilities.engine

        def value(key: str) -> int:
            return int(stat.get(key, 0))

        def has(key: str) -> bool:
            return engine or key in stat

        anon, inactive_anon, inactive_file = value("anon"), value("inactive_anon"), value("inactive_file")
        zswap, zswapped, zswpin = value("zswap"), value("zswapped"), value("zswpin")
        resident, faults = anon + value("file"), value("pgmajfault")
        expansion = max(1.0, zswapped / zswap) if zswap and not engine else 1.0
        room = self._room(machine, told, zswap)
        if not machine.zswap:
            room = min(room, budget)  # stage one writes to the device itself
        return Observation(
            time=now,
            # An engine's is in memory.stat, to the page; a kernel's root has none.  zswap is kernel memory in both.
            current=_in_pages(resident + value("kernel")) if told.current is None else told.current,
            resident=resident,
            inactive=inactive_anon + inactive_file,
            reclaimable=inactive_file + value("active_file") + min(room, inactive_anon + value("active_anon")),
            minimum=told.minimum,
            zswap=zswap,
            zswapped=zswapped,
            disk=value("uzswap.disk") if engine else max(0, told.swap - zswapped),
            memory_stall=told.memory_stall,
            io_stall=told.io_stall,
            # The kernel's refaults are all that are recognised as such; those that reclaim was wrong about it
            # activates.  An engine activates nothing.
            refaults=sum(value(f"workingset_{'refault' if engine else 'activate'}_{kind}") for kind in _KINDS),
            stolen=value("pgsteal") if has("pgsteal") else value("pgsteal_kswapd") + value("pgsteal_direct"),
            scanned=value("pgscan") if has("pgscan") else value("pgscan_kswapd") + value("pgscan_direct"),
            zswpin=zswpin,
            zswpout=value("zswpout"),
            # Before 6.13 memory.stat has no pswpin: a major fault that zswap did not serve was a read.
            diskin=value("pswpin") if has("pswpin") else max(0, faults - zswpin),
            zswpwb=value("zswpwb"),
            faults=faults,
            reclaimed=value(STOLEN) * PAGE if engine else reclaimed_of(stat),
            written=written_of(stat),
            cpu=told.cpu,
            ram=machine.ram,
            pool=min(1.0, machine.pool / machine.pool_max) if machine.pool and machine.pool_max else 0.0,
            swap=1 - machine.swap_free / machine.swap_total if machine.swap_total else 0.0,
            unwritable=self._unwritable(quiet, machine, told.writeback),
            takes_age=self.abilities.min_age,
            takes_recompress=self.abilities.recompress,
            budget=int(budget / expansion),
            expansion=expansion,
            cold=told.cold,
            promoted=told.promoted,
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

    def _room(self, machine: Machine, told: Reading, zswap: int) -> int:
        """Return how much more anonymous memory has room in swap; an engine takes it at writeback only."""
        free = machine.swap_free if machine.swap_total or not self.abilities.engine else 1 << 62
        if self.abilities.engine and machine.swap_total:
            free = max(0, free - zswap)
        return free if told.swap_max is None else max(0, min(free, told.swap_max - told.swap))

    def _unwritable(self, quiet: bool, machine: Machine, writeback: bool) -> str:
        if not self.abilities.source_zswap:
            return "no source"
        if not machine.swap_total:
            return "no swap"
        if not writeback:
            return "writeback off"
        if machine.swap_free <= machine.swap_total // 100:
            return "swap full"
        return "quiet hours" if quiet else ""


def reclaimed_of(stat: Mapping[str, str | int]) -> int:
    """Return bytes that requests for memory have taken, ever; on a kernel that does not count them, before 6.13, what
    makes the same difference."""
    if STOLEN in stat:
        return int(stat[STOLEN]) * PAGE
    return -int(stat.get("anon", 0)) - int(stat.get("file", 0))


def written_of(stat: Mapping[str, str | int]) -> int:
    """Return compressed bytes that requests have had written to the device, ever."""
    return int(stat.get(WRITTEN, 0))


def _in_pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE


def _limit(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None


def _number(told: int | str) -> int | None:
    return None if isinstance(told, str) else told


def _cpu(text: str | None) -> int | None:
    return int(numbers(text)["usage_usec"]) if text and "usage_usec" in text else None


_KINDS: Final = ("anon", "file")
#: what is not told is 0
_CALM: Final[Mapping[str, Any]] = {}
#: errnos of a file that a cgroup does not have, or not for us; EOPNOTSUPP and EINVAL are pressure without psi=1
_NOT_HAD: Final = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL})
#: errnos of a cgroup that is gone
GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
