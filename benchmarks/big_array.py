"""An array much larger than its budget: filled, sorted by blocks, summed and verified, with the peak of memory.

    python -m benchmarks.big_array --size 4G --budget 512M

Ends with 1 when a value is wrong, or when the process ever took more than budget and pool limit and a tenth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import uzswap
from uzswap.units import PAGE_SIZE, format_size, parse_size

#: Of a budget of 512 MiB: what is sorted at once stays resident.
BLOCK = 64 << 20


def peak_rss() -> int:
    """Return the most memory that this process has had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in /proc/self/status")


def blocks(n: int) -> Iterator[slice]:
    per_block = BLOCK // 8
    for first in range(0, n, per_block):
        yield slice(first, min(first + per_block, n))


def numbers(block: slice) -> np.ndarray:
    """Return what a block is filled with: 20 random bits of each 64."""
    made: np.ndarray = np.random.default_rng(block.start).integers(0, 1 << 20, block.stop - block.start, np.int64)
    return made


class Clock:
    """Prints what each step took, and where the bytes are after it."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def step(self, x: np.ndarray, what: str) -> None:
        seconds = time.perf_counter() - self._started
        info = uzswap.info(x)
        print(
            f"{what:18} {seconds:7.1f} s   resident {format_size(info.resident):>10}   zswap "
            f"{format_size(info.zswap):>10}   disk {format_size(info.disk):>10}   peak RSS {format_size(peak_rss())}",
            flush=True,
        )
        self._started = time.perf_counter()


def measure(size: int, budget: int) -> bool:
    z = uzswap.Zswap(swap_size=2 * size + (64 << 20), max_pool=budget)
    group = z.cgroup("/big")
    group.write("memory.max", str(budget))
    n = size // 8
    x = uzswap.empty(n, np.int64, cgroup=group)
    expected = 0
    wrong = []
    clock = Clock()
    for block in blocks(n):
        values = numbers(block)
        expected += int(values.sum())
        x[block] = values
    del values
    clock.step(x, "filled")
    for block in blocks(n):
        x[block].sort()
    clock.step(x, "sorted by blocks")
    if int(x.sum()) != expected:
        wrong.append("the sum")
    clock.step(x, "summed")
    for block in blocks(n):
        values = numbers(block)
        values.sort()
        if not (x[block] == values).all():
            wrong.append(f"the block at {block.start}")
    clock.step(x, "verified")
    allowed = (budget + z.parameters.pool_limit[0] * PAGE_SIZE) * 11 // 10
    peak = peak_rss()
    print(f"{format_size(size)} on {format_size(budget)}: peak RSS {format_size(peak)}, allowed {format_size(allowed)}")
    for what in wrong:
        print(f"WRONG: {what}")
    if not wrong:
        print("every value is right")
    del x, values
    z.check()
    z.close()
    return not wrong and peak <= allowed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=parse_size("4G"))
    parser.add_argument("--budget", type=parse_size, default=parse_size("512M"))
    arguments = parser.parse_args()
    return 0 if measure(arguments.size, arguments.budget) else 1


if __name__ == "__main__":
    sys.exit(main())
