"""Every numpy allocation above a threshold is paged memory, whatever allocates, frees or grows it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tests.arrays.paged import MIB, current

import uzswap
from uzswap.core.boundary import handler as hook
from uzswap.errors import InvalidArgumentError


def is_paged(x: np.ndarray[Any, Any]) -> bool:
    try:
        uzswap.info(x)
    except InvalidArgumentError:
        return False
    return True


def test_what_is_large_is_paged_and_what_is_small_is_not(group: uzswap.MemCgroup) -> None:
    with uzswap.managed(group, "64K"):
        large, small = np.arange(8192), np.arange(8191)
        derived = np.concatenate([small, large]) * 2.5
        copied = small.repeat(2)
    assert [is_paged(x) for x in (large, small, derived, copied)] == [True, False, True, True]
    assert not is_paged(np.arange(8192))
    assert uzswap.info(derived).cgroup == "/a"
    assert (derived[8191:] == np.arange(8192) * 2.5).all()


def test_zeros_cost_nothing_until_they_are_touched(group: uzswap.MemCgroup) -> None:
    with uzswap.managed(group):
        x = np.zeros((1 << 15, 1 << 15))  # 8 GiB
    assert current(group) == 0
    assert x[12345, 6789] == 0
    x[-1, -1] = 5
    assert x[-1, -1] == 5
    assert current(group) <= 2 * 4096


def test_a_block_keeps_its_budget(group: uzswap.MemCgroup) -> None:
    group.write("memory.max", "4M")
    with uzswap.managed(group, "64K"):
        x = np.arange(2 * MIB)
        y = np.sort(np.sin(x * 0.37))
        z = np.searchsorted(y, y[:: MIB // 8])
    assert (z == np.arange(0, 2 * MIB, MIB // 8)).all()
    assert int(group.read("memory.peak")) < 5 * MIB


def test_arrays_grow_and_shrink_across_the_threshold(group: uzswap.MemCgroup) -> None:
    with uzswap.managed(group, "64K"):
        x = np.arange(1000)
        assert not is_paged(x)
        x.resize(100_000, refcheck=False)
        assert is_paged(x)
        grown = np.fromiter(iter(range(300_000)), np.int64)  # doubles as it goes
        y = np.arange(300_000)
        y.resize(600_000, refcheck=False)
        y.resize(150_000, refcheck=False)
        assert is_paged(y)
        assert (y == np.arange(150_000)).all()
        y.resize(100, refcheck=False)
        assert not is_paged(y)
        assert (y == np.arange(100)).all()
    assert (grown == np.arange(300_000)).all()
    assert (x[:1000] == np.arange(1000)).all()
    assert not x[1000:].any()


def test_arrays_live_on_and_are_freed_anywhere(group: uzswap.MemCgroup) -> None:
    with uzswap.managed(group, "64K"):
        held = [np.full(MIB, i, "u1") for i in range(4)]
    assert [int(x[-1]) for x in held] == [0, 1, 2, 3]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert current(group) == 0


def test_threads_and_tasks_started_inside_are_covered(group: uzswap.MemCgroup) -> None:
    def make() -> bool:
        return is_paged(np.arange(MIB))

    class Subclass(threading.Thread):
        def run(self) -> None:
            found.append(make())

    async def tasks() -> list[bool]:
        return [make(), *await asyncio.gather(asyncio.to_thread(make), asyncio.create_task(task()))]

    async def task() -> bool:
        await asyncio.sleep(0)
        return make()

    found: list[bool] = []
    with ThreadPoolExecutor(1) as before:
        assert not before.submit(make).result()
        with uzswap.managed(group):
            for thread in (threading.Thread(target=lambda: found.append(make())), Subclass()):
                thread.start()
                thread.join()
            with ThreadPoolExecutor(2) as pool:
                found += pool.map(lambda _: make(), range(4))
                # A thread of a thread, too.
                found += pool.submit(lambda: list(ThreadPoolExecutor(1).map(lambda _: make(), range(1)))).result()
            found += asyncio.run(tasks())
            assert not before.submit(make).result()
    assert found == [True] * len(found)
    assert len(found) == 10
    thread = threading.Thread(target=lambda: found.append(make()))
    thread.start()
    thread.join()
    assert found[-1] is False
    gc.collect()


def test_a_thread_that_outlives_the_block_allocates_as_usual(group: uzswap.MemCgroup) -> None:
    go_on = threading.Event()
    found = []

    def work() -> None:
        found.append(is_paged(np.arange(MIB)))
        inside.set()
        go_on.wait()
        found.append(is_paged(np.arange(MIB)))

    inside = threading.Event()
    with uzswap.managed(group):
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait()
    go_on.set()
    thread.join()
    assert found == [True, False]
    assert "run" not in vars(thread)


def test_blocks_nest_and_two_threads_have_their_own(z: uzswap.Zswap) -> None:
    a, b = z.cgroup("/a"), z.cgroup("/b")
    barrier = threading.Barrier(2)
    paths = {}

    def work(group: uzswap.MemCgroup) -> None:
        with uzswap.managed(group):
            barrier.wait()
            paths[group.path] = uzswap.info(np.arange(MIB)).cgroup
            barrier.wait()

    with uzswap.managed(a):
        with uzswap.managed(b, "4K"):
            assert uzswap.info(np.arange(1000)).cgroup == "/b"
        assert uzswap.info(np.arange(MIB)).cgroup == "/a"
        assert not is_paged(np.arange(1000))
        threads = [threading.Thread(target=work, args=(one,)) for one in (a, b)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert paths == {"/a": "/a", "/b": "/b"}


def test_a_switch_is_turned_off_from_anywhere(group: uzswap.MemCgroup) -> None:
    switch = uzswap.managed(group).start()
    assert is_paged(np.arange(MIB))
    with pytest.raises(InvalidArgumentError, match="on already"):
        switch.start()
    thread = threading.Thread(target=switch.stop)
    thread.start()
    thread.join()
    assert not is_paged(np.arange(MIB))
    switch.stop()
    with switch:
        assert is_paged(np.arange(MIB))
    assert not is_paged(np.arange(MIB))


def test_a_cgroup_is_not_removed_while_it_is_on(group: uzswap.MemCgroup) -> None:
    with uzswap.managed(group):
        assert group.populated()
        with pytest.raises(OSError, match="members") as caught:
            group.remove()
        assert caught.value.errno == errno.EBUSY
    assert not group.populated()
    group.remove()
    with pytest.raises(OSError, match="removed"):
        uzswap.managed(group).start()
    assert threading.Thread.start.__module__ == "threading"


def test_an_engine_closed_inside_leaves_the_rest_to_malloc(z: uzswap.Zswap) -> None:
    with uzswap.managed(z.cgroup("/a")):
        x = np.arange(MIB)
        with pytest.raises(OSError, match="1 of its arrays"):
            z.close()
        assert is_paged(np.arange(MIB))
        del x
        z.close()
        with pytest.raises(MemoryError):
            np.arange(MIB)
    assert np.arange(MIB).sum() == MIB * (MIB - 1) // 2


def test_too_much_is_a_memory_error(group: uzswap.MemCgroup) -> None:
    with uzswap.managed(group), pytest.raises(MemoryError):
        np.empty(1 << 56, "u1")


class Allocator(ctypes.Structure):
    """PyDataMemAllocator, behind the name and version of a PyDataMem_Handler (numpy/ndarraytypes.h)."""

    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("malloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        ("calloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)),
        ("realloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        ("free", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
    )


def test_its_functions_work_without_the_gil_in_many_threads(group: uzswap.MemCgroup) -> None:
    """As numpy might call them: ctypes gives the GIL up around each call."""
    group.write("memory.max", "1M")
    handler = group.zswap.arena.handler(group, 16384)
    previous = handler.install()
    capsule = handler.install()  # returns the one before: the handler's own
    hook.restore(previous)
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get_pointer(capsule, b"mem_handler")
    assert ctypes.string_at(table) == b"uzswap"
    allocator = Allocator.from_address(table + 128)
    wrong: list[str] = []

    def churn(seed: int) -> None:
        rng = np.random.default_rng(seed)
        at = size = 0
        for _ in range(300):
            wanted = int(rng.integers(1, 200_000))
            if not at:
                at = allocator.calloc(allocator.ctx, wanted, 1)
                if ctypes.string_at(at, wanted).strip(b"\0"):
                    wrong.append("calloc is not zero")
            elif rng.random() < 0.7:
                kept = min(size, wanted)
                at = allocator.realloc(allocator.ctx, at, wanted)
                if ctypes.string_at(at, kept).strip(bytes([seed + 1])):
                    wrong.append("realloc lost bytes")
            else:
                allocator.free(allocator.ctx, at, size)
                at = size = 0
                continue
            size = wanted
            ctypes.memset(at, seed + 1, size)
        if at:
            allocator.free(allocator.ctx, at, size)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert hook.alive(handler.memory) == []
    assert group.stats()["anon"] == 0


def test_faulting_with_the_gil_held_does_not_deadlock(group: uzswap.MemCgroup) -> None:
    group.write("memory.max", "1M")
    stop = threading.Event()
    spun = [0]

    def spin() -> None:
        while not stop.is_set():
            spun[0] += 1

    with uzswap.managed(group, "64K"):
        x = np.arange(MIB)
        busy = threading.Thread(target=spin)
        busy.start()
        assert sum(int(x[i]) for i in range(0, MIB, 509)) == sum(range(0, MIB, 509))
        for _ in range(20):
            np.full(32768, 1.0).sum()  # allocated, faulted and freed with the GIL held
    stop.set()
    busy.join()


@pytest.mark.parametrize("size", ["-1", "x", "1Q"])
def test_bad_thresholds(group: uzswap.MemCgroup, size: str) -> None:
    with pytest.raises(InvalidArgumentError):
        uzswap.managed(group, size)


def test_arrays_are_freed_in_the_midst_of_reading_ahead(group: uzswap.MemCgroup) -> None:
    group.write("memory.max", "4M")
    memory = group.zswap.arena.open()
    with uzswap.managed(group, "64K"):
        kept = np.arange(MIB // 2)
        for i in range(100):
            x = np.empty(MIB // 2 + i, np.int64)
            x[: MIB // 4] = kept[: MIB // 4]
            assert x[MIB // 4 - 1] == MIB // 4 - 1
            del x  # workers are bringing in what comes next
        assert (kept == np.arange(MIB // 2)).all()
    del kept
    assert group.stats()["anon"] == memory.info().resident == 0
