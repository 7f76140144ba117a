"""A kernel that nobody uses gives its memory back, in two stages, and is interrupted by the next cell."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from typing import Final

from uzswap.locks import Order, make_condition
from uzswap.threads import start_thread

__all__ = ["Idle", "Stage"]

_log = logging.getLogger("uzswap.notebook")

#: Seconds: those of a coffee, or of a talk with a colleague; half of what JupyterHub's culler gives by default, 2026.
AFTER: Final = 600.0


class Stage(enum.Enum):
    """What an idle kernel does with its memory, in this order."""

    ZSWAP = "zswap"
    DISK = "disk"


#: of which the next comes as long after the one before as that after the last cell
_STAGES: Final = tuple(Stage)


class Idle:
    """Counts the time since the last cell, and reclaims.

    Parameters
    ----------
    reclaim
        Called as ``reclaim(stage, cancelled)`` in a thread, under no lock; it should end when ``cancelled()`` is true,
        which it is when a cell begins.  What it raises is logged by ``uzswap.notebook``, and the stage counts as done.
    after
        Seconds without a cell until the first stage; the second comes when twice as many are over.  None: never.
    clock
        Tells the seconds.

    Attributes
    ----------
    done
        The stage that was done last, None since a cell.
    told
        Called with each stage when it is done, in the thread.
    """

    def __init__(
        self,
        reclaim: Callable[[Stage, Callable[[], bool]], object],
        after: float | None = AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reclaim = reclaim
        self._after = after
        self._clock = clock
        self._changed = make_condition(Order.NEIGHBOUR)
        self._cells = 0
        #: counts what makes a stage that is under way futile
        self._turn = 0
        self._since = clock()
        self._closed = False
        self.done: Stage | None = None
        self.told: Callable[[Stage], object] = lambda stage: None

    @property
    def after(self) -> float | None:
        """Seconds without a cell until the first stage; None: never."""
        return self._after

    @after.setter
    def after(self, seconds: float | None) -> None:
        with self._changed:
            self._after = seconds
            self._changed.notify_all()

    def cell_begins(self) -> None:
        """A cell is about to run: what is under way ends between two batches."""
        with self._changed:
            self._cells += 1
            self._turn += 1
            self.done = None

    def cell_ends(self) -> None:
        """The time counts from here, when no other cell runs."""
        with self._changed:
            self._cells = max(0, self._cells - 1)  # the one that has loaded the extension never began
            self._turn += 1
            self._since = self._clock()
            self._changed.notify_all()

    def _next(self) -> tuple[Stage, float] | None:
        """Return which stage is next, and in how many seconds; None when there is none.  Called with the lock."""
        number = 0 if self.done is None else _STAGES.index(self.done) + 1
        if self._cells or self._after is None or number == len(_STAGES):
            return None
        return _STAGES[number], self._since + (number + 1) * self._after - self._clock()

    def step(self) -> float | None:
        """Do the stage that is due, if one is; return the seconds until the next, None when that is up to a cell."""
        while True:
            with self._changed:
                due = self._next()
                if due is None or due[1] > 0:
                    return None if due is None else due[1]
                turn = self._turn
            try:
                self._reclaim(due[0], lambda turn=turn: self._turn != turn)  # type: ignore[misc]
            except Exception:
                _log.exception("an idle kernel could not give its memory to %s", due[0].value)
            with self._changed:
                finished = self._turn == turn
                if finished:
                    self.done = due[0]
            if finished:
                self.told(due[0])

    def start(self) -> None:
        """Have a thread do it until :meth:`close`.  OSError (EAGAIN): no thread can be had."""
        start_thread("uzswap-idle", self._run)

    def _run(self) -> None:
        while not self._closed:
            self.step()
            with self._changed:
                due = self._next()
                if not self._closed and (due is None or due[1] > 0):
                    self._changed.wait(None if due is None else due[1])

    def close(self) -> None:
        """End the thread soon; what it is at ends between two batches."""
        with self._changed:
            self._closed = True
            self._after = None
            self._turn += 1
            self._changed.notify_all()
