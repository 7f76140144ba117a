"""What all of reclaim shares: the data plane, the cgroups, and what is set at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uzswap.core.boundary.engine import COUNTERS
from uzswap.reclaim.heap import HeapTrim
from uzswap.units import NO_LIMIT

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.surroundings import Member
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.core.boundary.engine import Engine
    from uzswap.reclaim.trace import Trace

__all__ = ["MAX_RECLAIM_RETRIES", "ReclaimState"]

#: attempts without any progress until reclaim gives up (mm/internal.h)
MAX_RECLAIM_RETRIES = 16

_RESIDENT: Final = COUNTERS.index("resident")


class ReclaimState:
    """One for each engine.  Who sets what at run time is the engine's affair; reclaim looks at every step.

    Attributes
    ----------
    core, tree, nodes
        The data plane, all cgroups, and the number of NUMA nodes.
    walk : str
        Name of the walk in use.
    has_device : bool
        Whether anything can be written back.
    shrinker_enabled : bool
        ``shrinker_enabled``.
    accept_pages : int
        Pages to which the shrink worker brings a pool down that was full.
    trace : callable or None
        Told of every batch of every walk.
    closing : bool
        Everything under way is to end now.
    others : callable
        Returns who holds resident memory of a cgroup's own beside its members.
    others_bytes : callable
        Returns how much these hold in all.
    heap : HeapTrim
        Gives back to the system what members have freed.
    """

    def __init__(self, core: Engine, tree: CgroupTree, nodes: int) -> None:
        self.core = core
        self.tree = tree
        self.nodes = nodes
        self.walk = "fair"
        self.has_device = False
        self.shrinker_enabled = False
        self.accept_pages = NO_LIMIT
        self.trace: Trace | None = None
        self.closing = False
        self.others: Callable[[MemCgroup], tuple[Member, ...]] = _nobody
        self.others_bytes: Callable[[], int] = _nothing
        self.heap = HeapTrim(self._objects)

    def _objects(self) -> int:
        """Bytes of members' own that are resident; whoever is asked to reclaim in a closed engine has none."""
        if self.core.closed:
            return 0
        return self.core.counters(self.tree.root.index)[_RESIDENT] - self.others_bytes()

    def is_closing(self) -> bool:
        return self.closing

    @property
    def writes_back_for_charges(self) -> bool:
        """Whether zswap is written back to make room for a charge.

        The kernel does that only where ``shrinker_enabled`` is Y, and else gives up with the pool full of cold pages;
        so does ``v5``.
        """
        return self.walk != "v5" or self.shrinker_enabled

    def pool_over_threshold(self) -> int:
        """Return the pages that the pool has above its accept threshold: what the shrink worker still has to do."""
        return 0 if self.closing else max(0, self.core.pool_pages() - self.accept_pages)

    def holders(self, memcg: MemCgroup) -> tuple[Member, ...]:
        """Return everybody with resident memory of a cgroup's own: its members, and its arrays."""
        return (*memcg.members, *self.others(memcg))

    def with_something(self, target: MemCgroup, which: int) -> list[MemCgroup]:
        """Return the cgroups of a subtree that have something to give, in pre-order (see :meth:`Engine.active`).

        One that was removed meanwhile is left out; the target itself, removed, has nothing.
        """
        try:
            indices = self.core.active(target.index, which)
        except ValueError:
            return []
        return [memcg for index in indices if (memcg := self.tree.find_index(index)) is not None and memcg.online]


def _nobody(memcg: MemCgroup) -> tuple[Member, ...]:
    return ()


def _nothing() -> int:
    return 0
