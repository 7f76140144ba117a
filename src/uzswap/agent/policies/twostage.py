"""The default: memory into zswap as far as it costs little time, and to the disk what stays cold there.

**Stage one.**  TMO's formula (Weiner et al., ASPLOS'22) with a share that finds its own size: it begins with Senpai's
1 % (facebookincubator/oomd, ``max_probe``), grows by a fifth a round while the gate is more than half open, and is
halved when it closes.  The gate is closed by memory pressure, by IO pressure, or by the time that pages cost that came
back: their number, by what a load takes.  A hot page is one whose refaults cost time; a count of refaults alone would
keep pages in memory that are used every few minutes.

**Between them**, where the tree has ``uzswap.recompress``, what has been in zswap for half of the least age of stage
two is compressed again with a slower codec, some of it each round: it is then smaller in the pool, and on the device.

**Stage two.**  What has been in zswap for longer than an age is written to the device.  The age is ChromeOS's
(swap_management): ``age_min + (age_max - age_min) * exp(-5 * fill of the pool)``, and only as much of it above
``age_min`` as caution says.  Caution is whole for a cgroup that is new; it is halved with each round in which few pages
came back from the device, and doubled when they cost time: then nothing is written for a minute, either.  Of a round as
much is left out as came back, in the last minutes, of what was written: and that costs budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from uzswap.agent.policies.policy import MEMORY, PAGE, RECOMPRESS, ZSWAP, Decision, Observation, floor_of, whole_pages
from uzswap.agent.settings import setting

__all__ = ["WANTS", "Settings", "State", "step"]

#: what it wants to know beyond the ordinary
WANTS: Final = frozenset({"memory.pressure", "io.pressure"})


@dataclass(frozen=True, slots=True)
class Settings:
    tick: float = setting(6.0, "seconds", "from one round of stage one to the next")
    # Half of the 1 % of time that may be lost; DAMOS's goal in its published example is 0.5 % as well.
    pressure: float = setting(0.5, "percent", "of memory pressure, and of time lost to refaults, that closes the gate")
    io_pressure: float = setting(0.5, "percent", "of IO pressure that closes the gate")
    burst: float = setting(10.0, "number", "times as much of each may be in ten seconds as in a minute")
    floor: int = setting(0, "bytes", "kept above what cannot be reclaimed")
    probe: float = setting(0.01, "number", "share of a first request")
    # Katalyst's 1.05 takes 400 s from the first share to the largest, this 110 s; in a replay of an hour (mooncake,
    # November 2026) 80 % instead of 74 % are saved.
    growth: float = setting(1.2, "number", "of the share, each round with an open gate")
    # A quarter a round takes what was not used for some 24 s; Google's coldest useful age is 120 s (ASPLOS'19), for a
    # gate that knows ages and no costs.
    probe_max: float = setting(0.25, "number", "largest share of a request")
    # 160 KiB of 16 GiB: what many small cgroups give and take again is not worth the looking.
    worth: float = setting(1e-5, "number", "share of the machine's RAM that a request is worth making for")
    request_max: int = setting(128 << 20, "bytes", "largest request (DAMON_RECLAIM's quota)")
    # TMO, section 3: a compressed page is read in 40 us, the fastest of their SSDs takes 470 us (p90).
    zswap_load: float = setting(40e-6, "seconds", "that a page from zswap costs")
    disk_load: float = setting(470e-6, "seconds", "that a page from the device costs")
    recompress: bool = setting(
        True, "flag", "whether what stays in zswap is compressed again, where the tree has uzswap.recompress"
    )
    recompress_codec: str = setting("zstd", "text", "what with; may have a level, such as zstd:9")
    # 90 ms of the engine's CPU with zstd (text, November 2026): in 30 s 0.3 % of one.
    recompress_max: int = setting(8 << 20, "bytes", "compressed, of a round")
    writeback: bool = setting(True, "flag", "whether there is a stage two")
    substitute: bool = setting(
        False, "flag", "on a kernel without source=zswap, memory.zswap.max is lowered for a moment instead"
    )
    interval: float = setting(30.0, "seconds", "from one round of stage two to the next")
    age_min: float = setting(120.0, "seconds", "in zswap before a page may go to the device")
    age_max: float = setting(86400.0, "seconds", "the same, with an empty pool and all caution")
    round_min: int = setting(2 << 20, "bytes", "compressed, of a round with an empty pool (ChromeOS)")
    round_max: int = setting(128 << 20, "bytes", "compressed, of a round with a full pool (ChromeOS)")
    disk_pressure: float = setting(0.5, "percent", "of time lost to pages from the device that calls for caution")
    window: float = setting(300.0, "seconds", "what comes back within this was written too soon (the five-minute rule)")
    too_many: float = setting(
        0.5, "number", "share of what was written in the window that calls for caution, come back"
    )
    hold: float = setting(60.0, "seconds", "without writeback after pages from the device have cost time")


#: seconds that time lost is averaged over, as avg60 of pressure is
_MINUTE: Final = 60.0
#: swap_management's lambda
_STEEP: Final = 5.0
#: caution below this is none: age_max is then above age_min by seconds
_NO_CAUTION: Final = 1e-4
#: and what it is doubled from
_SOME_CAUTION: Final = 1 / 32
#: most rounds that are remembered
_ROUNDS: Final = 64


@dataclass(frozen=True, slots=True)
class _Counters:
    time: float
    zswpin: int
    diskin: int
    zswpout: int
    zswpwb: int


@dataclass(frozen=True, slots=True)
class State:
    #: stage one: the share, and bytes that were too few for a page
    probe: float = 0.0
    carried: float = 0.0
    #: observations of the last minute, oldest first
    recent: tuple[_Counters, ...] = ()
    #: when pages last came to zswap
    arrived: float = 0.0
    #: when more may be compressed again, what with it was last, and how often in a row all was old enough, and nothing
    #: was done
    recompress_at: float = 0.0
    recompress_codec: str = ""
    in_vain: int = 0
    #: stage two: 0 none, 1 all of it
    caution: float = 1.0
    held: float = 0.0
    #: observations of stage two's rounds within the window or the age, oldest first
    rounds: tuple[_Counters, ...] = ()


def step(settings: Settings, state: State, seen: Observation) -> tuple[State, tuple[Decision, ...]]:
    """Take a round of stage one, and of stage two when its time has come."""
    now = _Counters(seen.time, seen.zswpin, seen.diskin, seen.zswpout, seen.zswpwb)
    if not state.recent or now.zswpout != state.recent[-1].zswpout:
        state = replace(state, arrived=seen.time, in_vain=0)
    recent = (*(one for one in state.recent if one.time >= seen.time - _MINUTE), now)
    opened, gate = _opening(seen, settings)
    lost = _lost(settings, recent[0], now)
    if (left := 1 - lost / settings.pressure) < opened:
        opened, gate = max(0.0, left), gate if left > 0 else "refaults"
    state, first = _stage_one(settings, replace(state, recent=recent), seen, opened, gate, lost)
    decisions = [first]
    state = _learn(settings, state, seen)
    if seen.takes_recompress and settings.recompress and opened and _has_more(settings, state, seen):
        state = replace(state, recompress_at=seen.time + settings.interval, recompress_codec=settings.recompress_codec)
        decisions.append(_recompress(settings, seen, opened))
    if settings.writeback and not (state.rounds and seen.time < state.rounds[-1].time + settings.interval):
        state, second = _stage_two(settings, state, seen, now, opened, gate)
        decisions.append(second)
    return state, tuple(decisions)


def _opening(seen: Observation, settings: Settings) -> tuple[float, str]:
    """Return how far pressure leaves the gate open, and its name: by the last minute, or a burst."""
    opened, gate = 1.0, "open"
    for stall, threshold, name in (
        (seen.memory_stall, settings.pressure, "memory pressure"),
        (seen.io_stall, settings.io_pressure, "io pressure"),
    ):
        if stall is not None:
            left = 1 - max(stall.avg60, stall.avg10 / settings.burst) / threshold
            if left < opened:
                opened, gate = (left, "open") if left > 0 else (0.0, name)
    return opened, gate


def _lost(settings: Settings, before: _Counters, now: _Counters) -> float:
    """Return the percent of time that pages cost that came back."""
    if now.time <= before.time:
        return 0.0
    from_zswap, from_disk = max(0, now.zswpin - before.zswpin), max(0, now.diskin - before.diskin)
    seconds = from_zswap * settings.zswap_load + from_disk * settings.disk_load
    return 100 * seconds / (now.time - before.time)


def _stage_one(
    settings: Settings, state: State, seen: Observation, opened: float, gate: str, lost: float
) -> tuple[State, Decision]:
    probe = state.probe or settings.probe
    floor = floor_of(seen, settings.floor)
    inputs = {"open": opened, "lost": lost, "share": probe, "current": seen.current, "floor": floor}
    if not opened:
        return replace(state, probe=max(settings.probe, probe / 2)), Decision(MEMORY, 0, gate, inputs)
    above = min(seen.current - floor, seen.reclaimable)
    if above <= 0:
        return state, Decision(MEMORY, 0, "floor", inputs)
    wanted = min(state.carried + above * probe * opened, above, settings.request_max)
    nbytes = whole_pages(wanted)
    least = max(PAGE, int(seen.ram * settings.worth))
    if nbytes < least:
        nbytes = 0
    grown = min(probe * settings.growth, settings.probe_max) if opened > 0.5 else probe
    state = replace(state, probe=grown, carried=min(wanted - nbytes, least))
    return state, Decision(MEMORY, nbytes, "open" if nbytes else "not worth it", inputs)


def _learn(settings: Settings, state: State, seen: Observation) -> State:
    """See whether the last request has found anything to compress again."""
    for done in seen.done:
        if done.stage == RECOMPRESS:
            if done.done or done.errno:
                state = replace(state, in_vain=0)
            elif state.recompress_at - settings.interval > state.arrived + _age_to_recompress(settings):
                state = replace(state, in_vain=state.in_vain + 1)
    return state


def _has_more(settings: Settings, state: State, seen: Observation) -> bool:
    """Return whether there may be something to compress again."""
    if seen.time < state.recompress_at or not seen.zswap:
        return False
    # The first time that an entry is old enough may be its second chance.
    return state.in_vain < 2 or state.recompress_codec != settings.recompress_codec


def _age_to_recompress(settings: Settings) -> int:
    """Return seconds: half of what it has to be for the device, so that what goes there is smaller already."""
    return math.ceil(settings.age_min / 2)


def _recompress(settings: Settings, seen: Observation, opened: float) -> Decision:
    nbytes = int(min(seen.zswap, settings.recompress_max) * opened)
    age = _age_to_recompress(settings)
    return Decision(RECOMPRESS, nbytes, "open", {"open": opened, "age": age}, age, settings.recompress_codec)


def _stage_two(
    settings: Settings, state: State, seen: Observation, now: _Counters, opened: float, gate: str
) -> tuple[State, Decision]:
    before = state.rounds[-1] if state.rounds else now
    lost = _lost(settings, replace(state.recent[0], zswpin=now.zswpin), now)
    since = next(one for one in (*state.rounds, now) if one.time >= seen.time - settings.window)
    written, back = max(0, now.zswpwb - since.zswpwb), max(0, now.diskin - since.diskin)
    soon = min(1.0, back / written) if written else 0.0
    if lost >= settings.disk_pressure and seen.time >= state.held:
        state = replace(state, caution=_more(state.caution), held=seen.time + settings.hold)
    elif soon > settings.too_many:
        state = replace(state, caution=_more(state.caution))
    elif seen.time >= state.held and state.rounds:
        state = replace(state, caution=state.caution / 2 if state.caution > _NO_CAUTION else 0.0)
    age = settings.age_min + (settings.age_max - settings.age_min) * math.exp(-_STEEP * seen.pool) * state.caution
    kept = max(settings.window, age if not seen.takes_age else 0.0)
    rounds = tuple(one for one in state.rounds if one.time >= seen.time - kept) or state.rounds[-1:]
    state = replace(state, rounds=_thinned((*rounds, now)))
    length = seen.zswap / seen.zswapped * PAGE if seen.zswapped else PAGE
    penalty = int(min(max(0, now.diskin - before.diskin), written) * length)
    cold = seen.zswap if seen.takes_age else _old(seen, state.rounds, age)
    size = min(settings.round_max, max(settings.round_min, int(settings.round_max * seen.pool)))
    inputs = {
        "age": age, "cold": cold, "round": size, "came_back": soon, "lost": lost, "open": opened, "pool": seen.pool,
        "budget": seen.budget, "floor": settings.floor,
    }  # fmt: skip

    def answer(nbytes: int, why: str) -> tuple[State, Decision]:
        min_age = math.ceil(age) if seen.takes_age else None
        return state, Decision(ZSWAP, nbytes, why, inputs, min_age, penalty=penalty, by_limit=by_limit)

    by_limit = seen.unwritable == "no source" and settings.substitute
    if seen.unwritable and not by_limit:
        return answer(0, seen.unwritable)
    if not opened:
        return answer(0, gate)
    if seen.time < state.held:
        return answer(0, "disk refaults")
    if seen.current <= settings.floor:
        return answer(0, "floor")
    if not cold:
        return answer(0, "young" if seen.zswap else "nothing compressed")
    nbytes = int(min(cold, size) * (1 - soon) * opened)
    if nbytes <= 0:
        return answer(0, "disk refaults")
    if seen.budget <= 0:
        return answer(0, "budget")
    return answer(min(nbytes, seen.budget), "open")


def _more(caution: float) -> float:
    return min(1.0, max(2 * caution, _SOME_CAUTION))


def _thinned(rounds: tuple[_Counters, ...]) -> tuple[_Counters, ...]:
    """Leave out every other of the older half when there are many: a day of rounds is 2880."""
    if len(rounds) <= _ROUNDS:
        return rounds
    half = _ROUNDS // 2
    return (*rounds[:half:2], *rounds[half:])


def _old(seen: Observation, rounds: tuple[_Counters, ...], age: float) -> int:
    """Return compressed bytes that have been in zswap for longer than ``age``, at least.

    Zswap writes in the order of arrival, so what came since then is what is left out: all that arrived, since what
    of it has come back is not known.
    """
    if rounds[0].time > seen.time - age:
        return 0
    then = next(one for one in reversed(rounds) if one.time <= seen.time - age)
    arrived = max(0, rounds[-1].zswpout - then.zswpout) * PAGE
    return max(0, int(seen.zswap * (1 - arrived / seen.zswapped))) if seen.zswapped else 0
