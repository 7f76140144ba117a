"""Storing pages: ``swap_out_many`` against a bare LZ4_compress_default loop and against what users would pick.

Target: 0.85 or more of the speed of the bare loop, which compresses into one scratch buffer and keeps nothing.

Twice, because fresh memory is dear on some machines: into a pool that is empty and takes every page it needs from the
kernel, and into one that is in use and has just freed as much.
"""

from __future__ import annotations

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
from benchmarks.reference import PAGE, Bytes, Compress

TARGET = 0.85
LOOP = "LZ4_compress_default loop"
OURS = "uzswap swap_out_many"
OURS_IN_USE = "the same, pool in use"


def raw_run(pages: Bytes) -> Run:
    loop = Compress(pages)

    def run() -> float:
        with stopwatch() as elapsed:
            loop.run()
        return elapsed() / (pages.size // PAGE)

    return run


def uzswap_run(z: uzswap.Zswap, pages: Bytes, ballast: int = 0) -> Run:
    cgroup = z.cgroup("/bench")
    for _ in range(ballast):
        z.swap_out_many(pages, cgroup, page=PAGE)

    def run() -> float:
        with stopwatch() as elapsed:
            handles = z.swap_out_many(pages, cgroup, page=PAGE)
        z.free_many(handles)
        return elapsed() / (pages.size // PAGE)

    return run


@options
def main(quick: bool, rounds: int | None) -> None:
    """Store pages: us a page, and speed compared to the bare compress loop."""
    n, rounds = pages_and_rounds(quick, rounds)
    title(f"bench_store: {n} pages of each kind, {rounds} rounds")
    results = table("data", "candidate", "us/page", "speed vs loop", "target")
    with alternatives.in_memory() as others:
        for kind, pages in each_kind(n * PAGE):
            contest = Contest(LOOP)
            contest.add(LOOP, raw_run(pages))
            data = alternatives.values(pages)
            for name, make in others.items():
                contest.add(name, alternatives.store_run(make, data))
            with uzswap.Zswap(max_pool="90%") as empty, uzswap.Zswap(max_pool="90%") as in_use:
                contest.add(OURS, uzswap_run(empty, pages))
                contest.add(OURS_IN_USE, uzswap_run(in_use, pages, BALLAST))
                contest.hold(rounds)
            for name in contest.runs:
                speed = contest.speed(name)
                target = verdict(speed, TARGET) if name in (OURS, OURS_IN_USE) else ""
                results.add_row(kind, name, f"{contest.us(name):.2f}", f"{speed:.3f}", target)
            results.add_section()
    console.print(results)


if __name__ == "__main__":
    main()
