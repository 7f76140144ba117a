"""SPEC 8 group F: proactive writeback of a subtree, on walk="v5"."""

import errno

import pytest
from tests.conftest import EngineFactory
from tests.support.states import OK, fill, left, places, reclaim, stat

from uzswap import MemCgroup, TraceEvent, Zswap

EAGAIN, EINVAL = errno.EAGAIN, errno.EINVAL


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


Tree = tuple[MemCgroup, MemCgroup, MemCgroup, MemCgroup]


@pytest.fixture
def tree(z: Zswap) -> Tree:
    """r{A{B},C}, u×10@1000 each."""
    tree = z.cgroup("/r"), z.cgroup("/r/A"), z.cgroup("/r/A/B"), z.cgroup("/r/C")
    for i, memcg in enumerate(tree):
        fill(z, memcg, 10, 1000, referenced=False, seed=10 * i)
    return tree


def test_F1_pre_order(z: Zswap, tree: Tree) -> None:
    assert reclaim(tree[0], 15_000) == (OK, 20_000)
    assert [left(z, memcg) for memcg in tree] == [0, 0, 10, 10]


def test_F2_a_child_with_writeback_off_is_skipped_with_its_subtree(z: Zswap, tree: Tree) -> None:
    tree[1].write("memory.zswap.writeback", "0")
    assert reclaim(tree[0], "1M") == (EAGAIN, 20_000)
    assert [left(z, memcg) for memcg in tree] == [0, 10, 10, 0]


def test_F3_target_below_one_with_writeback_off(z: Zswap, tree: Tree) -> None:
    tree[1].write("memory.zswap.writeback", "0")
    assert reclaim(tree[2], 1) == (EINVAL, 0)


def test_F4_two_fresh_children(z: Zswap) -> None:
    p = z.cgroup("/p")
    for name in "ab":
        fill(z, p.cgroup(name), 64, 2000)
    assert reclaim(p, "1G") == (EAGAIN, 256_000)
    assert [left(z, child) for child in p.children.values()] == [0, 0]


def test_F9_three_fresh_children(z: Zswap) -> None:
    p = z.cgroup("/p")
    handles = [fill(z, p.cgroup(name), 100, 2000) for name in "abc"]
    assert reclaim(p, 150_000) == (OK, 168_000)
    assert [left(z, child) for child in p.children.values()] == [72] * 3
    infos = [z.core.info(int(handle)) for many in handles for handle in many]
    assert not any(info.referenced for info in infos if info is not None)


def test_F14_entries_of_a_removed_child(z: Zswap) -> None:
    p = z.cgroup("/p")
    own = fill(z, p, 1, 500, referenced=False, seed=99)
    theirs = fill(z, p.cgroup("c"), 10, 1000, referenced=False)
    p.cgroup("c").remove()
    visited: list[str] = []
    z.trace = lambda event: visited.append(event.cgroup)
    assert reclaim(p, 1) == (OK, 10_500)
    z.trace = None
    assert visited == ["/p"]
    assert places(z, theirs) == ["disk"] * 10
    assert places(z, own) == ["disk"]


def test_F14_they_come_before_the_parents_own(z: Zswap) -> None:
    p = z.cgroup("/p")
    own = fill(z, p, 60, 500, referenced=False, seed=99)
    theirs = fill(z, p.cgroup("c"), 10, 1000, referenced=False)
    p.cgroup("c").remove()
    assert reclaim(p, 1) == (OK, 10 * 1000 + 54 * 500)
    assert places(z, theirs) == ["disk"] * 10
    assert places(z, own) == ["disk"] * 54 + ["zswap"] * 6


def test_F15_counters_of_a_subtree(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fill(z, a, 5, 1000, referenced=False)
    fill(z, b, 5, 1000, referenced=False, seed=5)
    assert reclaim(p, 1) == (OK, 5000)
    assert [stat(memcg, "zswpwb_proactive_b") for memcg in (a, p, b)] == [5000, 5000, 0]
    assert "zswpwb_proactive_b" not in dict(line.split() for line in vmstat(z).splitlines())


def vmstat(z: Zswap) -> str:
    from uzswap.files.engine import engine_file

    return engine_file("vmstat").read(z, z.root)


def test_F15_a_removed_childs_counters_stay_in_the_parent(z: Zswap) -> None:
    p, a = z.cgroup("/p"), z.cgroup("/p/a")
    fill(z, a, 5, 1000, referenced=False)
    reclaim(a, 1)
    a.remove()
    assert stat(p, "zswpwb_proactive_b") == 5000
    assert stat(p, "zswpwb") == 5


def test_F16_writeback_of_an_ancestor(z: Zswap) -> None:
    p, child = z.cgroup("/p"), z.cgroup("/p/child")
    p.write("memory.zswap.writeback", "0")
    assert child.read("memory.zswap.writeback") == "1\n"
    assert reclaim(child, 1) == (EINVAL, 0)


def test_F_sixteen_fresh_children_starve_a_call(z: Zswap) -> None:
    """SPEC 6.5"""
    p = z.cgroup("/p")
    for i in range(16):
        fill(z, p.cgroup(f"c{i}"), 1, 1000, seed=i)
    assert reclaim(p, 1) == (EAGAIN, 0)
    assert reclaim(p, 1) == (OK, 1000)


def test_F_an_empty_subtree_takes_sixteen_passes(z: Zswap) -> None:
    p = z.cgroup("/p")
    p.cgroup("c")
    batches: list[TraceEvent] = []
    z.trace = batches.append
    assert reclaim(p, 1) == (EAGAIN, 0)
    z.trace = None
    assert batches == []


@pytest.mark.parametrize(
    ("budget", "shares"),
    [
        pytest.param(64 * 100, [6400, 0, 0], id="one-batch"),
        pytest.param(2 * 64 * 100, [6400, 6400, 0], id="two-batches"),
        pytest.param(4 * 64 * 100, [12_800, 6400, 6400], id="four-batches"),
    ],
)
def test_F_no_cursor_each_call_starts_at_the_target(z: Zswap, budget: int, shares: list[int]) -> None:
    """SPEC 6.7: small budgets drain the first children first."""
    p = z.cgroup("/p")
    children = [p.cgroup(name) for name in "abc"]
    for i, child in enumerate(children):
        fill(z, child, 400, 100, referenced=False, seed=1000 * i)
    for _ in range(2):
        assert reclaim(p, budget) == (OK, budget)
    assert [stat(child, "zswpwb_proactive_b") for child in children] == [2 * share for share in shares]
