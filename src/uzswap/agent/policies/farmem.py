"""Google's far memory: the youngest age at which pages may leave without too many of them coming back.

Source: Lagar-Cavilla et al., "Software-Defined Far Memory in Warehouse-Scale Computers", ASPLOS'19: what was
touched in the last 120 s is the working set; at most 0.2 % of it may come back in a minute; each minute has a
best age threshold, the smallest that would have met that; the threshold of the next minute is the K-th percentile of
all best ones so far, or the last one if that is higher; a job is left alone for its first S seconds.

It takes a tree that tells ages: ``uzswap.cold_age`` and ``uzswap.promotion_age``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from uzswap.agent.policies.policy import MEMORY, Decision, Histogram, Observation, floor_of, whole_pages
from uzswap.agent.settings import setting

__all__ = ["WANTS", "Settings", "State", "best_age", "percentile", "step"]

#: best thresholds that are remembered: a week of minutes
_MINUTES = 7 * 24 * 60

#: what it wants to know beyond the ordinary
WANTS: Final = frozenset({"ages"})


@dataclass(frozen=True, slots=True)
class Settings:
    tick: float = setting(60.0, "seconds", "from one threshold to the next")
    rate: float = setting(0.2, "percent", "of the working set that may come back in a minute")
    working_set: float = setting(120.0, "seconds", "what was touched since is the working set")
    percentile: float = setting(98.0, "number", "K: which of all best thresholds is used")
    warm_up: float = setting(120.0, "seconds", "S: a cgroup is left alone for so long")
    floor: int = setting(0, "bytes", "kept above what cannot be reclaimed")


@dataclass(frozen=True, slots=True)
class State:
    #: when it was seen first; None before that
    began: float | None = None
    #: the observation before
    time: float = 0.0
    promoted: Histogram | None = None
    #: best thresholds so far, oldest first
    best: tuple[float, ...] = ()


def best_age(promoted: Histogram, minutes: float, allowed: float) -> float:
    """Return the smallest age so that at most ``allowed`` bytes a minute of that age or more came back."""
    for age in promoted.ages:
        if promoted.at_least(age) / minutes <= allowed:
            return age
    return math.inf


def percentile(values: tuple[float, ...], share: float) -> float:
    """Return the smallest value that ``share`` percent of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def step(settings: Settings, state: State, seen: Observation) -> tuple[State, tuple[Decision, ...]]:
    """Ask for all that is older than the threshold."""
    if seen.cold is None or seen.promoted is None:
        return state, (Decision(MEMORY, 0, "no ages"),)
    if state.began is None or state.promoted is None:
        return State(seen.time, seen.time, seen.promoted), (Decision(MEMORY, 0, "warming up"),)
    minutes = (seen.time - state.time) / 60
    if minutes <= 0:
        return state, ()
    working_set = sum(seen.cold.counts) - seen.cold.at_least(settings.working_set)
    newest = best_age(seen.promoted.minus(state.promoted), minutes, working_set * settings.rate / 100)
    best = (*state.best, newest)[-_MINUTES:]
    began = state.began
    state = State(began, seen.time, seen.promoted, best)
    age = max(percentile(best, settings.percentile), newest)
    cold = seen.cold.at_least(max(age, settings.working_set))
    floor = floor_of(seen, settings.floor)
    inputs = {"age": age, "cold": cold, "working_set": working_set, "floor": floor}
    if seen.time - began < settings.warm_up:
        return state, (Decision(MEMORY, 0, "warming up", inputs),)
    nbytes = whole_pages(min(cold, max(0, seen.current - floor)))
    gate = "open" if nbytes else "floor" if cold else "young"
    return state, (Decision(MEMORY, nbytes, gate, inputs),)
