"""Pressure stall information for ``memory.pressure``, after kernel/sched/psi.c.

A thread is *stalled* while it waits for the device or for reclaim on behalf of a cgroup.  A stall counts in that cgroup
and in every ancestor.  Two states are timed for each of them:

- ``some``: at least one thread is stalled.
- ``full``: at least one thread is stalled and nobody makes progress.  The kernel asks the scheduler who could run; a
  process cannot, so here a thread belongs to the workload of a cgroup while it is stalled in its subtree and for one
  period (2 s) after its last stall there, and ``full`` is the time in which all of them are stalled at once.  A
  workload of one thread thus has equal ``some`` and ``full``.

Stalls of faults are measured where the faults are served, in the same states (:mod:`uzswap.core.paging.stalls`), and
added here with :meth:`Pressure.add`.

The averages are the kernel's: sampled every 2 s, in 11-bit fixed point, whole percents.  The state between two changes
is constant, so the samples are taken after the fact, exactly at their due times, by whoever looks next; they need no
timer.  Only triggers do: a worker thread runs while there are any.

Invariants
----------
- Between calls, ``some`` and ``full`` of a group are committed up to the time of the last call.
- ``full`` <= ``some`` <= elapsed time, for every group.
- A thread is in the ``_open`` map of either no group or of a whole chain up to the root.

Threads: every method can be called from any thread; one lock, held for microseconds, guards all groups of a monitor.
It is a leaf: nothing else is locked while it is held.  This module is compiled, so that no signal handler runs between
two of its steps (setup.py, ``UNTORN``): a thread is never left stalled.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

from uzswap.cgroup.psi import FSHIFT, PERIOD, Covered, Window, calc_averages
from uzswap.cgroup.trigger import Trigger
from uzswap.condition import Regardless
from uzswap.errors import os_error
from uzswap.locks import Order, make_condition
from uzswap.threads import start_thread

__all__ = ["Pressure", "PressureMonitor"]

NSEC_PER_USEC: Final = 1_000
#: psi.c, in microseconds; the smallest window was 500 ms in older kernels
WINDOW_MAX_US: Final = 10_000_000
#: psi.c: without CAP_SYS_RESOURCE a window is a multiple of this, so that the averages' own ticks serve it
UNPRIVILEGED_WINDOW_US: Final = 2_000_000
UPDATES_PER_WINDOW: Final = 10  # psi.c
#: the shortest time between two looks at the triggers of a group; the kernel's is one jiffy, 1 ms with HZ=1000
RESOLUTION: Final = 1_000_000

SOME: Final = 0
FULL: Final = 1
STATES: Final = ("some", "full")
_TRIGGER: Final = re.compile(r"(some|full)[ \t\n\v\f\r]*([0-9]+)[ \t\n\v\f\r]+([0-9]+)")


_NO_PRESSURE: Final = ((0.0, 0.0, 0.0, 0), (0.0, 0.0, 0.0, 0))


def _percent(average: int) -> float:
    """Return an average as the kernel shows it: whole percents, and hundredths cut off."""
    return (average * 100 >> FSHIFT) / 100


class Pressure:
    """Stall times of one cgroup and its descendants.

    Parameters
    ----------
    monitor
        Owns the lock, the clock and the worker.
    parent
        The parent's group, None for the root.
    """

    __slots__ = (
        "_averages",
        "_committed",
        "_full",
        "_last_update",
        "_next_update",
        "_open",
        "_poll_next",
        "_poll_seen",
        "_poll_until",
        "_recent",
        "_sampled",
        "_some",
        "_triggers",
        "monitor",
        "parent",
    )

    def __init__(self, monitor: PressureMonitor, parent: Pressure | None = None) -> None:
        now = monitor.clock()
        self.monitor = monitor
        self.parent = parent
        #: thread -> begin of its stall
        self._open: dict[int, int] = {}
        #: thread that is not stalled -> end of its last stall, for one period
        self._recent: dict[int, int] = {}
        self._some = Covered(now)
        self._full = Covered(now)
        self._committed = now
        self._averages = ([0, 0, 0], [0, 0, 0])
        self._sampled = [0, 0]  # psi.c: avg_total
        self._last_update = now
        self._next_update = now + PERIOD
        self._triggers: list[Trigger] = []
        self._poll_seen = [0, 0]
        self._poll_until = -1
        self._poll_next: int | None = None

    # What the fault and reclaim paths call

    def stall(self) -> Self:
        """Mark the calling thread as stalled, as a context manager.

        Within a stall of the same thread, also of another cgroup, it does nothing: a thread waits for one thing.

        >>> group = Pressure(PressureMonitor())
        >>> with group.stall():
        ...     pass  # wait for the device
        """
        return self

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def begin(self) -> None:
        """Mark the calling thread as stalled; each call needs one to :meth:`end` on the same thread.

        With what a signal handler raises meanwhile nothing has begun.
        """
        local = self.monitor.local
        if local.depth:
            local.depth += 1
            return
        thread = threading.get_ident()
        with self.monitor.changed:
            now = self.monitor.clock()
            for group in self._chain():
                group._advance(now)
            for group in self._chain():
                group._recent.pop(thread, None)
                group._open[thread] = now
                group._arm(now)
            local.group = self
            local.depth = 1

    def end(self) -> None:
        """Undo the matching :meth:`begin`, whatever a signal handler raises meanwhile."""
        local = self.monitor.local
        if local.group is None:
            raise RuntimeError("Pressure.end() without begin() on this thread")
        if local.depth > 1:
            local.depth -= 1
            return
        chain = tuple(local.group._chain())
        thread = threading.get_ident()
        with Regardless(self.monitor.changed):
            now = self.monitor.clock()
            try:
                for group in chain:
                    group._advance(now)
            finally:
                for group in chain:
                    del group._open[thread]
                    group._recent[thread] = now
                local.group = None
                local.depth = 0

    def forked(self) -> None:
        """In a forked child: of those who are stalled only the calling thread is here."""
        me = threading.get_ident()
        now = self.monitor.clock()
        self._advance(now)
        self._open = {thread: begin for thread, begin in self._open.items() if thread == me}
        self._recent = {thread: end for thread, end in self._recent.items() if thread == me}

    def record(self, stalled: int) -> None:
        """Tell of a stall of the calling thread that just ended.

        For waits whose length is known only afterwards.  Time in which others were stalled is not counted twice.
        Within a stall of the same thread it does nothing.

        Parameters
        ----------
        stalled
            Nanoseconds.
        """
        if stalled <= 0 or self.monitor.local.depth:
            return
        thread = threading.get_ident()
        with self.monitor.changed:
            now = self.monitor.clock()
            for group in self._chain():
                group._advance(now)
                group._recent.pop(thread, None)
                begin = now - stalled
                group._some.add(begin, now)
                group._full.add(max(begin, group._all_stalled_since()), now)
                group._recent[thread] = now
                group._arm(now)

    def add(self, some: int, full: int) -> None:
        """Add times that somebody else has measured: in which some, and in which all, of the subtree's threads waited.

        They are of this group alone: its ancestors get theirs by calls of their own.  The times lie between the last
        call and now, nobody knows when: they count as if they ended now.  Whose workload that is cannot be compared
        with the threads that are known here, some of which may be the same; so ``full`` is the union of both.

        Parameters
        ----------
        some, full
            Nanoseconds.
        """
        with self.monitor.changed:
            now = self.monitor.clock()
            self._advance(now)
            self._some.add(now - some, now)
            self._full.add(now - full, now)
            self._arm(now)

    # What memory.pressure calls

    def total(self, state: int) -> int:
        """Return the stalled time of SOME or FULL in ns, as of the last look at the group."""
        return (self._some, self._full)[state].total

    def read(self) -> str:
        """Return the two lines of ``memory.pressure``: averages in percent, totals in microseconds."""
        return "".join(
            [
                f"{name} avg10={avg10:.2f} avg60={avg60:.2f} avg300={avg300:.2f} total={total}\n"
                for name, (avg10, avg60, avg300, total) in zip(STATES, self.numbers(), strict=True)
            ]
        )

    def numbers(self) -> tuple[tuple[float, float, float, int], ...]:
        """Return the same as numbers, of some and of full: avg10, avg60, avg300 and total."""
        if not self._open and self._some.total == 0:  # nobody has ever waited, as in most groups
            return _NO_PRESSURE
        with self.monitor.changed:
            self._advance(self.monitor.clock())
            return tuple(
                (
                    _percent(averages[0]),
                    _percent(averages[1]),
                    _percent(averages[2]),
                    self.total(state) // NSEC_PER_USEC,
                )
                for state, averages in enumerate(self._averages)
            )

    def trigger(self, text: str, *, privileged: bool) -> Trigger:
        """Add a trigger: ``some|full <threshold us> <window us>``.

        Parameters
        ----------
        privileged
            Allows any window, watched ten times per window.  Without it the window must be a multiple of 2 s.

        Raises
        ------
        OSError
            EINVAL for text of another form or a number out of range; ENODEV when the monitor is closed; EAGAIN when no
            thread can be had to watch it.
        """
        match = _TRIGGER.match(text)
        if match is None:
            raise os_error(errno.EINVAL, f"{text!r} is not a trigger: write some|full <threshold us> <window us>")
        state, threshold, window = STATES.index(match[1]), int(match[2]), int(match[3])
        if not 1 <= window <= WINDOW_MAX_US:
            raise os_error(errno.EINVAL, f"the window of {text!r} must be 1..{WINDOW_MAX_US} us")
        if not privileged and window % UNPRIVILEGED_WINDOW_US:
            raise os_error(
                errno.EINVAL,
                f"the window of {text!r} must be a multiple of {UNPRIVILEGED_WINDOW_US} us without CAP_SYS_RESOURCE",
            )
        if not 1 <= threshold <= window:
            raise os_error(errno.EINVAL, f"the threshold of {text!r} must be 1..{window} us")
        with self.monitor.changed:
            now = self.monitor.clock()
            self._advance(now)
            trigger = Trigger(
                state,
                threshold * NSEC_PER_USEC,
                Window(window * NSEC_PER_USEC, now, self.total(state)),
                privileged,
                changed=self.monitor.changed,
                fired=self.monitor.fired,
                drop=self.drop,
            )
            self.monitor.watch(self)
            if privileged and not any(other.privileged for other in self._triggers):
                self._poll_seen = [self.total(SOME), self.total(FULL)]
            self._triggers.append(trigger)
            self._arm(now)
        return trigger

    def drop(self, trigger: Trigger) -> None:
        """Forget a trigger; called with the lock held."""
        trigger.end()
        if trigger in self._triggers:
            self._triggers.remove(trigger)
            if not self._triggers:
                self._poll_next = None
                self.monitor.unwatch(self)

    def remove(self) -> None:
        """End all triggers, because the cgroup is gone."""
        with self.monitor.changed:
            for trigger in tuple(self._triggers):
                self.drop(trigger)

    # Accounting; all with the lock held

    def _chain(self) -> Iterator[Pressure]:
        group: Pressure | None = self
        while group is not None:
            yield group
            group = group.parent

    def _all_stalled_since(self) -> int:
        """Return the time since which nobody made progress: the last one stalled, or left the workload."""
        since = 0
        for begin in self._open.values():
            since = max(since, begin)
        for end in self._recent.values():
            since = max(since, end + PERIOD)
        return since

    def _commit(self, now: int) -> None:
        """Count the time since the last commit; the state did not change in between."""
        if self._open:
            self._some.add(min(self._open.values()), now)
            self._full.add(max(self._all_stalled_since(), self._committed), now)
        if self._recent and min(self._recent.values()) + PERIOD <= now:
            self._recent = {thread: end for thread, end in self._recent.items() if end + PERIOD > now}
        self._committed = now

    def _advance(self, now: int) -> None:
        """Bring the times and averages up to now, taking each sample as of its due time."""
        while now >= self._next_update:
            due = self._next_update
            if self._is_idle():
                due += (now - due) // PERIOD * PERIOD
            self._commit(due)
            self._check_triggers(due, self._sampled, privileged=False)
            self._update_averages(due)
        self._commit(now)

    def _is_idle(self) -> bool:
        return not self._open and self._sampled[SOME] == self.total(SOME) and self._sampled[FULL] == self.total(FULL)

    def _update_averages(self, now: int) -> None:
        """psi.c: update_averages.  A sample longer than its period is counted in the next one."""
        missed_periods = (now - self._next_update) // PERIOD
        period = now - (self._last_update + missed_periods * PERIOD)
        self._next_update += (1 + missed_periods) * PERIOD
        self._last_update = now
        for state, averages in enumerate(self._averages):
            sample = min(self.total(state) - self._sampled[state], period)
            self._sampled[state] += sample
            calc_averages(averages, missed_periods, sample, period)

    # Triggers; all with the lock held

    def _check_triggers(self, now: int, seen: list[int], *, privileged: bool) -> None:
        for trigger in self._triggers:
            if trigger.privileged is privileged:
                total = self.total(trigger.state)
                trigger.check(now, total, total != seen[trigger.state])

    def _arm(self, now: int) -> None:
        """Make the worker look at the group as soon as possible, unless it is about to anyway."""
        if self._triggers and self._poll_next is None:
            self._poll_next = now
            self.monitor.changed.notify_all()

    def due(self) -> int | None:
        """Return when the worker has to look at the group again, None when it has not."""
        return self._poll_next

    def work(self, now: int) -> None:
        """Look at the triggers: the unprivileged at each sample, the others ten times per window."""
        self._advance(now)
        upcoming = self._poll(now)
        if any(not trigger.privileged and (trigger.pending or not self._is_idle()) for trigger in self._triggers):
            upcoming = min(upcoming or self._next_update, self._next_update)
        self._poll_next = upcoming

    def _poll(self, now: int) -> int | None:
        """Look at the privileged triggers and return when to do it again (psi.c: psi_rtpoll_work).

        Polling starts with a stall and goes on for one window after the last one.  Unlike the kernel's, the windows
        start from what was known before the stall, so that one told by :meth:`record` counts in full; and polling
        goes on while a breach waits for its window to pass.
        """
        triggers = [trigger for trigger in self._triggers if trigger.privileged]
        if not triggers:
            return None
        step = max(min(trigger.window.size for trigger in triggers) // UPDATES_PER_WINDOW, RESOLUTION)
        totals = [self.total(SOME), self.total(FULL)]
        if totals != self._poll_seen:
            if now > self._poll_until:
                for trigger in triggers:
                    trigger.window.reset(now, self._poll_seen[trigger.state], 0)
            self._poll_until = now + step * UPDATES_PER_WINDOW
        self._check_triggers(now, self._poll_seen, privileged=True)
        self._poll_seen = totals
        if self._open or now <= self._poll_until or any(trigger.pending for trigger in triggers):
            return now + step
        return None


class _Local(threading.local):
    """The stall a thread is in: the nesting depth, and the group of the outermost."""

    depth = 0
    group: Pressure | None = None


class PressureMonitor:
    """What the groups of one tree share: the lock, the clock, and the worker that watches triggers.

    Parameters
    ----------
    clock
        Returns monotonic nanoseconds.
    worker
        False leaves it to the caller to call :meth:`run_due`, which tests with a clock of their own do.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns, *, worker: bool = True) -> None:
        self.clock = clock
        self.local = _Local()
        #: called with the lock held when a trigger fires; may lock a leaf
        self.on_event: Callable[[], object] = lambda: None
        #: guards everything here; notified when a trigger fires or goes, or the worker has more to do
        self.changed = make_condition(Order.PRESSURE)
        self._watched: list[Pressure] = []
        self._has_worker = worker
        self._thread: threading.Thread | None = None
        self._closed = False

    def fired(self) -> None:
        """Tell that a trigger has; called with the lock held."""
        self.on_event()

    def watch(self, group: Pressure) -> None:
        """Have the worker look after the triggers of a group; called with the lock held.

        Raises
        ------
        OSError
            ENODEV: the monitor is closed; EAGAIN: there is no worker, and no thread can be had for it.
        """
        if self._closed:
            raise os_error(errno.ENODEV, "memory.pressure: the engine is closed")
        if group in self._watched:
            return
        if self._has_worker and self._thread is None:
            self._thread = start_thread("uzswap-psimon", self._run)
        self._watched.append(group)

    def unwatch(self, group: Pressure) -> None:
        """Undo :meth:`watch`; called with the lock held.  The worker ends with its last group."""
        self._watched.remove(group)

    def run_due(self) -> int | None:
        """Look at every group that is due; return the ns until the next is, or None."""
        with self.changed:
            now = self.clock()
            for group in self._watched:
                due = group.due()
                if due is not None and due <= now:
                    group.work(now)
            upcoming = [due for group in self._watched if (due := group.due()) is not None]
            return max(min(upcoming) - now, 0) if upcoming else None

    def _run(self) -> None:
        with self.changed:
            while self._watched and not self._closed:
                wait = self.run_due()
                self.changed.wait(None if wait is None else wait / 1e9)
            self._thread = None

    def forked(self) -> None:
        """In a forked child: the worker is not here; triggers are watched by one of its own, if one can be had."""
        if self._thread is None:
            return
        self._thread = None
        if self._watched and not self._closed:
            with contextlib.suppress(OSError):
                self._thread = start_thread("uzswap-psimon", self._run)

    def close(self) -> None:
        """End all triggers and the worker.  Stalls can still begin and end, they are just not watched."""
        with self.changed:
            self._closed = True
            for group in tuple(self._watched):
                group.remove()
            thread = self._thread
            self.changed.notify_all()
        if thread is not None:
            thread.join()
