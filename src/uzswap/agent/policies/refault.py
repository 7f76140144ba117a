"""Katalyst's refault policy, with its PSI policy beside it: grow slowly while what was taken stays away.

Source: kubewharf/katalyst-core, memory_offloading.go and tmo_base.go: ``accuracy = 1 - workingset_activate / pgsteal``,
``efficiency = pgsteal / pgscan`` of an interval; below either target ``last * accuracy``, else
``min(max(last * 1.05, inactive * 0.1), usage * max_probe)``; and of that and ``max(0, 1 - psi / threshold) *
max_probe * usage`` the smaller one ("integrated").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uzswap.agent.policies.policy import MEMORY, Decision, Observation, floor_of, whole_pages
from uzswap.agent.settings import setting

__all__ = ["WANTS", "Settings", "State", "step"]

#: what it wants to know beyond the ordinary
WANTS: Final = frozenset({"memory.pressure"})


@dataclass(frozen=True, slots=True)
class Settings:
    tick: float = setting(30.0, "seconds", "from one request to the next")
    max_probe: float = setting(0.01, "number", "most that is asked for, as a share of memory.current")
    pressure: float = setting(0.1, "percent", "of memory pressure (avg60) at which nothing is asked for any more")
    accuracy: float = setting(0.99, "number", "share of what was taken that has to stay away")
    efficiency: float = setting(0.6, "number", "share of what was looked at that has to be taken")
    inactive_probe: float = setting(0.1, "number", "share of the inactive list that is asked for at least")
    growth: float = setting(1.05, "number", "of a request over the one before")
    floor: int = setting(0, "bytes", "kept above what cannot be reclaimed")


@dataclass(frozen=True, slots=True)
class State:
    #: what was asked for
    last: float = 0.0
    #: counters of the observation before; None before the first
    refaults: int | None = None
    stolen: int = 0
    scanned: int = 0


def step(settings: Settings, state: State, seen: Observation) -> tuple[State, tuple[Decision, ...]]:
    """Ask for the smaller of what refaults and what pressure allow."""
    stolen, scanned = seen.stolen - state.stolen, seen.scanned - state.scanned
    first = state.refaults is None
    came_back = 0 if state.refaults is None else seen.refaults - state.refaults
    accuracy = 1.0 if first or stolen <= 0 else max(0.0, 1 - came_back / stolen)
    efficiency = 1.0 if first or scanned <= 0 else max(0, stolen) / scanned
    psi = 0.0 if seen.memory_stall is None else seen.memory_stall.avg60
    by_psi = max(0.0, 1 - psi / settings.pressure) * settings.max_probe * seen.current
    good = accuracy >= settings.accuracy and efficiency >= settings.efficiency
    if good:
        by_refaults = min(
            max(state.last * settings.growth, seen.inactive * settings.inactive_probe),
            seen.current * settings.max_probe,
        )
    else:
        by_refaults = state.last * accuracy
    floor = floor_of(seen, settings.floor)
    wanted = max(0.0, min(by_psi, by_refaults, seen.current - floor))
    inputs = {"accuracy": accuracy, "efficiency": efficiency, "psi": psi, "current": seen.current, "floor": floor}
    if seen.current <= floor:
        gate = "floor"
    elif by_psi <= 0:
        gate = "memory pressure"
    elif not good and by_refaults <= by_psi:
        gate = "refaults"
    else:
        gate = "open" if whole_pages(wanted) else "small"
    state = State(by_refaults, seen.refaults, seen.stolen, seen.scanned)
    return state, (Decision(MEMORY, whole_pages(wanted), gate, inputs),)
