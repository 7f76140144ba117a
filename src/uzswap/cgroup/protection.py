"""``memory.min`` and ``memory.low`` at work: how much of a cgroup ordinary reclaim has to spare (mm/page_counter.c).

What a cgroup sets is not what it gets: its ancestors' settings bound it, and siblings that together claim more than
their parent has share it by use.  What children do not claim of their parent's protection is shared among them by use
as well, which the kernel does with the mount option ``memory_recursiveprot`` (systemd's default).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["effective_protection", "share_of_protection"]


def share_of_protection(
    usage: int, parent_usage: int, setting: int, parent_effective: int, siblings_protected: int
) -> int:
    """Return what a child's setting is worth, in bytes (mm/page_counter.c: effective_protection).

    Parameters
    ----------
    usage, setting
        Of the child.
    parent_usage, parent_effective
        Of the parent.
    siblings_protected
        Sum over the parent's children, this one included, of min(usage, setting).
    """
    protected = min(usage, setting)
    if siblings_protected > parent_effective:
        return protected * parent_effective // siblings_protected
    if parent_effective > siblings_protected and parent_usage > siblings_protected and usage > protected:
        unclaimed = parent_effective - siblings_protected
        return protected + unclaimed * (usage - protected) // (parent_usage - siblings_protected)
    return protected


def effective_protection(cgroup: MemCgroup, target: MemCgroup) -> tuple[int, int]:
    """Return (effective memory.min, effective memory.low) of a cgroup when ``target`` is reclaimed, in bytes.

    Called with the tree's lock held.  Raises ValueError when the cgroup is not in the target's subtree.
    """
    below = []
    for ancestor in cgroup.ancestry():
        if ancestor is target:
            break
        below.append(ancestor)
    else:
        raise ValueError(f"{cgroup.path} is not in the subtree of {target.path}")
    if not below:
        return 0, 0
    top = below.pop()
    minimum, low = top.limits["memory.min"], top.limits["memory.low"]
    while below:
        child = below.pop()
        minimum = _share(child, "memory.min", minimum)
        low = _share(child, "memory.low", low)
    return minimum, low


def _share(child: MemCgroup, name: str, parent_effective: int) -> int:
    parent = child.parent
    if not parent_effective or parent is None:
        return 0
    siblings = sum(min(sibling.usage(), sibling.limits[name]) for sibling in parent.children.values())
    return share_of_protection(child.usage(), parent.usage(), child.limits[name], parent_effective, siblings)
