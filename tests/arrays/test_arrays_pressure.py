"""memory.pressure of arrays: a thread is stalled while it waits for a page, whoever brings it, and no longer."""

from __future__ import annotations

import ctypes
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.arrays.paged import MIB, PAGE
from tests.conftest import EngineFactory, FaultyDisks
from tests.support.faulty import FaultySwap

import uzswap

Array = np.ndarray[Any, Any]
MS = 1_000


def totals(group: uzswap.MemCgroup) -> tuple[int, int]:
    """Stalled time, some and full, in us."""
    some, full = (line.split() for line in group.read("memory.pressure").splitlines())
    return int(some[-1].removeprefix("total=")), int(full[-1].removeprefix("total="))


def until(group: uzswap.MemCgroup, some: int) -> None:
    """Look until so many us are counted.  Hangs, until the test run's patience ends, when they never are."""
    while totals(group)[0] < some:
        pass


def noise(nbytes: int) -> Array:
    return np.random.default_rng(1).integers(0, 256, nbytes, np.uint8)


class Stuck:
    """An array in /p/a of which a quarter fits, and a disk that takes no more: whoever needs room waits."""

    def __init__(self, z: uzswap.Zswap, disk: FaultySwap) -> None:
        self.z = z
        self.disk = disk
        self.group = z.cgroup("/p/a")
        self.group.write("memory.max", "2M")
        self.x = uzswap.array(noise(8 * MIB), cgroup=self.group)

    @contextmanager
    def access(self, how: Callable[[Array], object]) -> Iterator[None]:
        """Let a thread access the array, and wait until it waits."""
        self.z.flush_work()
        self.disk.block_writes()
        thread = threading.Thread(target=how, args=(self.x,))
        thread.start()
        try:
            self.disk.wait_blocked()
            yield
        finally:
            self.disk.release()
            thread.join()


@pytest.fixture
def stuck(engine: EngineFactory, faulty_swap: FaultyDisks) -> Iterator[Stuck]:
    disk = faulty_swap(64 << 20)
    z = engine(swap=disk.path, swap_size=disk.size, max_pool="256K")
    try:
        z.arena.open()
    except OSError as refused:
        pytest.skip(f"{refused.strerror}")
    stuck = Stuck(z, disk)
    yield stuck
    del stuck.x


def read(x: Array, pages: Iterable[int]) -> None:
    """Read of pages without the GIL, which the test goes on to need."""
    taken = ctypes.create_string_buffer(8)
    for page in pages:
        ctypes.memmove(taken, x.ctypes.data + page * PAGE, 8)


def read_through(x: Array) -> None:
    read(x, range(x.size // PAGE))


def read_backwards(x: Array) -> None:
    read(x, reversed(range(x.size // PAGE)))


def read_here_and_there(x: Array) -> None:
    read(x, np.random.default_rng(2).integers(0, x.size // PAGE, 2000).tolist())


@pytest.mark.parametrize("how", [read_through, read_backwards, read_here_and_there])
def test_a_thread_that_waits_is_stalled_until_its_page_is_there(stuck: Stuck, how: Callable[[Array], object]) -> None:
    """Also when others bring its page, ahead of the stream that it reads."""
    began = time.monotonic_ns()
    before = totals(stuck.group)
    with stuck.access(how):
        # It goes on while nothing happens, and every look sees it.
        now = totals(stuck.group)
        until(stuck.group, now[0] + 50 * MS)
    stuck.z.flush_work()
    some, full = totals(stuck.group)
    assert some - before[0] <= (time.monotonic_ns() - began) // 1000
    assert full - before[1] <= some - before[0]
    assert totals(stuck.group) == (some, full)
    for ancestor in (stuck.z.cgroup("/p"), stuck.z.root):
        assert 50 * MS <= totals(ancestor)[0] - before[0] <= (time.monotonic_ns() - began) // 1000
    assert totals(stuck.z.cgroup("/p/b")) == (0, 0)


def test_a_thread_that_fills_an_array_waits_for_room(stuck: Stuck) -> None:
    y = uzswap.zeros(8 * MIB, np.uint8, cgroup=stuck.group)

    filling = noise(y.size)

    def fill(_: Array) -> None:
        ctypes.memmove(y.ctypes.data, filling.ctypes.data, y.size)

    with stuck.access(fill):
        until(stuck.group, totals(stuck.group)[0] + 50 * MS)
    assert totals(stuck.z.root)[0] > 0


def test_a_trigger_fires_while_a_thread_waits(stuck: Stuck) -> None:
    with stuck.z.cgroup("/p").open("memory.pressure", privileged=True) as file:
        file.write("some 100000 1000000")
        with stuck.access(read_here_and_there):
            assert file.poll(timeout=240) == select.POLLPRI


def test_the_stalls_of_many_threads_at_once_are_one(group: uzswap.MemCgroup) -> None:
    """Eight threads for a second are a second, of which all were stalled for a part."""
    group.write("memory.max", "2M")
    x = uzswap.array(noise(16 * MIB), cgroup=group)
    began = time.monotonic_ns()
    before = totals(group)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            x[rng.integers(0, x.size, 64)].sum()
            totals(group)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    some, full = totals(group)
    assert 0 < some - before[0] <= (time.monotonic_ns() - began) // 1000
    assert full <= some


def test_the_first_touch_of_memory_is_no_stall(group: uzswap.MemCgroup) -> None:
    x = uzswap.zeros(8 * MIB, np.uint8, cgroup=group)
    x[:] = 1
    assert totals(group) == (0, 0)
    del x


def test_pages_from_the_pool_are_waited_for_as_well(group: uzswap.MemCgroup) -> None:
    x = uzswap.array(noise(MIB), cgroup=group)
    uzswap.advise(x, "pageout")
    x.sum()
    assert totals(group)[0] > 0
    assert totals(group)[1] > 0
    assert totals(group.zswap.cgroup("/other")) == (0, 0)


def test_what_a_removed_cgroup_has_counted_does_not_come_back_under_its_number(z: uzswap.Zswap) -> None:
    before = z.cgroup("/a")
    x = uzswap.array(noise(MIB), cgroup=before)
    uzswap.advise(x, "pageout")
    x.sum()
    before.remove()
    x[:] = 1
    uzswap.advise(x, "pageout")  # now nothing is under the old number any more
    for _ in range(2000):  # a number is used again after a thousand others
        again = z.cgroup("/b")
        if again.index == before.index:
            break
        again.remove()
    assert again.index == before.index
    assert totals(again) == (0, 0)
    assert totals(z.root)[0] > 0
    uzswap.advise(x, "pageout")
    x.sum()
    assert totals(again) == (0, 0)
    del x
