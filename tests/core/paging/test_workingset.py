"""What stays in memory: of a loop that does not fit most of what does, of one that fits all of it, whatever was before.

Pages are visited in an order that is no stream, so each that is not there is a fault of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tests.core.paging.rig import counting, in_each_mode, job

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import MemCgroup, Zswap

RESIDENT = 1024


def budget(z: Zswap) -> MemCgroup:
    group = job(z, "64M")
    group.write("uzswap.resident.max", str(RESIDENT * 4096))
    return group


def filled(group: MemCgroup, pages: int) -> NDArray[np.int64]:
    rows = uzswap.zeros((pages, 512), np.int64, cgroup=group)
    rows[:] = counting(pages * 512).reshape(pages, 512)
    return rows


def faults_of(rows: NDArray[np.int64], visits: NDArray[np.intp]) -> float:
    """Visit pages; how many had to be brought in, by visits."""
    before = uzswap.info(rows).loads
    for page in visits:
        assert rows[page, 7] == page * 512 + 7
    return (uzswap.info(rows).loads - before) / len(visits)


def order(pages: int, first: int = 0) -> NDArray[np.intp]:
    return np.random.default_rng(pages).permutation(pages) + first


@in_each_mode()
def test_a_loop_over_half_as_much_again_as_fits_finds_half_of_it(z: Zswap) -> None:
    """An ideal choice finds two thirds, an LRU list nothing."""
    rows = filled(budget(z), RESIDENT * 3 // 2)
    loop = order(len(rows))
    for _ in range(6):
        faults_of(rows, loop)
    assert faults_of(rows, np.tile(loop, 4)) < 0.5


@in_each_mode()
def test_a_loop_that_fits_is_all_there_after_one_that_did_not(z: Zswap) -> None:
    rows = filled(budget(z), RESIDENT * 4)
    for _ in range(2):
        faults_of(rows, np.tile(order(RESIDENT * 3 // 2), 6))
        fits = order(RESIDENT // 2, first=RESIDENT * 3)
        faults_of(rows, np.tile(fits, 30))
        assert faults_of(rows, fits) < 0.05


@in_each_mode()
def test_a_hot_set_is_found_beside_a_loop_that_does_not_fit(z: Zswap) -> None:
    rows = filled(budget(z), RESIDENT * 4)
    hot, loop = order(RESIDENT // 4, first=RESIDENT * 3), order(RESIDENT * 3 // 2)
    random = np.random.default_rng(3)

    def visit(turns: int) -> float:
        cold = np.tile(loop, turns)
        return faults_of(rows, np.stack([cold, random.choice(hot, len(cold)), random.choice(hot, len(cold))]).T.ravel())

    visit(6)
    assert visit(3) < 0.3


@in_each_mode()
def test_pages_that_are_used_together_are_there_together_in_a_loop(z: Zswap) -> None:
    """Those that come back in a loop are the next to go; but not before what they are needed for is done."""
    rows = filled(budget(z), RESIDENT * 3 // 2)
    loop = order(len(rows))
    for _ in range(6):
        faults_of(rows, loop)
    out = np.zeros((64, 512), np.int64)
    for some in np.array_split(loop, len(loop) // 64):
        np.take(rows, some, axis=0, out=out[: len(some)])
        assert (out[: len(some), 0] == some * 512).all()
        assert (out[: len(some), 511] == some * 512 + 511).all()
