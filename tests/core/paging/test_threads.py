"""Threads and signals: who faults, who holds the GIL, who ends, who frees."""

from __future__ import annotations

import ctypes
import gc
import os
import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tests.core.paging.rig import (
    MIB,
    Rig,
    address,
    counting,
    finish,
    in_each_mode,
    job,
    noise,
    out_of_memory,
    skip,
    to_disk,
)
from tests.support.faulty import FaultySwap
from tests.support.soak import longer

import uzswap
from uzswap.core.boundary import places
from uzswap.core.boundary.engine import LZ4, ZSTD

if TYPE_CHECKING:
    from uzswap import Zswap

NOBODY = 65534


def together(*works: Callable[[], object]) -> None:
    """Run each in a thread of its own, and raise what the first of them that failed raised."""
    failed: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        try:
            begin.wait()
            work()
        except BaseException as error:
            failed.put(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not failed.empty():
        raise failed.get()


@in_each_mode()
def test_two_threads_on_disjoint_halves(z: Zswap) -> None:
    x = uzswap.zeros(MIB, np.int64, cgroup=job(z, "1M"))

    def work(half: int) -> None:
        mine = x[half * MIB // 2 : (half + 1) * MIB // 2]
        for seed in range(2):
            mine[:] = counting(MIB // 2, seed)
            assert (mine == counting(MIB // 2, seed)).all()

    together(*(lambda half=half: work(half) for half in range(2)))
    assert (x == np.tile(counting(MIB // 2, 1), 2)).all()


@in_each_mode()
def test_four_threads_on_the_same_pages(z: Zswap) -> None:
    """Most messages are duplicates then: the page is there already, and the waiter must be woken all the same."""
    x = uzswap.zeros(MIB // 2, np.int64, cgroup=job(z, "1M"))
    x[:] = counting(MIB // 2)

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed // 2)  # two and two in step
        for page in rng.integers(0, MIB // 1024, 1500):
            assert int(x[512 * page : 512 * page + 512].sum()) == 512 * (1024 * int(page) + 511) // 2

    together(*(lambda seed=seed: read(seed) for seed in range(4)))


@in_each_mode()
def test_threads_that_write_to_the_same_pages(z: Zswap) -> None:
    """Each thread owns every fourth number; a page goes and comes back between their writes, and none may be undone."""
    x = uzswap.zeros(MIB // 4, np.int64, cgroup=job(z, "512K"))

    def write(mine: int) -> None:
        rng = np.random.default_rng(mine)
        count = np.zeros(MIB // 512, np.int64)
        for page in rng.integers(0, MIB // 2048, 2000):
            x[512 * page + mine] += 1
            count[page] += 1
            assert x[512 * page + mine] == count[page]
        assert (x[mine::512] == count[: MIB // 2048]).all()

    together(*(lambda mine=mine: write(mine) for mine in range(4)))


@in_each_mode()
def test_what_is_told_of_arrays_and_codecs_is_whole_while_they_change(z: Zswap) -> None:
    group, most = job(z, "64K"), 40
    memory = z.arena.memory
    ends = threading.Event()

    def come_and_go(seed: int) -> None:
        for n in range(20):
            x = uzswap.zeros((1 + (n * seed) % most, 512), np.int64, cgroup=group)
            x[:] = n
            x[:, 1] = np.arange(len(x))
        ends.set()

    def change() -> None:
        while not ends.is_set():
            for level in range(1, 5):
                z.core.set_compressor(ZSTD, level)
            z.core.set_compressor(LZ4, 1)

    def look() -> None:
        while not ends.is_set():
            for area, memcg, pages in places.areas(memory):
                assert memcg == group.index
                assert 1 <= pages <= most
                try:
                    told = memory.area(area)
                    assert len(places.pages(memory, area)) <= most
                except ValueError:  # it went in between
                    continue
                assert 1 <= told.pages <= most
                assert min(told.resident, told.zswap, told.disk, told.zero, told.lost) >= 0
            first, *others = z.core.pools()
            assert (first.codec, first.level) in {(LZ4, 1), *((ZSTD, level) for level in range(1, 5))}
            assert first.current
            assert not any(pool.current for pool in others)

    together(lambda: come_and_go(1), lambda: come_and_go(7), look, change)


@in_each_mode()
def test_threads_that_write_while_memory_is_compacted(z: Zswap) -> None:
    """The kernel gives pages other frames meanwhile, whether they are in their places or on their way."""
    compact = Path("/proc/sys/vm/compact_memory")
    if not os.access(compact, os.W_OK):
        skip("only root may have memory compacted")
    x = uzswap.zeros(MIB // 4, np.int64, cgroup=job(z, "512K"))
    ended = threading.Event()

    def write(mine: int) -> None:
        rng = np.random.default_rng(mine)
        count = np.zeros(MIB // 2048, np.int64)
        while not ended.is_set():
            for page in rng.integers(0, MIB // 2048, 200):
                x[512 * page + mine] += 1
                count[page] += 1
                assert x[512 * page + mine] == count[page]
        assert (x[mine::512] == count).all()

    def compacts() -> None:
        try:
            for _ in range(longer(3, 200)):
                compact.write_text("1")
        finally:
            ended.set()

    together(compacts, *(lambda mine=mine: write(mine) for mine in range(3)))


@in_each_mode()
def test_first_touches_race_with_first_touches(z: Zswap) -> None:
    group = job(z, "1M")
    for _ in range(3):
        x = uzswap.zeros((512, 4, 128), np.int64, cgroup=group)
        together(*(lambda part=x[:, i], i=i: np.copyto(part, i + 1) for i in range(4)))
        assert (x == np.arange(1, 5)[None, :, None]).all()


@in_each_mode()
def test_faults_while_the_gil_is_held(z: Zswap) -> None:
    """A handler that needed the GIL would wait for the thread that waits for the handler."""
    x = uzswap.zeros(MIB, np.int64, cgroup=job(z, "1M"))
    x[:] = counting(MIB)
    python = ctypes.PyDLL(None)  # its calls keep the GIL
    buffer = ctypes.create_string_buffer(8)
    stop = threading.Event()
    turns = 0

    def busy() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += 1

    beside = threading.Thread(target=busy)
    beside.start()
    try:
        for i in np.random.default_rng(1).integers(0, MIB, 3000):
            assert x[i] == i
        for page in np.random.default_rng(2).integers(0, MIB // 512, 1000):
            python.memcpy(buffer, ctypes.c_void_p(address(x, int(page))), 8)
            assert int.from_bytes(buffer.raw, "little") == page * 512
    finally:
        stop.set()
        beside.join()
    assert turns


@in_each_mode()
def test_a_signal_handler_that_faults_itself(z: Zswap) -> None:
    x = uzswap.zeros(MIB, np.int64, cgroup=job(z, "1M"))
    x[:] = counting(MIB)
    rng = np.random.default_rng(1)
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        for page in rng.integers(0, MIB // 512, 3):
            assert x[512 * page + 7] == 512 * page + 7
        handled += 1

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        passes = 0
        while handled < 100 or passes < 2:
            assert int(x.sum()) == MIB * (MIB - 1) // 2
            for page in range(0, MIB // 512, 7):
                assert x[512 * page] == 512 * page
            passes += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@in_each_mode()
def test_none_of_our_threads_takes_a_signal(z: Zswap) -> None:
    """A Python handler runs in the main thread; a fault thread that took a signal would only be late for it."""
    job(z)
    ours = {thread.native_id for thread in threading.enumerate()} - {threading.main_thread().native_id}
    main = threading.main_thread().native_id
    blocked = {}
    for task in Path("/proc/self/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        blocked[int(task.name)] = int(status["SigBlk"], 16)
    import numpy.linalg  # noqa: F401  whose threads are not ours

    own = [mask for task, mask in blocked.items() if task != main and mask]
    assert len(own) > len(ours)
    asynchronous = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1]
    for mask in own:
        assert all(mask >> (number - 1) & 1 for number in asynchronous)


@in_each_mode()
def test_threads_that_come_and_go(z: Zswap) -> None:
    x = uzswap.zeros((512, 512), np.int64, cgroup=job(z, "512K"))
    x[:] = counting(512 * 512).reshape(512, 512)

    def touch(page: int) -> None:
        x[page] += 1
        assert x[page, 3] == page * 512 + 4

    for page in range(0, 512, 4):
        threads = [threading.Thread(target=touch, args=(page + i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (x.ravel() == counting(512 * 512) + 1).all()


@in_each_mode()
def test_arrays_made_here_and_freed_there(z: Zswap) -> None:
    group = job(z, "1M")
    handed: queue.Queue[list[np.ndarray] | None] = queue.Queue(maxsize=4)

    def make(seed: int) -> None:
        for i in range(40):
            x = uzswap.empty(20 * 512, np.int64, cgroup=group)
            x[:] = counting(20 * 512, seed + i)
            handed.put([x])
            del x
        handed.put(None)

    def free() -> None:
        ended = 0
        while ended < 2:
            box = handed.get()
            if box is None:
                ended += 1
                continue
            x = box.pop()
            assert int(x[1] - x[0]) % 2 == 1
            assert (np.diff(x) == x[1] - x[0]).all()

    together(lambda: make(0), lambda: make(100), free)
    assert group.stats()["anon"] == group.stats()["zswapped"] == 0


@in_each_mode()
def test_freeing_races_with_readahead(z: Zswap) -> None:
    """What is on its way when an array goes, in either direction, must not come after it is gone."""
    group = job(z, "1M")
    for i in range(60):
        x = uzswap.zeros((256, 512), np.int64, cgroup=group)
        x[:: 1 if i % 2 else -1] = counting(256 * 512, i).reshape(256, 512)
        if i % 4 < 2:
            for page in range(255, 60 + i, -1):
                x[page] += 1
        del x
    assert group.stats()["anon"] == group.stats()["zswapped"] == 0


@in_each_mode()
def test_eviction_and_dropping_race_with_access(z: Zswap) -> None:
    """Advice from one thread on the pages that others read and write: their contents are old or new, never others'."""
    group = job(z, "2M")
    x, y = (uzswap.zeros((256, 512), np.int64, cgroup=group) for _ in range(2))
    x[:] = counting(256 * 512).reshape(256, 512)

    def advise() -> None:
        for i in range(60):
            uzswap.advise(x, ("pageout", "cold", "willneed")[i % 3])  # type: ignore[arg-type]
            uzswap.advise(y[i : i + 100], "dontneed")

    def read() -> None:
        for _ in range(20):
            assert (x == counting(256 * 512).reshape(256, 512)).all()

    def write() -> None:
        for i in range(2000):
            y[i % 256] = i
            assert set(np.unique(y[i % 256])) <= {0, i}

    together(advise, read, write)


@in_each_mode()
def test_two_engines_and_several_cgroups_at_once(z: Zswap) -> None:
    with uzswap.Zswap(swap_size="64M", max_pool="1M") as other:
        several(z, other)
        gc.collect()
        other.flush_work()
        other.check()


def several(z: Zswap, other: Zswap) -> None:
    n = 128 * 1024
    groups = [job(engine, "512K", path) for engine in (z, other) for path in ("/a", "/a/b", "/c")]
    arrays = [uzswap.zeros(n, np.int64, cgroup=group) for group in groups]

    def work(i: int) -> None:
        for seed in range(3):
            arrays[i][:] = counting(n, seed + i)
            assert (arrays[i] == counting(n, seed + i)).all()

    together(*(lambda i=i: work(i) for i in range(len(arrays))))
    for i, x in enumerate(arrays):
        assert (x == counting(n, 2 + i)).all()
        assert uzswap.info(x).cgroup == groups[i].path
    # Between two engines, both evicting, in one copy.
    np.copyto(arrays[0], arrays[3])
    np.copyto(arrays[4], arrays[0])
    assert (arrays[4] == counting(n, 5)).all()


def reads_the_pool_while_the_disk_hangs(z: Zswap) -> None:
    """More threads wait for the disk than there are CPUs."""
    group = job(z, "16M")
    slow = uzswap.zeros((256, 512), np.int64, cgroup=group)
    slow[:] = noise(slow.size).reshape(slow.shape)
    assert to_disk(z, group, slow) == slow.nbytes
    quick = uzswap.array(counting(MIB // 8), cgroup=group)
    assert out_of_memory(z, quick) == quick.nbytes
    assert uzswap.info(quick).disk == 0
    print("written", flush=True)
    input()
    wrong: list[int] = []

    def read(page: int) -> None:
        if not (slow[page] == noise(slow.size).reshape(slow.shape)[page]).all():
            wrong.append(page)

    readers = [threading.Thread(target=read, args=(page,)) for page in range(0, 256, 16)]
    for reader in readers:
        reader.start()
    print("reading", flush=True)
    input()
    assert (quick == counting(MIB // 8)).all()
    print("read", flush=True)
    for reader in readers:
        reader.join()
    assert wrong == []


def test_a_disk_that_hangs_holds_up_nobody_who_does_not_need_it(rig: Rig) -> None:
    with FaultySwap(64 * MIB, owner=None if rig.mode.kernel_faults else NOBODY) as disk:
        options = {"swap": disk.path, "swap_size": disk.size}
        with rig.start(reads_the_pool_while_the_disk_hangs, options) as child:
            assert child.read_line() == "written"
            disk.block_reads()
            child.write_line("")
            assert child.read_line() == "reading"
            disk.wait_blocked(2)
            child.write_line("")
            assert child.read_line() == "read"
            disk.release()
            finish(child).check()


def frees_while_others_run(z: Zswap) -> None:
    group = job(z)
    x = uzswap.zeros((2 * MIB // 4096 * 4, 512), np.int64, cgroup=group)
    x[:] = noise(x.size).reshape(x.shape)
    assert to_disk(z, group, x) > MIB
    said = threading.Thread(target=lambda: print(input(), flush=True))
    said.start()
    print("written", flush=True)
    del x  # waits for the disk
    said.join()
    print("freed", flush=True)
    assert group.stats()["anon"] == int(group.read("memory.swap.current")) == 0


def test_freeing_an_array_stops_no_other_thread(rig: Rig) -> None:
    """Giving its blocks back to the file system may take long."""
    with FaultySwap(64 * MIB, owner=None if rig.mode.kernel_faults else NOBODY) as disk:
        disk.block_fallocates()
        options = {"swap": disk.path, "swap_size": disk.size}
        with rig.start(frees_while_others_run, options) as child:
            assert child.read_line() == "written"
            disk.wait_blocked(1)
            child.write_line("another thread")
            assert child.read_line() == "another thread"
            disk.release()
            assert child.read_line() == "freed"
            finish(child).check()
