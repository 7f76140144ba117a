"""The best possible, against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uzswap.replay.belady import Belady

PAGE = 4096
ZSWAP, DISK = 0.01, 0.04


def best_of_all(accesses: list[tuple[int, float]], lengths: list[int], lost: float) -> float:
    """Return the best saved share within a loss, by trying every place for every gap."""
    end = accesses[-1][1]
    firsts = sorted(dict(reversed(accesses)).values())
    gaps = []
    for i, (page, when) in enumerate(accesses):
        later = next((k for k in range(i + 1, len(accesses)) if accesses[k][0] == page), None)
        gaps.append((page, when, end if later is None else accesses[later][1], later is not None))
    points = sorted({*firsts, *(when for _, when in accesses), end})

    def weight(begin: float, until: float) -> float:
        total = 0.0
        for left, right in itertools.pairwise(points):
            if begin <= left and right <= until:
                total += (right - left) / sum(first <= left for first in firsts)
        return total

    best = 0.0
    for places in itertools.product((0, 1, 2), repeat=len(gaps)):
        saved = seconds = 0.0
        for place, (page, begin, until, again) in zip(places, gaps, strict=True):
            share = (0.0, 1 - lengths[page] / PAGE, 1.0)[place]
            saved += weight(begin, until) * share
            seconds += (0.0, ZSWAP, DISK)[place] * again
        if seconds / (end + seconds) <= lost + 1e-12:
            best = max(best, saved / end)
    return best


@given(
    pages=st.lists(st.integers(0, 2), min_size=2, max_size=6),
    steps=st.lists(st.integers(1, 9), min_size=6, max_size=6),
    lengths=st.lists(st.integers(1, PAGE), min_size=3, max_size=3),
    lost=st.sampled_from([0.0, 0.001, 0.002, 0.005, 0.02, 0.5]),
)
def test_nothing_that_can_be_done_is_better(
    pages: list[int], steps: list[int], lengths: list[int], lost: float
) -> None:
    """It is an upper bound, and met where no gap has to be taken in part."""
    times = np.cumsum([0, *steps[: len(pages) - 1]]).astype(float)
    numbers = {page: i for i, page in enumerate(dict.fromkeys(pages))}
    keys = [numbers[page] for page in pages]
    best = Belady.of(np.array(keys), times, np.array(lengths), PAGE, ZSWAP, np.full(len(keys), DISK))
    tried = best_of_all(list(zip(keys, times.tolist(), strict=True)), lengths, lost)
    assert best.at(lost) >= tried - 1e-9
    for point_lost, point_saved in zip(best.lost.tolist(), best.saved.tolist(), strict=True):
        reached = best_of_all(list(zip(keys, times.tolist(), strict=True)), lengths, point_lost + 1e-9)
        assert reached == pytest.approx(point_saved, abs=1e-6)
        break  # without any loss: what is never needed again


def test_a_loop_is_all_or_a_part() -> None:
    """Three pages in turn, ten seconds apart, all alike: zswap first, then the device, in proportion."""
    keys = np.array([0, 1, 2] * 100)
    times = np.arange(300) * 10.0
    best = Belady.of(keys, times, np.array([1024, 1024, 1024]), PAGE, 1e-3, np.full(300, 4e-3))
    every = 297 * 1e-3 / (2990 + 297 * 1e-3)
    assert best.at(every) == pytest.approx(0.75, abs=0.01)
    assert best.at(every / 2) == pytest.approx(0.375, abs=0.01)
    assert best.at(1.0) == pytest.approx(1.0)


def test_what_is_never_needed_again_costs_nothing() -> None:
    """A page that is read once and not again, beside one that is read all the time."""
    keys = np.array([0, *[1] * 99])
    best = Belady.of(keys, np.arange(100.0), np.array([2048, 2048]), PAGE, 1.0, np.full(100, 2.0))
    # From 1 s on half of what was touched; in the first second all of it.
    assert best.at(0.0) == pytest.approx((1 + 98 / 2) / 99)


def test_what_does_not_compress_goes_straight_to_the_device() -> None:
    keys, times = np.array([0, 0]), np.array([0.0, 100.0])
    best = Belady.of(keys, times, np.array([PAGE]), PAGE, 1.0, np.full(2, 4.0))
    assert best.at(4 / 104) == pytest.approx(1.0)
    assert best.at(0.0) == pytest.approx(0.0)
