"""Threads that take each other's pages away: one at a time keeps its own."""

from __future__ import annotations

from threading import Barrier, Thread
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from tests.core.paging.rig import counting, in_each_mode, job

import uzswap

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uzswap import Zswap

#: Pages that may be resident, and that a thread works on.
BUDGET = 4096
OWN = BUDGET * 3 // 4

#: The pages of so many accesses.
Order: TypeAlias = "Callable[[np.random.Generator, int], NDArray[np.intp]]"


def array(z: Zswap, pages: int) -> NDArray[np.int64]:
    group = job(z, "max")
    group.write("uzswap.resident.max", str(BUDGET * 4096))
    x = uzswap.zeros((pages, 512), np.int64, cgroup=group)
    x[:] = counting(pages * 512).reshape(pages, 512)
    return x


def tokens(z: Zswap) -> int:
    return int(z.arena.memory.info().swap_tokens)


def at_once(x: NDArray[np.int64], accesses: int, *orders: Order) -> float:
    """Pages loaded an access, when a thread each takes items of the pages that its order names."""
    items = x.reshape(-1)
    begin = Barrier(len(orders))
    wrong = []

    def work(order: Order, seed: int) -> None:
        at = order(np.random.default_rng(seed), accesses) * 512 + seed
        out = np.empty(len(at), np.int64)
        begin.wait()
        np.take(items, at, out=out, mode="clip")  # without the GIL
        if (out != at).any():
            wrong.append(seed)

    before = uzswap.info(x).loads
    threads = [Thread(target=work, args=(order, seed)) for seed, order in enumerate(orders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    return (uzswap.info(x).loads - before) / (accesses * len(orders))


def anywhere(first: int, pages: int) -> Order:
    return lambda rng, accesses: rng.integers(first, first + pages, accesses)


def skewed(first: int, pages: int) -> Order:
    """Nine of ten accesses are to a sixth of the pages."""
    places = first + np.random.default_rng(1).permutation(pages)
    hot, cold = np.split(places, [pages // 6])

    def order(rng: np.random.Generator, accesses: int) -> NDArray[np.intp]:
        return np.where(rng.random(accesses) < 0.9, rng.choice(hot, accesses), rng.choice(cold, accesses))

    return order


@in_each_mode()
def test_threads_that_fit_one_by_one_do_not_put_out_each_other(z: Zswap) -> None:
    """Together they want twice what there is: one access in ten to four loads a page without a token, one in fifty with
    it (2 virtual CPUs; one alone is the same)."""
    x = array(z, 2 * BUDGET)
    assert at_once(x, 200_000, *(anywhere(k * BUDGET // 2, BUDGET // 2) for k in range(4))) < 0.08


@in_each_mode()
def test_who_comes_after_a_thread_that_has_ended_has_all_of_the_memory(z: Zswap) -> None:
    x = array(z, 2 * BUDGET)
    at_once(x, 50_000, *(anywhere(k * BUDGET // 2, BUDGET // 2) for k in range(4)))
    last = anywhere(BUDGET // 4, OWN)
    # After loads of more than fits it may be a while until it is found out that these fit: see workingset.py.
    assert any(at_once(x, 20_000, last) < 0.02 for _ in range(40))


@in_each_mode()
def test_what_threads_share_is_kept_for_all(z: Zswap) -> None:
    x = array(z, 2 * BUDGET)
    at_once(x, 20_000, *[anywhere(0, BUDGET * 3 // 2)] * 4)
    assert tokens(z) == 0


@in_each_mode()
def test_hot_sets_that_fit_stay_for_all(z: Zswap) -> None:
    """The loads are of what is cold, of which some was there a short while ago."""
    x = array(z, 4 * BUDGET)
    at_once(x, 60_000, *(skewed(k * 2 * BUDGET, 2 * BUDGET) for k in range(2)))
    assert tokens(z) == 0


@in_each_mode()
def test_a_thread_alone_needs_no_token(z: Zswap) -> None:
    x = array(z, 2 * BUDGET)
    at_once(x, 50_000, anywhere(0, BUDGET * 3 // 2))
    assert tokens(z) == 0


@in_each_mode()
def test_streams_do_not_thrash(z: Zswap) -> None:
    x = array(z, 4 * BUDGET)
    at_once(x, 40_000, *(lambda _, n, first=first: first + np.arange(n) % (2 * BUDGET) for first in (0, 2 * BUDGET)))
    assert tokens(z) == 0
