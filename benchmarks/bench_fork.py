"""What a fork costs a process with arrays, beside the same process with as much ordinary memory resident.

Target: 1.5 times the latter, and 5 ms, in pages of the same size: those of arrays have 4 KiB, and nearly all that a
fork takes is to copy where each page is.  Memory in huge pages is shown beside.  The processes take turns.  A fork
takes until the call has returned in both: the child tells when it is there.
"""

from __future__ import annotations

import mmap
import os
import statistics
import struct
import subprocess
import sys
from time import perf_counter

import click
import numpy as np

from benchmarks.common import console, table, title, verdict

MIB = 1 << 20
RATIO, EXTRA = 1.5, 0.005


def _fork() -> float:
    """Seconds until the call has returned in parent and child."""
    ours, its = os.pipe()
    begin = perf_counter()
    pid = os.fork()
    now = perf_counter()  # CLOCK_MONOTONIC: the same in both
    if not pid:
        os.write(its, struct.pack("d", now))
        os._exit(0)
    (there,) = struct.unpack("d", os.read(ours, 8))
    os.waitpid(pid, 0)
    os.close(ours)
    os.close(its)
    return float(max(now, there) - begin)


def _serve(kind: str, mib: int, resident: int) -> None:
    """Fork when told, and print the seconds.  The program of a process of its own."""
    if kind == "paged":
        import uzswap

        z = uzswap.Zswap(swap_size="4G", max_pool="50%")
        group = z.cgroup("/a")
        group.write("uzswap.resident.max", f"{resident}M")
        x = uzswap.zeros(mib * MIB // 8, np.int64, cgroup=group)
        x[:] = np.arange(512 * 1024).repeat(len(x) // (512 * 1024))
    else:
        memory = mmap.mmap(-1, resident * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE if kind == "huge" else mmap.MADV_NOHUGEPAGE)
        x = np.frombuffer(memory, np.int64)
        x[:] = 1
    print("ready", flush=True)
    for _ in sys.stdin:
        x[: resident * MIB // 8] += 0  # nothing is shared with the child before, and a quarter is resident
        print(_fork(), flush=True)
    os._exit(0)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mib", type=click.IntRange(8), default=1024, show_default=True, help="MiB of the array.")
@click.option("--runs", type=click.IntRange(1), default=15, show_default=True, help="Runs that count.")
@click.option("--quick", is_flag=True, help="Less data and fewer runs: to see that it works.")
def main(mib: int, runs: int, quick: bool) -> None:
    """Measure forks; exits with 1 when the target is missed."""
    if quick:
        mib, runs = min(mib, 64), min(runs, 3)
    sys.exit(not measure_forks(mib, runs))


def measure_forks(mib: int, runs: int) -> bool:
    """Print what forks cost with an array of so many MiB, a quarter resident; whether the target is met."""
    times: dict[str, list[float]] = {"plain": [], "paged": [], "huge": []}
    children = {
        kind: subprocess.Popen(
            [sys.executable, "-c", f"from benchmarks.bench_fork import _serve; _serve({kind!r}, {mib}, {mib // 4})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in times
    }
    for child in children.values():
        assert child.stdout is not None
        child.stdout.readline()
    for run in range(runs + 1):
        for kind, child in children.items():
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            took = float(child.stdout.readline())
            if run:
                times[kind].append(took)
    for child in children.values():
        child.communicate()
    plain, paged, huge = (statistics.median(times[kind]) for kind in ("plain", "paged", "huge"))
    title(f"fork with an array of {mib} MiB, {mib // 4} MiB resident")
    target = RATIO * plain + EXTRA
    rows = table("", "", "ms", "times", f"at most {RATIO} times, and {EXTRA * 1e3:g} ms")
    rows.add_row("ordinary memory", "", f"{plain * 1e3:.2f}", "", "")
    rows.add_row(
        "paged array",
        "",
        f"{paged * 1e3:.2f}",
        f"{paged / plain:.2f}",
        verdict(paged * 1e3, target * 1e3, at_most=True),
    )
    rows.add_row("ordinary memory in huge pages", "", f"{huge * 1e3:.2f}", f"{huge / plain:.2f}", "")
    console.print(rows)
    return paged <= target


if __name__ == "__main__":
    main()
