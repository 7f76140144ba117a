"""Positions in the tree that outlive a request, and the removal of the cgroup they point at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.tree import CgroupTree

__all__ = ["Cursor", "Cursors"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Who was served last: a cgroup's id (ids are never reused) and the node of its LRU."""

    cgroup: int
    node: int


class Cursors:
    """One cursor for each target.

    When a cgroup is removed, its own cursor goes, and those that point at it move back to its pre-order predecessor:
    the next in turn stays the next in turn.  Safe in several threads; the last one to write a cursor wins.
    """

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._at: dict[int, Cursor] = {}
        tree.on_remove.append(self._leave)

    def get(self, target: MemCgroup) -> Cursor | None:
        return self._at.get(target.id)

    def set(self, target: MemCgroup, cgroup: MemCgroup, node: int = 0) -> None:
        # Under the lock no removal passes between the test and the store.
        with self._tree.lock:
            if target.online and cgroup.online:
                self._at[target.id] = Cursor(cgroup.id, node)

    def advance(self, target: MemCgroup) -> MemCgroup | None:
        """Go on to the next cgroup of the target's subtree in pre-order and return it; None past the end, then anew."""
        with self._tree.lock:
            subtree = list(target.preorder())
            cursor = self._at.pop(target.id, None)
            ids = [cgroup.id for cgroup in subtree]
            here = ids.index(cursor.cgroup) + 1 if cursor is not None else 0
            if here == len(subtree):
                return None
            self._at[target.id] = Cursor(ids[here], 0)
            return subtree[here]

    def _leave(self, removed: MemCgroup) -> None:
        self._at.pop(removed.id, None)
        for target, cursor in list(self._at.items()):
            if cursor.cgroup == removed.id:
                self._at[target] = Cursor(_predecessor(removed).id, cursor.node)


def _predecessor(cgroup: MemCgroup) -> MemCgroup:
    """Return the cgroup before this one in pre-order: the last of its elder sibling's subtree, or its parent."""
    parent = cgroup.parent
    assert parent is not None, "the root is never removed"
    elder: MemCgroup | None = None
    for sibling in parent.children.values():
        if sibling is cgroup:
            break
        elder = sibling
    if elder is None:
        return parent
    while elder.children:
        elder = next(reversed(elder.children.values()))
    return elder
