"""For sessions that sleep for hours: what neither computes nor faults is taken down in steps, until it wakes.

Asked for by those who run many of them (agent sandboxes, notebooks, dev containers): an idle one keeps at most a
quarter of its memory.  Pressure does not tell: a session that sleeps has none.  What remains is mostly compressed, so
it wakes at the speed of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uzswap.agent.policies.policy import MEMORY, ZSWAP, Decision, Observation, whole_pages
from uzswap.agent.settings import setting

__all__ = ["WANTS", "Settings", "State", "step"]

#: bytes of a step: fewer are not worth a request
_LEAST: Final = 1 << 20

#: what it wants to know beyond the ordinary
WANTS: Final = frozenset({"cpu"})


@dataclass(frozen=True, slots=True)
class Settings:
    tick: float = setting(6.0, "seconds", "from one look to the next: how soon it is seen to be awake")
    after: float = setting(600.0, "seconds", "without CPU use and faults until it is idle")
    cpu: float = setting(0.1, "percent", "of one CPU that an idle cgroup may use: timers, heartbeats")
    faults: int = setting(4, "count", "major faults in a tick that an idle cgroup may have")
    steps: int = setting(8, "count", "requests from all of it down to the floor")
    keep: float = setting(0.25, "number", "share of memory.current when it fell idle that is the floor")
    floor: int = setting(0, "bytes", "kept in any case")


@dataclass(frozen=True, slots=True)
class State:
    #: the observation before; None before the first
    time: float | None = None
    cpu: int | None = None
    #: faults that were not for our own requests
    faults: int = 0
    #: since when it is quiet
    quiet_since: float = 0.0
    #: memory.current when it fell idle, 0 while it is awake
    began: int = 0


def step(settings: Settings, state: State, seen: Observation) -> tuple[State, tuple[Decision, ...]]:
    """Take a step down if it is idle; at the first sign of waking, none."""
    faults = seen.faults + seen.zswpin
    if state.time is None or seen.time <= state.time:
        return State(seen.time, seen.cpu, faults, seen.time), (Decision(MEMORY, 0, "awake"),)
    seconds = seen.time - state.time
    cpu = 0.0
    if seen.cpu is not None and state.cpu is not None:
        cpu = max(0, seen.cpu - state.cpu) / seconds / 1e4  # microseconds a second to percent
    came = max(0, faults - state.faults)
    inputs = {"cpu": cpu, "faults": came, "current": seen.current}
    if cpu > settings.cpu or came > settings.faults:
        return State(seen.time, seen.cpu, faults, seen.time), (Decision(MEMORY, 0, "awake", inputs),)
    quiet = seen.time - state.quiet_since
    inputs |= {"quiet": quiet}
    if quiet < settings.after:
        return State(seen.time, seen.cpu, faults, state.quiet_since), (Decision(MEMORY, 0, "awake", inputs),)
    began = state.began or seen.current
    state = State(seen.time, seen.cpu, faults, state.quiet_since, began)
    floor = max(int(began * settings.keep), settings.floor, seen.minimum)
    inputs |= {"floor": floor}
    above = seen.current - floor
    if above <= 0:
        return state, (Decision(MEMORY, 0, "floor", inputs),)
    # Compressing frees less than it takes: what is resident goes first, in equal steps, then what it was compressed to.
    size = whole_pages(max(1, began - floor) / settings.steps)
    takes = whole_pages(min(max(size, _LEAST), 2 * above, seen.reclaimable))
    if takes:
        return state, (Decision(MEMORY, takes, "idle", inputs),)
    if seen.unwritable:
        return state, (Decision(ZSWAP, 0, seen.unwritable, inputs),)
    nbytes = min(max(size, _LEAST), above, seen.zswap, seen.budget)
    return state, (Decision(ZSWAP, nbytes, "idle" if nbytes else "floor" if not seen.zswap else "budget", inputs),)
