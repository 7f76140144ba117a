"""What only walk="coldest" promises (SPEC 10.3): the entry of the subtree that has waited longest goes next."""

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.support.pages import page_of_length
from tests.support.states import OK, fill, left, lru_lengths, places, reclaim

from uzswap import Zswap

LENGTH = 1000


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="coldest")


def test_F1_age_decides(z: Zswap) -> None:
    tree = z.cgroup("/r"), z.cgroup("/r/A"), z.cgroup("/r/A/B"), z.cgroup("/r/C")
    for i in (3, 1, 0, 2):
        fill(z, tree[i], 10, LENGTH, referenced=False, seed=10 * i)
    assert reclaim(tree[0], 15_000) == (OK, 15_000)
    assert [left(z, memcg) for memcg in tree] == [10, 5, 10, 0]


def test_entries_of_many_cgroups_in_the_order_of_their_store(z: Zswap) -> None:
    p = z.cgroup("/p")
    made = [p.cgroup(f"c{i}") for i in range(7)]
    stored = [z.swap_out(page_of_length(LENGTH, seed), made[seed * 5 % 7]) for seed in range(70)]
    handles = np.array(stored, np.uint64)
    assert reclaim(p, 30 * LENGTH) == (OK, 30 * LENGTH)
    assert places(z, handles) == ["disk"] * 30 + ["zswap"] * 40
    assert reclaim(p, 1) == (OK, LENGTH)
    assert z.where(stored[30]) == "disk"


def test_many_cgroups_that_run_dry_on_the_way(z: Zswap) -> None:
    """Four entries each, so that batches end with the last entry of an LRU while others have some left."""
    p = z.cgroup("/p")
    page = page_of_length(LENGTH)
    for i in range(300):
        z.swap_out_many(page * 4, p.cgroup(f"c{i}"))
    assert reclaim(p, 1200 * LENGTH) == (OK, 1200 * LENGTH)


def test_F9_three_fresh_children(z: Zswap) -> None:
    p = z.cgroup("/p")
    for i, name in enumerate("abc"):
        fill(z, p.cgroup(name), 100, 2000, seed=100 * i)
    assert reclaim(p, 150_000) == (OK, 150_000)
    assert [left(z, child) for child in p.children.values()] == [25, 100, 100]


def test_a_rotation_counts_as_young(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fresh = fill(z, a, 5, LENGTH)
    cold = fill(z, b, 5, LENGTH, referenced=False, seed=5)
    assert reclaim(p, 5 * LENGTH) == (OK, 5 * LENGTH)
    assert places(z, fresh) == ["zswap"] * 5
    assert places(z, cold) == ["disk"] * 5


def test_G1_G2_nodes_by_age(engine: EngineFactory) -> None:
    z = engine(walk="coldest", nodes=2)
    g = z.cgroup("/g")
    for i in range(10):
        fill(z, g, 1, LENGTH, referenced=False, node=i % 2, seed=i)
    assert reclaim(g, 4 * LENGTH) == (OK, 4 * LENGTH)
    assert lru_lengths(z, g) == [3, 3]
    fill(z, g, 5, LENGTH, referenced=False, node=0, seed=10)
    assert reclaim(g, 6 * LENGTH) == (OK, 6 * LENGTH)
    assert lru_lengths(z, g) == [5, 0]


def test_entries_of_a_removed_child_keep_their_age(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    older = fill(z, b, 5, LENGTH, referenced=False, seed=5)
    newer = fill(z, a, 5, LENGTH, referenced=False)
    a.remove()
    assert reclaim(p, 5 * LENGTH) == (OK, 5 * LENGTH)
    assert places(z, older) == ["disk"] * 5
    assert places(z, newer) == ["zswap"] * 5
