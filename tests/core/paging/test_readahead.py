"""What comes in with a page that is asked for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import in_each_mode, job, out_of_memory, to_disk

import uzswap

if TYPE_CHECKING:
    from uzswap import Zswap

ROWS = 1500


@in_each_mode()
def test_a_column_comes_in_without_the_pages_between(z: Zswap) -> None:
    """Rows of 8000 bytes lie at page borders in every way there is."""
    x = uzswap.zeros((ROWS, 1000), np.int64, cgroup=job(z, "32M"))
    expected = np.arange(ROWS * 1000).reshape(ROWS, 1000)
    x[:] = expected
    for column in (0, 500, 999, 1):
        out_of_memory(z, x)
        before = uzswap.info(x)
        assert (x[:, column] == expected[:, column]).all()
        z.flush_work()
        after = uzswap.info(x)
        # Where a stream of before would have gone on a window comes as a whole.
        assert ROWS <= after.loads - before.loads <= ROWS * 5 / 4, after.loads - before.loads
        assert after.faults - before.faults <= ROWS / 5


@in_each_mode()
def test_a_column_from_below_and_what_is_written_to_it(z: Zswap) -> None:
    x = uzswap.zeros((ROWS, 2000), np.int64, cgroup=job(z, "4M"))
    expected = np.arange(ROWS * 2000).reshape(ROWS, 2000)
    x[:] = expected
    for column in range(0, 2000, 333):
        out_of_memory(z, x)
        before = uzswap.info(x).faults
        assert (x[::-1, column] == expected[::-1, column]).all()
        assert uzswap.info(x).faults - before <= ROWS / 5
        x[:, column] = expected[:, column] = column
    assert (x == expected).all()
    assert (x[:, :20].T.copy() == expected[:, :20].T).all()


@in_each_mode()
def test_two_columns_at_a_time(z: Zswap) -> None:
    """Streams that take turns are not told from random access; nothing is wrong and nothing else comes in."""
    x = uzswap.zeros((ROWS, 1024), np.int64, cgroup=job(z, "32M"))
    expected = np.arange(ROWS * 1024).reshape(ROWS, 1024)
    x[:] = expected
    out_of_memory(z, x)
    before = uzswap.info(x).loads
    assert (x[:, 3] + x[:, 600] == expected[:, 3] + expected[:, 600]).all()
    z.flush_work()
    assert uzswap.info(x).loads - before <= 2 * ROWS + 64


@in_each_mode()
def test_a_scan_in_windows_is_not_taken_for_a_stride(z: Zswap) -> None:
    """Faults are as far apart as the windows, which a small budget bounds."""
    group = job(z, "max")
    group.write("uzswap.resident.max", "1M")
    x = uzswap.zeros((2048, 512), np.int64, cgroup=group)
    x[:] = np.arange(2048 * 512).reshape(2048, 512)
    before = uzswap.info(x)
    assert (x[:, ::64] == np.arange(2048 * 512).reshape(2048, 512)[:, ::64]).all()
    z.flush_work()
    after = uzswap.info(x)
    assert after.loads - before.loads <= 2048
    assert after.faults - before.faults <= 2048 / 16


@pytest.mark.parametrize("pages", [3, 15, 63])
@in_each_mode()
def test_a_column_from_below_as_many_pages_apart_as_come_in(z: Zswap, pages: int) -> None:
    """What is between the pages that come in is in memory, and newer than what the disk has."""
    rows = 100
    group = job(z, "max")
    x = uzswap.zeros((rows, pages * 512), np.int64, cgroup=group)
    x[:] = expected = np.arange(rows * pages * 512).reshape(rows, -1)
    for _ in range(4):
        to_disk(z, group, x)
        expected[:, 512:] += 1
        x[:, 512:] += 1
        for row in x:
            uzswap.advise(row[:512], "pageout")
        with contextlib.suppress(OSError):
            group.reclaim("1G", source="zswap")
        assert uzswap.info(x).disk > 0
        assert (x[::-1, 5] == expected[::-1, 5]).all()
        assert (x == expected).all()
        z.check()
        assert int(group.read("memory.current")) >= uzswap.info(x).resident == z.arena.resident_bytes()
