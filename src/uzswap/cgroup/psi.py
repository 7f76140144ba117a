"""The arithmetic of pressure stall information: averages, sliding windows, unions of time spans.

The first two are kernel/sched/psi.c's, in its fixed point; all of it is plain numbers, without clocks and locks.
Times are in nanoseconds.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FIXED_1", "FSHIFT", "PERIOD", "Covered", "Window", "calc_averages"]

#: psi.c: PSI_FREQ without its one jiffy, which keeps kernel CPUs out of step; nothing here could be in step
PERIOD: Final = 2_000_000_000
#: psi.c: 1/exp(2s/10s), 1/exp(2s/60s), 1/exp(2s/300s) with FSHIFT bits
EXP: Final = (1677, 1981, 2034)
FSHIFT: Final = 11  # include/linux/sched/loadavg.h
FIXED_1: Final = 1 << FSHIFT
#: stalls of other threads that one long stall remembers; what is older counts as covered (see Covered)
MAX_SPANS: Final = 256


def _fixed_power_int(x: int, n: int) -> int:
    """Return x**n in fixed point, rounded in every step (kernel/sched/loadavg.c)."""
    result = FIXED_1
    while n:
        if n & 1:
            result = (result * x + (FIXED_1 >> 1)) >> FSHIFT
        n >>= 1
        x = (x * x + (FIXED_1 >> 1)) >> FSHIFT
    return result


def _calc_load(load: int, exp: int, active: int) -> int:
    """Return ``load`` decayed by ``exp`` towards ``active``, rounded up while it rises (sched/loadavg.h)."""
    new = load * exp + active * (FIXED_1 - exp)
    if active >= load:
        new += FIXED_1 - 1
    return new // FIXED_1


def calc_averages(averages: list[int], missed_periods: int, sample: int, period: int) -> None:
    """Age the three averages by the missed periods, then add the sample of the last one (psi.c: calc_avgs).

    Parameters
    ----------
    averages
        Percent in fixed point, for 10, 60 and 300 s; changed in place.
    missed_periods
        Periods of no activity before the one sampled.
    sample, period
        Stalled time and length of the last period, in ns.  Their quotient is cut to a whole percent, as in the kernel.
    """
    percent = sample * 100 // period * FIXED_1
    for i, exp in enumerate(EXP):
        if missed_periods:
            averages[i] = _calc_load(averages[i], _fixed_power_int(exp, missed_periods), 0)
        averages[i] = _calc_load(averages[i], exp, percent)


class Covered:
    """The length of a union of time spans, each of which ends now.

    A span may begin before spans that were added earlier, because a stall can be told after it ended.  The last
    disjoint spans are kept to tell what is new; time before them counts as covered, so that the length is never more
    than the time that passed.
    """

    __slots__ = ("_horizon", "_spans", "total")

    def __init__(self, horizon: int) -> None:
        self._horizon = horizon
        self._spans: list[tuple[int, int]] = []
        self.total = 0

    def add(self, start: int, now: int) -> None:
        start = max(start, self._horizon)
        if start >= now:
            return
        spans = self._spans
        new = now - start
        while spans and spans[-1][1] >= start:
            first, last = spans.pop()
            new -= last - max(first, start)
            start = min(first, start)
        spans.append((start, now))
        if len(spans) > MAX_SPANS:
            self._horizon = spans.pop(0)[1]
        self.total += new


class Window:
    """A sliding window over a growing total, interpolated from the previous one (psi.c: struct psi_window)."""

    __slots__ = ("prev_growth", "size", "start_time", "start_value")

    def __init__(self, size: int, now: int, value: int) -> None:
        self.size = size
        self.reset(now, value, 0)

    def reset(self, now: int, value: int, prev_growth: int) -> None:
        self.start_time = now
        self.start_value = value
        self.prev_growth = prev_growth

    def update(self, now: int, value: int) -> int:
        """Return the growth within the window that ends now, in ns."""
        elapsed = now - self.start_time
        growth = value - self.start_value
        if elapsed > self.size:
            self.reset(now, value, growth)
        else:
            growth += self.prev_growth * (self.size - elapsed) // self.size
        return growth
