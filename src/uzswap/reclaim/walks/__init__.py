"""Which entry is written back next: three walks behind one interface.

========  =====================================================================================================
v5        the draft kernel series of June 2026, bug for bug: the reference for studies (SPEC 5 and 6)
fair      the default: every cgroup of the subtree in turn, from where the last request ended (SPEC 10.2)
coldest   the entry that has waited longest over the whole subtree (SPEC 10.3)
========  =====================================================================================================

A walk decides which LRUs are met next and for how much; the data plane meets the entries.  It is plain Python and runs
once a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uzswap.reclaim.walks.coldest import Coldest
from uzswap.reclaim.walks.fair import Fair
from uzswap.reclaim.walks.v5 import V5
from uzswap.reclaim.walks.walk import Room, Walk

if TYPE_CHECKING:
    from uzswap.cgroup.tree import CgroupTree

__all__ = ["Room", "Walk", "make_walks"]


def make_walks(tree: CgroupTree) -> dict[str, Walk]:
    """Return one instance of each walk, by name; they follow the tree's removals from now on."""
    walks: tuple[Walk, ...] = (V5(tree), Fair(tree), Coldest())
    return {walk.name: walk for walk in walks}
