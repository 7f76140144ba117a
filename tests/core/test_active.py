"""The memcgs that have something to give: found without a look at the others, in the order of the tree."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from uzswap import MemCgroup, Zswap
from uzswap.core.boundary.engine import LRU, RESIDENT


class ActiveModel(RuleBasedStateMachine):
    """Against a look at every cgroup."""

    def __init__(self) -> None:
        super().__init__()
        self.z = Zswap(swap_size="16M")
        self.handles: list[int] = []
        self.charged: dict[int, int] = {}

    def teardown(self) -> None:
        self.z.close()

    def cgroups(self) -> list[MemCgroup]:
        return list(self.z.root.preorder())

    def any_cgroup(self, at: int) -> MemCgroup:
        return (cgroups := self.cgroups())[at % len(cgroups)]

    @rule(at=st.integers(0, 50), name=st.sampled_from("abcd"))
    def make(self, at: int, name: str) -> None:
        self.any_cgroup(at).cgroup(name)

    @rule(at=st.integers(0, 50))
    def remove(self, at: int) -> None:
        cgroup = self.any_cgroup(at)
        if cgroup.parent is not None and not cgroup.children and not self.charged.get(cgroup.id):
            cgroup.remove()

    @rule(at=st.integers(0, 50))
    def store(self, at: int) -> None:
        self.handles.append(self.z.swap_out(os.urandom(256) * 2, self.any_cgroup(at)))

    @rule(at=st.integers(0, 50))
    def load(self, at: int) -> None:
        if self.handles:
            self.z.fault_in(self.handles.pop(at % len(self.handles)))

    @rule(at=st.integers(0, 50), nbytes=st.sampled_from([4096, 8192]))
    def charge(self, at: int, nbytes: int) -> None:
        cgroup = self.any_cgroup(at)
        self.z.charge(cgroup, nbytes)
        self.charged[cgroup.id] = self.charged.get(cgroup.id, 0) + nbytes

    @rule(at=st.integers(0, 50))
    def uncharge(self, at: int) -> None:
        cgroup = self.any_cgroup(at)
        self.z.uncharge(cgroup, self.charged.pop(cgroup.id, 0))

    @rule(at=st.integers(0, 50))
    def write_back(self, at: int) -> None:
        with contextlib.suppress(OSError):
            self.any_cgroup(at).reclaim("1K", source="zswap")

    @rule(at=st.integers(0, 50), allowed=st.booleans())
    def allow_writeback(self, at: int, allowed: bool) -> None:
        self.any_cgroup(at).writeback = allowed

    @invariant()
    def lists_what_a_look_at_all_finds(self) -> None:
        core = self.z.core
        self.z.check()
        for target in self.cgroups():
            subtree = list(target.preorder())
            has_lru = [g.index for g in subtree if core.lru_len(g.index, 0)]
            resident = [g.index for g in subtree if self.charged.get(g.id)]
            assert core.active(target.index, RESIDENT) == resident
            assert core.active(target.index, LRU | RESIDENT) == [
                g.index for g in subtree if g.index in has_lru or g.index in resident
            ]
            allowed = [g.index for g in subtree if all(a.writeback for a in between(g, target))]
            assert core.active(target.index, LRU) == [index for index in has_lru if index in allowed]


def between(cgroup: MemCgroup, target: MemCgroup) -> Iterator[MemCgroup]:
    """From a cgroup up to the target."""
    for one in cgroup.ancestry():
        yield one
        if one is target:
            return


TestActiveModel = ActiveModel.TestCase
TestActiveModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_many_active_children_are_listed_in_the_order_of_their_creation() -> None:
    with Zswap(swap_size="16M") as z:
        children = [z.cgroup(f"/{i}") for i in range(500)]
        for at in (i * 7919 % 500 for i in range(500)):
            z.swap_out(os.urandom(100), children[at])
        assert z.core.active(0, LRU) == [child.index for child in children]


def test_a_removed_memcg_has_nothing() -> None:
    with Zswap(swap_size="16M") as z:
        child = z.cgroup("/a")
        z.swap_out(os.urandom(100), child)
        child.remove()
        assert z.core.active(0, LRU) == [0]
        with pytest.raises(ValueError, match="not online"):
            z.core.active(child.index, LRU)
