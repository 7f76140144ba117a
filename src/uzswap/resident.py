"""Front-ends that own uncompressed memory, and the charge they pay for it.

A front-end (:class:`uzswap.Store`) is a member of a cgroup.  It charges what it holds uncompressed, and is asked to
swap some of it out when its cgroup has to shrink.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from uzswap.errors import InvalidArgumentError
from uzswap.locks import Order, make_lock
from uzswap.reclaim_resident import Kind
from uzswap.signals import hold_back_signals
from uzswap.units import format_size
from uzswap.worker import Worker

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.zswap import Zswap

__all__ = ["HARD_LIMITS", "Reclaimed", "ResidentOwner", "Residents"]

#: limits that memory never goes over
HARD_LIMITS: Final = ("memory.max", "uzswap.resident.max")


class Reclaimed(NamedTuple):
    """What a front-end did when it was asked to give up memory."""

    #: pages of 4096 bytes that were looked at
    scanned_pages: int
    #: resident bytes that were given up (and uncharged)
    freed_bytes: int


class ResidentOwner(Protocol):
    """A front-end.

    ``reclaim`` is called from any thread, also from within the owner's own call to :meth:`Zswap.charge`, and from
    another owner's.  So it must not wait for a lock that is held across a charge: an owner that is busy gives up
    nothing.
    """

    @property
    def cgroup(self) -> MemCgroup: ...

    @property
    def resident_bytes(self) -> int:
        """What it holds uncompressed now."""
        ...

    def reclaim(self, nbytes: int) -> Reclaimed:
        """Swap out about ``nbytes`` of what was not used for longest, and uncharge it."""
        ...


class Residents:
    """Charges of all front-ends of an engine, and the background reclaim that ``memory.high`` sets off."""

    def __init__(self, zswap: Zswap) -> None:
        self._zswap = zswap
        self._lock = make_lock(Order.RESIDENTS)
        self._owners: dict[int, ResidentOwner] = {}
        self._over_high: dict[int, MemCgroup] = {}
        self.high_work = Worker("uzswap-high", self._reclaim_high)

    def register(self, owner: ResidentOwner) -> None:
        """Make an owner a member of its cgroup.

        Raises
        ------
        OSError
            ENODEV when the cgroup was removed; EINVAL when the owner is registered already.
        """
        with owner.cgroup.in_use(), self._lock:
            if id(owner) in self._owners:
                raise InvalidArgumentError(f"{owner!r} is registered already")
            owner.cgroup.attach(owner)
            self._owners[id(owner)] = owner

    def unregister(self, owner: ResidentOwner) -> None:
        """Undo :meth:`register`.  What is still charged stays charged: uncharge it first."""
        with self._zswap.tree.lock, self._lock:
            if self._owners.pop(id(owner), None) is not None:
                owner.cgroup.detach(owner)

    def owners(self) -> list[ResidentOwner]:
        with self._lock:
            return list(self._owners.values())

    def charge(self, memcg: MemCgroup, nbytes: int) -> None:
        """Charge resident memory before it is taken into use.

        Above ``memory.max`` or ``uzswap.resident.max`` of the cgroup or an ancestor, memory of that one's subtree is
        reclaimed first; above ``memory.high`` it is reclaimed in the background.

        Raises
        ------
        MemoryError
            Nothing more can go.  Nothing is charged; ``memory.events`` has counted ``max`` and ``oom``.
        """
        if nbytes < 0:
            raise InvalidArgumentError(f"a charge cannot be negative: {nbytes}")
        core, tree = self._zswap.core, self._zswap.tree
        over_max, over_high = core.charge(memcg.index, nbytes)
        while over_max >= 0:
            limited = tree.by_index(over_max)
            limited.count_event("max")
            with memcg.pressure.stall():
                fits = self._make_room(limited, nbytes)
            if not fits:
                limited.count_event("oom")
                limits = (f"{name} = {format_size(limited.limits[name])}" for name in self._exceeded(limited, nbytes))
                raise MemoryError(
                    f"{limited.path}: {format_size(nbytes)} more do not fit below {' and '.join(limits)}, "
                    "and nothing more can be reclaimed: raise the limit, or free something"
                )
            over_max, over_high = core.charge(memcg.index, nbytes)
        if over_high >= 0:
            self.over_high(tree.by_index(over_high))

    def over_high(self, memcg: MemCgroup) -> None:
        """Have a cgroup brought back to its memory.high in the background."""
        with self._lock:
            self._over_high[memcg.index] = memcg
        self.high_work.wake()

    def uncharge(self, memcg: MemCgroup, nbytes: int) -> None:
        self._zswap.core.uncharge(memcg.index, nbytes)

    def enforce(self, memcg: MemCgroup, name: str) -> None:
        """Reclaim at once after a limit was written below what is in use (SPEC 7.2).

        It never fails: what cannot go stays, and a signal ends it early.  A hard limit that cannot be met counts as an
        ``oom`` event; nobody is killed.
        """
        with hold_back_signals() as signals, memcg.pressure.stall():
            if name == "memory.high":
                self._zswap.reclaimer.shrink_to(memcg, name, Kind.DIRECT, stop=signals.pending)
            elif name in HARD_LIMITS and not self._make_room(memcg, 0, signals.pending) and not signals.pending():
                memcg.count_event("oom")

    def _exceeded(self, limited: MemCgroup, more: int) -> list[str]:
        return [name for name in HARD_LIMITS if limited.usage_under(name) + more > limited.limits[name]]

    def _make_room(self, limited: MemCgroup, more: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Bring a cgroup so far below its hard limits that ``more`` bytes fit; False when nothing more can go."""
        shrink_to = self._zswap.reclaimer.shrink_to
        limits = ("uzswap.resident.max", "memory.max")
        return all(shrink_to(limited, name, Kind.DIRECT, more=more, stop=stop) for name in limits)

    def _reclaim_high(self) -> None:
        """Bring every cgroup that was found above memory.high back to it."""
        while True:
            with self._lock:
                if not self._over_high:
                    return
                _, memcg = self._over_high.popitem()
            if memcg.online:
                try:
                    memcg.count_event("high")
                    self._zswap.reclaimer.shrink_to(memcg, "memory.high", Kind.KSWAPD, stop=self._zswap.is_closing)
                except (OSError, ValueError):
                    if memcg.online:  # else it was removed while we were at it
                        raise
