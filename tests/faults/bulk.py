"""Much data of every kind in one engine: pages, values and arrays, compared as a whole again and again.

What a history (world.py) is to the order of operations, this is to the amount of bytes: they go through pool, device,
recompression, frames and children, and are compared by memcmp().
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any

import numpy as np
from numpy.typing import NDArray

import uzswap
from uzswap import Zswap

PAGE = 4096
#: of each of the three: pages, values, arrays
PAGES = 4096
#: Pages are compared so often each time, in another order: that leaves them where they are, and takes a tenth of the
#: time of what has to come in and go out again.
TIMES = 8
#: of a value: some fit into one entry, others are packed from many
VALUES = (900, 40_000, 65_536, 300_000, 1 << 20)


def some_pages(rng: np.random.Generator, n: int) -> NDArray[np.uint8]:
    """Zeros, one word, text, numbers, noise, and noise among zeros: in any order."""
    pages = np.zeros((n, PAGE), np.uint8)
    kind = rng.integers(0, 6, n)
    pages[kind == 1] = np.tile(rng.integers(0, 256, (np.count_nonzero(kind == 1), 8), np.uint8), PAGE // 8)
    words = rng.integers(97, 123, (64, 8), np.uint8)
    pages[kind == 2] = words[rng.integers(0, 64, (np.count_nonzero(kind == 2), PAGE // 8))].reshape(-1, PAGE)
    numbers = rng.integers(0, 1 << 40, (np.count_nonzero(kind == 3), 1)) + np.arange(PAGE // 8)
    pages[kind == 3] = numbers.view(np.uint8)
    pages[kind == 4] = rng.integers(0, 256, (np.count_nonzero(kind == 4), PAGE), np.uint8)
    pages[kind == 5, :1500] = rng.integers(0, 256, (np.count_nonzero(kind == 5), 1500), np.uint8)
    return pages


class Bulk:
    """An engine that holds 48 MiB three quarters of which are neither resident nor fit into its pool."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.compared = 0
        self.children = 0
        self.z = Zswap(swap="auto", swap_size="128M", max_pool="6M", paranoid=seed % 2 == 1)
        for name in ("/s", "/n"):
            self.z.cgroup(name).write("memory.max", "8M")
        self.data = some_pages(self.rng, PAGES)
        self.handles = self.z.swap_out_many(self.data.reshape(-1), self.z.cgroup("/p"))
        assert self.handles.all()
        self.store: uzswap.Store[int, Any] = uzswap.Store(self.z.cgroup("/s"))
        self.values: dict[int, bytes] = {}
        whole = some_pages(self.rng, PAGES).reshape(-1)
        at = 0
        while at < len(whole):
            n = VALUES[len(self.values) % len(VALUES)]
            self.put(len(self.values), whole[at : at + n].tobytes())
            at += n
        self.array = uzswap.zeros((PAGES, PAGE), np.uint8, cgroup=self.z.cgroup("/n"))
        self.expected = some_pages(self.rng, PAGES)
        self.array[:] = self.expected

    def put(self, key: int, value: bytes) -> None:
        self.values[key] = value
        self.store[key] = np.frombuffer(bytearray(value), np.uint8) if key % 2 else bytes(bytearray(value))

    def change(self) -> None:
        """Something of everything is another from now on; and what is where, and how."""
        some = self.rng.choice(PAGES, 64, replace=False)
        fresh = some_pages(self.rng, 64)
        self.z.free_many(self.handles[some])
        self.data[some] = fresh
        self.handles[some] = self.z.swap_out_many(fresh.reshape(-1), self.z.cgroup("/p"))
        assert self.handles.all()
        for key in self.rng.choice(len(self.values), 3, replace=False):
            n = len(self.values[int(key)])
            self.put(int(key), some_pages(self.rng, n // PAGE + 1).reshape(-1)[:n].tobytes())
        some = self.rng.choice(PAGES, 64, replace=False)
        self.expected[some] = self.array[some] = some_pages(self.rng, 64)
        self.z.parameters.set("compressor", str(self.rng.choice(["lz4", "zstd", "zstd:1"])))
        with contextlib.suppress(uzswap.ReclaimIncomplete):
            self.z.root.reclaim(int(self.rng.integers(1, 4 << 20)), source="zswap")
        if self.rng.random() < 0.2:
            self.z.root.write("uzswap.recompress", "1M codec=zstd:9")

    def compare(self) -> int:
        """All of it, which stays where it is or comes in and goes out again; bytes compared."""
        before = self.compared
        for _ in range(TIMES):
            order = (self.rng.permutation(PAGES // 64)[:, None] * 64 + np.arange(64)).reshape(-1)
            found = self.z.fault_in_many(self.handles[order], consume=False)
            assert np.array_equal(found, self.data[order].reshape(-1)), "pages are wrong"
            self.compared += len(found)
        for key, value in self.values.items():
            assert bytes(memoryview(self.store[key])) == value, f"value {key} is wrong"
            self.compared += len(value)
        for start in range(0, PAGES, 256):
            assert np.array_equal(self.array[start : start + 256], self.expected[start : start + 256]), (
                f"the array is wrong between {start} and {start + 256}"
            )
        self.compared += self.expected.size
        return self.compared - before

    def compare_in_child(self) -> None:
        """A child has the same, and changes what it likes."""
        nbytes = self.compare()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.compare()
                self.change()
                self.compare()
                self.close()
                status = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(status)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
        self.compared += 2 * nbytes
        self.children += 1

    def close(self) -> None:
        self.z.flush_work()
        self.z.check()
        self.store.check()
        self.store.close()
        del self.array
        self.z.free_many(self.handles)
        self.z.flush_work()
        self.z.check()
        self.z.close()
