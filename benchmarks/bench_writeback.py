"""Proactive writeback against a bare pwrite loop of as many bytes, and against users' mappings on the disk.

Target: 0.8 or more of the speed of the bare loop, which writes one buffer of 1 MiB again and again.  "encrypted" is the
same engine with encrypt=True.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress

import uzswap
from benchmarks import alternatives
from benchmarks.common import (
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
from benchmarks.reference import CHUNK, PAGE, Bytes, Write
from uzswap.devices.place import choose_directory

TARGET = 0.8
LOOP = "pwrite loop, 1 MiB"
#: v5 is there for comparison: it is the kernel's walk, with its small batches and repeated requests.
WALKS = ("fair", "coldest", "v5")
ENCRYPTED = f"uzswap {WALKS[0]}, encrypted"
TARGETED = ("uzswap fair", "uzswap coldest")


def uzswap_run(z: uzswap.Zswap, pages: Bytes, written: list[int]) -> Run:
    """A run stores all pages untimed, then writes all of them back: seconds a byte."""
    cgroup = z.cgroup("/bench")

    def run() -> float:
        handles = z.swap_out_many(pages, cgroup, page=PAGE)
        budget = int(cgroup.read("memory.zswap.current"))
        with stopwatch(time.perf_counter) as elapsed:
            # v5 may need several requests: the first only takes the second chance from so many fresh entries.
            while left := int(cgroup.read("memory.zswap.current")):
                with suppress(uzswap.ReclaimIncomplete):
                    cgroup.reclaim(left, source="zswap")
        z.free_many(handles)
        written[:] = [budget]
        return elapsed() / budget

    return run


def raw_run(loop: Write, written: list[int]) -> Run:
    def run() -> float:
        nbytes = -(-written[0] // CHUNK) * CHUNK
        loop.forget(nbytes)
        with stopwatch(time.perf_counter) as elapsed:
            loop.run(nbytes)
        return elapsed() / nbytes

    return run


@options
def main(quick: bool, rounds: int | None) -> None:
    """Write back everything stored: MB/s of compressed bytes, and speed compared to the bare write loop."""
    n, rounds = pages_and_rounds(quick, rounds)
    title(f"bench_writeback: {n} pages of each kind, {rounds} rounds")
    directory = choose_directory(8 << 30)  # where Zswap makes its file
    results = table("data", "candidate", "MB/s", "speed vs loop", "target")
    with alternatives.on_disk() as others:
        for kind, pages in each_kind(n * PAGE):
            written: list[int] = []
            contest = Contest(LOOP)
            with ExitStack() as engines, closing(Write(directory, pages)) as loop:
                for walk in WALKS:
                    z = engines.enter_context(uzswap.Zswap(max_pool="90%", walk=walk))
                    contest.add(f"uzswap {walk}", uzswap_run(z, pages, written))
                z = engines.enter_context(uzswap.Zswap(max_pool="90%", walk=WALKS[0], encrypt=True))
                contest.add(ENCRYPTED, uzswap_run(z, pages, written))
                contest.add(LOOP, raw_run(loop, written))
                data = alternatives.values(pages)
                for name, make in others.items():
                    contest.add(name, per_byte(alternatives.store_run(make, data, time.perf_counter), written, n))
                contest.runs[f"uzswap {WALKS[0]}"]()  # the others need to know how many bytes there are
                contest.hold(rounds)
            for name in contest.runs:
                speed = contest.speed(name)
                target = verdict(speed, TARGET) if name in TARGETED else ""
                results.add_row(kind, name, f"{1 / contest.us(name):.0f}", f"{speed:.3f}", target)
            results.add_section()
    console.print(f"pwrite loop: {'O_DIRECT' if loop.direct else 'buffered'} in {directory}", style="dim")
    console.print(results)


def per_byte(run: Run, written: list[int], n: int) -> Run:
    """Seconds a page to seconds a compressed byte, with what a page of this kind compresses to."""
    return lambda: run() / (written[0] / n)


if __name__ == "__main__":
    main()
