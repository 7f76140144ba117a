"""Cost of reclaim and of a charge as the number of idle cgroups grows, and with depth.

Targets: a `memory.reclaim` with nothing to take, in both forms, takes less than 1 ms, and a value that goes over a
limit less than 5 ms more than without idle cgroups.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress

import numpy as np

import uzswap
from benchmarks.common import Contest, Run, console, options, stopwatch, table, title, verdict

RECLAIM_MS = 1.0
CHARGE_MS = 5.0
LIMIT = 1 << 20
VALUE = 64 << 10
FEWEST = "10 idle"


class Population:
    """An engine with one busy cgroup among idle ones, beside each other or in a chain above it."""

    def __init__(self, idle: int, deep: bool, stack: ExitStack) -> None:
        z = stack.enter_context(uzswap.Zswap(swap_size="256M"))
        self.top = z.cgroup("/top")
        busy = self.top
        for i in range(idle):
            made = (busy if deep else self.top).cgroup(f"c{i}")
            busy = made if deep else busy
        self.store = stack.enter_context(uzswap.Store[int, bytes](busy.cgroup("busy")))
        self.values = [np.random.default_rng(i).bytes(VALUE // 2) * 2 for i in range(64)]
        self.top.write("memory.max", LIMIT)
        self.turn = 0

    def reclaim(self, source: str | None) -> Run:
        """Seconds of one request, when everything has gone."""

        def run() -> float:
            self.store.clear()
            with stopwatch(time.perf_counter) as elapsed, suppress(uzswap.ReclaimError):
                self.top.reclaim("1M", source=source)
            return elapsed()

        return run

    def charge(self) -> float:
        """Seconds of one set, over the limit."""
        while len(self.store) < 64:
            self.store[len(self.store)] = self.value(len(self.store))
        self.turn += 1
        value = self.value(self.turn % 64)
        with stopwatch(time.perf_counter) as elapsed:
            self.store[self.turn % 64] = value
        return elapsed()

    def value(self, i: int) -> bytes:
        """An object that nobody else holds: what is held elsewhere would stay."""
        return bytes(memoryview(self.values[i]))


@options
def main(quick: bool, rounds: int | None) -> None:
    """Reclaim among idle cgroups: ms, and how many times as long as among few."""
    rounds = rounds or (3 if quick else 21)
    title(f"bench_idle: {rounds} rounds")
    shapes = {FEWEST: (10, False), "1000 idle": (1000, False)}
    if not quick:
        shapes |= {"5000 idle": (5000, False), "a chain of 1000": (1000, True)}
    results = table("operation", "cgroups", "ms", "times as long", "target")
    with ExitStack() as stack:
        populations = {name: Population(*shape, stack) for name, shape in shapes.items()}
        for operation, most in (("memory.reclaim", RECLAIM_MS), ("source=zswap", RECLAIM_MS), ("set", CHARGE_MS)):
            contest = Contest(FEWEST)
            for name, population in populations.items():
                source = "zswap" if operation == "source=zswap" else None
                contest.add(name, population.charge if operation == "set" else population.reclaim(source))
            contest.hold(rounds)
            least = contest.us(FEWEST) if operation == "set" else 0
            for name in contest.runs:
                ms = contest.us(name) / 1e3
                slower = 1 / contest.speed(name)
                results.add_row(
                    operation, name, f"{ms:.3f}", f"{slower:.2f}", verdict(ms - least / 1e3, most, at_most=True)
                )
            results.add_section()
    console.print(results)


if __name__ == "__main__":
    main()
