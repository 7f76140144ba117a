"""TMO's controller: a tiny share of all, the less the more pressure there is.

Source: Weiner et al., "TMO: Transparent Memory Offloading in Datacenters", ASPLOS'22:
``reclaim = current * reclaim_ratio * max(0, 1 - PSI_some / PSI_threshold)``, every 6 s, with a ratio of 0.0005 and a
threshold of 0.1 %, for memory and IO pressure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uzswap.agent.policies.policy import MEMORY, PAGE, Decision, Observation, floor_of, opening, whole_pages
from uzswap.agent.settings import setting

__all__ = ["WANTS", "Settings", "State", "step"]

#: what it wants to know beyond the ordinary
WANTS: Final = frozenset({"memory.pressure", "io.pressure"})


@dataclass(frozen=True, slots=True)
class Settings:
    tick: float = setting(6.0, "seconds", "from one request to the next")
    ratio: float = setting(0.0005, "number", "share of memory.current, a request")
    pressure: float = setting(0.1, "percent", "of memory pressure at which nothing is asked for any more")
    io_pressure: float = setting(0.1, "percent", "the same of IO pressure")
    floor: int = setting(0, "bytes", "kept above what cannot be reclaimed")


@dataclass(frozen=True, slots=True)
class State:
    #: bytes that were too few for a page
    carried: float = 0.0


def step(settings: Settings, state: State, seen: Observation) -> tuple[State, tuple[Decision, ...]]:
    """Ask for what the formula says; what is no whole page is carried over to the next request."""
    opened, gate = opening(seen, settings.pressure, settings.io_pressure)
    floor = floor_of(seen, settings.floor)
    inputs = {"open": opened, "current": seen.current, "floor": floor}
    if not opened:
        return state, (Decision(MEMORY, 0, gate, inputs),)
    if seen.current <= floor:
        return state, (Decision(MEMORY, 0, "floor", inputs),)
    wanted = min(state.carried + seen.current * settings.ratio * opened, seen.current - floor)
    nbytes = whole_pages(wanted)
    return State(min(wanted - nbytes, PAGE)), (Decision(MEMORY, nbytes, "open" if nbytes else "small", inputs),)
