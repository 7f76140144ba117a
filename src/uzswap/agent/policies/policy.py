"""What policies have in common: what they see, what they answer, and the guards that several of them share.

A policy is a pure function: from its settings, its state and an observation it makes the next state and decisions.  It
reads no clock and no file, so a replay of a trace (:mod:`uzswap.replay`) runs the very same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

__all__ = [
    "MEMORY",
    "PAGE",
    "RECOMPRESS",
    "ZSWAP",
    "Decision",
    "Done",
    "Histogram",
    "Observation",
    "Policy",
    "Stall",
    "floor_of",
    "highest",
    "opening",
    "whole_pages",
]

PAGE: Final = 4096
#: stages: from memory into zswap, from zswap to the device, and between them: compressed again within zswap
MEMORY: Final = 1
ZSWAP: Final = 2
RECOMPRESS: Final = 3


@dataclass(frozen=True, slots=True)
class Stall:
    """A line of a pressure file: percent of time."""

    avg10: float
    avg60: float
    #: microseconds, ever
    total: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bytes by age: ``counts[i]`` are those of ``ages[i]`` seconds or more, and less than ``ages[i + 1]``."""

    ages: tuple[float, ...]
    counts: tuple[int, ...]

    def at_least(self, age: float) -> int:
        """Return the bytes in classes that begin at ``age`` or later."""
        return sum(count for begins, count in zip(self.ages, self.counts, strict=True) if begins >= age)

    def minus(self, before: Histogram) -> Histogram:
        """Return what was added since."""
        return Histogram(self.ages, tuple(max(0, a - b) for a, b in zip(self.counts, before.counts, strict=True)))


@dataclass(frozen=True, slots=True)
class Done:
    """A request of this agent's that has ended."""

    stage: int
    asked: int
    #: bytes; by the counters, never by the errno
    done: int
    errno: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """A cgroup, as its files showed it at one time.  Bytes, unless it says pages; counters only grow."""

    #: seconds, of a clock that is never set
    time: float
    current: int = 0
    #: anonymous and file pages in memory
    resident: int = 0
    inactive: int = 0
    #: of what is resident, what reclaim can take: file pages, and as much anonymous memory as there is room in swap
    reclaimable: int = 0
    #: memory.min
    minimum: int = 0
    #: compressed, in the pool; and that before it was compressed
    zswap: int = 0
    zswapped: int = 0
    #: on the device
    disk: int = 0
    #: None where the tree has no PSI
    memory_stall: Stall | None = None
    io_stall: Stall | None = None
    #: pages, ever: came back soon; were taken; were looked at; came from zswap; went there; came from the device
    refaults: int = 0
    stolen: int = 0
    scanned: int = 0
    zswpin: int = 0
    zswpout: int = 0
    diskin: int = 0
    #: pages, ever: from zswap to the device
    zswpwb: int = 0
    #: major faults, ever
    faults: int = 0
    #: bytes, ever: that requests of stage one have taken, and that those of stage two have had written
    reclaimed: int = 0
    written: int = 0
    #: microseconds of CPU, ever; None where the tree has no cpu.stat
    cpu: int | None = None
    #: of the machine, 0 if it does not say
    ram: int = 0
    #: share of its limit that the pool has reached
    pool: float = 0.0
    #: share of swap space in use
    swap: float = 0.0
    #: whether stage two can be asked for here; if not, ``unwritable`` is the gate that says why
    unwritable: str = ""
    #: whether stage two takes min_age=
    takes_age: bool = False
    #: whether what is in zswap can be compressed again
    takes_recompress: bool = False
    #: compressed bytes that may be written to the device now, and bytes that one of them is there: a kernel writes
    #: whole pages
    budget: int = 0
    expansion: float = 1.0
    #: what the tree tells of ages, None where it does not: bytes resident by age; bytes that came back by age, ever
    cold: Histogram | None = None
    promoted: Histogram | None = None
    #: requests that have ended since the observation before
    done: tuple[Done, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, or why nothing is."""

    stage: int
    #: 0 is nothing
    nbytes: int
    #: a key of :data:`uzswap.agent.explain.GATES`
    gate: str
    inputs: Mapping[str, float] = field(default_factory=dict)
    #: seconds; of what is in zswap, where the tree takes it
    min_age: int | None = None
    #: what it is compressed again with
    codec: str = ""
    #: by pushing out over a lowered memory.zswap.max, where there is no source=zswap
    by_limit: bool = False
    #: bytes that the write budget loses for what came back too soon
    penalty: int = 0


class Policy(Protocol):
    """A module of :mod:`uzswap.agent.policies`."""

    #: what it wants to know that is not read for everybody: "memory.pressure", "io.pressure", "cpu", "ages"
    WANTS: frozenset[str]
    #: settings, a frozen dataclass with ``tick``: seconds from one step to the next
    Settings: type[Any]
    #: what a cgroup that is seen for the first time has
    State: type[Any]

    @staticmethod
    def step(settings: Any, state: Any, seen: Observation) -> tuple[Any, tuple[Decision, ...]]: ...


def whole_pages(nbytes: float) -> int:
    """Round down: memory.reclaim counts in pages."""
    return int(nbytes) // PAGE * PAGE


def highest(stall: Stall | None) -> float:
    """Return percent: the higher of the last 10 and 60 seconds, so that it rises at once and falls slowly."""
    return 0.0 if stall is None else max(stall.avg10, stall.avg60)


def opening(seen: Observation, memory: float, io: float) -> tuple[float, str]:
    """Return how far pressure leaves the gate open, 0 to 1, and the gate's name.

    TMO (Weiner et al., ASPLOS'22): ``max(0, 1 - PSI_some / PSI_threshold)``, of memory and of IO.

    Parameters
    ----------
    memory, io
        Thresholds in percent.
    """
    by_memory = 1 - highest(seen.memory_stall) / memory if memory else 0.0
    by_io = 1 - highest(seen.io_stall) / io if io else 0.0
    if by_memory <= by_io:
        return (by_memory, "open") if by_memory > 0 else (0.0, "memory pressure")
    return (by_io, "open") if by_io > 0 else (0.0, "io pressure")


def floor_of(seen: Observation, least: int) -> int:
    """Return what is never gone below: ``least`` above what cannot be reclaimed, and memory.min.

    facebookincubator/oomd, Senpai.cpp: ``limit_min_bytes + unreclaimable``.
    """
    return max(least + max(0, seen.current - seen.reclaimable), seen.minimum)
