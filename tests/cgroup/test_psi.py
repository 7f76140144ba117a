"""The arithmetic of pressure: averages against floats, spans against sets, windows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uzswap.cgroup.psi import FIXED_1, PERIOD, Covered, Window, calc_averages

# The averages


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, PERIOD)), max_size=60))
def test_averages_follow_a_float_model(samples: list[tuple[int, int]]) -> None:
    fixed = [0, 0, 0]
    model = [0.0, 0.0, 0.0]
    for missed, stalled in samples:
        calc_averages(fixed, missed, stalled, PERIOD)
        percent = stalled * 100 // PERIOD
        for i, exp in enumerate((1677 / 2048, 1981 / 2048, 2034 / 2048)):
            model[i] = model[i] * exp ** (missed + 1) + percent * (1 - exp)
    for average, expected, exp in zip(fixed, model, (1677, 1981, 2034), strict=True):
        # each step rounds by less than 1/2048, a jump over missed periods by a few, and the errors decay by exp
        assert average / FIXED_1 == pytest.approx(expected, abs=4 / (2048 - exp))


@pytest.mark.parametrize("seconds", [10, 60, 300])
def test_averages_have_the_right_half_life(seconds: int) -> None:
    fixed = [0, 0, 0]
    for _ in range(seconds // 2):
        calc_averages(fixed, 0, PERIOD, PERIOD)
    average = fixed[(10, 60, 300).index(seconds)] / FIXED_1
    assert average == pytest.approx(100 * (1 - math.exp(-1)), abs=1.5)  # the kernel's constants have 11 bits


@given(st.integers(0, 100), st.integers(1, 1000))
def test_missed_periods_are_periods_without_stalls(percent: int, missed: int) -> None:
    jumped, stepped = [percent * FIXED_1] * 3, [percent * FIXED_1] * 3
    calc_averages(jumped, missed, 0, PERIOD)
    for _ in range(missed + 1):
        calc_averages(stepped, 0, 0, PERIOD)
    assert jumped == pytest.approx(stepped, abs=FIXED_1)  # 1 %: the power that a jump decays by has 11 bits as well


def test_full_pressure_reads_100_and_the_kernels_steps() -> None:
    fixed = [0, 0, 0]
    calc_averages(fixed, 0, PERIOD, PERIOD)
    assert fixed == [371 * 100, 67 * 100, 14 * 100]  # 100 % times FIXED_1 - EXP
    for _ in range(5000):
        calc_averages(fixed, 0, PERIOD, PERIOD)
    assert fixed == [100 * FIXED_1] * 3


# Spans and windows


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), max_size=40))
def test_covered_is_a_union(steps: list[tuple[int, int]]) -> None:
    covered, model, now = Covered(0), set[int](), 0
    for elapsed, back in steps:
        now += elapsed
        covered.add(now - back, now)
        model.update(range(max(now - back, 0), now))
        assert covered.total == len(model)


def test_covered_never_exceeds_the_time_however_many_spans() -> None:
    covered = Covered(0)
    for now in range(2, 4000, 2):
        covered.add(now - 1, now)
    assert covered.total == 1999
    covered.add(0, 4000)
    assert 1999 < covered.total <= 4000


def test_window_interpolates_the_one_before() -> None:
    window = Window(1000, 0, 0)
    assert window.update(500, 100) == 100
    assert window.update(1001, 400) == 400  # the window is over: its growth is remembered
    assert window.update(1251, 400) == 400 * 750 // 1000
    assert window.update(1501, 450) == 50 + 400 * 500 // 1000
