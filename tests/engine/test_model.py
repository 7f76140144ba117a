"""The engine against a plain model: random histories, everything checked after each step.

The model knows what each handle holds and whose it is.  Where the bytes are is the engine's own business; but where it
says they are has to add up with every counter, and what each request answered has to fit what it left behind.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from tests.engine.test_zswap_limits import Blocks
from tests.support.pages import PAGE_SIZE, page_of_length, random_page
from tests.support.states import stats

from uzswap import MemCgroup, ReclaimError, ReclaimResult, Zswap
from uzswap.core.boundary.engine import DISK, ZSWAP
from uzswap.units import NO_LIMIT

#: By name, so that a failing history reads well.  Entries of all kinds: values, small, large, raw, several pages.
DATA = {
    "zeros": bytes(PAGE_SIZE),
    "sevens": b"\x07" * PAGE_SIZE,
    "small": page_of_length(100),
    "middle": page_of_length(1000),
    "large": page_of_length(3500),
    "noise": random_page(),
    "byte": b"x",
    "text": b"a longer text " * 3000,
    "noisy": random_page(1, 20_000),
}
LIMITS = st.sampled_from(["max", "0", "4096", "16K", "64K", "1M"])
LARGEST = 20_000


@dataclass
class Group:
    """A cgroup of the model."""

    memcg: MemCgroup
    parent: "Group | None"
    writeback: bool = True
    children: list["Group"] = field(default_factory=list)
    handles: dict[int, bytes] = field(default_factory=dict)

    def subtree(self) -> Iterator["Group"]:
        yield self
        for child in self.children:
            yield from child.subtree()

    def writeback_allowed(self) -> bool:
        return self.writeback and (self.parent is None or self.parent.writeback_allowed())


Result = TypeVar("Result")


def outcome(call: Callable[[], Result]) -> tuple[int | None, Result | ReclaimResult | None]:
    """The errno of a call, and its result, also the one that its error carries."""
    try:
        return 0, call()
    except ReclaimError as error:
        return error.errno, error.result
    except OSError as error:
        return error.errno, None


class Engine(RuleBasedStateMachine):
    groups = Bundle("groups")
    handles = Bundle("handles")

    @initialize(
        target=groups,
        walk=st.sampled_from(["v5", "fair", "coldest"]),
        nodes=st.sampled_from([1, 2]),
        max_pool=st.sampled_from([None, "256K"]),
    )
    def start(self, walk: str, nodes: int, max_pool: str | None) -> Group:
        self.z = Zswap(swap_size="32M", walk=walk, nodes=nodes, max_pool=max_pool)
        self.root = Group(self.z.root, None)
        self.owners: dict[int, Group] = {}
        self.blocks: Blocks | None = None
        self.enabled = True
        return self.root

    def teardown(self) -> None:
        if not hasattr(self, "z"):
            return
        if self.blocks is not None:
            self.blocks.close()
        for handle, group in self.owners.items():
            assert self.z.fault_in(handle) == group.handles[handle]
        assert self.z.root.stats()["zswap"] == 0
        self.z.check()
        self.z.close()

    def live(self, handle: int) -> bool:
        return handle in self.owners

    def forget(self, handle: int) -> None:
        del self.owners.pop(handle).handles[handle]

    # Cgroups

    @rule(target=groups, parent=groups)
    def create(self, parent: Group) -> Group:
        if not parent.memcg.online:
            return parent
        child = Group(parent.memcg.cgroup(f"c{len(parent.children)}"), parent)
        if any(child.memcg is sibling.memcg for sibling in parent.children):
            return next(sibling for sibling in parent.children if sibling.memcg is child.memcg)
        parent.children.append(child)
        return child

    @rule(group=groups)
    def remove(self, group: Group) -> None:
        if not group.memcg.online:
            return
        number, _ = outcome(group.memcg.remove)
        if group.parent is None or group.children or group.memcg.members:
            assert number == errno.EBUSY
            return
        assert number == 0
        group.parent.children.remove(group)
        for handle, data in group.handles.items():
            group.parent.handles[handle] = data
            self.owners[handle] = group.parent
        group.handles = {}

    # Pages

    @rule(
        target=handles,
        group=groups,
        names=st.lists(st.sampled_from(sorted(DATA)), min_size=1, max_size=4),
        node=st.integers(0, 1),
        replace=handles | st.none(),
    )
    def store(self, group: Group, names: list[str], node: int, replace: int | None) -> object:
        stored = []
        if not group.memcg.online:
            return multiple()
        for name in names:
            old = replace if replace is not None and self.live(replace) else None
            if old is not None:
                self.forget(old)
            try:
                handle = self.z.swap_out(DATA[name], group.memcg, node % self.z.nodes, replace=old)
            except OSError as error:
                self.refused(group, error.errno)
                continue
            group.handles[handle] = DATA[name]
            self.owners[handle] = group
            stored.append(handle)
        return multiple(*stored)

    def refused(self, group: Group, number: int | None) -> None:
        assert number == errno.ENOMEM
        limited = any(one.limits["memory.swap.max"] != NO_LIMIT for one in group.memcg.ancestry())
        assert limited or (self.enabled and not group.writeback_allowed())

    @rule(target=handles, group=groups, n=st.integers(1, 150), name=st.sampled_from(["small", "middle", "noise"]))
    def store_many(self, group: Group, n: int, name: str) -> object:
        if not group.memcg.online:
            return multiple()
        handles = [int(handle) for handle in self.z.swap_out_many(DATA[name] * n, group.memcg) if handle]
        for handle in handles:
            group.handles[handle] = DATA[name]
            self.owners[handle] = group
        return multiple(*handles[:3])

    @rule(handle=consumes(handles))
    def fault_in(self, handle: int) -> None:
        if self.live(handle):
            data = self.owners[handle].handles[handle]
            self.forget(handle)
            assert self.z.fault_in(handle) == data

    @rule(group=groups, n=st.integers(1, 200))
    def fault_in_many(self, group: Group, n: int) -> None:
        handles = [handle for handle, data in group.handles.items() if len(data) <= PAGE_SIZE][:n]
        out = self.z.fault_in_many(handles)
        for i, handle in enumerate(handles):
            data = group.handles[handle]
            assert out[i * PAGE_SIZE :][: len(data)].tobytes() == data
            self.forget(handle)

    @rule(handle=consumes(handles))
    def free(self, handle: int) -> None:
        if self.live(handle):
            self.z.free(handle)
            self.forget(handle)

    # Reclaim

    @rule(
        group=groups,
        walk=st.sampled_from(["v5", "fair", "coldest"]),
        budget=st.one_of(st.integers(0, 5000), st.integers(0, 1 << 20)),
    )
    def write_back(self, group: Group, walk: str, budget: int) -> None:
        if not group.memcg.online:
            return
        self.z.parameters.set("uzswap.walk", walk)
        allowed = not self.enabled or group.writeback_allowed()
        before = stats(group.memcg)["zswpwb_proactive_b"]
        number, result = outcome(lambda: group.memcg.reclaim(budget, source="zswap"))
        written = result.written if result else 0
        if not allowed:
            assert (number, written) == (errno.EINVAL, 0)
        elif number:
            assert number == errno.EAGAIN
            assert written < budget
            assert walk == "v5" or not list(self.candidates(group))
        else:
            assert 0 <= written - budget < LARGEST * (64 if walk == "v5" else 1) or budget == 0
        if group is not self.root:
            assert stats(group.memcg)["zswpwb_proactive_b"] - before == written

    def candidates(self, group: Group) -> Iterator[int]:
        """Entries of the subtree that a walk could still write."""
        for one in group.subtree():
            if not self.enabled or one.writeback_allowed():
                yield from (handle for handle in one.handles if self.z.where(handle) == "zswap")

    @rule(group=groups, n=st.integers(1, 100))
    def populate(self, group: Group, n: int) -> None:
        if self.blocks is None and group.memcg.online:
            self.blocks = Blocks(self.z, group.memcg)
        if self.blocks is not None:
            self.blocks.add(n)

    @rule()
    def depopulate(self) -> None:
        if self.blocks is not None:
            self.blocks.close()
            self.blocks = None

    @rule(group=groups, nbytes=st.integers(0, 1 << 20))
    def ordinary_reclaim(self, group: Group, nbytes: int) -> None:
        if not group.memcg.online:
            return
        resident = self.blocks.resident_bytes if self.blocks else 0
        number, result = outcome(lambda: group.memcg.reclaim(nbytes))
        assert result is not None
        freed = result.reclaimed
        assert number == (errno.EAGAIN if freed < nbytes - nbytes % PAGE_SIZE else 0)
        assert resident - freed == (self.blocks.resident_bytes if self.blocks else 0)

    # Settings

    @rule(group=groups, name=st.sampled_from(["memory.zswap.max", "memory.swap.max", "memory.high"]), limit=LIMITS)
    def limit(self, group: Group, name: str, limit: str) -> None:
        if group.memcg.online and group is not self.root:
            group.memcg.write(name, limit)

    @rule(group=groups, allowed=st.booleans())
    def writeback(self, group: Group, allowed: bool) -> None:
        if group.memcg.online:
            group.memcg.write("memory.zswap.writeback", str(int(allowed)))
            group.writeback = allowed

    @rule(name=st.sampled_from(["lz4", "zstd", "zstd:1", "lz4:8"]))
    def compressor(self, name: str) -> None:
        self.z.parameters.set("compressor", name)

    @rule(name=st.sampled_from(["enabled", "shrinker_enabled", "same_filled_pages_enabled"]), value=st.booleans())
    def switch(self, name: str, value: bool) -> None:
        self.z.parameters.set(name, "Y" if value else "N")
        if name == "enabled":
            self.enabled = value

    # What always holds

    @invariant()
    def everything_adds_up(self) -> None:
        if not hasattr(self, "z"):
            return
        self.z.flush_work()
        self.z.check()
        for group in self.root.subtree():
            if group.parent is None:
                continue
            owned = [(handle, data) for one in group.subtree() for handle, data in one.handles.items()]
            infos = [(self.z.core.info(handle), data) for handle, data in owned]
            assert all(info is not None for info, _ in infos)
            in_pool = sum(info.length for info, _ in infos if info and info.state == ZSWAP)
            on_disk = sum(info.length for info, _ in infos if info and info.state == DISK)
            pages = sum(-(-len(data) // PAGE_SIZE) for _, data in infos)
            for handle in self.blocks_below(group):
                info = self.z.core.info(handle)
                assert info is not None
                in_pool += info.length if info.state == ZSWAP else 0
                on_disk += info.length if info.state == DISK else 0
                pages += 1
            assert int(group.memcg.read("memory.zswap.current")) == in_pool == group.memcg.stats()["zswap"]
            assert int(group.memcg.read("memory.swap.current")) == pages * PAGE_SIZE
            assert int(group.memcg.read("uzswap.disk")) == on_disk

    def blocks_below(self, group: Group) -> list[int]:
        if self.blocks is None or not any(one.memcg is self.blocks.cgroup for one in group.subtree()):
            return []
        return self.blocks.handles


Engine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = pytest.mark.slow(Engine.TestCase)
