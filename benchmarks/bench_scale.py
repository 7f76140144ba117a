"""Cost of one operation as the number of entries grows from 10^4 to 10^7.

Targets: store, load in order, load at random and the writeback of a fixed budget cost at most 1.3 times as much with
any number of entries as with the fewest.  The engines of all sizes are alive at once and take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

import uzswap
from benchmarks.common import Contest, console, options, stopwatch, table, title, verdict
from benchmarks.reference import PAGE, Bytes, aligned

TARGET = 1.3
#: Entries that one run touches.
BATCH = 500
#: Compressed bytes written back by one run: some 250 entries.
BUDGET = 16 << 10


def small_pages(n: int) -> Bytes:
    """Pages that compress to some 60 bytes each, so that 10^7 of them fit, and that are all different."""
    pages = aligned(n * PAGE)
    rows = np.random.default_rng(3).integers(0, 256, (n, 32), dtype=np.uint8)
    pages.reshape(n, PAGE)[:] = np.tile(rows, PAGE // 32)
    return pages


class Population:
    """An engine that holds about `size` entries: at least nine tenths of it in the pool, the oldest unreferenced.

    ``handles`` is in order of age.  Runs load from the younger three quarters; writeback takes from the oldest quarter.
    """

    def __init__(self, size: int, pages: Bytes, progress: Progress) -> None:
        self.size = size
        self.pages = pages
        self.out = aligned(pages.size)
        self.progress = progress
        self.random = np.random.default_rng(size)
        self.z = uzswap.Zswap(swap="auto", swap_size="16G", max_pool="90%")
        self.cgroup = self.z.cgroup("/bench")
        self.handles = np.empty(0, np.uint64)
        self.stored = np.empty(0, bool)
        self.changed = 0
        self.renew()

    def renew(self) -> None:
        """Free everything and store it again."""
        self.z.free_many(self.handles[self.stored])
        task = self.progress.add_task(f"storing {self.size} entries", total=self.size)
        parts = []
        for _ in range(self.size // BATCH):
            parts.append(self.z.swap_out_many(self.pages, self.cgroup, page=PAGE))
            self.progress.advance(task, BATCH)
        self.progress.remove_task(task)
        self.handles = np.concatenate(parts)
        self.stored = np.ones(self.size, bool)
        self.changed = 0
        # The first request goes once round the whole LRU to take the second chance from every entry.  Each entry causes
        # that once in its life, a budget does not: it is done here, untimed.
        self.cgroup.reclaim(1, source="zswap")

    def store(self) -> float:
        """Seconds for one of `BATCH` stores; what was stored is freed again."""
        with stopwatch() as elapsed:
            handles = self.z.swap_out_many(self.pages, self.cgroup, page=PAGE)
        self.z.free_many(handles)
        return elapsed() / BATCH

    def load_in_order(self) -> float:
        """Seconds for one of `BATCH` loads of entries that were stored one after the other."""
        first = int(self.random.integers(self.size // 4, self.size - 2 * BATCH))
        return self._load(np.flatnonzero(self.stored[first:])[:BATCH] + first)

    def load_at_random(self) -> float:
        """Seconds for one of `BATCH` loads from all over the pool."""
        drawn = self.random.permutation(np.unique(self.random.integers(self.size // 4, self.size, 4 * BATCH)))
        return self._load(drawn[self.stored[drawn]][:BATCH])

    def writeback(self) -> float:
        """Seconds for one entry written back under a fixed budget."""
        with stopwatch(time.perf_counter) as elapsed:
            result = self.cgroup.reclaim(BUDGET, source="zswap")
        self._change(result.entries)
        return elapsed() / result.entries

    def _load(self, index: NDArray[np.intp]) -> float:
        with stopwatch() as elapsed:
            self.z.fault_in_many(self.handles[index], self.out[: index.size * PAGE])
        self.stored[index] = False
        self._change(index.size)
        return elapsed() / index.size

    def _change(self, entries: int) -> None:
        self.changed += entries
        if self.changed > self.size // 10:
            self.renew()


@options
def main(quick: bool, rounds: int | None) -> None:
    """Cost of an operation with 10^4 to 10^7 entries, compared to the fewest."""
    sizes = [10**power for power in range(4, 7 if quick else 8)]
    rounds = rounds or (7 if quick else 21)
    title(f"bench_scale: up to {sizes[-1]} entries, {rounds} rounds")
    operations: dict[str, Callable[[Population], float]] = {
        "store": Population.store,
        "load in order": Population.load_in_order,
        "load at random": Population.load_at_random,
        "writeback of a budget": Population.writeback,
    }
    results = table("operation", "entries", "us/entry", f"cost vs {sizes[0]}", "target")
    pages = small_pages(BATCH)
    with ExitStack() as engines, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        populations = [Population(size, pages, progress) for size in sizes]
        for population in populations:
            engines.callback(population.z.close)
        for name, operation in operations.items():
            contest = Contest(str(sizes[0]))
            for population in populations:
                contest.add(str(population.size), partial(operation, population))
            contest.hold(rounds)
            for population in populations:
                size = str(population.size)
                cost = 1 / contest.speed(size)
                target = verdict(cost, TARGET, at_most=True) if population.size > sizes[0] else ""
                results.add_row(name, size, f"{contest.us(size):.3f}", f"{cost:.3f}", target)
            results.add_section()
    console.print(results)


if __name__ == "__main__":
    main()
