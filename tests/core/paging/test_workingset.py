"""Which pages stay: a hot set, a part of what a program goes round and round over, and what it turns to next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tests.core.paging.rig import counting, in_each_mode, job

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import Zswap

#: Pages that may be resident: from 2048 on there are leaders.
BUDGET = 4096


def array(z: Zswap, pages: int) -> NDArray[np.int64]:
    group = job(z, "max")
    group.write("uzswap.resident.max", str(BUDGET * 4096))
    x = uzswap.zeros((pages, 512), np.int64, cgroup=group)
    x[:] = counting(pages * 512).reshape(pages, 512)
    return x


def loads(z: Zswap, x: NDArray[np.int64], pages: NDArray[np.intp]) -> int:
    """Pages that are loaded when these are read in this order."""
    z.flush_work()
    before = uzswap.info(x).loads
    assert (x[pages, 3] == pages * 512 + 3).all()
    z.flush_work()
    return uzswap.info(x).loads - before


@in_each_mode()
def test_a_part_stays_of_what_a_program_goes_round_and_round_over(z: Zswap) -> None:
    """An LRU list would evict each page just before its turn, and load all of them in every round."""
    x = array(z, 2 * BUDGET)
    # No stream: readahead has no say in it.
    order = np.random.default_rng(1).permutation(2 * BUDGET)[: BUDGET * 3 // 2]
    for _ in range(8):
        loads(z, x, order)
    # It cannot be less than a third; half of what it was before.
    assert sum(loads(z, x, order) for _ in range(4)) < 4 * len(order) * 0.6


@in_each_mode()
def test_what_stayed_goes_when_the_program_turns_to_something_else(z: Zswap) -> None:
    x = array(z, 4 * BUDGET)
    order = np.random.default_rng(1).permutation(4 * BUDGET)
    for _ in range(12):
        loads(z, x, order[: BUDGET * 3 // 2])
    other = order[-BUDGET // 2 :]
    for _ in range(16):
        loads(z, x, other)
    assert loads(z, x, other) < len(other) / 20


@in_each_mode()
def test_a_hot_set_stays_beside_a_scan(z: Zswap) -> None:
    x = array(z, 4 * BUDGET)
    rng = np.random.default_rng(1)
    hot = rng.permutation(4 * BUDGET)[: BUDGET // 2]
    missed = asked = 0
    for sweep in range(4):
        for at in range(0, 4 * BUDGET, 64):
            assert x[at, 0] == at * 512
            assert (x[at : at + 64, 5] % 512 == 5).all()
            found = loads(z, x, rng.choice(hot, 128)) if sweep == 3 and at % 1024 == 0 else 0
            if sweep < 3 or at % 1024:
                x[rng.choice(hot, 128), 7].sum()
            else:
                missed, asked = missed + found, asked + 128
    assert missed < asked / 20
