"""Loading pages: ``fault_in_many`` against a bare LZ4_decompress_safe loop and against what users would pick.

Target: 0.7 or more of the speed of the bare loop over packed blobs, which frees nothing and keeps no accounts.

Twice: out of a pool that is empty afterwards and has given all of its memory back to the kernel, and out of one that
stays in use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import uzswap
from benchmarks import alternatives
from benchmarks.common import (
    BALLAST,
    Contest,
    Run,
    console,
    each_kind,
    options,
    pages_and_rounds,
    stopwatch,
    table,
    title,
    verdict,
)
from benchmarks.reference import PAGE, Bytes, Decompress, aligned

TARGET = 0.7
LOOP = "LZ4_decompress_safe loop"
LOOP_RANDOM = "loop, at random"
OURS = "uzswap fault_in_many"
OURS_IN_USE = "the same, pool in use"
OURS_RANDOM = "uzswap, at random"


def raw_run(pages: Bytes, order: NDArray[np.intp] | None = None) -> Run:
    loop = Decompress(pages, order)

    def run() -> float:
        with stopwatch() as elapsed:
            loop.run()
        return elapsed() / (pages.size // PAGE)

    return run


def uzswap_run(z: uzswap.Zswap, pages: Bytes, order: NDArray[np.intp] | None = None, ballast: int = 0) -> Run:
    cgroup = z.cgroup("/bench")
    for _ in range(ballast):
        z.swap_out_many(pages, cgroup, page=PAGE)
    out = aligned(pages.size)
    expected = pages if order is None else pages.reshape(-1, PAGE)[order].reshape(-1)

    def run() -> float:
        handles = z.swap_out_many(pages, cgroup, page=PAGE)
        if order is not None:
            handles = handles[order]
        with stopwatch() as elapsed:
            z.fault_in_many(handles, out)
        if not np.array_equal(out, expected):
            raise RuntimeError("what was loaded is not what was stored")
        return elapsed() / (pages.size // PAGE)

    return run


@options
def main(quick: bool, rounds: int | None) -> None:
    """Load pages: us a page, and speed compared to the bare decompress loop in the same order."""
    n, rounds = pages_and_rounds(quick, rounds)
    title(f"bench_load: {n} pages of each kind, {rounds} rounds")
    order = np.random.default_rng(2).permutation(n)
    results = table("data", "candidate", "us/page", "speed vs loop", "target")
    with alternatives.in_memory() as others:
        for kind, pages in each_kind(n * PAGE):
            contest = Contest(LOOP)
            contest.add(LOOP, raw_run(pages))
            contest.add(LOOP_RANDOM, raw_run(pages, order))
            data = alternatives.values(pages)
            for name, make in others.items():
                contest.add(name, alternatives.load_run(make, data))
            with uzswap.Zswap(max_pool="90%") as empty, uzswap.Zswap(max_pool="90%") as in_use:
                contest.add(OURS, uzswap_run(empty, pages))
                contest.add(OURS_RANDOM, uzswap_run(empty, pages, order))
                contest.add(OURS_IN_USE, uzswap_run(in_use, pages, ballast=BALLAST))
                contest.hold(rounds)
            for name in contest.runs:
                speed = contest.speed(name, LOOP_RANDOM if name == OURS_RANDOM else LOOP)
                target = verdict(speed, TARGET) if name in (OURS, OURS_RANDOM, OURS_IN_USE) else ""
                results.add_row(kind, name, f"{contest.us(name):.2f}", f"{speed:.3f}", target)
            results.add_section()
    console.print(results)


if __name__ == "__main__":
    main()
