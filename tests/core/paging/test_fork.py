"""fork(): the child has no such memory, and never reads zeros in its place; the parent notices nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import MIB, counting, in_each_mode, job, out_of_memory

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import Zswap


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: the process has threads
        return os.fork()


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("where", ["resident", "pool", "never touched"])
@in_each_mode()
def test_a_child_that_touches_an_array_is_killed(z: Zswap, where: str) -> None:
    """The parent's bytes are not there; a SIGSEGV is better than zeros."""
    x = uzswap.zeros(MIB // 8, np.int64, cgroup=job(z))
    if where != "never touched":
        x[:] = counting(MIB // 8)
    if where == "pool":
        assert out_of_memory(z, x) == x.nbytes
    child = fork()
    if not child:
        import faulthandler

        faulthandler.disable()  # its report would look like the parent's
        x.sum()
        os._exit(0)
    assert ended(child) == -signal.SIGSEGV
    assert (x == (0 if where == "never touched" else counting(MIB // 8))).all()


@in_each_mode()
def test_a_child_that_touches_none_lives_and_the_parent_is_unharmed(z: Zswap) -> None:
    x = uzswap.zeros(MIB // 2, np.int64, cgroup=job(z, "1M"))
    x[:] = counting(MIB // 2)
    children = []
    for _ in range(3):
        child = fork()
        if not child:
            code = 1
            try:
                sorted(range(100_000), key=lambda i: -i)
                del x  # frees nothing of the parent's
                try:
                    uzswap.zeros(10, cgroup=z.root)
                except RuntimeError:
                    code = 0
            finally:
                os._exit(code)
        children.append(child)
        x += 1
    assert [ended(child) for child in children] == [0, 0, 0]
    assert (x == counting(MIB // 2) + 3).all()


@in_each_mode()
def test_pages_still_go_after_a_fork(z: Zswap) -> None:
    """Pages that a fork shares cannot be moved (EBUSY) until they are written to, even when the child is gone."""
    group = job(z, "max")
    x = uzswap.zeros(MIB // 8, np.int64, cgroup=group)
    x[:] = counting(MIB // 8)
    child = fork()
    if not child:
        os._exit(0)
    assert out_of_memory(z, x) == x.nbytes
    assert ended(child) == 0
    assert (x == counting(MIB // 8)).all()
    assert out_of_memory(z, x) == x.nbytes
    group.write("memory.max", "256K")
    assert (x == counting(MIB // 8)).all()
    assert int(group.read("memory.current")) <= MIB // 4


def total(part: NDArray[np.int64]) -> int:
    return int(part.sum())


@in_each_mode()
def test_a_pool_of_forked_workers_with_pickled_slices(z: Zswap) -> None:
    x = uzswap.zeros(MIB // 2, np.int64, cgroup=job(z, "1M"))
    x[:] = counting(MIB // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            sums = pool.map(total, np.split(x, 16))
            pool.close()
            pool.join()
    assert sum(sums) == MIB // 2 * (MIB // 2 - 1) // 2
    assert (x == counting(MIB // 2)).all()


@in_each_mode()
def test_a_child_may_have_an_engine_of_its_own(z: Zswap) -> None:
    x = uzswap.zeros(MIB // 8, np.int64, cgroup=job(z, "512K"))
    x[:] = counting(MIB // 8)
    child = fork()
    if not child:
        code = 1
        try:
            with uzswap.Zswap(swap_size="64M") as own:
                y = uzswap.zeros(MIB // 8, np.int64, cgroup=job(own, "512K"))
                y[:] = counting(MIB // 8, 3)
                if (y == counting(MIB // 8, 3)).all():
                    code = 0
                del y
        finally:
            os._exit(code)
    assert (x == counting(MIB // 8)).all()
    assert ended(child) == 0
