"""Senpai as it is in oomd, in its immediate-backoff mode: a small fixed share, whenever there is no pressure.

Source: facebookincubator/oomd, src/oomd/plugins/Senpai.{h,cpp}, ``immediate_backoff``; its defaults.  It writes to
memory.reclaim, never to memory.high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uzswap.agent.policies.policy import MEMORY, Decision, Observation, floor_of, opening, whole_pages
from uzswap.agent.settings import setting

__all__ = ["WANTS", "Settings", "State", "step"]

#: what it wants to know beyond the ordinary
WANTS: Final = frozenset({"memory.pressure", "io.pressure"})


@dataclass(frozen=True, slots=True)
class Settings:
    tick: float = setting(1.0, "seconds", "from one look to the next while the gate is closed")
    interval: float = setting(6.0, "seconds", "from one request to the next")
    limit_min: int = setting(100 << 20, "bytes", "kept above what cannot be reclaimed")
    pressure: float = setting(0.1, "percent", "of memory pressure from which on nothing is asked for")
    io_pressure: float = setting(0.1, "percent", "the same of IO pressure")
    max_probe: float = setting(0.01, "number", "share of what is above the floor, a request")
    swap_threshold: float = setting(0.8, "number", "share of swap in use from which on nothing is asked for")


@dataclass(frozen=True, slots=True)
class State:
    #: when the next request may come
    next: float = 0.0


def step(settings: Settings, state: State, seen: Observation) -> tuple[State, tuple[Decision, ...]]:
    """Ask for ``(current - floor) * max_probe``; a closed gate is looked at again at every tick."""
    if seen.time < state.next:
        return state, ()
    opened, gate = opening(seen, settings.pressure, settings.io_pressure)
    floor = floor_of(seen, settings.limit_min)
    inputs = {"open": opened, "current": seen.current, "floor": floor}
    if not opened:
        return state, (Decision(MEMORY, 0, gate, inputs),)
    if seen.swap >= settings.swap_threshold:
        return state, (Decision(MEMORY, 0, "swap full", inputs | {"swap": seen.swap}),)
    if seen.current <= floor:
        return state, (Decision(MEMORY, 0, "floor", inputs),)
    nbytes = whole_pages((seen.current - floor) * settings.max_probe)
    return State(seen.time + settings.interval), (Decision(MEMORY, nbytes, "open" if nbytes else "floor", inputs),)
