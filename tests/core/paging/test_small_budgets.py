"""Budgets of a few pages: an instruction that needs several of them at once gets on all the same."""

from __future__ import annotations

import contextlib
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import counting, in_each_mode

import uzswap
from uzswap import ReclaimError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import Zswap

N = 32 * 512

#: Limits that are kept by faults, and sizes: nothing, and fewer pages than are evicted at once.
LIMITS = [(f, s) for f in ("memory.high", "memory.max", "uzswap.resident.max") for s in ("0", "64K")]


def over_borders(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers half an item further on: one of them in each page has bytes in the next."""
    return x.view(np.uint8)[4:-4].view(np.int64)


@pytest.mark.parametrize(("file", "size"), LIMITS)
@in_each_mode()
def test_an_access_over_the_border_of_pages(z: Zswap, file: str, size: str) -> None:
    group = z.cgroup("/a")
    x = uzswap.zeros(N, np.int64, cgroup=group)
    expected = counting(N)
    x[:] = expected
    group.write(file, size)
    part = over_borders(x)
    for _ in range(3):
        assert (part + 0 == over_borders(expected)).all()
        assert (x[1:] - x[:-1] == 1).all()
    part += 1
    over_borders(expected)[:] += 1
    assert (x == expected).all()


@pytest.mark.parametrize(("file", "size"), LIMITS[1::2])
@in_each_mode()
def test_accesses_over_borders_in_several_threads(z: Zswap, file: str, size: str) -> None:
    group = z.cgroup("/a")
    parts = [uzswap.zeros(N, np.int64, cgroup=group) for _ in range(3)]
    for x in parts:
        x[:] = counting(N)
    group.write(file, size)
    wrong = []

    def work(x: NDArray[np.int64]) -> None:
        for _ in range(3):
            if not (over_borders(x) + 0 == over_borders(counting(N))).all():
                wrong.append(x)

    threads = [Thread(target=work, args=(x,)) for x in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("explicit", ["memory.reclaim", "limit"])
@in_each_mode()
def test_what_is_asked_for_spares_nothing(z: Zswap, explicit: str) -> None:
    group = z.cgroup("/a")
    x = uzswap.zeros(N, np.int64, cgroup=group)
    x[:] = counting(N)
    z.flush_work()  # what is read ahead is on its way, and nobody's to take
    if explicit == "limit":
        group.write("uzswap.resident.max", "0")
    else:
        with contextlib.suppress(ReclaimError):  # what is compressed is not given back
            group.write("memory.reclaim", f"{uzswap.info(x).resident} swappiness=max")
    assert uzswap.info(x).resident == 0
    assert (x == counting(N)).all()
