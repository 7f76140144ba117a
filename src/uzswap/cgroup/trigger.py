"""A trigger of ``memory.pressure``: what tells that more was stalled than somebody wants.

The module is compiled, so that no signal handler runs between two of its steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uzswap.cgroup.psi import Window
    from uzswap.condition import Condition

__all__ = ["Trigger", "has_cap_sys_resource"]

_CAP_SYS_RESOURCE: Final = 24  # include/uapi/linux/capability.h


def has_cap_sys_resource(pid: int | None = None) -> bool:
    """Tell whether a process, by default this one, may use trigger windows of any length, as the kernel decides it.

    Raises
    ------
    OSError
        There is no such process.
    """
    with open(f"/proc/{pid or 'self'}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


class Trigger:
    """A watch on one state of one group: an event when it stalled ``threshold`` within ``window``.

    Made by :meth:`~uzswap.cgroup.pressure.Pressure.trigger`.  Events come at most once per window; one that nobody
    waits for is kept.

    Parameters
    ----------
    changed
        The lock of all groups; notified of an event.
    fired
        Called with the lock held when there is an event.
    drop
        Called with the lock held by :meth:`close`.
    """

    def __init__(
        self,
        state: int,
        threshold: int,
        window: Window,
        privileged: bool,
        *,
        changed: Condition,
        fired: Callable[[], object],
        drop: Callable[[Trigger], object],
    ) -> None:
        self.state = state
        self.threshold = threshold
        self.window = window
        self.privileged = privileged
        self._changed = changed
        self._fired = fired
        self._drop = drop
        self._last_event: int | None = None
        self.pending = False
        self._event = False
        self._gone = False

    def poll(self, timeout: float | None = None) -> int:
        """Wait for an event and take it.

        Parameters
        ----------
        timeout
            Seconds; None waits for ever.

        Returns
        -------
        int
            ``select.POLLPRI`` for an event, ``POLLERR | POLLPRI`` when the trigger or its cgroup is gone, 0 after the
            timeout.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._event or self._gone, timeout)
            if self._gone:
                return select.POLLERR | select.POLLPRI
            taken, self._event = self._event, False
            return select.POLLPRI if taken else 0

    def ready(self) -> bool:
        """Whether :meth:`poll` would return at once; asking does not take the event."""
        return self._event or self._gone

    def close(self) -> None:
        """Remove the trigger and wake who waits for it.  Calling it again does nothing."""
        with self._changed:
            self._drop(self)

    def end(self) -> None:
        """Wake who waits: there will be no event any more.  Called with the lock held."""
        self._gone = True
        self._changed.notify_all()

    def check(self, now: int, total: int, new_stall: bool) -> None:
        """Note a breach of the threshold, and make it an event unless there was one within the window."""
        if new_stall and self.window.update(now, total) >= self.threshold:
            self.pending = True
        if self.pending and (self._last_event is None or now >= self._last_event + self.window.size):
            self._event = True
            self._last_event = now
            self.pending = False
            self._changed.notify_all()
            self._fired()
