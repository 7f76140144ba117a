"""Front-ends that own uncompressed memory, and the charge they pay for it.

A front-end (:class:`uzswap.Store`) is a member of a cgroup.  It charges what it holds uncompressed, and is asked to
swap some of it out when its cgroup has to shrink.

This module is compiled, so that no signal handler runs between two of its steps (setup.py, ``UNTORN``): an exception of
one leaves nothing charged that its caller does not know of.  There is no lock: a finalizer that closes a front-end may
run in a thread that holds any.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Final, Protocol

from uzswap.cgroup.surroundings import Member
from uzswap.errors import InvalidArgumentError
from uzswap.reclaim.resident import OnBehalfOf, ResidentReclaim
from uzswap.reclaim.state import MAX_RECLAIM_RETRIES, ReclaimState
from uzswap.signals import hold_back_signals
from uzswap.units import format_size

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["HARD_LIMITS", "ResidentOwner", "Residents"]

#: limits that memory never goes over
HARD_LIMITS: Final = ("memory.max", "uzswap.resident.max")


class ResidentOwner(Member, Protocol):
    """A front-end: a member of a cgroup that charges what it holds."""

    @property
    def cgroup(self) -> MemCgroup: ...


class Residents:
    """Charges of all front-ends of an engine, and the background reclaim that ``memory.high`` sets off."""

    def __init__(self, state: ReclaimState, reclaimer: ResidentReclaim, wake: Callable[[], object]) -> None:
        self._state = state
        self._reclaimer = reclaimer
        self._wake_worker = wake
        self._owners: dict[int, ResidentOwner] = {}
        #: what is over a limit, for the background: (index, limit) -> cgroup
        self._over: dict[tuple[int, str], MemCgroup] = {}
        #: what calls have charged that are not over: (thread, memcg, bytes)
        self._charged: list[tuple[int, int, int]] = []

    def register(self, owner: ResidentOwner) -> None:
        """Make an owner a member of its cgroup.

        Raises
        ------
        OSError
            ENODEV when the cgroup was removed; EINVAL when the owner is registered already.
        """
        if id(owner) in self._owners:
            raise InvalidArgumentError(f"{owner!r} is registered already")
        self._owners[id(owner)] = owner
        try:
            owner.cgroup.attach(owner)
        except BaseException:
            del self._owners[id(owner)]
            raise

    def unregister(self, owner: ResidentOwner) -> None:
        """Undo :meth:`register`; again, it does nothing.  What is still charged stays charged: uncharge it first."""
        if self._owners.pop(id(owner), None) is not None:
            owner.cgroup.detach(owner)

    def owners(self) -> list[ResidentOwner]:
        return list(self._owners.values())

    def charge(self, memcg: MemCgroup, nbytes: int, force: bool = False) -> None:
        """Charge resident memory before it is taken into use.

        Above ``memory.max`` or ``uzswap.resident.max`` of the cgroup or an ancestor, memory of that one's subtree is
        reclaimed first; above ``memory.high`` it is reclaimed in the background.  Signal handlers run when a batch of
        that reclaim is done; with what they raise nothing is charged.

        Parameters
        ----------
        force
            Go over the limit when nothing more can go, as the kernel does where a charge must not fail; reclaim goes on
            in the background.

        Raises
        ------
        MemoryError
            Nothing more can go.  Nothing is charged; ``memory.events`` has counted ``max`` and ``oom``.
        """
        if nbytes < 0:
            raise InvalidArgumentError(f"a charge cannot be negative: {nbytes}")
        core, index = self._state.core, memcg.index
        forced: MemCgroup | None = None
        retries = 0 if force else MAX_RECLAIM_RETRIES
        over_max, over_high = core.charge(index, nbytes)
        while over_max >= 0:
            limited = self._state.tree.find_index(over_max)
            if limited is not None and not self._fits(limited, memcg, nbytes, retries):
                if not force:
                    raise self._out_of_memory(limited, nbytes)
                forced = limited
            over_max, over_high = core.charge(index, nbytes, forced is not None)
        if over_high < 0 and forced is None:
            return
        charged = get_ident(), index, nbytes
        self._charged.append(charged)
        try:
            high = self._state.tree.find_index(over_high)
            if high is not None:
                self.over_high(high)
            if forced is not None:
                self._wake(forced, "memory.max")
        except BaseException:
            core.uncharge(index, nbytes)
            raise
        finally:
            self._charged.remove(charged)

    def forked(self) -> None:
        """In a forked child: take back what threads that are not here have charged just now."""
        me = get_ident()
        for thread, index, nbytes in self._charged:
            if thread != me:
                self._state.core.uncharge(index, nbytes)
        self._charged = [charged for charged in self._charged if charged[0] == me]

    def _fits(self, limited: MemCgroup, memcg: MemCgroup, nbytes: int, retries: int) -> bool:
        """Make room for a charge of ``memcg`` below the limits of an ancestor; False when nothing more can go.

        True when a signal came: its handlers have run, and the limits are to be looked at again.
        """
        with hold_back_signals() as signals:
            limited.count_event("max")
            with memcg.pressure.stall():
                fits = self._shrink_below_hard_limits(limited, nbytes, signals.pending, retries) or signals.pending()
            if not fits:
                limited.count_event("oom")
        return fits

    def _out_of_memory(self, limited: MemCgroup, nbytes: int) -> MemoryError:
        limits = (f"{name} = {format_size(limited.limits[name])}" for name in self._exceeded(limited, nbytes))
        return MemoryError(
            f"{limited.path}: {format_size(nbytes)} more do not fit below {' and '.join(limits)}, "
            "and nothing more can be reclaimed: raise the limit, or free something"
        )

    def over_high(self, memcg: MemCgroup) -> None:
        """Have a cgroup brought back to its memory.high in the background."""
        self._wake(memcg, "memory.high")

    def _wake(self, memcg: MemCgroup, limit: str) -> None:
        if (memcg.index, limit) in self._over:
            return  # and whoever put it there has woken the worker, or is about to
        with hold_back_signals():
            self._over[memcg.index, limit] = memcg
            self._wake_worker()

    def uncharge(self, memcg: MemCgroup, nbytes: int) -> None:
        self._state.core.uncharge(memcg.index, nbytes)

    def enforce(self, memcg: MemCgroup, name: str) -> None:
        """Reclaim at once after a limit was written below what is in use (SPEC 7.2).

        It never fails: what cannot go stays, and a signal ends it early.  A hard limit that cannot be met counts as an
        ``oom`` event; nobody is killed.
        """
        with hold_back_signals() as signals, memcg.pressure.stall():
            if name == "memory.high":
                self._reclaimer.shrink_to(memcg, name, OnBehalfOf.DIRECT, stop=signals.pending)
            elif (
                name in HARD_LIMITS
                and not self._shrink_below_hard_limits(memcg, 0, signals.pending)
                and not signals.pending()
            ):
                memcg.count_event("oom")

    def _exceeded(self, limited: MemCgroup, more: int) -> list[str]:
        return [name for name in HARD_LIMITS if limited.usage_under(name) + more > limited.limits[name]]

    def _shrink_below_hard_limits(
        self, limited: MemCgroup, more: int, stop: Callable[[], bool], retries: int = MAX_RECLAIM_RETRIES
    ) -> bool:
        """Bring a cgroup so far below its hard limits that ``more`` bytes fit; False when nothing more can go."""
        shrink_to = self._reclaimer.shrink_to
        limits = ("uzswap.resident.max", "memory.max")
        return all(
            shrink_to(limited, name, OnBehalfOf.DIRECT, more=more, stop=stop, retries=retries) for name in limits
        )

    def reclaim_over(self) -> None:
        """Bring every cgroup that was found above a limit back to it."""
        while self._over:
            (_, limit), memcg = self._over.popitem()
            try:
                if limit == "memory.high":
                    memcg.count_event("high")
                    self._reclaimer.shrink_to(memcg, limit, OnBehalfOf.KSWAPD, stop=self._state.is_closing)
                else:
                    self._shrink_below_hard_limits(memcg, 0, self._state.is_closing, retries=0)
            except (OSError, ValueError):
                if memcg.online:  # else it was removed while we were at it
                    raise
