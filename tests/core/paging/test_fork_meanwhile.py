"""fork() while threads fault, reclaim, write back, take and put; and many of them."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.forks import N, child, ended, filled, is_counting, rows_of
from tests.core.paging.rig import MIB, counting, in_each_mode, job, to_disk
from tests.support.leaks import Snapshot
from tests.support.soak import longer

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import MemCgroup, Zswap


def faults(group: MemCgroup, x: NDArray[np.int64], stop: threading.Event) -> None:
    """One of many threads: reads and changes a part of its own."""
    while not stop.is_set():
        x += 1
        x -= 1


def writes_back(group: MemCgroup, x: NDArray[np.int64], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            group.reclaim("512K", source="zswap")
        except OSError:
            stop.wait(0.001)  # there is nothing that may go


def reclaims(group: MemCgroup, x: NDArray[np.int64], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            group.reclaim("100M")
        except OSError:
            stop.wait(0.001)  # there is nothing that may go


def advises(group: MemCgroup, x: NDArray[np.int64], stop: threading.Event) -> None:
    while not stop.is_set():
        for advice in ("pageout", "willneed", "cold"):
            uzswap.advise(x, advice)


def makes_and_frees(group: MemCgroup, x: NDArray[np.int64], stop: threading.Event) -> None:
    while not stop.is_set():
        with uzswap.managed(group, "64K"):
            assert (np.ones(MIB // 8) * 2).sum() == MIB // 4


@pytest.mark.parametrize(
    "how",
    [["faults"] * 8, ["writes_back"] * 2, ["reclaims", "writes_back"], ["advises"] * 2, ["makes_and_frees"] * 2],
    ids=["faults", "writeback", "reclaim", "advice", "allocation"],
)
@in_each_mode()
def test_a_fork_in_the_midst_of(z: Zswap, how: list[str]) -> None:
    group = job(z, "1M")
    x = uzswap.zeros(N, np.int64, cgroup=group)
    x[:] = counting(N)
    quiet = x[: N // 2]  # nobody changes these
    parts = np.split(x[N // 2 :], len(how))
    stop = threading.Event()
    threads = [
        threading.Thread(target=globals()[name], args=(group, part, stop))
        for name, part in zip(how, parts, strict=True)
    ]
    for thread in threads:
        thread.start()

    def work() -> None:
        is_counting(quiet)
        near = x[N // 2 :] - counting(N)[N // 2 :]
        assert ((near == 0) | (near == 1)).all()
        x[:] = counting(N, 3)
        to_disk(z, group, x)
        is_counting(x, 3)
        z.flush_work()
        z.check()

    for _ in range(longer(3, 100)):
        pid = child(work)
        is_counting(quiet)
        assert ended(pid) == 0
    stop.set()
    for thread in threads:
        thread.join()
    is_counting(x)


@in_each_mode()
def test_threads_that_fork_at_the_same_time(z: Zswap) -> None:
    group, x = filled(z)
    codes = []

    def work() -> None:
        is_counting(x)
        to_disk(z, group, x)
        is_counting(x)

    def forks() -> None:
        for _ in range(longer(5, 50)):
            codes.append(ended(child(work)))

    threads = [threading.Thread(target=forks) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(codes)
    is_counting(x)


@in_each_mode()
def test_children_killed_at_random(z: Zswap) -> None:
    group, x = filled(z)
    rng = random.Random(0)

    def work() -> None:
        while True:
            x[:] += 1
            to_disk(z, group, x)

    children: list[int] = []
    for _ in range(longer(8, 200)):
        children.append(child(work))
        is_counting(x)
        to_disk(z, group, x)
        if len(children) > 2:
            pid = children.pop(rng.randrange(len(children)))
            os.kill(pid, signal.SIGKILL)
            assert ended(pid) == -signal.SIGKILL
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    is_counting(x)


@in_each_mode()
def test_many_forks_leave_nothing(z: Zswap) -> None:
    group, x = filled(z)
    arrays = [x]

    def mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    def work() -> None:
        assert arrays[0][0] == 0
        assert arrays[0][-1] == N - 1

    for _ in range(3):
        to_disk(z, group, x)
        assert ended(child(work)) == 0
        is_counting(x)
    before, maps = Snapshot.take(), mappings()
    for i in range(longer(100, 2000)):
        pid = child(work if i % 10 == 0 else lambda: None)
        if i % 50 == 0:
            x[:] += 1
            x[:] -= 1
            to_disk(z, group, x)
        assert ended(pid) == 0
    z.flush_work()
    new = [text for text in before.leaked() if "pipe:" not in text]
    assert not new, new
    # The lease that the next child may share.
    assert len([text for text in before.leaked() if "pipe:" in text]) <= 2
    assert mappings() < maps + 20
    is_counting(x)
    del x
    arrays.clear()
    gc.collect()
    z.flush_work()
    info = z.core.device()
    assert info is not None
    assert info.free_segments == info.segments


@in_each_mode()
def test_forks_while_threads_take_and_put(z: Zswap) -> None:
    """Into arrays that are paged themselves, so that copying waits for faults: a fork must not wait for these."""
    group, x = filled(z)
    rows = rows_of(x)
    result = uzswap.zeros((600, 512), np.int64, cgroup=group)
    expected = rows_of(counting(N).copy())
    stop = threading.Event()
    failed: list[BaseException] = []

    def use(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                indices = rng.permutation(len(rows))[:600]
                if seed:
                    # The same bytes: others look at them meanwhile.
                    uzswap.put(rows, indices, expected[indices])
                else:
                    uzswap.take(rows, indices, out=result)
                    assert (result == expected[indices]).all()
        except BaseException as error:
            failed.append(error)
            raise

    def work() -> None:
        indices = np.arange(0, len(rows), 3)
        assert (uzswap.take(rows, indices) == expected[indices]).all()
        uzswap.put(rows, indices, expected[indices] + 1)
        assert (rows[::3] == expected[::3] + 1).all()
        assert (rows[1::3] == expected[1::3]).all()
        z.flush_work()
        z.check()

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(longer(3, 30)):
        assert ended(child(work)) == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert (rows == expected).all()
