"""The page table comes into use where pages are touched, is counted, and goes with its array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tests.core.paging.rig import in_each_mode, job, to_disk
from tests.support.soak import longer

import uzswap
from uzswap import Zswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_PAGE = 512
#: pages of the table that come into use at once, and bytes of the table a page
LEAF, EACH = 1024, 24
#: bytes of an entry
ENTRY = 48
KIB = 1024
MIB = 1 << 20


def private_kib() -> int:
    """What the process has for itself."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def tables(group: uzswap.MemCgroup) -> int:
    return group.stats()["uzswap.metadata_bytes"]


@in_each_mode()
def test_a_large_array_costs_what_is_touched_of_it(z: Zswap) -> None:
    group = job(z)
    before = private_kib()
    x = uzswap.zeros((1 << 21, PER_PAGE), np.int64, cgroup=group)  # 8 GiB
    assert tables(group) < LEAF * EACH * 2
    assert uzswap.info(x).zero == x.nbytes
    assert uzswap.advise(x, "cold") == uzswap.advise(x, "dontneed") == x.nbytes
    assert uzswap.advise(x, "pageout") == 0
    for page in (0, 1 << 20, (1 << 21) - 1):
        x[page] = page
    assert uzswap.advise(x[5:6], "willneed") == 4096
    assert uzswap.info(x).resident == 4 * 4096
    assert tables(group) <= 4 * LEAF * EACH
    assert private_kib() - before < 4 * KIB
    assert x[1 << 20, 7] == 1 << 20
    del x
    assert tables(group) == 0


@in_each_mode()
def test_the_table_goes_with_its_array(z: Zswap) -> None:
    group = job(z, "1M")
    before = tables(group)
    for _ in range(3):
        x = uzswap.zeros((20 * LEAF, PER_PAGE), np.int64, cgroup=group)  # 80 MiB
        x[:, 0] = np.arange(len(x))
        assert 20 * LEAF * EACH <= tables(group) < 22 * LEAF * EACH + 20 * LEAF * 64  # with what is swapped out
        y = uzswap.ones((3, PER_PAGE), cgroup=group)
        assert (x[::LEAF, 0] == np.arange(0, len(x), LEAF)).all()
        resident = private_kib()
        del x
        assert private_kib() < resident - 20 * LEAF * EACH // KIB // 2
        assert y.all()
        del y
    assert tables(group) == before


@in_each_mode()
def test_neighbours_in_a_leaf_are_told_apart(z: Zswap) -> None:
    """Arrays of all sizes around a leaf's, with everything that may be asked of them."""
    group = job(z)
    random = np.random.default_rng(1)
    arrays: list[tuple[np.ndarray, int]] = []
    for turn in range(300):
        pages = int(random.choice([1, 5, LEAF - 2, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF]))
        x = uzswap.zeros((pages, PER_PAGE), np.int64, cgroup=group)
        x[[0, -1]] = turn
        arrays.append((x, turn))
        if len(arrays) > 6:
            old, value = arrays.pop(int(random.integers(len(arrays))))
            if turn % 3 == 0:
                uzswap.advise(old, "pageout")
            assert (old[[0, -1]] == value).all()
            assert old.sum() == value * PER_PAGE * (2 if len(old) > 1 else 1)
            if turn % 5 == 0:
                uzswap.advise(old, "dontneed")
                assert not old.any()
            del old
        del x
    assert all((x[[0, -1]] == value).all() for x, value in arrays)


@in_each_mode()
def test_a_cgroup_that_goes_leaves_its_tables_to_its_parent(z: Zswap) -> None:
    parent = z.cgroup("/p")
    child = z.cgroup("/p/c")
    x = uzswap.zeros((3 * LEAF, PER_PAGE), np.int64, cgroup=child)
    x[:, 0] = 1
    had = tables(child)
    assert had == tables(parent) > 0
    child.remove()
    x[:, 1] = 2
    assert tables(parent) == had
    del x
    assert tables(parent) == 0


@in_each_mode()
def test_an_array_of_one_value_takes_its_budget(z: Zswap) -> None:
    """Whatever its size: of 2 GB under 64 MiB (in a soak) the process takes 64 MiB, a tenth of that, and 8 MiB."""
    budget = longer(16, 64) * MIB
    nbytes = longer(400 * MIB, 2 * 10**9)
    group = job(z, str(budget))
    x = uzswap.ones(2 * MIB, np.uint8, cgroup=group)  # what an engine needs once
    uzswap.advise(x, "pageout")
    before = private_kib()
    y = uzswap.empty(nbytes, np.uint8, cgroup=group)
    for begin in range(0, nbytes, MIB):
        y[begin : begin + MIB] = 7
    assert (private_kib() - before) * KIB < budget * 1.1 + 8 * MIB
    assert tables(group) < (nbytes // 4096 + 4 * LEAF) * EACH + 64 * ENTRY
    stats = group.stats()
    assert stats["uzswap.same_filled"] * 4096 > nbytes - budget
    assert int(group.read("memory.swap.current")) >= nbytes - budget
    assert (y[:: 1 << 20] == 7).all()


@in_each_mode()
def test_pages_of_one_value_are_each_its_own(z: Zswap) -> None:
    """They share an entry, and nothing else: each can change, go and come back without the others."""
    group = job(z)
    n = 4 * LEAF
    x = uzswap.zeros((n, PER_PAGE), np.int64, cgroup=group)
    expected = np.zeros(n, np.int64)
    rng = np.random.default_rng(7)

    def page_out(x: NDArray[np.int64]) -> None:
        uzswap.advise(x, "pageout")
        assert int(group.read("memory.swap.current")) == n * 4096
        z.check()

    expected[:] = 5
    x[:] = 5
    page_out(x)
    assert tables(group) < (n + 2 * LEAF) * EACH + 8 * ENTRY
    for turn in range(6):
        chosen = rng.choice(n, 200, replace=False)
        value = [5, 0, 6, 0, 5, 9][turn]
        x[chosen[:100]] = value
        uzswap.put(x, chosen[100:], value)
        expected[chosen] = value
        dropped = slice(turn * 500, turn * 500 + 30)
        if turn == 3:
            uzswap.advise(x[dropped], "dontneed")
            expected[dropped] = 0
            x[dropped, 0] = 0
        x[turn * 7, 1:] = np.arange(PER_PAGE - 1)  # no value of its own
        x[turn * 7, 1:] = x[turn * 7, 0]
        assert (uzswap.take(x, chosen)[:, -1] == value).all()
        page_out(x)
        assert (x[:, [0, 100, -1]] == expected[:, None]).all()
    page_out(x)
    child = z.cgroup("/job/child")
    y = uzswap.ones((LEAF, PER_PAGE), np.int64, cgroup=child)
    uzswap.advise(y, "pageout")
    child.remove()
    z.check()
    to_disk(z, group, x)
    assert (y == 1).all()
    del x, y
    z.check()
    assert tables(group) == int(group.read("memory.swap.current")) == 0
