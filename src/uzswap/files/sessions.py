"""What belongs to one open file, for the files where something does: polls, peaks, triggers."""

from __future__ import annotations

import errno
import select
import weakref
from typing import TYPE_CHECKING

from uzswap.cgroup.trigger import has_cap_sys_resource
from uzswap.errors import os_error
from uzswap.files.file import Session
from uzswap.units import round_up_to_page

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.trigger import Trigger
    from uzswap.files.file import FileType, OpenFlags

__all__ = ["EventSession", "PeakSession", "PressureSession"]


class EventSession(Session["MemCgroup"]):
    """A file whose change wakes a poll, until it is read again (kernfs_notify)."""

    def __init__(self, filetype: FileType[MemCgroup], target: MemCgroup, flags: OpenFlags) -> None:
        super().__init__(filetype, target, flags)
        self._seen = target.notifications(filetype.name)

    def read(self) -> str:
        self._seen = self.target.notifications(self.type.name)
        return super().read()

    def poll(self, timeout: float | None) -> int:
        changed = self.target.tree.changed
        with changed:
            changed.wait_for(lambda: self._has_news() or not self.target.alive(), timeout)
            if not self.target.alive():
                return select.POLLERR | select.POLLPRI
            return select.POLLPRI if self._has_news() else 0

    def ready(self) -> bool:
        return self._has_news() or not self.target.alive()

    def _has_news(self) -> bool:
        return self.target.notifications(self.type.name) != self._seen


class PeakSession(Session["MemCgroup"]):
    """memory.peak or memory.swap.peak: a write begins a new measurement, for this open file alone."""

    def __init__(self, filetype: FileType[MemCgroup], target: MemCgroup, flags: OpenFlags) -> None:
        super().__init__(filetype, target, flags)
        self._swap = filetype.name == "memory.swap.peak"
        #: highest usage since the last write here that the data plane does not know any more; None before any write
        self._value: int | None = None

    def read(self) -> str:
        if self._value is None:
            return super().read()
        return f"{round_up_to_page(max(self._value, self._watermark()))}\n"

    def write(self, text: str) -> None:
        """Begin anew.  The data plane has one resettable peak, so the other measurements take down what it was."""
        cgroup = self.target
        with cgroup.in_use():
            peers = cgroup.peak_sessions.setdefault(self.type.name, weakref.WeakSet())
            peers.discard(self)
            lately = self._watermark()
            for peer in peers:
                peer.note(lately)
            self._value = cgroup.zswap.core.reset_watermark(cgroup.index, self._swap)
            peers.add(self)

    def note(self, usage: int) -> None:
        self._value = max(self._value or 0, usage)

    def _watermark(self) -> int:
        return self.target.zswap.core.watermark(self.target.index, self._swap)[1]


class PressureSession(Session["MemCgroup"]):
    """memory.pressure: an open file has at most one trigger."""

    def __init__(self, filetype: FileType[MemCgroup], target: MemCgroup, flags: OpenFlags) -> None:
        super().__init__(filetype, target, flags)
        self._privileged = has_cap_sys_resource() if flags.privileged is None else flags.privileged
        self._trigger: Trigger | None = None

    def write(self, text: str) -> None:
        with self.target.in_use():
            if self._trigger is not None:
                raise os_error(errno.EBUSY, "this open file has a trigger already: open it once more for another")
            self._trigger = self.target.pressure.trigger(text, privileged=self._privileged)

    def poll(self, timeout: float | None) -> int:
        if self._trigger is None:
            return select.POLLERR | select.POLLPRI
        return self._trigger.poll(timeout)

    def ready(self) -> bool:
        return self._trigger is None or self._trigger.ready()

    def close(self) -> None:
        if self._trigger is not None:
            self._trigger.close()
