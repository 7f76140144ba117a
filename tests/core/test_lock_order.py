"""The locks of the data plane are taken in one order, and none is held while Python takes the GIL (docs/locking.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import child, lock_order

WORK = """
    import threading
    import numpy as np
    import uzswap

    def work(z, seed):
        rng = np.random.default_rng(seed)
        for turn in range(6):
            group = z.cgroup(f"/p/{seed}-{turn}")
            group.write("memory.max", "1M")
            group.write("memory.min", "64K")
            x = uzswap.zeros(2 << 20, np.uint8, cgroup=group)
            x[:] = rng.integers(0, 256, x.size, np.uint8)
            x[::4096] += 1
            with uzswap.resident(x[: 64 << 10]):
                x.sum()
            for advice in ("pageout", "willneed", "cold", "dontneed"):
                uzswap.advise(x[: 256 << 10], advice)
            uzswap.info(x)
            with uzswap.Store(group) as store:
                for key in range(30):
                    store[key] = rng.bytes(20_000)
                for key in range(30):
                    store[key]
            handles = z.swap_out_many(rng.bytes(400_000), group)
            z.fault_in_many(handles)
            try:
                group.reclaim("256K", source="zswap")
            except OSError:
                pass
            with uzswap.managed(group, min_bytes=4096):
                np.arange(100_000).sum()
            z.check()
            for name in ("memory.stat", "memory.pressure", "memory.events", "memory.swap.events"):
                group.read(name)
            group.remove()
            del x

    z = uzswap.Zswap(swap_size="64M", max_pool="4M")
    z.cgroup("/p").write("memory.max", "3M")
    z.cgroup("/p").write("memory.high", "2M")
    threads = [threading.Thread(target=work, args=(z, seed)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    z.flush_work()
    z.close()
    print("done")
"""

#: a library that passes for one of the data plane, and two mutexes
LIBRARY = """
    #include <pthread.h>
    int take(pthread_mutex_t *m) { return pthread_mutex_lock(m); }
    int give(pthread_mutex_t *m) { return pthread_mutex_unlock(m); }
"""
MUTEXES = """
    import ctypes
    locks = ctypes.{loader}({library!r})
    one, other = (ctypes.create_string_buffer(64) for _ in range(2))
"""
IN_BOTH_ORDERS = """
    for first, then in ((one, other), (other, one)):
        for lock in (first, then):
            locks.take(lock)
        for lock in (then, first):
            locks.give(lock)
"""
TWICE = """
    locks.take(one)
    locks.take(one)
"""
UNDER_THE_GIL = """
    locks.take(one)
"""


@pytest.mark.slow
def test_no_two_locks_are_taken_in_both_orders(tmp_path: Path) -> None:
    done = child.run(WORK, env={"LD_PRELOAD": lock_order.build(tmp_path)}).check()
    assert done.stdout.strip() == "done"


@pytest.mark.parametrize(
    ("code", "loader", "told"),
    [
        (IN_BOTH_ORDERS, "PyDLL", "two locks are taken in both orders"),
        (TWICE, "PyDLL", "takes a lock that it has"),
        # CDLL gives the GIL up for a call, and takes it when that is over: with the lock still held.
        (UNDER_THE_GIL, "CDLL", "the GIL is taken under a lock"),
    ],
)
def test_what_would_hang_is_told(tmp_path: Path, code: str, loader: str, told: str) -> None:
    preload = lock_order.build(tmp_path)
    library = tmp_path / "uzswap" / "core" / "locks.so"
    library.parent.mkdir(parents=True)
    lock_order.compile_c(LIBRARY, library)
    done = child.run(MUTEXES.format(library=str(library), loader=loader) + code, env={"LD_PRELOAD": preload})
    assert done.returncode == 70
    assert told in done.stderr
