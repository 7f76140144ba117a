"""memory.min and memory.low of arrays: what faults of others may not take, and what they take last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.arrays.paged import PAGE, current, settle

import uzswap

KIB = 1 << 10


def noise(nbytes: int, seed: int = 1) -> np.ndarray[Any, Any]:
    """Bytes that do not compress: what is evicted goes to the device as it is."""
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


def half(nbytes: int) -> np.ndarray[Any, Any]:
    """Pages that compress to half their size."""
    pages = noise(nbytes).reshape(-1, PAGE)
    pages[:, PAGE // 2 :] = 0
    return pages.ravel()


def filled(cgroup: uzswap.MemCgroup, nbytes: int, seed: int = 1) -> np.ndarray[Any, Any]:
    x = uzswap.array(noise(nbytes, seed), cgroup=cgroup)
    settle(x)
    return x


def resident(x: np.ndarray[Any, Any]) -> int:
    return uzswap.info(x).resident


def pressed(cgroup: uzswap.MemCgroup, nbytes: int = 4096 * KIB) -> np.ndarray[Any, Any]:
    """Far more than fits below an ancestor's limit: every fault has to evict something."""
    x = uzswap.zeros(nbytes, np.uint8, cgroup=cgroup)
    x[:] = noise(nbytes, 2)
    cgroup.zswap.flush_work()
    return x


@pytest.fixture
def family(z: uzswap.Zswap) -> tuple[uzswap.MemCgroup, uzswap.MemCgroup, uzswap.MemCgroup]:
    """/p with memory.max of 1 MiB, and its children a and b."""
    parent = z.cgroup("/p")
    parent.write("memory.max", "1M")
    return parent, z.cgroup("/p/a"), z.cgroup("/p/b")


def events(cgroup: uzswap.MemCgroup) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in cgroup.read("memory.events").splitlines())}


@pytest.mark.parametrize("limit", ["memory.max", "memory.high", "uzswap.resident.max"])
def test_faults_of_a_sibling_take_nothing_that_memory_min_protects(z: uzswap.Zswap, limit: str) -> None:
    """Evicted by the fault itself, behind it by a worker, and for a limit of resident memory alone."""
    parent, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    parent.write(limit, "1M")
    a.write("memory.min", "512K")
    x = filled(a, 400 * KIB)
    y = pressed(b)
    assert resident(x) == 400 * KIB
    assert events(a)["low"] == 0
    assert (y == noise(y.size, 2)).all()
    assert resident(x) == 400 * KIB


def test_of_more_than_memory_min_the_rest_goes(family: Any) -> None:
    _, a, b = family
    a.write("memory.min", "256K")
    x = filled(a, 512 * KIB)
    y = pressed(b)
    assert 256 * KIB - PAGE <= current(a) < 512 * KIB
    assert (x == noise(x.size)).all()
    del y


def test_what_memory_low_protects_is_spared_while_there_is_anything_else(family: Any) -> None:
    _, a, b = family
    a.write("memory.low", "512K")
    x = filled(a, 400 * KIB)
    y = pressed(b)
    assert resident(x) == 400 * KIB
    assert events(a)["low"] == events(b)["low"] == 0
    del y


def test_what_memory_low_protects_goes_when_there_is_nothing_else_and_that_counts(family: Any) -> None:
    parent, a, b = family
    a.write("memory.low", "1M")
    b.write("memory.min", "1M")
    x = filled(a, 400 * KIB)
    y = pressed(b, 1000 * KIB)
    assert resident(y) == 1000 * KIB
    assert resident(x) < 400 * KIB
    assert events(a)["low"] > 0
    assert events(b)["low"] == 0
    assert events(parent)["low"] == events(a)["low"]
    assert events(parent)["oom"] == 0
    assert (x == noise(x.size)).all()


def test_when_all_is_protected_a_fault_goes_over_the_limit_and_counts_as_oom(family: Any) -> None:
    parent, a, b = family
    a.write("memory.min", "1M")
    b.write("memory.min", "4M")
    x = filled(a, 512 * KIB)
    y = pressed(b, 1024 * KIB)
    assert resident(x) == 512 * KIB
    assert resident(y) == 1024 * KIB
    assert events(parent)["oom"] > 0
    del x, y


def test_siblings_that_claim_more_than_their_parent_has_share_it_by_use(z: uzswap.Zswap) -> None:
    """The shares follow the use, which every batch of the same fault changes."""
    top = z.cgroup("/t")
    top.write("memory.max", "2M")
    z.cgroup("/t/p").write("memory.min", "512K")
    children = [z.cgroup(f"/t/p/{name}") for name in "ab"]
    for child in children:
        child.write("memory.min", "1M")
    xs = [filled(child, 512 * KIB, seed) for seed, child in enumerate(children)]
    y = pressed(z.cgroup("/t/q"))
    assert current(z.cgroup("/t/p")) >= 512 * KIB - 4 * PAGE
    assert all(current(child) < 512 * KIB for child in children)
    for seed, x in enumerate(xs):
        assert (x == noise(x.size, seed)).all()
    del y


def test_no_cgroup_is_protected_from_its_own_limit(z: uzswap.Zswap) -> None:
    a = z.cgroup("/a")
    a.write("memory.max", "1M")
    a.write("memory.min", "1M")
    x = pressed(a)
    assert events(a)["oom"] == 0
    assert current(a) <= 1024 * KIB
    del x


def test_a_setting_that_is_taken_back_or_goes_with_its_cgroup_protects_nothing(family: Any) -> None:
    _, a, b = family
    a.write("memory.min", "512K")
    x = filled(a, 400 * KIB)
    a.write("memory.min", "0")
    y = pressed(b)
    assert resident(x) < 400 * KIB
    del y
    a.write("memory.min", "512K")
    assert (x == noise(x.size)).all()
    parent = b.parent
    assert parent is not None
    parent.write("memory.min", "1M")
    a.remove()
    y = pressed(b)
    assert resident(x) < 400 * KIB
    # Nobody claims any of the parent's any more, so all of it goes by use.
    assert b.effective_protection(b.zswap.root)[0] == min(1024 * KIB * current(b) // current(parent), 1024 * KIB)
    del x, y


def test_zswap_of_a_protected_cgroup_is_not_written_back_for_a_siblings_faults(family: Any) -> None:
    _, a, b = family
    a.write("memory.min", "512K")
    data = half(800 * KIB)
    handles = a.zswap.swap_out_many(data, a)
    before = a.stats()["zswap"]
    assert 0 < before < 512 * KIB
    y = pressed(b)
    assert a.stats()["zswap"] == before
    assert a.stats()["zswpwb"] == 0
    assert (a.zswap.fault_in_many(handles) == data).all()
    del y


def test_clean_copies_of_a_protected_cgroup_stay(family: Any) -> None:
    _, a, b = family
    a.write("memory.min", "768K")
    x = uzswap.array(np.arange(256 * KIB // 8), cgroup=a)
    uzswap.advise(x, "pageout")
    assert x.sum() == (x.size - 1) * x.size // 2
    a.zswap.flush_work()  # what was read ahead is there
    copies = a.stats()["uzswap.clean_copies"]
    assert copies > 0
    y = pressed(b)
    assert a.stats()["uzswap.clean_copies"] == copies
    assert resident(x) == 256 * KIB
    del y


def test_the_charge_of_a_store_spares_what_is_protected_too(family: Any) -> None:
    _, a, b = family
    a.write("memory.min", "768K")
    x = filled(a, 300 * KIB)
    data = half(800 * KIB)
    handles = a.zswap.swap_out_many(data, a)
    before = a.stats()["zswap"]
    with uzswap.Store(b) as store:
        for i in range(40):
            store[i] = noise(100 * KIB, i).tobytes()
        assert resident(x) == 300 * KIB
        assert a.stats()["zswap"] == before
        for i in range(40):
            assert store[i] == noise(100 * KIB, i).tobytes()
    a.zswap.free_many(handles)
    del x
