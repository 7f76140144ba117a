"""Positions in the tree that outlive a request, and whatever is made and removed meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.tree import CgroupTree

__all__ = ["Cursor", "Cursors"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Who was served last: its place in the order of all cgroups, and the node of its LRU."""

    order: tuple[int, ...]
    node: int


class Cursors:
    """One cursor for each target.

    A place in the order (:attr:`MemCgroup.order`) is one between cgroups, too: when the cgroup that was served last is
    removed, the next in turn stays the next in turn.  Safe in several threads; the last one to write a cursor wins.
    """

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._at: dict[int, Cursor] = {}
        tree.on_remove.append(self._forget)

    def get(self, target: MemCgroup) -> Cursor | None:
        return self._at.get(target.id)

    def set(self, target: MemCgroup, cgroup: MemCgroup, node: int = 0) -> None:
        # Under the lock no removal passes between the test and the store.
        with self._tree.lock:
            if target.online:
                self._at[target.id] = Cursor(cgroup.order, node)

    def behind(self, target: MemCgroup, memcgs: list[MemCgroup]) -> int:
        """Return how many of some cgroups of the target's subtree, in pre-order, come up to the cursor."""
        cursor = self._at.get(target.id)
        return 0 if cursor is None else sum(memcg.order <= cursor.order for memcg in memcgs)

    def advance(self, target: MemCgroup, memcgs: list[MemCgroup]) -> MemCgroup | None:
        """Go on to the next of some cgroups of the target's subtree and return it; None past the end, then anew."""
        with self._tree.lock:
            behind = self.behind(target, memcgs)
            if behind == len(memcgs):
                self._at.pop(target.id, None)
                return None
            self._at[target.id] = Cursor(memcgs[behind].order, 0)
            return memcgs[behind]

    def _forget(self, removed: MemCgroup) -> None:
        self._at.pop(removed.id, None)
