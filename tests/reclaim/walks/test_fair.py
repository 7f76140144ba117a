"""What only walk="fair" promises (SPEC 10.2): shares, the cursor, turns of the nodes."""

import errno
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import EngineFactory
from tests.support.pages import page_of_length, pages_of_length
from tests.support.states import OK, fill, left, lru_lengths, reclaim, stat

from uzswap import MemCgroup, TraceEvent, Zswap

LENGTH = 200


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="fair")


def children(z: Zswap, n: int, entries: int, length: int = LENGTH) -> tuple[MemCgroup, list[MemCgroup]]:
    """A parent with n equal children, all entries unreferenced."""
    p = z.cgroup("/p")
    made = [p.cgroup(f"c{i}") for i in range(n)]
    for i, child in enumerate(made):
        fill(z, child, entries, length, referenced=False, seed=10_000 * i)
    return p, made


def written(memcgs: Sequence[MemCgroup]) -> list[int]:
    return [stat(memcg, "zswpwb_proactive_b") for memcg in memcgs]


@pytest.mark.parametrize("budget", [1, LENGTH, LENGTH + 1, 7 * LENGTH, 10 * LENGTH, 2010, 4321, 40 * LENGTH])
def test_ten_equal_children_200_calls(z: Zswap, budget: int) -> None:
    """SPEC 6.7 and 10.2: each child's share is within 1 % of 10 %."""
    p, made = children(z, 10, 850)
    for _ in range(200):
        assert reclaim(p, budget).errno == OK
    shares = np.array(written(made)) / sum(written(made))
    assert abs(shares - 0.1).max() <= 0.001


@settings(max_examples=30, deadline=None)
@given(
    budgets=st.lists(st.integers(1, 30 * LENGTH), min_size=1, max_size=12),
    n=st.integers(2, 7),
)
def test_equal_children_are_never_more_than_one_entry_apart(budgets: list[int], n: int) -> None:
    with Zswap(swap_size="16M", walk="fair") as z:
        p = z.cgroup("/p")
        made = [p.cgroup(f"c{i}") for i in range(n)]
        buffer = page_of_length(LENGTH) * 360
        for child in made:
            z.swap_out_many(buffer, child)
        # Every entry uses up its second chance first.
        assert reclaim(p, 1) == (OK, LENGTH)
        total = LENGTH
        for budget in budgets:
            result = p.reclaim(budget, source="zswap")
            assert 0 <= result.written - budget < LENGTH
            total += result.written
            assert sum(written(made)) == total
            assert max(written(made)) - min(written(made)) <= LENGTH


def test_F1_shares_of_one_call(z: Zswap) -> None:
    tree = z.cgroup("/r"), z.cgroup("/r/A"), z.cgroup("/r/A/B"), z.cgroup("/r/C")
    for i, memcg in enumerate(tree):
        fill(z, memcg, 10, 1000, referenced=False, seed=10 * i)
    assert reclaim(tree[0], 15_000) == (OK, 15_000)
    assert [10 - left(z, memcg) for memcg in tree] == [4, 4, 4, 3]
    assert reclaim(tree[0], 1) == (OK, 1000)  # the cursor stands behind B
    assert [10 - left(z, memcg) for memcg in tree] == [4, 4, 4, 4]


def test_F9_three_fresh_children(z: Zswap) -> None:
    p = z.cgroup("/p")
    for name in "abc":
        fill(z, p.cgroup(name), 100, 2000)
    assert reclaim(p, 150_000) == (OK, 150_000)
    assert [left(z, child) for child in p.children.values()] == [75] * 3


def test_a_child_that_runs_dry_leaves_the_rest_to_the_others(z: Zswap) -> None:
    p, (a, b) = children(z, 2, 100)
    fill(z, p.cgroup("small"), 5, LENGTH, referenced=False, seed=99_000)
    assert reclaim(p, 105 * LENGTH) == (OK, 105 * LENGTH)
    assert (left(z, a), left(z, b)) == (50, 50)
    assert left(z, p.cgroup("small")) == 0


def test_the_cursor_belongs_to_the_target(z: Zswap) -> None:
    p, made = children(z, 3, 10)
    q = z.cgroup("/q")
    other = [q.cgroup(name) for name in "xy"]
    for i, child in enumerate(other):
        fill(z, child, 10, LENGTH, referenced=False, seed=50_000 + 100 * i)
    for _ in range(2):
        assert reclaim(p, 1) == (OK, LENGTH)
    assert reclaim(q, 1) == (OK, LENGTH)
    assert reclaim(p, 1) == (OK, LENGTH)
    assert written(made) == [LENGTH] * 3
    assert written(other) == [LENGTH, 0]


def served(z: Zswap, p: MemCgroup, calls: int) -> list[str]:
    names: list[str] = []

    def trace(event: TraceEvent) -> None:
        if event.entries:
            names.append(event.cgroup)

    z.trace = trace
    for _ in range(calls):
        assert reclaim(p, 1).errno == OK
    z.trace = None
    return names


def test_the_cursor_survives_removal_of_the_one_it_points_at(z: Zswap) -> None:
    p, made = children(z, 4, 10)
    assert served(z, p, 2) == ["/p/c0", "/p/c1"]
    made[1].remove()
    assert served(z, p, 3) == ["/p/c2", "/p/c3", "/p"]  # its entries belong to p now


def test_the_cursor_survives_removal_of_a_whole_branch(z: Zswap) -> None:
    p, made = children(z, 3, 10)
    inner = made[1].cgroup("inner")
    fill(z, inner, 3, LENGTH, referenced=False, seed=77_000)
    assert served(z, p, 3) == ["/p/c0", "/p/c1", "/p/c1/inner"]
    inner.remove()
    made[1].remove()
    assert served(z, p, 1) == ["/p/c2"]


def test_the_cursor_survives_creation(z: Zswap) -> None:
    p, _ = children(z, 2, 10)
    assert served(z, p, 1) == ["/p/c0"]
    new = p.cgroup("new")
    z.swap_out_many(pages_of_length(LENGTH, 3, seed=88_000), new)
    assert served(z, p, 4) == ["/p/c1", "/p/new", "/p/c0", "/p/c1"]


def test_removing_the_target_forgets_its_cursor(z: Zswap) -> None:
    p, made = children(z, 2, 10)
    assert served(z, p, 1) == ["/p/c0"]
    for memcg in (*made, p):
        memcg.remove()
    p, made = children(z, 2, 10)
    assert served(z, p, 1) == ["/p/c0"]


def test_G1_G2_nodes_take_turns(engine: EngineFactory) -> None:
    z = engine(walk="fair", nodes=2)
    g = z.cgroup("/g")
    fill(z, g, 100, 2000, referenced=False, node=0)
    fill(z, g, 100, 2000, referenced=False, node=1, seed=100)
    assert reclaim(g, 1) == (OK, 2000)
    assert lru_lengths(z, g) == [99, 100]
    assert reclaim(g, 1) == (OK, 2000)
    assert lru_lengths(z, g) == [99, 99]
    assert reclaim(g, 98 * 2000) == (OK, 98 * 2000)
    assert lru_lengths(z, g) == [50, 50]
    assert reclaim(g, "1G") == (errno.EAGAIN, 100 * 2000)


def test_G2_a_fresh_node_does_not_keep_the_other_waiting(engine: EngineFactory) -> None:
    z = engine(walk="fair", nodes=2)
    g = z.cgroup("/g")
    fill(z, g, 64, 2000, node=0)
    fill(z, g, 64, 2000, referenced=False, node=1, seed=64)
    assert reclaim(g, 64 * 2000) == (OK, 64 * 2000)
    assert lru_lengths(z, g) == [32, 32]


def test_nodes_do_not_change_the_shares_of_cgroups(engine: EngineFactory) -> None:
    z = engine(walk="fair", nodes=4)
    p = z.cgroup("/p")
    one, four = p.cgroup("one"), p.cgroup("four")
    fill(z, one, 200, LENGTH, referenced=False, node=2)
    for node in range(4):
        fill(z, four, 50, LENGTH, referenced=False, node=node, seed=1000 * (node + 1))
    assert reclaim(p, 160 * LENGTH) == (OK, 160 * LENGTH)
    assert (left(z, one), left(z, four)) == (120, 120)
    assert lru_lengths(z, four) == [30] * 4
