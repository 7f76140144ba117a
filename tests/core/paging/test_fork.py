"""fork(): the child has the arrays as they were, its own from then on; where it cannot have them it reads no zeros."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import resource
import signal
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.core.paging.forks import N, child, ended, filled, fork, is_counting, rows_of
from tests.core.paging.rig import MIB, counting, in_each_mode, job, noise, out_of_memory, to_disk

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import Zswap

#: what is read and written in children of a pool, which find it in their memory
shared: NDArray[np.int64]


@pytest.mark.parametrize("where", ["resident", "pool", "disk", "never touched", "everywhere"])
@in_each_mode()
def test_a_child_has_what_its_parent_has(z: Zswap, where: str) -> None:
    group = job(z, "64M")
    x = uzswap.zeros(N, np.int64, cgroup=group)
    if where != "never touched":
        x[:] = counting(N)
    if where == "pool":
        assert out_of_memory(z, x) == x.nbytes
    if where in ("disk", "everywhere"):
        assert to_disk(z, group, x)
    if where == "everywhere":
        x[: N // 2] += 0
        uzswap.advise(x[: N // 4], "pageout")
        uzswap.advise(x[-1024:], "dontneed")
    expected = x.copy() if where == "everywhere" else counting(N) * (where != "never touched")
    if where == "everywhere":
        uzswap.advise(x[N // 4 : N // 2], "pageout")

    def work() -> None:
        assert (x == expected).all()
        x[:] = counting(N, 5)
        assert out_of_memory(z, x) == x.nbytes
        is_counting(x, 5)
        z.flush_work()
        z.check()

    assert ended(child(work)) == 0
    assert (x == expected).all()


@in_each_mode()
def test_both_go_on_by_themselves(z: Zswap) -> None:
    """What one writes, frees, evicts and writes back, the other knows nothing of; limits hold in both."""
    group, x = filled(z)
    y = uzswap.array(counting(N, 7), cgroup=group)

    def work() -> None:
        nonlocal y
        for turn in range(3):
            is_counting(x, more=turn)
            x[:] += 1
            to_disk(z, group, x)
        del y
        gc.collect()
        fresh = uzswap.array(counting(N, 9), cgroup=z.cgroup("/job/other"))
        is_counting(fresh, 9)
        assert int(group.read("memory.current")) <= 2 * MIB
        group.write("memory.max", "512K")
        is_counting(x, more=3)
        assert int(group.read("memory.current")) <= MIB
        z.flush_work()
        z.check()

    pid = child(work)
    for turn in range(3):
        is_counting(x, more=-turn)
        x[:] -= 1
        to_disk(z, group, x)
    is_counting(y, 7)
    assert ended(pid) == 0
    is_counting(x, more=-3)
    assert group.read("memory.max") == f"{MIB}\n"
    with pytest.raises(FileNotFoundError):
        z.tree.lookup("/job/other")


@in_each_mode()
def test_children_of_children(z: Zswap) -> None:
    group, x = filled(z)

    def generation(number: int) -> None:
        is_counting(x, more=number)
        x[:] += 1
        to_disk(z, group, x)
        if number < 5:
            pid = child(lambda: generation(number + 1))
            is_counting(x, more=number + 1)
            assert ended(pid) == 0
        is_counting(x, more=number + 1)
        z.flush_work()
        z.check()

    to_disk(z, group, x)
    generation(0)


@in_each_mode()
def test_a_grandchild_reads_what_its_grandparent_wrote_when_both_are_gone(z: Zswap) -> None:
    """A process forks a child, which forks another and ends: the file is the grandchild's alone to read."""
    ours, its = os.pipe()

    def first() -> None:
        group, x = filled(z)
        assert to_disk(z, group, x)

        def second() -> None:
            x[: N // 2] += 1
            to_disk(z, group, x)

            def third() -> None:
                assert os.read(ours, 1) == b"x"  # everybody above is gone
                is_counting(x[N // 2 :] - N // 2)
                assert (x[: N // 2] == counting(N // 2) + 1).all()
                to_disk(z, group, x)
                assert (x[: N // 2] == counting(N // 2) + 1).all()
                os.write(told[1], b"well")

            child(third)

        assert ended(child(second)) == 0

    told = os.pipe()
    assert ended(child(first)) == 0
    os.write(its, b"x")
    os.close(told[1])
    assert os.read(told[0], 10) == b"well"
    for fd in (ours, its, told[0]):
        os.close(fd)


@in_each_mode(swap_size="16M")
def test_a_parent_keeps_on_disk_what_its_children_have_there(z: Zswap) -> None:
    """It frees everything, and writes more than the file holds; when they are gone it has all of its file again."""
    group = job(z, "64M")
    arrays = [uzswap.array(noise(N), cgroup=group)]
    expected = noise(N)
    assert to_disk(z, group, arrays[0])
    ours, its = os.pipe()

    def work() -> None:
        os.close(its)
        assert os.read(ours, 1) == b""
        assert (arrays[0] == expected).all()

    children = [child(work), child(work)]
    arrays.clear()
    gc.collect()
    for seed in range(1, 6):
        y = uzswap.array(noise(N, seed), cgroup=group)
        to_disk(z, group, y)  # as much as there is room for
        assert (y == noise(N, seed)).all()
        del y
    gc.collect()
    os.close(its)
    assert [ended(pid) for pid in children] == [0, 0]
    os.close(ours)
    z.flush_work()
    info = z.core.device()
    assert info is not None
    assert info.free_segments == info.segments
    y = uzswap.array(noise(3 * N // 2, 9), cgroup=group)
    assert to_disk(z, group, y) > y.nbytes * 3 // 4
    assert (y == noise(3 * N // 2, 9)).all()


@in_each_mode()
def test_a_child_that_is_killed_gives_back_what_was_kept_for_it(z: Zswap) -> None:
    group, x = filled(z, "64M")
    assert to_disk(z, group, x)
    pid = child(signal.pause)
    del x
    gc.collect()
    z.flush_work()
    info = z.core.device()
    assert info is not None
    assert info.free_segments < info.segments
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    z.flush_work()
    info = z.core.device()
    assert info is not None
    assert info.free_segments == info.segments


@in_each_mode()
def test_what_a_child_executes_keeps_nothing(z: Zswap) -> None:
    """Not even when it goes on for ever: the end of the pipe is closed on exec."""
    group, x = filled(z, "64M")
    assert to_disk(z, group, x)
    ours, its = os.pipe()
    told, tells = os.pipe()

    def execute() -> None:
        os.dup2(ours, 0)
        os.dup2(tells, 1)
        os.execv("/bin/sh", ["sh", "-c", "echo; read _"])

    pid = child(execute)
    os.close(tells)
    del x
    gc.collect()
    assert os.read(told, 1) == b"\n"  # it is there, and the kernel has closed what it closes
    z.flush_work()
    info = z.core.device()
    assert info is not None
    assert info.free_segments == info.segments
    os.write(its, b"\n")
    assert ended(pid) == 0
    os.close(told)
    os.close(ours)
    os.close(its)


@in_each_mode()
def test_a_child_that_closes_all_descriptors_has_its_arrays(z: Zswap) -> None:
    """As daemons do; and so do its own children."""
    group, x = filled(z)
    to_disk(z, group, x)

    def work() -> None:
        os.closerange(3, 1000)
        is_counting(x)
        x[:] += 1
        to_disk(z, group, x)

        def grandchild() -> None:
            os.closerange(3, 1000)
            is_counting(x, more=1)
            x[:] += 1
            to_disk(z, group, x)
            is_counting(x, more=2)

        pid = child(grandchild)
        is_counting(x, more=1)
        assert ended(pid) == 0

    pid = child(work)
    x[:] = 0
    to_disk(z, group, x)
    assert ended(pid) == 0


def total(bounds: tuple[int, int]) -> int:
    """Of a part of the shared array, which is changed by this process only."""
    begin, end = bounds
    part = shared[begin:end]
    found = int(part.sum())
    part += 1
    assert int(part.sum()) == found + len(part)
    part -= 1
    return found


@in_each_mode()
def test_a_pool_with_a_global_array_of_four_times_its_budget(z: Zswap) -> None:
    global shared
    group, shared = filled(z)
    parts = [(i, i + N // 16) for i in range(0, N, N // 16)] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = pool.map_async(total, parts)
            for _ in range(3):
                is_counting(shared)
                to_disk(z, group, shared)
            assert sum(results.get(200)) == N * (N - 1)
            pool.close()
            pool.join()
    is_counting(shared)
    del shared


def batches(worker: int, workers: int, queue: Any) -> None:
    """A worker of a data loader: its share of the rows, in random order."""
    rows = shared.reshape(-1, 512)
    order = np.random.default_rng(0).permutation(len(rows))
    for begin in range(worker, len(order), workers):
        queue.put((int(order[begin]), rows[order[begin]].sum()))
    queue.put(None)


@in_each_mode()
def test_workers_of_a_data_loader(z: Zswap) -> None:
    global shared
    _, shared = filled(z)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        workers = [context.Process(target=batches, args=(i, 2, queue)) for i in range(2)]
        for worker in workers:
            worker.start()
    rows, running = {}, len(workers)
    while running:
        found = queue.get()
        if found is None:
            running -= 1
        else:
            rows[found[0]] = found[1]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    sums = counting(N).reshape(-1, 512).sum(axis=1)
    assert [rows[i] for i in range(len(sums))] == list(sums)
    queue.close()
    del shared


@in_each_mode()
def test_a_child_closes_and_the_parent_goes_on_and_the_reverse(z: Zswap) -> None:
    group, x = filled(z)
    to_disk(z, group, x)

    def closes() -> None:
        nonlocal x
        del x
        gc.collect()
        z.close()
        with uzswap.Zswap(swap_size="16M") as own:
            y = uzswap.array(counting(N, 3), cgroup=job(own))
            is_counting(y, 3)
            del y

    assert ended(child(closes)) == 0
    is_counting(x)

    def parent_closes() -> None:
        ours, its = os.pipe()

        def reads() -> None:
            os.close(its)
            assert os.read(ours, 1) == b""
            is_counting(x)
            to_disk(z, group, x)
            is_counting(x)

        pid = child(reads)
        closes()
        os.close(its)
        assert ended(pid) == 0

    assert ended(child(parent_closes)) == 0
    is_counting(x)


@in_each_mode()
def test_pages_still_go_after_a_fork(z: Zswap) -> None:
    """Those that parent and child share cannot be moved (EBUSY): they are made one's own first."""
    group = job(z, "max")
    x = uzswap.zeros(MIB // 8, np.int64, cgroup=group)
    x[:] = counting(MIB // 8)

    def work() -> None:
        assert out_of_memory(z, x) == x.nbytes
        is_counting(x)

    ours, its = os.pipe()
    waits = child(lambda: os.read(ours, 1))
    assert ended(child(work)) == 0
    work()
    os.write(its, b"x")
    assert ended(waits) == 0
    assert ended(child(lambda: None)) == 0
    group.write("memory.max", "256K")
    is_counting(x)
    assert int(group.read("memory.current")) <= MIB // 4
    os.close(ours)
    os.close(its)


# Where the child has none of it


def c_fork() -> int:
    """A fork that Python is not told of."""
    return int(ctypes.PyDLL(None).fork())


@pytest.mark.parametrize("where", ["resident", "pool", "never touched"])
@in_each_mode()
def test_a_child_of_c_code_that_touches_an_array_is_killed(z: Zswap, where: str) -> None:
    """Its parent's bytes are not there; a SIGSEGV is better than zeros."""
    x = uzswap.zeros(MIB // 8, np.int64, cgroup=job(z))
    if where != "never touched":
        x[:] = counting(MIB // 8)
    if where == "pool":
        assert out_of_memory(z, x) == x.nbytes
    pid = c_fork()
    if not pid:
        faulthandler.disable()  # its report would look like the parent's
        x.sum()
        os._exit(0)
    assert ended(pid) == -signal.SIGSEGV
    assert (x == (0 if where == "never touched" else counting(MIB // 8))).all()


@in_each_mode()
def test_a_child_of_c_code_gets_back_what_it_frees(z: Zswap) -> None:
    """Its malloc is not given the addresses where the parent's arrays are."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with uzswap.managed(job(z), "64K"):
        x = np.arange(N)
        pid = c_fork()
        if not pid:
            before = resident()
            for _ in range(8):
                y = np.ones(8 * N)
                y.resize(16 * N, refcheck=False)
                assert y[0] == 1
                del y
            del x
            os._exit(resident() - before > 32 * MIB)
        assert ended(pid) == 0
        is_counting(x)
        del x


@in_each_mode()
def test_a_child_that_cannot_have_a_userfaultfd_is_told_and_reads_no_zeros(z: Zswap) -> None:
    group, x = filled(z)
    switch = uzswap.managed(group, "64K").start()
    heard = os.pipe()
    pid = fork()
    if not pid:
        # A child of its own that may open nothing more.
        resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), 1 << 10))
        stderr = os.dup2(heard[1], 2)
        assert stderr == 2
        grandchild = fork()
        if not grandchild:
            faulthandler.disable()
            y = np.ones(N)  # malloc's
            assert y.sum() == N
            del y
            with uzswap.Store(group) as store:
                store["a"] = [1] * 10_000
                assert store.reclaim("1M").freed_bytes
                assert store["a"] == [1] * 10_000
            x.sum()
            os._exit(0)
        os._exit(ended(grandchild) == -signal.SIGSEGV)
    assert ended(pid) == 1
    switch.stop()
    os.close(heard[1])
    with os.fdopen(heard[0]) as said:
        assert "cannot have its parent's arrays (Too many open files)" in said.read()
    is_counting(x)


@in_each_mode()
def test_a_child_may_have_an_engine_of_its_own(z: Zswap) -> None:
    _, x = filled(z)

    def work() -> None:
        with uzswap.Zswap(swap_size="64M") as own:
            y = uzswap.zeros(MIB // 8, np.int64, cgroup=job(own, "512K"))
            y[:] = counting(MIB // 8, 3)
            is_counting(y, 3)
            is_counting(x)
            del y

    pid = child(work)
    is_counting(x)
    assert ended(pid) == 0


@in_each_mode()
def test_rows_are_taken_and_put_in_a_child(z: Zswap) -> None:
    """From wherever they are, and what a child puts its parent has not."""
    group, x = filled(z)
    assert to_disk(z, group, x)
    x[: N // 4] += 0
    rows = rows_of(x)
    expected = rows_of(counting(N).copy())
    random_rows = np.random.default_rng(0)

    def work(seed: int) -> None:
        mine = expected.copy()
        indices = random_rows.integers(0, len(rows), 200)
        for turn in range(3):
            assert (uzswap.take(rows, indices) == mine[indices]).all()
            uzswap.put(rows, indices, mine[indices] + seed)
            mine[indices] = mine[indices] + seed
            to_disk(z, group, x)
            indices = random_rows.integers(0, len(rows), 200 + turn)
        assert (rows == mine).all()
        z.flush_work()
        z.check()

    pid = child(lambda: work(1))
    work(2)
    assert ended(pid) == 0
