"""Whether the control plane and the data plane say the same; the data plane verifies itself (``Engine.check``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from uzswap.core.boundary.engine import COUNTERS, GLOBALS

if TYPE_CHECKING:
    from uzswap.cgroup.surroundings import Member
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.core.boundary.engine import Engine

__all__ = ["disagreements"]

#: what a subtree has, of which the children's shares add up to no more
_LEVELS: Final = COUNTERS[: COUNTERS.index("uzswap.metadata_bytes") + 1]
_RESIDENT: Final = GLOBALS.index("resident")


def disagreements(core: Engine, tree: CgroupTree, enabled: bool, members: Iterable[Member]) -> list[str]:
    """Compare what is counted in each cgroup with its children, its front-ends and its own settings; tell in words.

    Parameters
    ----------
    enabled
        Whether zswap is.
    members
        All front-ends.
    """
    wrong = []
    with tree.lock:
        for memcg in tree.root.preorder():
            mine = core.counters(memcg.index)
            children = [core.counters(child.index) for child in memcg.children.values()]
            for k, name in enumerate(_LEVELS):
                below = sum(counters[k] for counters in children)
                if mine[k] < below:
                    wrong.append(f"{memcg.path}: {name} is {mine[k]}, its children have {below}")
                if mine[k] < 0:
                    wrong.append(f"{memcg.path}: {name} is {mine[k]}")
            if tree.by_index(memcg.index) is not memcg:
                wrong.append(f"{memcg.path}: index {memcg.index} is {tree.by_index(memcg.index).path}")
            allowed = not enabled or all(one.writeback for one in memcg.ancestry())
            if core.writeback_allowed(memcg.index) != allowed:
                wrong.append(f"{memcg.path}: the data plane does not agree that writeback is {allowed}")
        resident = core.globals()[_RESIDENT]
        held = sum(member.resident_bytes for member in members)
        if held > resident:
            wrong.append(f"front-ends hold {held} bytes, {resident} are charged")
    return wrong
