"""Every cgroup of the subtree in turn, from where the last request on the same target ended (SPEC 10.2).

Requests go in laps.  In one lap each candidate LRU is met once, in a fixed cyclic order: all cgroups in pre-order on
one node, then all on the next node.  All batches of a lap have the same budget:

    quantum = left / (2 * batches in the lap), and at least one entry

An entry is written whole, so a batch may take up to one entry more than its quantum, hence less than twice the quantum
while that holds an entry: a lap begun with such a quantum is never cut short by the budget.  Only laps of one entry a
batch are, and there the cursor carries on in the next request.  So among equal cgroups no two are ever more than one
entry apart, whatever the budgets; and a batch never takes more than what is left divided by the number of candidates.
Laps halve what is left, so a request takes about batches * log2(entries / batches) batches.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from uzswap.reclaim.walks.cursor import Cursor, Cursors
from uzswap.reclaim.walks.relief import relieve_pool, shrink_for_store
from uzswap.reclaim.walks.walk import Room

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.core.boundary.engine import Handles
    from uzswap.reclaim.state import ReclaimState
    from uzswap.reclaim.writeback import Request

__all__ = ["NR_BATCH", "Fair"]

#: Entries met in one batch at most; a signal waits for one.  Writing 12 MiB of 930-byte entries from 1, 10 and 100
#: cgroups took 22.5, 18.4 and 31.6 ms with 64, 18.7, 18.1 and 22.2 with 512, and no less with 1024 (2 cores, 2026-11).
NR_BATCH: Final = 512


@dataclass(slots=True)
class _Candidate:
    """A cgroup of the subtree that may be written back, and its LRUs that have something left for this request."""

    memcg: MemCgroup
    nodes: list[int]

    def node_at(self, node: int) -> int:
        """Return ``node``, or where that has nothing left the next one that has."""
        return next((mine for mine in self.nodes if mine >= node), self.nodes[0])


class Fair:
    """Round robin with a cursor that outlives the request."""

    name: Final = "fair"

    def __init__(self, tree: CgroupTree) -> None:
        self._cursors = Cursors(tree)

    def run(self, request: Request) -> int:
        positions: dict[tuple[int, int], Handles] = {}
        spent: set[tuple[int, int]] = set()
        known: list[MemCgroup] = []
        while request.unmet():
            if not all(memcg.online for memcg in known):
                # One was removed, and its entries are at the head of its parent's LRUs: these begin anew.
                positions.clear()
                spent.clear()
            memcgs = known = request.subtree()
            lap = self._lap(request, memcgs, spent)
            if not lap:
                return errno.EAGAIN
            quantum = request.left if len(lap) == 1 else max(1, request.left // (2 * len(lap)))
            for candidate, wanted in lap:
                if request.interrupted():
                    return errno.EINTR
                memcg = candidate.memcg
                if not candidate.nodes or not request.may_write_back(memcg):
                    continue
                node = candidate.node_at(wanted)
                lru = (memcg.id, node)
                position = positions.setdefault(lru, np.zeros(1, np.uint64))
                batch = request.walk_one(memcg, node, NR_BATCH, min(quantum, request.left), position)
                self._cursors.set(request.target, memcg, node)
                if batch.exhausted:
                    spent.add(lru)
                    candidate.nodes.remove(node)
                if request.trouble():
                    return request.errno
                if request.left <= 0:
                    break
        return request.errno

    def _lap(
        self, request: Request, memcgs: list[MemCgroup], spent: set[tuple[int, int]]
    ) -> list[tuple[_Candidate, int]]:
        """Return whom to serve, in turn, and on which node: once round, from behind the cursor on."""
        candidates: list[_Candidate] = []
        for memcg in memcgs:
            if request.may_write_back(memcg):
                nodes = [
                    node
                    for node in range(request.nodes)
                    if request.lru_len(memcg, node) and (memcg.id, node) not in spent
                ]
                if nodes:
                    candidates.append(_Candidate(memcg, nodes))
        behind = self._cursors.behind(request.target, [candidate.memcg for candidate in candidates])
        nodes = sorted({node for candidate in candidates for node in candidate.nodes})
        return _turns(candidates, behind, nodes, self._cursors.get(request.target))

    def shrink_for_store(self, state: ReclaimState, memcg: MemCgroup) -> Room:
        return shrink_for_store(self, state, memcg)

    def relieve_pool(self, state: ReclaimState) -> None:
        relieve_pool(self, state)


def _turns(
    candidates: list[_Candidate], behind: int, nodes: list[int], cursor: Cursor | None
) -> list[tuple[_Candidate, int]]:
    """Order one lap: the rest of the cursor's node, all of the other nodes, and the beginning of the cursor's node.

    >>> a, b = _Candidate("a", [0, 1]), _Candidate("b", [0, 1])
    >>> [(turn.memcg, node) for turn, node in _turns([a, b], 1, [0, 1], Cursor((1,), 0))]
    [('b', 0), ('a', 1), ('b', 1), ('a', 0)]
    """
    if not nodes:
        return []
    first = 0 if cursor is None else next((i for i, node in enumerate(nodes) if node >= cursor.node), 0)
    nodes = nodes[first:] + nodes[:first]
    turns = [(candidate, node) for node in nodes for candidate in candidates]
    return turns[behind:] + turns[:behind]
