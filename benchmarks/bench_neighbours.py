"""zarr and joblib on uzswap beside what they do without it.

zarr: an array is written and read, chunk by chunk, through a store in memory, on the disk, and in a cgroup with and
without a budget; and chunks of 64 KiB of shards of 8 MiB, of which half fit, are read here and there, with a store that
loads only what has some of them, and with one that loads the shards.  joblib: an array of four times its budget goes to
two workers, whole and in parts, by joblib's own backend and by ours; the time is that of a call, with workers that run
already.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import joblib
import numpy as np
import zarr
from zarr.storage import LocalStore, MemoryStore

import uzswap
import uzswap.joblib
import uzswap.zarr
from benchmarks.common import Contest, Run, console, options, stopwatch, table, title
from uzswap.caches import Bounded

MIB = 1 << 20
PARTS = 8


def written_and_read(make: Callable[[], Any], chunks: int) -> Run:
    """Seconds for a MiB that is written and read."""
    data = np.add.outer(np.arange(512), np.arange(512)).astype("f4")

    def run() -> float:
        array: Any = zarr.create_array(
            make(), shape=(chunks, 512, 512), chunks=(1, 512, 512), dtype="f4", compressors=None
        )
        with stopwatch(time.perf_counter) as elapsed:
            for i in range(chunks):
                array[i] = data + i
            for i in range(chunks):
                assert array[i][1, 1] == 2 + i
        return elapsed() / chunks

    return run


def zarr_contest(z: uzswap.Zswap, chunks: int, rounds: int, stack: ExitStack) -> Contest:
    free, tight = z.cgroup("/free"), z.cgroup("/tight")
    tight.write("memory.max", chunks * MIB // 4)
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    contest = Contest("MemoryStore")
    contest.add("MemoryStore", written_and_read(MemoryStore, chunks))
    contest.add("LocalStore", written_and_read(lambda: LocalStore(tempfile.mkdtemp(dir=directory)), chunks))
    contest.add("uzswap", written_and_read(lambda: uzswap.zarr.Store(free), chunks))
    contest.add("uzswap, a quarter fits", written_and_read(lambda: uzswap.zarr.Store(tight), chunks))
    contest.hold(rounds)
    return contest


def read_here_and_there(where: Any, shards: int) -> Run:
    """Seconds for a chunk of a shard that is not in memory."""
    array: Any = zarr.create_array(
        where, shape=(shards, 16, 128, 1024), chunks=(1, 1, 16, 1024), shards=(1, 16, 128, 1024), dtype="f4",
        compressors=None,
    )  # fmt: skip
    for i in range(shards):
        array[i] = np.arange(16 * 128 * 1024).reshape(16, 128, 1024) + i
    random = np.random.default_rng(1)

    def run() -> float:
        places = [(random.integers(shards), random.integers(16), 16 * random.integers(8)) for _ in range(16)]
        with stopwatch(time.perf_counter) as elapsed:
            for i, j, k in places:
                assert array[i, j, k : k + 16][0, 0] == j * 128 * 1024 + k * 1024 + i
        return elapsed() / len(places)

    return run


def shard_contest(z: uzswap.Zswap, shards: int, rounds: int, stack: ExitStack) -> Contest:
    parts, whole = z.cgroup("/parts"), z.cgroup("/whole")
    for group in (parts, whole):
        group.write("memory.max", shards * 8 * MIB // 2)
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    contest = Contest("uzswap, whole shards")
    contest.add("uzswap, whole shards", read_here_and_there(uzswap.zarr.Store(Bounded(uzswap.Store(whole))), shards))
    contest.add("uzswap", read_here_and_there(uzswap.zarr.Store(parts), shards))
    contest.add("LocalStore", read_here_and_there(LocalStore(directory), shards))
    contest.hold(rounds)
    return contest


def look(whole: np.ndarray[Any, Any], part: np.ndarray[Any, Any]) -> float:
    """What a worker does: it reads its part, and a little of the whole."""
    return float(part.sum() + whole[-1, -1])


def shared(x: np.ndarray[Any, Any], backend: str) -> Run:
    """Seconds for a MiB of the array that is sent."""
    rows = len(x) // PARTS

    def run() -> float:
        with stopwatch(time.perf_counter) as elapsed, joblib.parallel_config(backend=backend, n_jobs=2):
            parts = (x[i * rows : (i + 1) * rows] for i in range(PARTS))
            sums = joblib.Parallel()(joblib.delayed(look)(x, part) for part in parts)
        assert len(sums) == PARTS
        return elapsed() / (x.nbytes / MIB)

    return run


def joblib_contest(z: uzswap.Zswap, mib: int, rounds: int) -> Contest:
    group = z.cgroup("/x")
    group.write("memory.max", mib * MIB // 4)
    x = uzswap.zeros((mib, MIB // 8), cgroup=group)
    for i, row in enumerate(x):
        row[:] = np.arange(MIB // 8) + i
    contest = Contest("loky")
    for backend in ("loky", "uzswap"):
        contest.add(backend, shared(x, backend))
    contest.hold(rounds)
    contest.runs.clear()  # they hold the array
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    return contest


@options
def main(quick: bool, rounds: int | None) -> None:
    """Neighbours: ms for a MiB, or a chunk, and the speed beside theirs."""
    rounds = rounds or (3 if quick else 11)
    mib = 32 if quick else 128
    title(f"bench_neighbours: {mib} MiB, {rounds} rounds")
    results = table("work", "by", "ms", "speed")
    with uzswap.Zswap(swap_size="1G") as z, ExitStack() as stack:
        contests = {
            "zarr: write and read": zarr_contest(z, mib, rounds, stack),
            "zarr: a chunk of a shard": shard_contest(z, mib // 8, rounds, stack),
            "joblib: send to two workers": joblib_contest(z, mib, rounds),
        }
    for work, contest in contests.items():
        for name in contest.seconds:
            results.add_row(work, name, f"{contest.us(name) / 1e3:.2f}", f"{contest.speed(name):.2f}")
        results.add_section()
    console.print(results)


if __name__ == "__main__":
    main()
